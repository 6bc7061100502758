"""
Output: what the commands for people print. Data on stdout, talk on stderr.

On a terminal there are tables and a progress bar; elsewhere plain columns that a program can cut, and
a line now and then. What callers could choose (a tenant's name, say) cannot steer a terminal.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from breaker.cli.client import LAST, STOPPED, one_line

SAY_EVERY_S = 2.0  # how far work is, where there is no bar


def talk(text: str) -> None:
    print(one_line(text), file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def shown(value: Any) -> str:
    """One value on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under their heads; nothing is cut off."""
    lines = [[shown(value) for value in row] for row in rows]
    console = Console()
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in heads:
            table.add_column(head, overflow="fold")
        for line in lines:
            table.add_row(*(Text(value) for value in line))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for line in [list(heads), *lines]:
        print("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


def print_record(record: Mapping[str, Any], *, indent: int = 0) -> None:
    """Names and values, a line each; what is within stands below its name."""
    width = max(map(len, record), default=0)
    for name, value in record.items():
        start = " " * indent + name.ljust(width)
        if isinstance(value, dict) and value:
            print(" " * indent + name)
            print_record(value, indent=indent + 2)
        elif isinstance(value, list) and value:
            print(" " * indent + name)
            for item in value:
                print(" " * indent + f"  {shown(item)}")
        else:
            print(f"{start}  {shown(value)}")


def follow(lines: Iterator[dict[str, Any]], what: str, *, as_json: bool) -> None:
    """
    Show how far work on many jobs is, and end with its exit status.

    Args:
        what: What is done with the jobs, in the past: `cancelled`.

    """
    last: dict[str, Any] = {}
    with Steps() as steps:
        for line in lines:
            last = line
            steps.show(line)
    total, done = last.get("total", 0), last.get("done", 0)
    if as_json:
        print_json(last)
    elif last["stage"] == "counted":
        print(f"{total} jobs would be {what}")
    else:
        counted = {
            name: last[name] for name in ("skipped", "succeeded", "failed", "otherwise") if last.get(name)
        }
        rest = "".join(f", {count} {name}" for name, count in counted.items())
        print(f"{done} of {total} jobs {what}{rest}")
    if last["stage"] == "stopped":
        talk(f"breaker: stopped before the end: {last.get('detail', 'nobody says why')}")
        raise typer.Exit(STOPPED)


class Steps:
    """How far work is: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("asking", total=None)
        self._next_s = time.monotonic() + SAY_EVERY_S

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, line: Mapping[str, Any]) -> None:
        stage, done, total = str(line["stage"]), line.get("done", 0), line.get("total", 0)
        if self._bar:
            is_known = stage != "counting"
            self._bar.update(self._task, description=stage, completed=done, total=total if is_known else None)
        elif time.monotonic() >= self._next_s and stage not in LAST:
            self._next_s = time.monotonic() + SAY_EVERY_S
            talk(f"{stage}: {done} of {total}")
