"""
`breaker top`: every operation in one look, those in trouble first.

1. It asks the admin listener and nothing else. What happens per second is the difference between two answers.
2. First stands what cannot start anything, then what is nearest to, or furthest beyond, its limits or its promise.
3. On a terminal it goes on until `q`; a gateway that restarts meanwhile is waited for. Elsewhere it is one table.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from breaker.cli.client import URL, Admin, AdminUrl, Author, Json, KeyFile, Refused, stop
from breaker.cli.output import print_json, print_table, shown
from breaker.cli.top_rows import HEADS, Poll, Row, rows_between

EVERY_S = 2.0
ONCE_S = 1.0  # between the two answers of a single look
TIGHT = 0.9  # of a limit, or of a promise
ENDS = (b"q", b"Q")

Once = Annotated[bool, typer.Option("--once", help="One table, and end.")]


class Away(Exception):  # noqa: N818 - waited for, and no error of ours
    """The gateway cannot be asked now."""


class Patient(Admin):
    """The admin API, for somebody who goes on watching."""

    def _give_up(self, detail: str) -> NoReturn:
        raise Away(detail)


def top(
    once: Once = False,
    admin: AdminUrl = URL,
    key_file: KeyFile = None,
    author: Author = "",
    as_json: Json = False,
) -> None:
    """Watch all operations, those in trouble first: demand, limits, queues, promises, circuits; q ends."""
    gateway = Patient(admin, key_file, author)
    try:
        before = poll(gateway)
        if once or as_json or not Console().is_terminal:
            time.sleep(ONCE_S)
            rows = rows_between(before, poll(gateway))
            if as_json:
                print_json({"operations": [row.document for row in rows]})
            else:
                print_table(HEADS, [row.cells for row in rows])
        else:
            watch(gateway, before)
    except Refused as exc:
        stop(exc.detail, exc.exit_status)
    except Away as exc:
        stop(str(exc))


def poll(gateway: Admin) -> Poll:
    found = gateway.get("operations")["operations"]
    return Poll(at_s=time.monotonic(), operations={each["operation"]: each for each in found})


def watch(gateway: Admin, before: Poll) -> None:
    """Rule 3."""
    rows = rows_between(before, before)
    with Live(screen_of(rows, ""), screen=True, auto_refresh=False) as live, keys() as key:
        try:
            while key(EVERY_S) not in ENDS:
                try:
                    now = poll(gateway)
                except (Refused, Away) as exc:
                    live.update(screen_of(rows, str(exc)), refresh=True)
                    continue
                rows, before = rows_between(before, now), now
                live.update(screen_of(rows, ""), refresh=True)
        except KeyboardInterrupt:
            return  # as with `q`


def screen_of(rows: list[Row], trouble: str) -> Group:
    """The whole terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(HEADS):
        table.add_column(head, overflow="fold", no_wrap=number == 0)
    for row in rows:
        colour = "red" if row.is_stuck or row.strain >= 1 else "yellow" if row.strain >= TIGHT else ""
        style = "dim" if trouble else colour
        table.add_row(*(Text(shown(value)) for value in row.cells), style=style)
    title = Text(f"breaker top  {time.strftime('%H:%M:%S')}  every {EVERY_S:.0f} s, q ends", style="bold")
    return Group(title, Text(shown(trouble) if trouble else "", style="red"), table)


@contextmanager
def keys() -> Iterator[Callable[[float], bytes]]:
    """A function that waits for a key for at most so many seconds; empty when none came."""
    if not sys.stdin.isatty():

        def wait(seconds: float) -> bytes:
            time.sleep(seconds)
            return b""

        yield wait
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def key(seconds: float) -> bytes:
        return os.read(terminal, 1) if select.select([terminal], [], [], seconds)[0] else b""

    try:
        tty.setcbreak(terminal)
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
