"""
Table: what `breaker up` shows, on a terminal and elsewhere.

On a terminal a table that renews itself; elsewhere one plain line every two seconds, for logs. And the
summary at the end, the same for both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from breaker.core.events import Outcome
from breaker.core.verdict import Policy
from breaker.demo.verdict import Check
from breaker.demo.view import Counted, Now, Seen

PLAIN_EVERY_S = 2.0
_OWN = frozenset(policy for policy in Policy if policy.is_tenants_own)
_SHARED = frozenset(Policy) - _OWN
_HEADS = ("operation", "calls/s", "in flight", "waiting", "forwarded", "delayed", "let through", "429", "503",
          "other", "added p50", "downstream: most in flight", "started")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """
    Everything that is shown at one moment.

    Attributes:
        at_s: Seconds since the traffic began.
        stage: What surges; empty without traffic.
        pipelines: Of each operation, in the order of the files.
        per_second: Calls that ended, by operation.
        coming_back: Callers that wait for their retry ticket.

    """

    at_s: float
    stage: str
    pipelines: Mapping[str, str]
    counted: Mapping[str, Counted]
    now: Mapping[str, Now]
    seen: Mapping[str, Seen]
    per_second: Mapping[str, float]
    coming_back: int


class Screen:
    """Shows pictures until it is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_s = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, picture: Picture) -> None:
        if self._live:
            self._live.update(Group(Text(headline(picture), style="bold"), table(picture)), refresh=True)
        elif picture.at_s >= self._next_s:
            self._next_s = picture.at_s + PLAIN_EVERY_S
            self._console.print(headline(picture), soft_wrap=True)


def headline(picture: Picture) -> str:
    """The whole gateway in one line."""
    counted = [picture.counted.get(name, Counted()) for name in picture.pipelines]
    outcomes = {outcome: sum(each.outcomes[outcome] for each in counted) for outcome in Outcome}
    now = picture.now.values()
    return (
        f"{picture.at_s:5.0f} s  {picture.stage or 'no traffic':<10}"
        f" calls {sum(outcomes.values())}: forwarded {outcomes[Outcome.FORWARDED]},"
        f" delayed {outcomes[Outcome.DELAYED]}, let through {outcomes[Outcome.OVER_CAPACITY]},"
        f" refused {outcomes[Outcome.REFUSED]} (429 {_sum(counted, _OWN)}, 503 {_sum(counted, _SHARED)})"
        f" | in flight {sum(each.in_flight for each in now)}, waiting {sum(each.waiting for each in now)},"
        f" coming back {picture.coming_back}"
    )


def table(picture: Picture) -> Table:
    """One row for each operation; what a downstream saw stands in the first row of its pipeline."""
    grid = Table(box=None, pad_edge=False)
    for head in _HEADS:
        grid.add_column(head, justify="left" if head == "operation" else "right", overflow="fold")
    told: set[str] = set()
    for name, pipeline in picture.pipelines.items():
        counted, now = picture.counted.get(name, Counted()), picture.now.get(name)
        seen = None if pipeline in told else picture.seen.get(pipeline)
        told.add(pipeline)
        own, shared = _sum([counted], _OWN), _sum([counted], _SHARED)
        added = counted.added_s
        grid.add_row(
            name,
            f"{picture.per_second.get(name, 0.0):.1f}",
            "?" if now is None else "-" if now.slots is None else f"{now.in_flight}/{now.slots}",
            "?" if now is None else str(now.waiting),
            str(counted.outcomes[Outcome.FORWARDED]),
            str(counted.outcomes[Outcome.DELAYED]),
            _lit(counted.outcomes[Outcome.OVER_CAPACITY], "yellow"),
            _lit(own, "yellow"),
            _lit(shared, "red"),
            str(counted.outcomes[Outcome.REFUSED] - own - shared),
            "-" if added is None else f"{added * 1e3:.1f} ms",
            "" if seen is None else str(seen.in_flight_max),
            "" if seen is None else str(seen.started),
        )
    return grid


def summary(console: Console, checks: Sequence[Check], missing: Sequence[str]) -> None:
    """Every check with its two numbers; then what was not shown, and the verdict."""
    widest = max((len(check.about) for check in checks), default=0)
    for check in checks:
        word = Text("agree " if check.agrees else "DIFFER", style="green" if check.agrees else "bold red")
        console.print(
            word + Text(f"  {check.about:<{widest}}  {check.what}: {check.left}, {check.right}", style=""),
            soft_wrap=True,
        )
    for what in missing:
        console.print(Text(f"not seen: a call that was {what}", style="bold red"), soft_wrap=True)
    differ = sum(not check.agrees for check in checks)
    if differ:
        verdict, style = f"{differ} of {len(checks)} checks DIFFER", "bold red"
    else:
        verdict, style = (
            f"{len(checks)} checks agree: nothing was lost, nothing was counted twice",
            "bold green",
        )
    console.print(Text(verdict, style=style), soft_wrap=True)


def _sum(counted: Sequence[Counted], reasons: frozenset[Policy]) -> int:
    return sum(each.refusals[reason] for each in counted for reason in reasons)


def _lit(count: int, style: str) -> Text:
    return Text(str(count), style=style if count else "")
