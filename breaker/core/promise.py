"""
Promise: by when a job should have started, and when it probably will.

Both walk the calendar of the operation's terms. Beyond its last entry nothing is known; what holds there is
taken to hold on.

Deadline:
1. It counts open hours: those in which the schedule states a rate and a concurrency above 0.
   With `clock: wall` all time counts.
2. What a person closes for a while does not move it: that the promise is about to break is what they
   should see.
3. Where the calendar ends all time counts, so that there always is a deadline.

ETA:
4. A job with `ahead` jobs before it starts when `ahead + 1` have started. One takes the longer of the
   stated interval, and of the time that a job holds its slot, shared by the slots.
5. A measured pace goes before what is stated, since direct calls and slow downstreams are in it. Under
   other limits than those of now it is scaled as these are. Nothing is faster than the stated rate.
6. While closed nothing starts.
7. Others may come meanwhile and go first: p90 takes it that no line of the band runs dry, and that one more
   comes. A tenant's own limits hold its jobs back; a batch waits for its window.
8. p90 adds what the sum of so many intervals strays upwards in 9 of 10 cases: by the measured spread, or,
   when nothing was measured, as if starts were counted events (Poisson: the square root of their number).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import ceil, sqrt
from operator import itemgetter

from breaker.core.job_policy import PromiseClock
from breaker.core.jobs import Pace
from breaker.core.model import Limits
from breaker.core.rate import is_closed
from breaker.core.terms import Terms

_NINE_OF_TEN = 1.2816  # standard deviations below which 90 % of a normal distribution lie
_STANDARD_OF_MEAN = (
    1.36  # standard deviation by mean absolute deviation; that of exponential times, the wider
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """Microseconds from now until the job starts: in half of the cases, and in nine of ten."""

    p50_us: int
    p90_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Limits and how long they hold; `end_us` None: as far as is known."""

    start_us: int
    end_us: int | None
    limits: Limits


def deadline_us(terms: Terms, start_us: int, within_us: int, clock: PromiseClock) -> int:
    """The moment at which `within_us` of open (or, by the wall clock, any) time have passed since `start_us`."""
    if clock is PromiseClock.WALL:
        return start_us + within_us
    at_us, left_us = start_us, within_us
    for span in _spans(terms, start_us):
        at_us = span.start_us
        if span.end_us is None:
            break
        if is_closed(span.limits):
            continue
        if span.end_us - at_us >= left_us:
            break
        left_us -= span.end_us - at_us
    return at_us + left_us


def eta(
    ahead: int,
    pace: Pace,
    terms: Terms,
    now_us: int,
    *,
    in_force: Limits | None = None,
    cost: int = 1,
    late: int | None = None,
    of_tenant: tuple[Limits, int] | None = None,
    window_us: int = 0,
) -> Eta | None:
    """
    How long until a job starts that has so many before it.

    Args:
        in_force: What the store says holds now, up to the calendar's next entry; it knows what a person has
            overridden. None: what the terms say.
        cost: What a job weighs on the rate.
        late: Jobs before it if nobody's line runs dry meanwhile; None is `ahead`.
        of_tenant: Its tenant's own limits, and how many of its own jobs are before it.
        window_us: How long it may wait for company in a batch.

    Returns:
        None when it is not known: it never opens, or there is neither a rate nor a pace to go by.

    """
    jobs = ahead + 1
    deviation = _STANDARD_OF_MEAN * pace.spread_us / pace.mean_us if pace.mean_us else 1.0
    p50_us = _us_until(jobs, _spans(terms, now_us, in_force), pace, cost)
    most = max(ahead, late or 0) + 1
    strayed = most + _NINE_OF_TEN * deviation * sqrt(most)
    p90_us = _us_until(strayed, _spans(terms, now_us, in_force), pace, cost)
    if p50_us is None or p90_us is None:
        return None
    if of_tenant:
        limits, own = of_tenant
        each_us = _stated_us(limits, pace, cost)
        p50_us = max(p50_us, (own + 1) * each_us)
        p90_us = max(p90_us, (own + 1 + _NINE_OF_TEN * sqrt(own + 1)) * each_us)
    return Eta(p50_us=ceil(max(p50_us, window_us)), p90_us=ceil(p90_us) + window_us)


def _us_until(jobs: float, spans: Iterator[_Span], pace: Pace, cost: int) -> float | None:
    """Microseconds until so many have started."""
    first = next(spans)  # there always is one
    now_us, stated_now_us = first.start_us, _stated_us(first.limits, pace, cost)
    for span in chain((first,), spans):
        if is_closed(span.limits):
            continue
        each_us = _each_us(span.limits, pace, cost, stated_now_us)
        if not each_us:
            return None
        if span.end_us is None or span.end_us - span.start_us >= jobs * each_us:
            return span.start_us - now_us + jobs * each_us
        jobs -= (span.end_us - span.start_us) / each_us
    return None


def _each_us(limits: Limits, pace: Pace, cost: int, stated_now_us: float) -> float:
    """Rules 4 and 5: microseconds for one job under these limits; 0 when not known."""
    stated_us = _stated_us(limits, pace, cost)
    if not pace.mean_us:
        return stated_us
    measured_us = float(pace.mean_us)
    if stated_us and stated_now_us:
        measured_us *= stated_us / stated_now_us
    return max(_by_rate_us(limits, cost), measured_us)


def _stated_us(limits: Limits, pace: Pace, cost: int) -> float:
    """Microseconds for one job by what is stated; 0 when closed, or not known."""
    if is_closed(limits):
        return 0.0
    by_slots_us = pace.service_us / limits.concurrency if limits.concurrency else 0.0
    return max(_by_rate_us(limits, cost), by_slots_us)


def _by_rate_us(limits: Limits, cost: int) -> float:
    return float(limits.rate.interval_us * cost) if limits.rate else 0.0


def _spans(terms: Terms, start_us: int, in_force: Limits | None = None) -> Iterator[_Span]:
    """The limits from `start_us` on, in their order, without gaps; the last has no end."""
    calendar = terms.calendar
    at = bisect_right(calendar, start_us, key=itemgetter(0))
    limits = in_force or (calendar[at - 1][1] if at else terms.limits)
    for from_us, following in calendar[at:]:
        yield _Span(start_us=start_us, end_us=from_us, limits=limits)
        start_us, limits = from_us, following
    yield _Span(start_us=start_us, end_us=None, limits=limits)


def spent_us(terms: Terms, start_us: int, end_us: int, clock: PromiseClock) -> int:
    """How much of a promise's time passes between two moments (rules 1 and 3); 0 when the second is not later."""
    if end_us <= start_us:
        return 0
    if clock is PromiseClock.WALL:
        return end_us - start_us
    spent = 0
    for span in _spans(terms, start_us):
        if span.start_us >= end_us:
            break
        if span.end_us is None or not is_closed(span.limits):
            spent += min(end_us, span.end_us or end_us) - span.start_us
    return spent
