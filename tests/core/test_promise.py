"""Deadlines in open hours, and how long a job probably waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.job_policy import PromiseClock
from breaker.core.jobs import Pace
from breaker.core.model import Limits, Rate
from breaker.core.promise import Eta, deadline_us, eta, spent_us
from breaker.core.terms import Override, Terms

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 1_800_000_000 * SECOND

TWENTY = Limits(rate=Rate(limit=20, period_us=SECOND, burst=40), concurrency=8)
TWO = Limits(rate=Rate(limit=2, period_us=SECOND), concurrency=8)
NO_RATE = Limits(rate=Rate(limit=0, period_us=SECOND))
NO_SLOTS = Limits(concurrency=0)
DESK = Limits(concurrency=3)
# Open for eight hours from NOW, then closed overnight, open the next day, and closed as far as is known.
OFFICE = Terms(
    limits=NO_SLOTS,
    calendar=((NOW, DESK), (NOW + 8 * HOUR, NO_SLOTS), (NOW + DAY, DESK), (NOW + DAY + 8 * HOUR, NO_RATE)),
)


def deadline(terms: Terms, start_us: int, within_us: int) -> int:
    return deadline_us(terms, start_us, within_us, PromiseClock.OPEN)


def test_without_a_schedule_all_time_is_open() -> None:
    """An operation that never closes keeps its promise by the wall clock."""
    assert deadline(Terms(limits=TWENTY), NOW, 15 * 60 * SECOND) == NOW + 15 * 60 * SECOND


def test_a_promise_counts_open_hours_over_a_night() -> None:
    """A ticket that comes at closing time is due the next morning, not at night."""
    assert deadline(OFFICE, NOW + 7 * HOUR, HOUR) == NOW + 8 * HOUR
    assert deadline(OFFICE, NOW + 7 * HOUR, HOUR + 1) == NOW + DAY + 1
    assert deadline(OFFICE, NOW + 7 * HOUR, 3 * HOUR) == NOW + DAY + 2 * HOUR
    assert deadline(OFFICE, NOW + 9 * HOUR, HOUR) == NOW + DAY + HOUR
    assert deadline(OFFICE, NOW + 9 * HOUR, 0) == NOW + DAY
    assert deadline(OFFICE, NOW - HOUR, 0) == NOW


def test_by_the_wall_clock_a_night_counts() -> None:
    """`clock: wall`: a person promised an hour, whoever sleeps."""
    assert deadline_us(OFFICE, NOW + 9 * HOUR, HOUR, PromiseClock.WALL) == NOW + 10 * HOUR


def test_where_the_calendar_ends_all_time_counts() -> None:
    """A promise beyond what is known still has a deadline, so that it can be missed visibly."""
    assert deadline(OFFICE, NOW, 20 * HOUR) == NOW + DAY + 12 * HOUR
    assert deadline(OFFICE, NOW + 3 * DAY, HOUR) == NOW + 3 * DAY + HOUR
    assert deadline(Terms(limits=NO_RATE), NOW, HOUR) == NOW + HOUR


def test_what_a_person_closes_for_a_while_does_not_move_the_promise() -> None:
    """On-call sees that an override breaks the promise, instead of a promise that gives way."""
    closed = Override(limits=NO_SLOTS, until_us=NOW + 5 * HOUR)
    assert deadline(Terms(limits=TWENTY, override=closed), NOW, HOUR) == NOW + HOUR


SPANS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 10]), st.sampled_from([DESK, NO_SLOTS, NO_RATE, TWENTY])), max_size=6
)


@given(
    spans=SPANS,
    start=st.integers(min_value=-3, max_value=30),
    within=st.sampled_from([0, 1, 2, 3, 5, 11, 40]),
)
def test_between_start_and_deadline_lies_exactly_the_open_time(
    spans: list[tuple[int, Limits]], start: int, within: int
) -> None:
    """Whoever promises an hour of open time gives an hour: not a microsecond more or less."""
    calendar, at = [], 0
    for length, limits in spans:
        calendar.append((at, limits))
        at += length
    last = at - spans[-1][0] if spans else -10
    terms = Terms(limits=NO_SLOTS, calendar=tuple(calendar))

    def is_open(moment: int) -> bool:
        limits = [NO_SLOTS, *(limits for from_, limits in calendar if from_ <= moment)][-1]
        return moment >= last or limits in (DESK, TWENTY)

    end = deadline(terms, start, within)
    open_time = sum(is_open(moment) for moment in range(start, end))
    assert open_time == within
    assert within == 0 or is_open(end - 1)


def test_a_burst_at_a_stated_rate_is_done_when_the_rate_says() -> None:
    """200 calls at 20/s are 10 s, also when one a minute came before: that measured demand, not ability."""
    found = eta(199, Pace(), Terms(limits=TWENTY), NOW)
    assert found is not None
    assert found.p50_us == 10 * SECOND
    assert 10 * SECOND < found.p90_us < 11 * SECOND


def test_slots_and_service_time_bound_where_they_are_the_tighter() -> None:
    """Three people who take ten minutes each: the fourth ticket waits for minutes, whatever the rate says."""
    tight = Limits(rate=Rate(limit=100, period_us=SECOND), concurrency=3)
    pace = Pace(service_us=600 * SECOND)
    for limits in (tight, DESK):
        found = eta(2, pace, Terms(limits=limits), NOW)
        assert found is not None
        assert found.p50_us == 600 * SECOND
    by_rate = eta(2, Pace(service_us=1_000), Terms(limits=tight), NOW)
    assert by_rate is not None
    assert by_rate.p50_us == 30_000


def test_a_cost_uses_so_much_of_the_rate() -> None:
    """An operation whose calls weigh five is five times as slow as its rate reads."""
    found = eta(9, Pace(), Terms(limits=TWENTY), NOW, cost=5)
    assert found is not None
    assert found.p50_us == 10 * 5 * 50_000


@pytest.mark.parametrize(
    ("pace", "limits"),
    [
        (Pace(), DESK),
        (Pace(service_us=SECOND), Limits()),
        (Pace(mean_us=SECOND), NO_RATE),
        (Pace(), NO_SLOTS),
    ],
)
def test_what_nobody_can_know_is_not_promised(pace: Pace, limits: Limits) -> None:
    """A caller gets `unknown`, not a number that was made up."""
    assert eta(3, pace, Terms(limits=limits), NOW) is None


def test_a_measured_pace_goes_before_the_stated_one_but_never_beyond_the_rate() -> None:
    """When half of the capacity goes to direct calls the queue is half as fast, and the caller is told so."""
    slow = eta(99, Pace(mean_us=100_000), Terms(limits=TWENTY), NOW)
    assert slow == Eta(p50_us=10 * SECOND, p90_us=10 * SECOND)
    fast = eta(99, Pace(mean_us=1_000), Terms(limits=TWENTY), NOW)
    assert fast == Eta(p50_us=5 * SECOND, p90_us=5 * SECOND)
    unstated = eta(9, Pace(mean_us=SECOND), Terms(limits=DESK), NOW)
    assert unstated == Eta(p50_us=10 * SECOND, p90_us=10 * SECOND)


def test_the_spread_that_was_measured_widens_p90() -> None:
    """A caller of an uneven downstream: nine of ten jobs start by p90, so it lies further out."""
    pace = Pace(mean_us=100_000, spread_us=50_000)
    found = eta(99, pace, Terms(limits=TWENTY), NOW)
    assert found is not None
    assert found.p50_us == 10 * SECOND
    assert found.p90_us == pytest.approx(10 * SECOND + 1.2816 * 1.36 * 0.5 * 10 * 100_000, abs=2)


def test_nothing_starts_while_it_is_closed() -> None:
    """A ticket of the evening is told the morning, plus the work that lies before it."""
    pace = Pace(service_us=HOUR)  # 3 an hour
    night = eta(0, pace, OFFICE, NOW + 9 * HOUR)
    assert night is not None
    assert night.p50_us == 15 * HOUR + HOUR // 3
    over_night = eta(26, pace, OFFICE, NOW)
    assert over_night is not None
    assert over_night.p50_us == DAY + HOUR
    assert eta(23, pace, OFFICE, NOW) is not None
    assert eta(48, pace, OFFICE, NOW) is None


def test_a_pace_is_scaled_to_the_limits_that_come() -> None:
    """Measured at noon with half of the stated ability: at night, with a tenth of the rate, likewise half."""
    terms = Terms(calendar=((NOW - HOUR, TWENTY), (NOW + 10 * SECOND, TWO)))
    found = eta(109, Pace(mean_us=100_000), terms, NOW)
    assert found == Eta(p50_us=20 * SECOND, p90_us=20 * SECOND)
    changed = Terms(calendar=((NOW - HOUR, TWENTY), (NOW, TWO), (NOW + HOUR, TWENTY)))
    assert eta(9, Pace(mean_us=SECOND), changed, NOW) == Eta(p50_us=10 * SECOND, p90_us=10 * SECOND)
    reopened = Terms(calendar=((NOW - HOUR, NO_RATE), (NOW + 10 * SECOND, TWO)))
    assert eta(1, Pace(mean_us=100_000), reopened, NOW) == Eta(p50_us=11 * SECOND, p90_us=11 * SECOND)


def test_what_a_person_overrides_holds_until_the_calendar_goes_on() -> None:
    """On-call halves a limit for an hour: callers are told the longer wait at once."""
    terms = Terms(calendar=((NOW - HOUR, TWENTY), (NOW + 10 * SECOND, TWENTY)))
    found = eta(119, Pace(), terms, NOW, in_force=TWO)
    assert found is not None
    assert found.p50_us == 10 * SECOND + 5 * SECOND
    closed = eta(0, Pace(), terms, NOW, in_force=NO_SLOTS)
    assert closed is not None
    assert closed.p50_us == 10 * SECOND + 50_000
    assert eta(0, Pace(), Terms(limits=TWENTY), NOW, in_force=NO_SLOTS) is None


@given(
    ahead=st.sampled_from([0, 1, 2, 23, 24, 47, 1_000]),
    mean_us=st.sampled_from([0, 1, 20 * 60 * SECOND, 2 * HOUR]),
    spread_us=st.sampled_from([0, 1, HOUR]),
    service_us=st.sampled_from([0, 1, HOUR]),
    limits=st.sampled_from([DESK, TWENTY, TWO, NO_SLOTS, Limits()]),
)
def test_more_jobs_ahead_never_shorten_the_wait(
    ahead: int, mean_us: int, spread_us: int, service_us: int, limits: Limits
) -> None:
    """Whoever polls a position that grows must not be told better times."""
    terms = Terms(calendar=(*OFFICE.calendar, (NOW + 2 * DAY, limits)))
    pace = Pace(mean_us=mean_us, spread_us=spread_us, service_us=service_us)
    found, later = eta(ahead, pace, terms, NOW), eta(ahead + 1, pace, terms, NOW)
    if found is None:
        assert later is None
        return
    assert 0 < found.p50_us <= found.p90_us
    assert later is None or (found.p50_us <= later.p50_us and found.p90_us <= later.p90_us)


@pytest.mark.parametrize("clock", PromiseClock)
@pytest.mark.parametrize(("start", "end"), [(NOW, NOW), (NOW + 1, NOW), (NOW, NOW - DAY)])
def test_no_time_is_spent_backwards(clock: PromiseClock, start: int, end: int) -> None:
    """A start that comes before its deadline has spent none of what comes after it."""
    assert spent_us(OFFICE, start, end, clock) == 0


@pytest.mark.parametrize(
    ("start", "end", "spent"),
    [
        (NOW, NOW + HOUR, HOUR),
        (NOW + 7 * HOUR, NOW + 9 * HOUR, HOUR),
        (NOW + 8 * HOUR, NOW + DAY, 0),
        (NOW + 8 * HOUR, NOW + DAY + 1, 1),
        (NOW + 7 * HOUR, NOW + DAY + 7 * HOUR, 8 * HOUR),
        (NOW - HOUR, NOW + HOUR, HOUR),
        # Beyond the calendar's end all time counts, as it does for the deadline.
        (NOW + DAY + 8 * HOUR, NOW + DAY + 10 * HOUR, 2 * HOUR),
    ],
)
def test_closed_hours_are_not_spent(start: int, end: int, spent: int) -> None:
    """A night in which nobody works makes no ticket late."""
    assert spent_us(OFFICE, start, end, PromiseClock.OPEN) == spent
    assert spent_us(OFFICE, start, end, PromiseClock.WALL) == end - start


EDGES = st.sampled_from([NOW + at * HOUR + by for at in (-1, 0, 7, 8, 24, 31, 32, 40) for by in (-1, 0, 1)])


@given(
    start=EDGES,
    within=st.sampled_from([1, HOUR - 1, HOUR, 8 * HOUR, 16 * HOUR, 17 * HOUR]),
    clock=st.sampled_from(PromiseClock),
)
def test_what_is_spent_until_a_deadline_is_what_was_promised(
    start: int, within: int, clock: PromiseClock
) -> None:
    """The one is the other's inverse: by it "late by an hour" and "due in an hour" mean the same hours."""
    assert spent_us(OFFICE, start, deadline_us(OFFICE, start, within, clock), clock) == within


@given(EDGES, EDGES, EDGES)
def test_time_is_spent_in_parts_as_in_whole(one: int, two: int, three: int) -> None:
    """No hour counts twice, and none is lost."""
    first, second, third = sorted((one, two, three))
    parts = spent_us(OFFICE, first, second, PromiseClock.OPEN) + spent_us(
        OFFICE, second, third, PromiseClock.OPEN
    )
    assert parts == spent_us(OFFICE, first, third, PromiseClock.OPEN)
