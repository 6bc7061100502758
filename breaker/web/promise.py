"""
Promise: what an operation promises its callers, in sentences.

For people: the OpenAPI document and the page at `/docs`. Where the downstream is, and what single
tenants have been granted, is nobody else's business and does not stand here.
"""

from breaker.core.job_policy import Effects, PromiseClock
from breaker.core.model import Capacity, HangUp, Limits, Mode, Operation, Overflow
from breaker.policy.units import format_duration, format_rate, format_size

PERIODS = {"s": "second", "min": "minute", "h": "hour", "day": "day", "week": "week"}
NO_LIMIT = "no limit"


def sentences(operation: Operation) -> list[str]:
    """All that a caller's developer can build on, most important first."""
    said = [*_capacity(operation.capacity), *_overflow(operation), *_queue(operation)]
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
    if capacity.is_unlimited or capacity.mode is Mode.SHADOW or operation.overflow is Overflow.QUEUE:
        return []
    if operation.overflow is Overflow.ALERT:
        return ["Over capacity: the call goes through, marked over_capacity, and on-call is told."]
    if not (operation.max_wait_ms and operation.waiting_max):
        return ["Over capacity: the call is refused at once, with a Retry-After of its own."]
    wait = format_duration(operation.max_wait_ms)
    return [
        f"Over capacity: the call waits its turn for {wait} at most; else it is refused with a Retry-After of its own."
    ]


def _queue(operation: Operation) -> list[str]:
    queue = operation.queue
    if queue is None:
        return []
    within = format_duration(queue.start_within_ms)
    if queue.clock is PromiseClock.OPEN and operation.capacity.schedule:
        within += ", counted in open hours"
    said = [
        f"Over capacity, while paused, and if asked: the call becomes a job (202), which should start within {within}.",
        f"{queue.jobs_max} jobs may wait; more are refused.",
    ]
    if queue.expire_after_ms is not None:
        said.append(f"A job that did not start within {format_duration(queue.expire_after_ms)} expires.")
    if operation.batch:
        said.append(
            f"Jobs go downstream together, {operation.batch.max_items} at most, and are answered one by one."
        )
    said.append(_effects(operation))
    window = format_duration(operation.idempotency.window_ms)
    said.append(
        f"Idempotency-Key is {'required' if operation.idempotency.is_required else 'welcome'},"
        f" and remembered for {window} after its work has ended."
    )
    said.append(f"The answer to a job is kept for {format_duration(queue.keep_result_ms)}.")
    if operation.callback:
        said.append("Breaker-Callback tells you of the end of a job.")
    return said


def _effects(operation: Operation) -> str:
    if operation.effects is Effects.ONCE:
        return "What may have been executed is never repeated by a machine: a job can end as unknown."
    return f"A job that fails is tried again for {format_duration(operation.retry.for_ms)}, always with the same key."
