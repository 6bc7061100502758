"""
Cluster conditions: what of the table of alerts is true of the gateways and their store, now.

The steward judges by what all replicas noted and by what it read itself; what a replica can say without the store is
in `own_readings`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from breaker.core.alert_policy import Severity
from breaker.core.alert_table import FILL_WITHIN_S, MEMORY_FORECAST_MIN, MEMORY_SHARE_MIN
from breaker.core.alerts import Level, Reading
from breaker.core.errors import StoreRefusedError
from breaker.core.model import Operation
from breaker.signals import amounts
from breaker.signals.trend import Trend
from breaker.store.alert_book import Note

_SHOWN_US = 600_000_000  # a reset or a jump is an incident, not a state: it is true for ten minutes
_DELIVERY_LATE_US = 60_000_000
_OUTAGE_US = 5_000_000  # a slow fork is not worth a page
MEMORY_CLEAR = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """
    All that is known.

    Attributes:
        operations: Of the files, for their teams.
        notes: Of the replicas that live.
        differing: Replicas that run another configuration.
        removed: Jobs by operation that no file names; None: not asked this time.
        memory_ratio: None: not read this time.
        waiting: By channel, when the oldest letter that it did not take was made (0: none), and how many wait.

    """

    operations: Mapping[str, Operation]
    notes: Sequence[Note]
    differing: int
    removed: Mapping[str, int] | None
    memory_ratio: float | None
    memory: Trend
    now_us: int
    now_s: float
    waiting: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def readings_of(seen: Cluster) -> Iterator[Reading]:
    """All that the steward can say of the cluster."""
    yield _simple("BreakerWatchdog", Severity.NONE, is_high=True)
    yield _simple(
        "BreakerConfigSkew", Severity.WARNING, is_high=seen.differing > 0, count=str(seen.differing)
    )
    refused = sum(not note.reload_ok for note in seen.notes)
    yield _simple("BreakerReloadFailed", Severity.WARNING, is_high=refused > 0, count=str(refused))
    is_reset = any(seen.now_us - note.reset_us < _SHOWN_US for note in seen.notes)
    yield _simple("BreakerStoreReset", Severity.CRITICAL, is_high=is_reset)
    jumps = [note.jumped_us for note in seen.notes if seen.now_us - note.jump_us < _SHOWN_US]
    jumped_s = max(jumps, key=abs, default=0) / 1e6
    yield _simple("BreakerClockJump", Severity.WARNING, is_high=bool(jumps), seconds=f"{jumped_s:.0f}")
    if seen.memory_ratio is not None:
        yield store_will_fill(seen, seen.memory_ratio)
    yield from _per_operation(seen)
    for channel, (since_us, count) in seen.waiting.items():
        is_late = since_us > 0 and seen.now_us - since_us >= _DELIVERY_LATE_US
        yield Reading(
            alert="BreakerDeliveryFailing:warning", level=_level(is_high=is_late), about=channel,
            values={"count": str(count)},
        )  # fmt: skip


def store_will_fill(seen: Cluster, ratio: float) -> Reading:
    slope = seen.memory.slope(seen.now_s) or 0.0
    # One that is nearly empty may double in an hour, and has room for many such hours.
    is_rising = ratio >= MEMORY_FORECAST_MIN and ratio + slope * FILL_WITHIN_S >= 1
    if ratio >= MEMORY_SHARE_MIN or is_rising:
        level = Level.HIGH
    else:
        level = Level.BETWEEN if ratio >= MEMORY_CLEAR else Level.LOW
    values = {"memory": amounts.share(ratio)}
    return Reading(alert="BreakerStoreWillFill:warning", level=level, values=values)


def _per_operation(seen: Cluster) -> Iterator[Reading]:
    for name, operation in seen.operations.items():
        lone = [note.replica for note in seen.notes if name in note.lone]
        yield Reading(
            alert="BreakerLoneReplicaFailing:warning", level=_level(is_high=bool(lone)), operation=name,
            team=operation.team, values={"count": str(len(lone)), "detail": "replica " + ", ".join(sorted(lone))},
        )  # fmt: skip
        if operation.queue:
            lost = sum(note.lost.get(name, 0) for note in seen.notes)
            yield Reading(
                alert="BreakerJobsLost:critical", level=_level(is_high=lost > 0), operation=name,
                team=operation.team, values={"count": str(lost)},
            )  # fmt: skip
    for name, count in (seen.removed or {}).items():
        yield Reading(
            alert="BreakerOperationRemoved:warning", level=_level(is_high=count > 0), operation=name,
            values={"count": str(count)},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """That this replica cannot use its store; `kind` is that of the StoreError."""

    kind: str
    detail: str


def own_readings(outage: Outage | None) -> Iterator[Reading]:
    """What a replica says by itself, since nobody can be asked."""
    is_refusing = outage is not None and outage.kind == StoreRefusedError.kind
    detail = outage.detail.rstrip(". ") if outage else ""
    detail = detail[:1].upper() + detail[1:]
    down = outage is not None and not is_refusing
    for name, is_high in (("BreakerStoreDown", down), ("BreakerStoreRefusesWrites", is_refusing)):
        told = _simple(name, Severity.CRITICAL, is_high=is_high, detail=detail)
        yield replace(told, for_us=_OUTAGE_US)


def _simple(name: str, severity: Severity, *, is_high: bool, **values: str) -> Reading:
    return Reading(alert=f"{name}:{severity}", level=_level(is_high=is_high), values=values)


def _level(*, is_high: bool) -> Level:
    return Level.HIGH if is_high else Level.LOW
