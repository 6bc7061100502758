"""`breaker top`: what is in trouble stands first, with what is done about it."""

import asyncio
import os
import pty
import signal
import termios
import time
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from breaker.cli import top
from breaker.cli.top_rows import Poll, Row, rows_between, when
from breaker.core.model import Capacity, Limits, Rate
from breaker.core.override import Change
from tests.cli.command import breaker, start
from tests.web.admin_scene import CHARGE, LOOK_UP, REFUND, Scene, admin_scene

TWENTY = Limits(rate=Rate(limit=20, period_us=1_000_000, burst=40), concurrency=8)


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        found.operations[CHARGE] = replace(found.operations[CHARGE], capacity=Capacity(limits=TWENTY))
        await found.capacity.publish(found.operations, "2")
        yield found


def an_operation(name: str, **more: Any) -> dict[str, Any]:
    """As the admin API shows it: a quiet one with 20 starts a second and 8 slots, but for what is said."""
    override = more.get("override")
    use = {"in_flight": 0, "waiting": 0, "started": 100, "wanted": 100} | more.get("use", {})
    in_force = {"per_second": 20.0, "concurrency": 8} | more.get("in_force", {})
    shown: dict[str, Any] = {
        "operation": name, "overflow": more.get("overflow", "throttle"), "use": use, "queue": more.get("queue"),
        "circuit": {"mode": "enforce", "state": "closed"} | more.get("circuit", {}),
        "limits": {"in_force": in_force, "override": override}, "removed": False,
    }  # fmt: skip
    whole: dict[str, Any] = more.get("whole", {})
    return shown | whole


def a_queue(**more: Any) -> dict[str, Any]:
    bands = {"waiting": {"normal": 0}, "oldest_ms": {"normal": 0}, "eta_ms": {"normal": 0}}
    return bands | {"scheduled": 0, "held": None, "promise_ms": 60_000, "ledger": {"accepted": 0}} | more


def rows_of(*pairs: tuple[dict[str, Any], dict[str, Any]], seconds: float = 2.0) -> list[Row]:
    before = {each["operation"]: each for each, _ in pairs}
    now = {each["operation"]: each for _, each in pairs}
    return rows_between(Poll(at_s=10.0, operations=before), Poll(at_s=10.0 + seconds, operations=now))


def row_of(now: dict[str, Any], **before: Any) -> Row:
    """The row of an operation that stood so 2 s ago, but for what is said of then."""
    then = deepcopy(now)
    for part, values in before.items():
        then[part] |= values
    (row,) = rows_of((then, now))
    return row


def test_first_stands_what_is_stuck_then_what_is_tightest() -> None:
    """Who looks for ten seconds sees the one line that matters."""
    quiet, half = an_operation("a.quiet"), an_operation("b.half", use={"in_flight": 4})
    full = an_operation("c.full", use={"in_flight": 8})
    late = an_operation("d.late", overflow="queue", queue=a_queue(oldest_ms={"low": 90_000}))
    broken = an_operation("e.broken", circuit={"state": "open"})
    rehearsed = an_operation("f.rehearsed", circuit={"state": "open", "mode": "shadow"})
    paused = an_operation(
        "g.paused",
        queue=a_queue(waiting={"low": 1}, held={"state": "paused", "author": "bob", "until": None}),
    )
    closed = an_operation("h.closed-at-night", in_force={"per_second": 0.0})
    all_of_them = (quiet, half, full, late, broken, rehearsed, paused, closed)
    rows = rows_of(*((each, each) for each in all_of_them))
    assert [(row.document["operation"], row.is_stuck) for row in rows] == [
        ("e.broken", True), ("g.paused", True), ("d.late", False), ("c.full", False), ("b.half", False),
        ("a.quiet", False), ("f.rehearsed", False), ("h.closed-at-night", False),
    ]  # fmt: skip
    assert [row.strain for row in rows[2:5]] == [1.5, 1.0, 0.5]


def test_demand_is_what_asked_between_two_answers() -> None:
    """62 calls in two seconds are 31 a second, of 20."""
    row = row_of(
        an_operation("a.b", use={"wanted": 162, "started": 140}), use={"wanted": 100, "started": 100}
    )
    assert row.cells[1] == "31 of 20"
    assert (row.strain, row.document["wanted_per_second"]) == (1.55, 31.0)
    fallen = row_of(an_operation("a.b", use={"wanted": 5, "started": 5}), use={"wanted": 100})
    assert (fallen.cells[1], fallen.document["wanted_per_second"]) == ("? of 20", None)
    (first,) = rows_between(
        Poll(at_s=1, operations={}), Poll(at_s=2, operations={"a.b": an_operation("a.b")})
    )
    assert first.cells[1] == "? of 20"


