"""
Business hours and quota periods, against a naive walk through every minute.

The naive evaluation knows no moments: it walks minute by minute, looks at the wall clock, and
remembers the latest wall time that it has seen, because the calendar is never turned back.
"""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breaker.core.calendar import quota_periods, transitions
from breaker.core.model import Capacity, Hours, Limits, Per, Quota, Rate, Schedule

MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
WORKDAYS = frozenset(range(5))
DESK = Limits(rate=Rate(limit=12, period_us=MINUTE_US), concurrency=3)
NIGHT = Limits(concurrency=1)
CLOSED = Limits(rate=Rate(limit=0, period_us=1_000_000))


def us(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """Microseconds of a local time."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(moment.timestamp()) * 1_000_000


def minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def weekly(start: str, end: str, limits: Limits = DESK, weekdays: frozenset[int] = WORKDAYS) -> Hours:
    return Hours(
        weekdays=weekdays, start_minute=minutes(start), end_minute=minutes(end), limits=limits, text="w"
    )


def once(day: str, start: str, end: str, limits: Limits) -> Hours:
    return Hours(date=day, start_minute=minutes(start), end_minute=minutes(end), limits=limits, text="d")


def scheduled(*hours: Hours, zone: str = "Europe/Berlin", otherwise: Limits = CLOSED) -> Capacity:
    return Capacity(schedule=Schedule(timezone=zone, hours=hours, otherwise=otherwise))


def naive_limits(schedule: Schedule, day: date, minute: int) -> Limits:
    """Rules 1 and 2, for one wall clock minute."""
    for entry in sorted(schedule.hours, key=lambda entry: entry.date is None):

        def is_its(day: date, entry: Hours = entry) -> bool:
            return day.isoformat() == entry.date if entry.date else day.weekday() in entry.weekdays

        if entry.start_minute < entry.end_minute:
            if is_its(day) and entry.start_minute <= minute < entry.end_minute:
                return entry.limits
        elif (is_its(day) and minute >= entry.start_minute) or (
            is_its(day - timedelta(days=1)) and minute < entry.end_minute
        ):
            return entry.limits
    return schedule.otherwise


def naive_transitions(schedule: Schedule, start_us: int, end_us: int) -> list[tuple[int, Limits]]:
    zone = ZoneInfo(schedule.timezone)
    changes: list[tuple[int, Limits]] = []
    latest = datetime(1970, 1, 1)  # noqa: DTZ001 - wall time
    # Two days before the start, so that a repeated hour is seen from its beginning.
    for now_us in range(start_us - 2 * DAY_US, end_us, MINUTE_US):
        wall = datetime.fromtimestamp(now_us // 1_000_000, UTC).astimezone(zone).replace(tzinfo=None)
        latest = max(latest, wall)
        if now_us < start_us:
            continue
        limits = naive_limits(schedule, latest.date(), latest.hour * 60 + latest.minute)
        if not changes or changes[-1][1] != limits:
            changes.append((now_us, limits))
    return changes


# Nights on which clocks change, and an ordinary one; Lord Howe changes by half an hour, Havana at midnight.
NIGHTS = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Havana", "2026-03-08"),
    ("America/Havana", "2026-11-01"),
    ("Asia/Kathmandu", "2026-06-03"),
]
EDGES = [0, 1, 30, 59, 60, 90, 119, 120, 121, 150, 179, 180, 181, 480, 1080, 1320, 1410, 1439]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, int, int]:
    zone, day = draw(st.sampled_from(NIGHTS))
    hours = []
    for index in range(draw(st.integers(0, 3))):
        start = draw(st.sampled_from(EDGES))
        end = draw(st.sampled_from([end for end in [*EDGES[1:], 1440] if end != start]))
        limits = draw(st.sampled_from([DESK, NIGHT, CLOSED, Limits(concurrency=index + 2)]))
        if draw(st.booleans()):
            shift = draw(st.integers(-1, 1))
            its_day = (date.fromisoformat(day) + timedelta(days=shift)).isoformat()
            hours.append(Hours(date=its_day, start_minute=start, end_minute=end, limits=limits, text="d"))
        else:
            weekdays = draw(st.frozensets(st.integers(0, 6), min_size=1))
            hours.append(
                Hours(weekdays=weekdays, start_minute=start, end_minute=end, limits=limits, text="w")
            )
    start_us = us(f"{day}T00:00", zone) + draw(st.sampled_from([-600, -60, 0, 60, 90, 150])) * MINUTE_US
    end_us = start_us + draw(st.sampled_from([1, 60, 600, 1441])) * MINUTE_US
    return Schedule(timezone=zone, hours=tuple(hours), otherwise=CLOSED), start_us, end_us


@settings(max_examples=200, deadline=None)
@given(schedules())
def test_transitions_are_those_of_a_walk_through_every_minute(case: tuple[Schedule, int, int]) -> None:
    """The store is told moments, not rules: they must be right on the nights that clocks change, too."""
    schedule, start_us, end_us = case
    assert transitions(Capacity(schedule=schedule), start_us, end_us) == naive_transitions(
        schedule, start_us, end_us
    )


@settings(max_examples=100, deadline=None)
@given(
    night=st.sampled_from(NIGHTS),
    per=st.sampled_from(list(Per)),
    before=st.integers(0, 2000),
    length=st.sampled_from([1, 60, 1441, 4000]),
)
def test_quota_periods_begin_when_the_local_date_changes(
    night: tuple[str, str], per: Per, before: int, length: int
) -> None:
    """A quota of 100 a day is a promise about local days, of 23 and 25 hours too."""
    zone_name, day = night
    start_us = us(f"{day}T12:00", zone_name) - before * MINUTE_US
    end_us = start_us + length * MINUTE_US
    zone = ZoneInfo(zone_name)

    def name(local: date) -> tuple[int, ...]:
        names = {
            Per.DAY: (local.toordinal(),),
            Per.WEEK: local.isocalendar()[:2],
            Per.MONTH: (local.year, local.month),
        }
        return names[per]

    begins = []
    latest = date.min
    for now_us in range(start_us - 2 * DAY_US, end_us, MINUTE_US):
        local = datetime.fromtimestamp(now_us // 1_000_000, UTC).astimezone(zone).date()
        if local > latest and latest != date.min and name(local) != name(latest) and now_us > start_us:
            begins.append(now_us)
        latest = max(latest, local)

    periods = quota_periods(Quota(limit=1, per=per, timezone=zone_name), start_us, end_us)
    assert [begin for begin, _ in periods[1:]] == begins
    assert periods[0][0] <= start_us < periods[0][1]
    assert periods[-1][1] >= end_us
    assert all(end == next_begin for (_, end), (next_begin, _) in pairwise(periods))


def test_no_schedule_has_no_transitions() -> None:
    """An operation without a calendar is published once, with the limits of its file."""
    assert transitions(Capacity(limits=DESK), 0, DAY_US) == []


def test_an_empty_span_has_neither_transitions_nor_periods() -> None:
    """The publisher may ask for nothing."""
    assert transitions(scheduled(weekly("08:00", "18:00")), DAY_US, DAY_US) == []
    assert quota_periods(Quota(limit=1, per=Per.DAY, timezone="UTC"), DAY_US, DAY_US) == []


def test_the_desk_opens_and_closes_at_its_local_hours() -> None:
    """The example of the documents: a support desk in Berlin, from Friday to Monday."""
    start = us("2026-06-05T12:00", "Europe/Berlin")
    assert transitions(scheduled(weekly("08:00", "18:00")), start, start + 4 * DAY_US) == [
        (start, DESK),
        (us("2026-06-05T16:00"), CLOSED),
        (us("2026-06-08T06:00"), DESK),
        (us("2026-06-08T16:00"), CLOSED),
        (us("2026-06-09T06:00"), DESK),
    ]


def test_the_end_of_the_hours_is_exclusive_to_the_microsecond() -> None:
    """At 18:00:00.000000 the desk is closed."""
    close = us("2026-06-05T18:00", "Europe/Berlin")
    capacity = scheduled(weekly("08:00", "18:00"))
    assert transitions(capacity, close - 1, close) == [(close - 1, DESK)]
    assert transitions(capacity, close, close + 1) == [(close, CLOSED)]
    assert transitions(capacity, close - 1, close + 1) == [(close - 1, DESK), (close, CLOSED)]


def test_abutting_hours_with_equal_limits_are_one() -> None:
    """Nothing is published where nothing changes."""
    start = us("2026-06-05T00:00", "Europe/Berlin")
    capacity = scheduled(weekly("08:00", "12:00"), weekly("12:00", "18:00"))
    assert [at for at, _ in transitions(capacity, start, start + DAY_US)] == [
        start, start + 8 * 60 * MINUTE_US, start + 18 * 60 * MINUTE_US,
    ]  # fmt: skip


def test_a_date_goes_before_weekdays_even_when_it_is_written_later() -> None:
    """Christmas Eve is closed although it is a Thursday."""
    start = us("2026-12-24T00:00", "Europe/Berlin")
    capacity = scheduled(weekly("08:00", "18:00"), once("2026-12-24", "00:00", "24:00", NIGHT))
    assert transitions(capacity, start, start + DAY_US) == [(start, NIGHT)]


def test_an_earlier_entry_goes_before_a_later_one() -> None:
    """A lunch break is written above the hours that it interrupts."""
    start = us("2026-06-05T11:00", "Europe/Berlin")
    capacity = scheduled(weekly("12:00", "13:00", NIGHT), weekly("08:00", "18:00"))
    assert [limits for _, limits in transitions(capacity, start, start + 3 * 3600 * 1_000_000)] == [
        DESK, NIGHT, DESK,
    ]  # fmt: skip


def test_hours_across_midnight_belong_to_the_day_they_start_on() -> None:
    """Friday's night shift ends on Saturday morning; Sunday's night has none."""
    capacity = scheduled(weekly("22:00", "06:00", NIGHT))
    start = us("2026-06-05T21:00", "Europe/Berlin")  # a Friday
    assert transitions(capacity, start, start + 3 * DAY_US + 120 * MINUTE_US) == [
        (start, CLOSED),
        (us("2026-06-05T20:00"), NIGHT),
        (us("2026-06-06T04:00"), CLOSED),
        (us("2026-06-08T20:00"), NIGHT),
    ]


@pytest.mark.parametrize(
    ("zone", "day", "jump"),
    [
        ("Europe/Berlin", "2026-03-29", "2026-03-29T01:00"),
        ("America/New_York", "2026-03-08", "2026-03-08T07:00"),
    ],
)
def test_an_opening_that_the_clock_skips_is_the_moment_of_the_jump(zone: str, day: str, jump: str) -> None:
    """02:30 does not exist: who opens then opens when the clock shows 03:00."""
    start = us(f"{day}T00:00", zone)
    every_day = frozenset(range(7))
    capacity = scheduled(weekly("02:30", "08:00", weekdays=every_day), zone=zone)
    assert transitions(capacity, start, start + DAY_US // 4) == [(start, CLOSED), (us(jump), DESK)]
    inside_the_gap = scheduled(weekly("02:15", "02:45", weekdays=every_day), zone=zone)
    assert transitions(inside_the_gap, start, start + DAY_US // 4) == [(start, CLOSED)]


@pytest.mark.parametrize(
    ("zone", "day", "hour"),
    [("Europe/Berlin", "2026-10-25", "02"), ("America/New_York", "2026-11-01", "01")],
)
def test_a_time_that_is_shown_twice_counts_the_first_time(zone: str, day: str, hour: str) -> None:
    """The repeated half hour neither reopens nor closes anything a second time."""
    start = us(f"{day}T00:00", zone)
    every_day = frozenset(range(7))
    capacity = scheduled(weekly("00:00", f"{hour}:30", weekdays=every_day), zone=zone)
    first, second = us(f"{day}T{hour}:30", zone), us(f"{day}T{hour}:30", zone, fold=1)
    assert second - first == 60 * MINUTE_US
    assert transitions(capacity, start, start + DAY_US // 4) == [(start, DESK), (first, CLOSED)]


def test_a_local_day_has_23_or_25_hours_when_clocks_change() -> None:
    """The quota of that day is not split and not doubled."""
    quota = Quota(limit=100, per=Per.DAY, timezone="Europe/Berlin")
    lengths = {
        day: [end - begin for begin, end in quota_periods(quota, us(f"{day}T10:00"), us(f"{day}T11:00"))]
        for day in ("2026-03-29", "2026-10-25", "2026-06-05")
    }
    hour = 60 * MINUTE_US
    assert lengths == {"2026-03-29": [23 * hour], "2026-10-25": [25 * hour], "2026-06-05": [24 * hour]}


def test_quota_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """What `70 a week` and `a month` mean is the same for everybody."""
    zone = "America/New_York"
    now = us("2026-02-28T23:59", zone)
    assert quota_periods(Quota(limit=1, per=Per.WEEK, timezone=zone), now, now + 1) == [
        (us("2026-02-23T00:00", zone), us("2026-03-02T00:00", zone))
    ]
    assert quota_periods(Quota(limit=1, per=Per.MONTH, timezone=zone), now, now + MINUTE_US + 1) == [
        (us("2026-02-01T00:00", zone), us("2026-03-01T00:00", zone)),
        (us("2026-03-01T00:00", zone), us("2026-04-01T00:00", zone)),
    ]


def test_a_date_that_a_zone_skipped_has_no_hours_and_no_period() -> None:
    """Samoa went from 29 to 31 December 2011: nothing may loop, split or open in between."""
    zone = "Pacific/Apia"
    start = us("2011-12-29T12:00", zone)
    capacity = scheduled(once("2011-12-30", "08:00", "18:00", DESK), zone=zone)
    assert transitions(capacity, start, start + DAY_US) == [(start, CLOSED)]
    days = quota_periods(Quota(limit=1, per=Per.DAY, timezone=zone), start, start + DAY_US)
    assert [end - begin for begin, end in days] == [DAY_US, DAY_US]


def test_hours_that_end_when_they_start_last_a_whole_day() -> None:
    """From 08:00 to 08:00 of the next day, not never."""
    start = us("2026-06-05T07:00", "Europe/Berlin")
    capacity = scheduled(once("2026-06-05", "08:00", "08:00", DESK))
    assert transitions(capacity, start, start + 2 * DAY_US) == [
        (start, CLOSED),
        (us("2026-06-05T06:00"), DESK),
        (us("2026-06-06T06:00"), CLOSED),
    ]


def test_at_midnight_the_new_day_has_begun() -> None:
    """The day that just ended is over to the microsecond."""
    midnight = us("2026-06-05T00:00", "Europe/Berlin")
    quota = Quota(limit=1, per=Per.DAY, timezone="Europe/Berlin")
    assert quota_periods(quota, midnight, midnight + 1) == [(midnight, midnight + DAY_US)]
    assert quota_periods(quota, midnight - 1, midnight) == [(midnight - DAY_US, midnight)]
