"""
Terms: what the store is told about an operation, and which limits hold at a moment.

`store/policy.py` writes them, the scripts read them there, so replicas cannot disagree.
Stated = an override that has not expired, else the schedule, else the file.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from breaker.core.model import Limits, Mode, Overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What a person set for a while; `until_us` is exclusive."""

    limits: Limits
    until_us: int


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
