"""
Table: what `breaker up` shows, on a terminal and elsewhere.

On a terminal a table that renews itself; elsewhere one plain line every two seconds, for logs. And the
summary at the end, the same for both.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.live import Live
from rich.table import Table
from rich.text import Text

from breaker.core.events import Outcome
from breaker.core.job_policy import BANDS
from breaker.core.verdict import Policy
from breaker.demo.arrivals import ALERTMANAGER, GATEWAY, Arrivals
from breaker.demo.told import Check
from breaker.demo.view import Counted, Now, Seen
from breaker.demo.waits import Group

PLAIN_EVERY_S = 2.0
PLAIN_WIDTH = 120  # columns; without a terminal nobody says, and a name that is cut short is no use in a log
_OWN = frozenset(policy for policy in Policy if policy.is_tenants_own)
_SHARED = frozenset(Policy) - _OWN
_HEADS = ("operation", "calls/s", "in flight", "waiting", "forwarded", "queued", "delayed", "let through", "429",
          "503", "other", "added p50", "downstream: most in flight", "started")  # fmt: skip
_QUEUE_HEADS = ("queue", *BANDS, "oldest", "ETA", "running", "accepted", "succeeded", "dead", "batches",
                "unaccounted", "lost")  # fmt: skip
_ALERT_HEADS = (
    "alert",
    "of",
    "severity",
    "state",
    "messages by the gateway",
    "by Prometheus and Alertmanager",
)
_ALERTS_SHOWN = 8  # the newest
_WAIT_HEADS = ("what was queued", "band", "whose", "jobs", "said p50", "p90", "took p50", "p90", "in time")


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
        firing: Incidents that fire, by alert, as the gateway says.
        arrivals: What those who are on call were told.

    """

    at_s: float
    stage: str
    pipelines: Mapping[str, str]
    counted: Mapping[str, Counted]
    now: Mapping[str, Now]
    seen: Mapping[str, Seen]
    per_second: Mapping[str, float]
    coming_back: int
    firing: Mapping[str, int]
    arrivals: Arrivals


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
            shown: list[RenderableType] = [
                Text(headline(picture), style="bold"),
                table(picture),
                Text(""),
                queue_table(picture),
                Text(""),
                *alert_lines(picture),
            ]
            self._live.update(Lines(*shown), refresh=True)
        elif picture.at_s >= self._next_s:
            self._next_s = picture.at_s + PLAIN_EVERY_S
            self._console.print(headline(picture), soft_wrap=True)

    def tell(self, at_s: float, messages: Sequence[tuple[str, str]]) -> None:
        """Messages that have just arrived: a line about each, and its text where there is one; they stay."""
        for line, text in messages:
            # Told by others, so never as markup.
            self._console.print(Text(f"{at_s:5.0f} s  {line}", style="bold"), soft_wrap=True)
            if text:
                self._console.print(Text(textwrap.indent(text, " " * 9)), soft_wrap=True)


