"""
The rows of `breaker top`: from two answers of the admin API to what a person reads. No I/O.

1. What happens per second is what the store counted between the two answers, over all replicas. A count that fell
   began anew, and says nothing.
2. What is done with what goes over capacity: by `overflow`, queued, refused or let through. Calls that wait are neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from breaker.cli.ops import in_words
from breaker.signals import amounts

HEADS = (
    "OPERATION",
    "DEMAND/S",
    "IN FLIGHT",
    "WAITING",
    "OLDEST",
    "ETA",
    "CIRCUIT",
    "OVER CAPACITY",
    "BY HAND",
)
SHUT = ("open", "half-open", "forced-open")
LEAST = 0.05  # per second; less is nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """An answer of `operations`, by name, and when it came; seconds, monotonic."""

    at_s: float
    operations: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One operation.

    Attributes:
        strain: The largest share of a limit, or of the promise, that is used; 1 is all of it.
        is_stuck: Nothing starts, although something wants to.
        cells: As `HEADS`. document: The same as JSON.

    """

    strain: float
    is_stuck: bool
    cells: tuple[str | None, ...]
    document: dict[str, Any]


def rows_between(before: Poll, now: Poll) -> list[Row]:
    """All operations, the worst first."""
    seconds = now.at_s - before.at_s
    rows = [row_of(before.operations.get(name), each, seconds) for name, each in now.operations.items()]
    return sorted(rows, key=lambda row: (not row.is_stuck, -row.strain, row.document["operation"]))


def row_of(before: Mapping[str, Any] | None, now: Mapping[str, Any], seconds: float) -> Row:
    limits = (now["limits"] or {}).get("in_force") or {}
    use, queue, circuit = now["use"] or {}, now["queue"] or {}, now["circuit"] or {}
    wanted, started = (per_second(before, now, seconds, "use", name) for name in ("wanted", "started"))
    waiting = waiting_of(now)
    oldest_ms = max(queue.get("oldest_ms", {}).values(), default=0)
    etas = [eta for eta in queue.get("eta_ms", {}).values() if eta is not None]
    eta_ms, promise_ms = max(etas, default=None), queue.get("promise_ms")
    word, over = over_capacity(before, now, seconds, wanted, started)
    document = {
        "operation": now["operation"],
        "wanted_per_second": wanted,
        "started_per_second": started,
        "rate_per_second": limits.get("per_second"),
        "in_flight": use.get("in_flight"),
        "concurrency": limits.get("concurrency"),
        "waiting": waiting,
        "oldest_ms": oldest_ms,
        "promise_ms": promise_ms,
        "eta_ms": eta_ms,
        "circuit": circuit.get("state"),
        "over_capacity": {"done": word, "per_second": over} if word else None,
        "override": (now["limits"] or {}).get("override"),
        "held": queue.get("held"),
        "removed": bool(now.get("removed")),
    }
    document["strain"] = strain = round(strain_of(document), 3)
    is_closed = 0 in (document["rate_per_second"], document["concurrency"])
    # In shadow it holds nothing back, unless a person opened it.
    is_shut = circuit.get("state") in (SHUT if circuit.get("mode") != "shadow" else SHUT[-1:])
    is_held = (queue.get("held") or {}).get("state") == "paused" or document["removed"]
    is_stuck = is_shut or ((is_closed or is_held) and (waiting > 0 or (wanted or 0) > LEAST))
    document["stuck"] = is_stuck
    return Row(strain=strain, is_stuck=is_stuck, cells=cells_of(document), document=document)


def per_second(
    before: Mapping[str, Any] | None, now: Mapping[str, Any], seconds: float, part: str, name: str
) -> float | None:
    """Rule 1."""
    then, latest = ((each or {}).get(part) or {} for each in (before, now))
    if name not in then or name not in latest or seconds <= 0 or latest[name] < then[name]:
        return None
    return float(latest[name] - then[name]) / seconds


def waiting_of(operation: Mapping[str, Any]) -> int:
    """Jobs that wait, or calls."""
    queue = operation["queue"]
    if queue:
        return int(sum(queue["waiting"].values())) + int(queue["scheduled"])
    return int((operation["use"] or {}).get("waiting", 0))


def over_capacity(
    before: Mapping[str, Any] | None, now: Mapping[str, Any], seconds: float,
    wanted: float | None, started: float | None,
) -> tuple[str, float]:  # fmt: skip
    """Rule 2: what is done, and how often per second; empty when there is nothing to do."""
    if before is None or wanted is None or started is None:
        return "", 0.0
    over, word = wanted - started, "refused"
    if now["overflow"] == "queue":
        accepted = per_second(
            {"ledger": (before["queue"] or {}).get("ledger")},
            {"ledger": (now["queue"] or {}).get("ledger")}, seconds, "ledger", "accepted",
        )  # fmt: skip
        # What was queued starts later: while a backlog is worked off, more starts than is asked for.
        over, word = min(accepted or 0.0, max(over, 0.0)), "queued"
    elif now["overflow"] == "alert":
        limit = ((now["limits"] or {}).get("in_force") or {}).get("per_second")
        over, word = started - limit if limit is not None else 0.0, "let through"
    else:
        over -= (waiting_of(now) - waiting_of(before)) / seconds
    return (word, round(over, 3)) if over > LEAST else ("", 0.0)


def strain_of(document: Mapping[str, Any]) -> float:
    """The largest share of a limit, or of the promise."""
    pairs = (
        (document["wanted_per_second"], document["rate_per_second"]),
        (document["in_flight"], document["concurrency"]),
        (document["oldest_ms"], document["promise_ms"]),
        (document["eta_ms"], document["promise_ms"]),
    )
    return max((value / most for value, most in pairs if value is not None and most), default=0.0)


def cells_of(document: Mapping[str, Any]) -> tuple[str | None, ...]:
    over = document["over_capacity"]
    oldest, promise = in_words(document["oldest_ms"]), in_words(document["promise_ms"] or 0)
    eta_ms = document["eta_ms"]
    return (
        document["operation"],
        of(number(document["wanted_per_second"]), number(document["rate_per_second"])),
        of(number(document["in_flight"]), number(document["concurrency"])),
        number(document["waiting"]),
        f"{oldest or 0} of {promise}" if promise else oldest,
        None if eta_ms is None else in_words(eta_ms) or "now",
        document["circuit"],
        f"{number(over['per_second'])}/s {over['done']}" if over else None,
        by_hand(document),
    )


def number(value: float | None) -> str | None:
    """With as many digits as a person reads."""
    return None if value is None else amounts.number(value)


def of(value: str | None, most: str | None) -> str | None:
    return f"{value or '?'} of {most}" if most is not None else value


def by_hand(document: Mapping[str, Any]) -> str | None:
    """What a person set or held, and until when."""
    override, held = document["override"], document["held"]
    said = ["removed: no file names it"] if document["removed"] else []
    if override:
        said.append(f"limits by {override['author']} until {when(override['until'])}")
    if held:
        until = f"until {when(held['until'])}" if held["until"] else "until resumed"
        said.append(f"{held['state']} by {held['author']} {until}")
    return "; ".join(said) or None


def when(moment: str) -> str:
    """A moment of the API, UTC; the day only when it is another one."""
    at = datetime.fromisoformat(moment)
    return f"{at:%H:%M}Z" if at.date() == datetime.now(UTC).date() else f"{at:%Y-%m-%d %H:%M}Z"