@pytest.mark.parametrize(
    ("overflow", "waits", "done"),
    [("throttle", 0, "11/s refused"), ("throttle", 12, "5/s refused"), ("alert", 0, None)],
)
def test_what_is_done_with_what_goes_over_is_said(overflow: str, waits: int, done: str | None) -> None:
    """Refused is not delayed: who waits will start."""
    now = an_operation("a.b", overflow=overflow, use={"wanted": 162, "started": 140, "waiting": waits})
    assert row_of(now, use={"wanted": 100, "started": 100, "waiting": 0}).cells[7] == done


def test_what_is_let_through_and_what_is_queued_is_said() -> None:
    """Of a queue, what became jobs, not what a backlog does meanwhile."""
    now = an_operation("a.b", overflow="alert", use={"wanted": 162, "started": 162})
    assert row_of(now, use={"wanted": 100, "started": 100}).cells[7] == "11/s let through"
    now = an_operation(
        "a.b", overflow="queue", use={"wanted": 162, "started": 140}, queue=a_queue(ledger={"accepted": 20})
    )
    then = {"queue": a_queue(), "use": {"wanted": 100, "started": 100}}
    assert row_of(now, **then).cells[7] == "10/s queued"
    now["use"]["started"] = 200
    assert row_of(now, **then).cells[7] is None


def test_what_the_store_does_not_say_is_left_open() -> None:
    """While it is away the answer has no numbers, and the command goes on."""
    now = an_operation(
        "a.b", whole={"limits": None, "use": None, "queue": None, "circuit": None, "removed": True}
    )
    row = row_of(now)
    assert row.cells == ("a.b", None, None, "0", None, None, None, None, "removed: no file names it")


def test_a_moment_says_its_day_only_when_it_is_another() -> None:
    """'until 18:00' must not be tomorrow's."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert when(f"{today}T18:00:00.000Z") in ("18:00Z", f"{today} 18:00Z")  # midnight may pass meanwhile
    assert when("2020-01-31T18:00:00.000Z") == "2020-01-31 18:00Z"


async def test_elsewhere_than_on_a_terminal_it_is_one_table(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a ticket, or a program that cuts columns."""
    monkeypatch.setattr(top, "ONCE_S", 0.01)
    await scene.accept()
    until_us = scene.capacity.clock.now_us() + 3_600_000_000
    await scene.capacity.overrides.set(CHARGE, Change(concurrency=0), until_us, "ann", "x")
    await scene.desk.hold(REFUND, "draining", 0, "bob", "y")
    said = await breaker(scene, "top")
    head, *lines = said.out.splitlines()
    assert (said.status, said.err) == (0, "")
    assert head.split()[:3] == ["OPERATION", "DEMAND/S", "IN"]
    assert [line.split()[0] for line in lines] == [CHARGE, LOOK_UP, REFUND]
    assert "limits by ann until " in lines[0]
    assert "draining by bob until resumed" in lines[2]
    found = (await breaker(scene, "top", "--json")).json["operations"]
    assert (found[0]["operation"], found[0]["stuck"], found[0]["waiting"]) == (CHARGE, True, 1)
    assert (found[0]["promise_ms"], found[0]["eta_ms"], found[0]["override"]["author"]) == (
        60_000,
        2_000,
        "ann",
    )


async def test_a_gateway_that_is_not_there_is_named() -> None:
    """As by every other command."""
    said = await breaker("http://127.0.0.1:1", "top")
    assert (said.status, said.out) == (1, "")
    assert "http://127.0.0.1:1 cannot be reached" in said.err


async def read_until(terminal: int, text: str) -> bytes:
    """What is written to it, up to this."""
    shown = b""
    while text.encode() not in shown:
        shown += await asyncio.wait_for(asyncio.to_thread(os.read, terminal, 65_536), 30)
    return shown


@pytest.mark.parametrize("by_key", [True, False])
async def test_on_a_terminal_it_goes_on_until_it_is_ended(scene: Scene, by_key: bool) -> None:
    """By `q` or Ctrl-C, and the terminal is as it was."""
    ours, its = pty.openpty()
    before = termios.tcgetattr(its)
    process = await start("top", "--admin", scene.url, stdin=its, stdout=its, stderr=its)
    shown = await read_until(ours, CHARGE)
    assert b"\x1b[?1049h" in shown
    while termios.tcgetattr(its) == before:
        await asyncio.sleep(0.005)  # until it listens to keys
    if by_key:
        os.write(ours, b"xq")
    else:
        process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert termios.tcgetattr(its) == before
    await read_until(ours, "\x1b[?1049l")
    os.close(ours)
    os.close(its)
