"""
Promise: what an operation promises its callers, in sentences.

For people: the OpenAPI document and the page at `/docs`. Where the downstream is, and what single
tenants have been granted, is nobody else's business and does not stand here.
"""

from breaker.core.model import Capacity, HangUp, Limits, Mode, Operation, Overflow
from breaker.policy.units import format_duration, format_rate, format_size

PERIODS = {"s": "second", "min": "minute", "h": "hour", "day": "day", "week": "week"}
NO_LIMIT = "no limit"


def sentences(operation: Operation) -> list[str]:
    """All that a caller's developer can build on, most important first."""
    said = [*_capacity(operation.capacity), *_overflow(operation)]
    said.append(f"One call may take {format_duration(operation.downstream.timeout_ms)} downstream.")
    if operation.body_max is not None:
        said.append(f"The body may have {format_size(operation.body_max)} at most.")
    if operation.on_hang_up is HangUp.CANCEL:
        said.append("When the caller hangs up, the call is given up downstream, too.")
    elif operation.on_hang_up is HangUp.FINISH:
        said.append("When the caller hangs up, the call is still brought to its end.")
    return said


def words(limits: Limits) -> str:
    """`20 starts per second (40 at once), 8 calls in flight`."""
    parts = []
    rate = limits.rate
    if (rate and rate.limit == 0) or limits.concurrency == 0:
        return "closed"
    if rate:
        number, _, unit = format_rate(rate).partition("/")
        parts.append(f"{_count(int(number), 'start')} per {PERIODS.get(unit, unit)} ({rate.burst} at once)")
    if limits.concurrency is not None:
        parts.append(f"{_count(limits.concurrency, 'call')} in flight")
    return ", ".join(parts) or NO_LIMIT


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _capacity(capacity: Capacity) -> list[str]:
    if capacity.is_unlimited:
        return ["Capacity: no limit."]
    said = []
    if capacity.schedule:
        hours = [f"{entry.text}: {words(entry.limits)}" for entry in capacity.schedule.hours]
        rest = f"otherwise: {words(capacity.schedule.otherwise)}"
        said.append(
            f"Capacity for all callers together, by {capacity.schedule.timezone} time: {'; '.join([*hours, rest])}."
        )
    elif capacity.limits != Limits():
        said.append(f"Capacity for all callers together: {words(capacity.limits)}.")
    if capacity.per_tenant is not None:
        said.append(f"Of these, for one tenant: {words(capacity.per_tenant)}.")
    if capacity.tenants:
        said.append("Some tenants have limits of their own.")
    if capacity.quota:
        quota = capacity.quota
        said.append(f"Quota: {_count(quota.limit, 'start')} per {quota.per} ({quota.timezone} time).")
    said += _cost(capacity)
    if capacity.mode is Mode.SHADOW:
        said.append("These limits are being rehearsed: they are counted and hold nobody up.")
    return said


def _cost(capacity: Capacity) -> list[str]:
    cost = capacity.cost
    if cost.header:
        return [
            f"A call counts as {cost.constant}, or as what it says in the header {cost.header} (1 to {cost.max})."
        ]
    return [f"A call counts as {cost.constant}."] if cost.constant != 1 else []


def _overflow(operation: Operation) -> list[str]:
    capacity = operation.capacity
    if capacity.is_unlimited or capacity.mode is Mode.SHADOW:
        return []
    if operation.overflow is Overflow.ALERT:
        return ["Over capacity: the call goes through, marked over_capacity, and on-call is told."]
    if not (operation.max_wait_ms and operation.waiting_max):
        return ["Over capacity: the call is refused at once, with a Retry-After of its own."]
    wait = format_duration(operation.max_wait_ms)
    return [
        f"Over capacity: the call waits its turn for {wait} at most; else it is refused with a Retry-After of its own."
    ]