def headline(picture: Picture) -> str:
    """The whole gateway in one line."""
    counted = [picture.counted.get(name, Counted()) for name in picture.pipelines]
    outcomes = {outcome: sum(each.outcomes[outcome] for each in counted) for outcome in Outcome}
    now = picture.now.values()
    queues = [each.queue for each in now if each.queue]
    return (
        f"{picture.at_s:5.0f} s  {picture.stage or 'no traffic':<10}"
        f" calls {sum(outcomes.values())}: forwarded {outcomes[Outcome.FORWARDED]}, queued {outcomes[Outcome.QUEUED]},"
        f" delayed {outcomes[Outcome.DELAYED]}, let through {outcomes[Outcome.OVER_CAPACITY]},"
        f" refused {outcomes[Outcome.REFUSED]} (429 {_sum(counted, _OWN)}, 503 {_sum(counted, _SHARED)})"
        f" | in flight {sum(each.in_flight for each in now)}, waiting {sum(each.waiting for each in now)},"
        f" coming back {picture.coming_back}"
        f" | jobs waiting {sum(sum(queue.waiting.values()) for queue in queues)},"
        f" running {sum(queue.running for queue in queues)}, done {sum(queue.succeeded for queue in queues)},"
        f" dead {sum(queue.dead for queue in queues)}"
        f" | alerts firing {sum(picture.firing.values())}, messages {picture.arrivals.count}"
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
            str(counted.outcomes[Outcome.QUEUED]),
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


def queue_table(picture: Picture) -> Table:
    """One row for each queue: jobs by band and the rest of its ledger, since its store began."""
    grid = Table(box=None, pad_edge=False)
    for head in _QUEUE_HEADS:
        grid.add_column(head, justify="left" if head == "queue" else "right", overflow="fold")
    for name in picture.pipelines:
        queue = picture.now[name].queue if name in picture.now else None
        if queue is None:
            continue
        counted = picture.counted.get(name, Counted())
        each = counted.batch_items / counted.batches if counted.batches else 0
        grid.add_row(
            name,
            *(_lit(queue.waiting[band], "yellow") for band in BANDS),
            f"{max(queue.oldest_s.values(), default=0.0):.1f} s",
            f"{max(counted.eta_s.values()):.1f} s" if counted.eta_s else "?",
            str(queue.running),
            str(queue.accepted),
            str(queue.succeeded),
            _lit(queue.dead, "red"),
            f"{counted.batches} of {each:.0f}" if counted.batches else "-",
            _lit(queue.unaccounted, "bold red"),
            _lit(queue.lost, "bold red"),
        )
    return grid


def alert_lines(picture: Picture) -> list[RenderableType]:
    """What fires, and a row for each of the newest alerts of which on-call was told."""
    firing = ", ".join(f"{name} {count}" for name, count in sorted(picture.firing.items())) or "nothing"
    head = Text(f"alerts firing: {firing}; messages to on-call: {picture.arrivals.count}", style="bold")
    states = [*picture.arrivals.states.values()][-_ALERTS_SHOWN:]
    if not states:
        return [head]
    grid = Table(box=None, pad_edge=False)
    for column in _ALERT_HEADS:
        grid.add_column(column, overflow="fold")
    for state in states:
        alert = state.alert
        by = [", ".join(map(str, state.numbers.get(way, ()))) or "-" for way in (GATEWAY, ALERTMANAGER)]
        grid.add_row(
            alert.name, ", ".join(filter(None, (alert.operation, alert.about))) or "-", alert.severity,
            Text("fires", style="yellow") if state.is_firing else Text("has ended", style="green"), *by,
        )  # fmt: skip
    return [head, grid]


def waits(console: Console, groups: Sequence[Group]) -> None:
    """How long what was queued waited, beside what its senders had been told; nothing when nothing was."""
    if not groups:
        return
    grid = Table(box=None, pad_edge=False)
    for head in _WAIT_HEADS:
        grid.add_column(head, justify="left" if head in _WAIT_HEADS[:3] else "right")
    for group in groups:
        grid.add_row(
            group.operation, group.band, group.whose, str(group.jobs), *_seconds(group.said_s),
            *_seconds(group.took_s), f"{group.kept} of {group.judged}",
        )  # fmt: skip
    console.print(grid)


def summary(
    console: Console, checks: Sequence[Check], missing: Sequence[str], remarks: Sequence[str]
) -> None:
    """Every check with its two numbers; then remarks, what was not shown, and the verdict."""
    widest = max((len(check.about) for check in checks), default=0)
    for check in checks:
        word = Text("agree " if check.agrees else "DIFFER", style="green" if check.agrees else "bold red")
        console.print(
            word + Text(f"  {check.about:<{widest}}  {check.what}: {check.left}, {check.right}", style=""),
            soft_wrap=True,
        )
    for remark in remarks:
        console.print(Text(f"note    {remark}"), soft_wrap=True)
    for what in missing:
        console.print(Text(f"not seen: {what}", style="bold red"), soft_wrap=True)
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


def _seconds(values: tuple[float, float] | None) -> tuple[str, str]:
    return (f"{values[0]:.1f} s", f"{values[1]:.1f} s") if values else ("-", "-")
