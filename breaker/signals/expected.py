"""
Expected: whether a queue will keep its promise, before it breaks.

1. Of each band in which jobs wait, the oldest and one that would be accepted now are reckoned, in nine of ten cases: how long
   each will have waited when it starts. The longer of the two is what is expected.
2. Both are measured by the promise's own clock: closed hours do not count where it counts open ones.
3. While the operation is held nobody knows when it goes on; it is reckoned as if that were now (or when a person's
   pause ends, where that is known). So it is a least, and grows with every minute.
4. The promise is kept for all who wait when they start at `jobs / start_within`, and for those who come when that is not
   less than what comes. The larger of the two is what is needed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from breaker.core.job_policy import BANDS, Band, Queue
from breaker.core.jobs import Pace
from breaker.core.promise import Eta
from breaker.signals.capacity import Demand
from breaker.store.job_desk import QueueLook

Forecast = Callable[[str, int, Pace], Eta | None]  # operation, jobs ahead, pace: as callers are told
Spent = Callable[
    [str, int, int], int
]  # operation, two moments of the store (us): time of its promise between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """
    What a queue will make of its promise.

    Attributes:
        seconds: By band; 0 where nothing waits.
        needed: Starts per second that would keep the promise; 0 when nothing waits.
        clears_s: Until all that waits has started, in nine of ten cases; None: not known.

    """

    seconds: Mapping[Band, float] = field(default_factory=dict)
    needed: float = 0.0
    clears_s: float | None = None


def expected_of(
    operation: str,
    queue: Queue,
    jobs: QueueLook,
    demand: Demand | None,
    forecast: Forecast,
    spent: Spent,
) -> Expected:
    """
    Rules 1 to 4.

    Args:
        demand: None when it is not known yet; then only those who wait count.

    """
    if jobs.queued == 0:
        return Expected(seconds=dict.fromkeys(BANDS, 0.0))
    now_us = jobs.now_us
    resumes_us = jobs.held_until_us if jobs.held == "paused" and jobs.held_until_us > now_us else now_us
    promise_us = queue.start_within_ms * 1_000
    seconds, ahead, clears_us = dict.fromkeys(BANDS, 0.0), 0, None
    for band in BANDS:
        first = forecast(operation, ahead, jobs.pace)
        ahead += jobs.waiting[band]
        if not jobs.waiting[band]:
            continue
        last = forecast(operation, ahead, jobs.pace)
        oldest_us = promise_us + lateness_us(
            operation, jobs.deadline_us[band], resumes_us + (first.p90_us if first else 0), spent
        )
        newest_us = spent(operation, now_us, resumes_us + (last.p90_us if last else 0))
        seconds[band] = max(oldest_us, newest_us, 0) / 1e6
        clears_us = resumes_us - now_us + last.p90_us if last else None
    needed = jobs.queued / (promise_us / 1e6)
    if demand:
        needed = max(needed, demand.wanted)
    return Expected(seconds=seconds, needed=needed, clears_s=None if clears_us is None else clears_us / 1e6)


def lateness_us(operation: str, deadline_us: int, start_us: int, spent: Spent) -> int:
    """By how much of the promise's own time a start comes after its deadline; negative before it."""
    if start_us <= deadline_us:
        return -spent(operation, start_us, deadline_us)
    return spent(operation, deadline_us, start_us)
