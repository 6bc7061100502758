"""Whether a queue will keep its promise, before it breaks."""

import pytest

from breaker.core.job_policy import BANDS, Band, PromiseClock, Queue
from breaker.core.jobs import Pace
from breaker.core.model import Limits, Rate
from breaker.core.promise import Eta, spent_us
from breaker.core.terms import Terms
from breaker.signals.capacity import Demand
from breaker.signals.expected import Expected, Spent, expected_of, lateness_us
from breaker.store.job_desk import QueueLook
from tests.signals.scene import queue_look

SECOND = 1_000_000
HOUR = 3_600 * SECOND
NOW = 1_800_000_000 * SECOND
QUEUE = Queue(start_within_ms=7_200_000, jobs_max=1_000_000)  # two hours
PROMISE = 2 * HOUR


def one_a_second(_operation: str, ahead: int, _pace: Pace) -> Eta:
    return Eta(p50_us=ahead * SECOND // 2, p90_us=ahead * SECOND)


def not_known(_operation: str, _ahead: int, _pace: Pace) -> None:
    return None


def by_the_wall(_operation: str, start_us: int, end_us: int) -> int:
    return max(0, end_us - start_us)


def waits(*, aged_us: int = 0, **more: object) -> QueueLook:
    """Jobs of which the oldest of each band has waited for so long."""
    waiting = more.pop("waiting", {Band.NORMAL: 100})
    assert isinstance(waiting, dict)
    deadlines = {band: NOW - aged_us + PROMISE if waiting.get(band) else 0 for band in BANDS}
    return queue_look(now_us=NOW, waiting=waiting, deadline_us=deadlines, **more)


def expect(jobs: QueueLook, demand: float | None = None, *, spent: Spent = by_the_wall) -> Expected:
    asked = None if demand is None else Demand(started=1.0, wanted=demand)
    return expected_of("billing.charge", QUEUE, jobs, asked, one_a_second, spent)


def test_nothing_is_expected_of_an_empty_queue() -> None:
    """Also while much is asked for: nobody waits."""
    assert expect(waits(waiting={}), 50.0) == Expected(
        seconds=dict.fromkeys(BANDS, 0.0), needed=0.0, clears_s=None
    )


def test_it_is_the_longer_of_the_oldest_job_and_of_one_accepted_now() -> None:
    """A queue that is worked off late breaks its promise at the old end, one that has just filled at the new one."""
    assert expect(waits(waiting={Band.NORMAL: 9_000})).seconds[Band.NORMAL] == 9_000
    assert expect(waits(waiting={Band.NORMAL: 9_000}, aged_us=3 * HOUR)).seconds[Band.NORMAL] == 3 * 3_600


def test_the_oldest_job_of_a_band_waits_for_all_of_higher_ones() -> None:
    """And one that comes now waits for those of its own band too; where nobody waits nothing is expected."""
    jobs = waits(waiting={Band.CRITICAL: 600, Band.LOW: 60}, aged_us=HOUR)
    assert expect(jobs).seconds == {
        Band.CRITICAL: 3_600, Band.HIGH: 0, Band.NORMAL: 0, Band.LOW: 3_600 + 600,
    }  # fmt: skip
    assert expect(jobs).clears_s == 660


def test_a_promise_of_open_hours_is_measured_in_open_hours() -> None:
    """A night in which the desk is closed makes no ticket late."""
    terms = Terms(
        limits=Limits(),
        calendar=((NOW - 10 * HOUR, Limits(rate=Rate(limit=0, period_us=SECOND))), (NOW, Limits())),
    )

    def spent(_operation: str, start_us: int, end_us: int) -> int:
        return spent_us(terms, start_us, end_us, PromiseClock.OPEN)

    # Accepted an hour before it closed, so that an hour of the promise is left.
    jobs = queue_look(now_us=NOW, waiting={Band.NORMAL: 60}, deadline_us=dict.fromkeys(BANDS, NOW + HOUR))
    assert expect(jobs, spent=spent).seconds[Band.NORMAL] == 3_600
    assert expect(jobs).seconds[Band.NORMAL] == 3_600, "which the deadline knew before"
    late = queue_look(
        now_us=NOW, waiting={Band.NORMAL: 60}, deadline_us=dict.fromkeys(BANDS, NOW - 10 * HOUR)
    )
    assert expect(late, spent=spent).seconds[Band.NORMAL] == 7_200
    assert expect(late).seconds[Band.NORMAL] == 7_200 + 36_000


@pytest.mark.parametrize(("start", "late"), [(-1, -1), (0, 0), (1, 1)])
def test_late_is_later_than_the_deadline(start: int, late: int) -> None:
    """Both sides of it."""
    assert lateness_us("billing.charge", NOW, NOW + start, by_the_wall) == late


def test_a_pause_that_ends_by_itself_is_waited_for() -> None:
    """One without an end, or that drains, is reckoned as if it were over now: at least that is expected."""
    held = waits(waiting={Band.NORMAL: 60}, held="paused", held_until_us=NOW + HOUR)
    assert (expect(held).seconds[Band.NORMAL], expect(held).clears_s) == (3_660, 3_660)
    for word, until in (("paused", 0), ("paused", NOW - 1), ("draining", NOW + HOUR)):
        jobs = waits(waiting={Band.NORMAL: 60}, held=word, held_until_us=until)
        assert (expect(jobs).seconds[Band.NORMAL], expect(jobs).clears_s) == (60, 60)


def test_what_is_needed_is_the_larger_of_what_waits_and_what_comes() -> None:
    """Jobs / start_within for those who wait; not less than what asks for those who come."""
    jobs = waits(waiting={Band.HIGH: 108_000, Band.LOW: 108_000})
    assert expect(jobs).needed == 30
    assert expect(jobs, 29.0).needed == 30
    assert expect(jobs, 34.0).needed == 34


def test_without_a_forecast_the_age_is_known() -> None:
    """Nobody can tell when they start, and it is late already."""
    found = expected_of("billing.charge", QUEUE, waits(aged_us=3 * HOUR), None, not_known, by_the_wall)
    assert (found.seconds[Band.NORMAL], found.clears_s) == (3 * 3_600, None)
