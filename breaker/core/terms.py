"""
Terms: what the store is told about an operation, and which limits hold at a moment.

`store/policy.py` writes them, the scripts read them there, so replicas cannot disagree.
Stated = an override that has not expired, else the schedule, else the file.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from breaker.core.model import Limits, Mode, Overflow
from breaker.core.quorum import CircuitTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What a person set for a while; `until_us` is exclusive."""

    limits: Limits
    until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTerms:
    """
    What the scripts know of an operation's queue; times in microseconds, -1 is no bound.

    Attributes:
        window_us: How long an idempotency key is remembered after its work has ended.
        is_once: An attempt whose outcome is not known is not repeated.
        probe_us: How long after a lost lease the downstream is asked about it; 0: it cannot be.
        batch_items: 0 without batches.

    """

    jobs_max: int
    bytes_max: int
    tenant_jobs_max: int = -1
    tenant_bytes_max: int = -1
    keep_result_us: int = 0
    keep_dead_us: int = 0
    window_us: int = 0
    is_once: bool = False
    probe_us: int = 0
    batch_items: int = 0
    batch_bytes: int = 0
    batch_window_us: int = 0
    weights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """
    A person holds the operation: nothing starts (`paused`), or nothing new is taken (`draining`).

    Attributes:
        until_us: Exclusive; 0 is until somebody resumes it.

    """

    word: str
    until_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    The capacity of one operation, resolved to plain times.

    Attributes:
        limits: As the file states them.
        calendar: (from when, limits), ascending; empty without a schedule.
        override: A person's, or None.
        per_tenant, tenants: Limits of every tenant, and the named exceptions.
        quota: Starts per period, or None.
        periods: (start, end) of the quota's periods, ascending.
        hold: A person's, or None.
        debt: Cost that a batch may charge at once, beyond any burst.
        queue: How jobs are bounded and kept; None without a queue.
        is_retired: It takes nothing new.
        circuit: What its circuit goes by; None without one.
        adaptive_min: The least to which concurrency adapts; 0 does not adapt.
        pause_max_us: The longest pause that a downstream may ask for; `pauses_tenants`: for the tenant alone.

    """

    limits: Limits = Limits()
    calendar: tuple[tuple[int, Limits], ...] = ()
    override: Override | None = None
    per_tenant: Limits | None = None
    tenants: Mapping[str, Limits] = field(default_factory=dict)
    quota: int | None = None
    periods: tuple[tuple[int, int], ...] = ()
    mode: Mode = Mode.ENFORCE
    overflow: Overflow = Overflow.THROTTLE
    waiting_max: int = 1_000
    retry_max_us: int = 300_000_000
    hold: Hold | None = None
    debt: int = 0
    queue: QueueTerms | None = None
    is_retired: bool = False
    circuit: CircuitTerms | None = None
    adaptive_min: int = 0
    pause_max_us: int = 300_000_000
    pauses_tenants: bool = False


def held(terms: Terms, now_us: int) -> str:
    """What a person holds the operation for now, or nothing; what is retired is being drained."""
    hold = terms.hold
    if hold and (hold.until_us == 0 or hold.until_us > now_us):
        return hold.word
    return "draining" if terms.is_retired else ""


def held_until_us(terms: Terms, now_us: int) -> int:
    """When that ends; 0 when nobody knows."""
    hold = terms.hold
    return hold.until_us if hold and hold.until_us > now_us else 0


def stated(terms: Terms, now_us: int) -> tuple[Limits, int | None]:
    """The limits that hold now, and when they end (None: not known)."""
    if terms.override and terms.override.until_us > now_us:
        return terms.override.limits, terms.override.until_us
    at = bisect_right([start for start, _ in terms.calendar], now_us)
    until = terms.calendar[at][0] if at < len(terms.calendar) else None
    return (terms.calendar[at - 1][1] if at else terms.limits), until


def quota_period(terms: Terms, now_us: int) -> tuple[int, int]:
    """Start and end of the quota's period; zeros when none is known."""
    at = bisect_right([start for start, _ in terms.periods], now_us)
    return terms.periods[at - 1] if at else (0, 0)
