"""
Calendar: which limits hold when, and when does a quota's day, week or month begin?

Pure: the moment is an argument, the time zone's rules come from `zoneinfo`. The store is told
the answers as plain microseconds, so that its own clock can choose and no script knows a zone.

1. Dates go before weekdays, earlier entries before later ones.
2. Hours that cross midnight belong to the day on which they start, with that day's rank.
3. A local time is the first moment at which the local clock shows that time or a later one:
   - a time that is skipped in spring (02:30 in Berlin) is the moment of the jump;
   - a time that is shown twice in autumn is its first showing. The calendar is not turned back:
     in the repeated hour holds what held at the end of the first one.
   So the end of one entry and the start of the next are one moment, whatever the clock does.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from breaker.core.model import Capacity, Hours, Limits, Per, Quota, Schedule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def transitions(capacity: Capacity, start_us: int, end_us: int) -> list[tuple[int, Limits]]:
    """
    From which moment do which limits hold?

    Args:
        capacity: Only its schedule is read.
        start_us: Microseconds since 1970.
        end_us: Likewise, exclusive.

    Returns:
        Ascending (from_us, limits), the first at `start_us`, neighbours always different;
        empty without a schedule or without time.

    """
    schedule = capacity.schedule
    if schedule is None or start_us >= end_us:
        return []
    edges: dict[int, list[tuple[int, int]]] = {start_us: []}
    for rank, entry in enumerate(_by_rank(schedule)):
        for opens_us, closes_us in _openings(entry, ZoneInfo(schedule.timezone), start_us, end_us):
            if closes_us > start_us:
                edges.setdefault(max(opens_us, start_us), []).append((rank, +1))
                edges.setdefault(closes_us, []).append((rank, -1))
    return _sweep(schedule, edges, end_us)


def quota_periods(quota: Quota, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """
    The local days, weeks (from Monday) or months that touch a span of time.

    Returns:
        Ascending (start_us, end_us) without gaps; the first contains `start_us`.

    """
    zone = ZoneInfo(quota.timezone)
    periods: list[tuple[int, int]] = []
    # Two days of room: no zone is further from UTC, and a skipped date shifts by one more.
    first = _first_day(quota.per, _local_date(start_us, zone) - 2 * _DAY)
    begin_us = _moment(first, 0, zone)
    while begin_us < end_us:
        first = _next_first_day(quota.per, first)
        next_us = _moment(first, 0, zone)
        if next_us > start_us and next_us > begin_us:
            periods.append((begin_us, next_us))
        begin_us = next_us
    return periods if start_us < end_us else []


def _by_rank(schedule: Schedule) -> list[Hours]:
    """Rule 1, as an order: the sort is stable."""
    return sorted(schedule.hours, key=lambda entry: entry.date is None)


def _sweep(
    schedule: Schedule, edges: dict[int, list[tuple[int, int]]], end_us: int
) -> list[tuple[int, Limits]]:
    """Walk over all openings and closings, keeping what is open, and say when the answer changes."""
    entries = _by_rank(schedule)
    is_open = [0] * len(entries)
    changes: list[tuple[int, Limits]] = []
    for moment_us in sorted(edges):
        if moment_us >= end_us:
            break
        for rank, step in edges[moment_us]:
            is_open[rank] += step
        limits = next(
            (entry.limits for entry, count in zip(entries, is_open, strict=True) if count),
            schedule.otherwise,
        )
        if not changes or changes[-1][1] != limits:
            changes.append((moment_us, limits))
    return changes


def _openings(entry: Hours, zone: ZoneInfo, start_us: int, end_us: int) -> Iterator[tuple[int, int]]:
    """Every (opens_us, closes_us) of an entry that may touch the span; equal when a jump swallowed it."""
    crosses = entry.end_minute <= entry.start_minute
    day, last = _local_date(start_us, zone) - 2 * _DAY, _local_date(end_us, zone) + _DAY
    if entry.date is not None:
        only = date.fromisoformat(entry.date)
        day, last = max(day, only), min(last, only)
    while day <= last:
        if entry.date is not None or day.weekday() in entry.weekdays:
            opens_us = _moment(day, entry.start_minute, zone)
            closes_us = _moment(day + _DAY if crosses else day, entry.end_minute, zone)
            yield opens_us, closes_us
        day += _DAY


def _moment(day: date, minute: int, zone: ZoneInfo) -> int:
    """Rule 3, in microseconds since 1970. `minute` 1440 is the next day's midnight."""
    local = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001 - wall time
    early = local.replace(tzinfo=zone).astimezone(UTC)  # fold 0: the first showing
    if early.astimezone(zone).replace(tzinfo=None) == local:
        return _to_us(early)
    # Skipped. Read with the offset before the jump the moment lies after it, and the other way
    # round: the jump is between the two.
    after, before = early, local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while after - before > _SECOND:
        middle = before + (after - before) // (2 * _SECOND) * _SECOND
        if middle.astimezone(zone).replace(tzinfo=None) >= local:
            after = middle
        else:
            before = middle
    return _to_us(after)


def _first_day(per: Per, day: date) -> date:
    if per is Per.WEEK:
        return day - day.weekday() * _DAY
    return day.replace(day=1) if per is Per.MONTH else day


def _next_first_day(per: Per, first: date) -> date:
    if per is Per.WEEK:
        return first + 7 * _DAY
    # 31 days after the first of a month is always in the next one.
    return (first + 31 * _DAY).replace(day=1) if per is Per.MONTH else first + _DAY


def _local_date(moment_us: int, zone: ZoneInfo) -> date:
    return (_EPOCH + timedelta(microseconds=moment_us)).astimezone(zone).date()


def _to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
