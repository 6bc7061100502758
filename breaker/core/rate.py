"""
Rate and slots: when may the next call start, and when should a refused one come back?

GCRA in integer microseconds (ATM Forum TM 4.0, "virtual scheduling"). The store runs the same
rules in `store/lua/limits.lua`; `tests/model` replays random histories through both.

1. A call costs `cost * interval`; `burst` of them may come at once.
2. A cost that can never fit is the caller's mistake, not a throttle.
3. In flight are the leases that have not expired; there is no counter beside them.
4. Debt is kept in time, with the interval it was measured in: a changed limit rescales it.
5. Debt never exceeds two bursts (or one burst and one batch, which is charged behind), so that a
   clock that jumped back cannot shut a key for hours.
6. A refusal takes a ticket: it moves the limit's promise by what the call will cost, so that
   refused callers come back one by one. The promise falls back only when the whole burst is
   free, or no slot is in use.
"""

from dataclasses import dataclass, field
from math import floor

from breaker.core.model import LEASE_US, Limits

SERVICE_UNKNOWN_US = 100_000  # until calls were measured, a slot is taken to last this long
TAU_MAX_US = 10**15  # the store counts in doubles: 2**53 us must hold the clock and all of a burst


@dataclass(slots=True, kw_only=True)
class Bucket:
    """
    One rate clock and one set of slots: of an operation, or of a tenant in it.

    Attributes:
        tat_us: GCRA's theoretical arrival time.
        interval_us: The interval that `tat_us` was measured in; 0 before the first call.
        promise_us: The moment that the last retry ticket of the rate named.
        slots_promise_us: The same for slots.
        opening_promise_us: The same for what is closed, or whose quota is used up.
        leases: Lease id -> expiry.
        batch: The cost that may be charged at once, beyond any burst.
        pause_us: Until when the downstream asked for time for this tenant.

    """

    tat_us: int = 0
    interval_us: int = 0
    promise_us: int = 0
    slots_promise_us: int = 0
    opening_promise_us: int = 0
    leases: dict[str, int] = field(default_factory=dict)
    batch: int = 0
    pause_us: int = 0


def interval_us(limits: Limits) -> int:
    """Microseconds per start; 0 when there is no rate, or it is closed."""
    return limits.rate.interval_us if limits.rate else 0


def tau_us(limits: Limits) -> int:
    """How far ahead of time a burst may run."""
    return limits.rate.interval_us * limits.rate.burst if limits.rate else 0


def furthest_tat_us(bucket: Bucket, limits: Limits, now_us: int) -> int:
    """Rule 5."""
    tau = tau_us(limits)
    return now_us + tau + max(tau, bucket.batch * interval_us(limits))


def is_closed(limits: Limits) -> bool:
    """Nothing may start until the limits change."""
    return (limits.rate is not None and limits.rate.limit == 0) or limits.concurrency == 0


def in_use(bucket: Bucket, now_us: int) -> int:
    """
    Slots held now; a lease that expires at this very moment is free.

    One that ends later than any can was written before the clock went back, and does not count.
    """
    return sum(now_us < expiry <= now_us + LEASE_US for expiry in bucket.leases.values())


def bring_up_to_date(bucket: Bucket, limits: Limits, now_us: int) -> None:
    """Rules 4, 5 and 6: rescale, clamp, and let the promises fall back."""
    interval = interval_us(limits)
    if interval > 0:
        if 0 < bucket.interval_us != interval and bucket.tat_us > now_us:
            bucket.tat_us = now_us + floor((bucket.tat_us - now_us) * (interval / bucket.interval_us))
        bucket.tat_us = min(bucket.tat_us, furthest_tat_us(bucket, limits, now_us))
        bucket.interval_us = interval
        if bucket.tat_us <= now_us:
            bucket.promise_us = 0
    if limits.concurrency is not None and in_use(bucket, now_us) == 0:
        bucket.slots_promise_us = 0


def rate_wait_us(bucket: Bucket, limits: Limits, cost: int, now_us: int) -> int:
    """Microseconds until the rate takes this call; 0 or less is now."""
    interval = interval_us(limits)
    if interval == 0:
        return 0
    return max(now_us, bucket.tat_us) + cost * interval - tau_us(limits) - now_us


def has_slot(bucket: Bucket, limits: Limits, now_us: int) -> bool:
    return limits.concurrency is None or in_use(bucket, now_us) < limits.concurrency


def can_fit(limits: Limits, cost: int) -> bool:
    """Rule 2."""
    return cost * interval_us(limits) <= tau_us(limits)


def charge(bucket: Bucket, limits: Limits, cost: int, now_us: int) -> None:
    """Spend, also beyond the limit (`overflow: alert`), where debt is clamped at one burst more."""
    interval = interval_us(limits)
    if interval > 0:
        spent = max(now_us, bucket.tat_us) + cost * interval
        bucket.tat_us = min(spent, furthest_tat_us(bucket, limits, now_us))


def slot_step_us(service_us: int, limits: Limits) -> int:
    """A slot comes back once per mean service time and slot."""
    return max(1, (service_us or SERVICE_UNKNOWN_US) // max(1, limits.concurrency or 0))


def rate_ticket_us(bucket: Bucket, step_us: int, wait_us: int, now_us: int, retry_max_us: int) -> int:
    """Rule 6 for the rate: microseconds until this caller should come back."""
    at = max(bucket.promise_us, now_us + wait_us)
    bucket.promise_us = min(at + step_us, now_us + max(wait_us, retry_max_us))
    return min(at - now_us, retry_max_us)


def slots_ticket_us(bucket: Bucket, step_us: int, wait_us: int, now_us: int, retry_max_us: int) -> int:
    """Rule 6 for slots."""
    at = max(bucket.slots_promise_us, now_us + max(wait_us, step_us))
    bucket.slots_promise_us = min(at + step_us, now_us + max(wait_us, step_us, retry_max_us))
    return min(at - now_us, retry_max_us)


def opening_ticket_us(bucket: Bucket, wait_us: int, now_us: int, retry_max_us: int) -> int:
    """Rule 6 for what opens again: not everybody at once."""
    at = max(bucket.opening_promise_us, now_us + wait_us)
    bucket.opening_promise_us = min(at + SERVICE_UNKNOWN_US, now_us + max(wait_us, retry_max_us))
    return min(at - now_us, retry_max_us)
