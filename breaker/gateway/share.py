"""
Share: what one replica may use of an operation's limits while it cannot ask what the others use.

1. Four fifths of everything, divided by the replicas that there may be; so k of n that are cut off add at most
   0.8 k/n of the limit to what the others use.
2. At least one call at a time, and the rate in proportion: a small rate becomes a long interval, not none.
3. What fits a limit fits its share: a cost is not refused for good because the store is away. A quota's share that
   is smaller than one call may cost is none.
4. Buckets start empty: nobody has saved up a burst.
5. Of a quota, the share of what was left when it was last seen.
"""

from dataclasses import replace

from breaker.core import rate
from breaker.core.model import Limits, Rate
from breaker.core.rate import Bucket
from breaker.core.terms import Terms

PART, WHOLE = 4, 5


def share_of(amount: int, replicas: int) -> int:
    """Rule 1, rounded down."""
    return amount * PART // (WHOLE * replicas)


def share_of_rate(whole: Rate, replicas: int, cost_max: int) -> Rate:
    """Rules 1, 2 and 3; what is closed stays so."""
    least = min(whole.burst, cost_max)
    return Rate(
        limit=whole.limit,
        period_us=-(-whole.period_us * WHOLE * replicas // PART),
        burst=max(least, share_of(whole.burst, replicas)),
    )


def share_of_limits(limits: Limits, replicas: int, cost_max: int) -> Limits:
    slots = limits.concurrency
    return Limits(
        rate=share_of_rate(limits.rate, replicas, cost_max) if limits.rate else None,
        concurrency=max(1, share_of(slots, replicas)) if slots else slots,
    )


def share_of_terms(terms: Terms, replicas: int, cost_max: int, quota_left: int | None) -> Terms:
    """
    All that an operation may use, as one replica's share.

    Args:
        replicas: At least 1.
        cost_max: The most that one call may cost.
        quota_left: Of the period that runs now, as last seen; None: not known.

    """

    def of(limits: Limits) -> Limits:
        return share_of_limits(limits, replicas, cost_max)

    quota = terms.quota
    if quota is not None:
        quota = share_of(quota if quota_left is None else quota_left, replicas)
        quota = quota if quota >= cost_max else 0
    return replace(
        terms,
        limits=of(terms.limits),
        calendar=tuple((start, of(limits)) for start, limits in terms.calendar),
        override=replace(terms.override, limits=of(terms.override.limits)) if terms.override else None,
        per_tenant=of(terms.per_tenant) if terms.per_tenant else None,
        tenants={name: of(limits) for name, limits in terms.tenants.items()},
        quota=quota,
        waiting_max=max(1, share_of(terms.waiting_max, replicas)),
    )


def without_limits(terms: Terms) -> Terms:
    """Nothing is limited; what a person holds stays held."""
    return replace(
        terms, limits=Limits(), calendar=(), override=None, per_tenant=None, tenants={}, quota=None
    )  # fmt: skip


def empty_bucket(limits: Limits, from_us: int) -> Bucket:
    """Rule 4: all of its burst was used at this moment."""
    return Bucket(tat_us=from_us + rate.tau_us(limits), interval_us=rate.interval_us(limits))
