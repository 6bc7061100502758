"""Durations, rates and sizes: what is read, what is written, and what is said about the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.model import Rate
from breaker.policy import units as u


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("3d", 259_200_000), ("0s", 0), ("366d", 31_622_400_000)],
)  # fmt: skip
def test_durations_are_milliseconds(text: str, milliseconds: int) -> None:
    """Whoever writes `5m` means minutes."""
    assert u.parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "limit", "period_us"),
    [
        ("20/s", 20, 1_000_000),
        ("600/min", 600, 60_000_000),
        ("5/h", 5, 3_600_000_000),
        ("100/day", 100, 86_400_000_000),
        ("70/week", 70, 604_800_000_000),
        ("0/s", 0, 1_000_000),
        ("1000000/s", 1_000_000, 1_000_000),
    ],
)
def test_rates_are_starts_per_period(text: str, limit: int, period_us: int) -> None:
    """`70/week` stays 70 in a week: it is not rounded to something per second."""
    assert u.parse_rate(text) == Rate(limit=limit, period_us=period_us, burst=1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500), (500, 500), ("256KiB", 262_144), ("1MB", 1_000_000), ("1MiB", 1_048_576), ("2GiB", 2**31), ("0", 0)],
)  # fmt: skip
def test_sizes_are_bytes(text: object, size: int) -> None:
    """MB and MiB are not the same."""
    assert u.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10", "a duration is a whole number and a unit"),
        (10, "10 has no unit"),
        (True, "true has no unit"),
        (["1s"], "has no unit"),
        ("5min", "did you mean '5m'?"),
        ("1.5h", "'1.5h' cannot be read"),
        ("-1s", "'-1s' cannot be read"),
        ("367d", "longer than 366 days"),
        ("10y", "'10y' has no unit that is known"),
        ("٣s", "cannot be read"),
    ],
)
def test_a_duration_that_cannot_be_read_says_why(text: object, says: str) -> None:
    """The message is all that the person at the editor has."""
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        u.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (20, "20 has no unit"),
        ("20", "a rate is a whole number per s, min, h, day or week"),
        ("20/sec", "did you mean '20/s'"),
        ("20/m", "did you mean '20/min'"),
        ("1/month", "'1/month' has no unit that is known"),
        ("0.5/s", "'0.5/s' cannot be read"),
        ("1000001/s", "more than one start per microsecond"),
    ],
)
def test_a_rate_that_cannot_be_read_says_why(text: object, says: str) -> None:
    """A rate that is misread is a limit that does not hold."""
    with pytest.raises(ValueError, match=says):
        u.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [("1kb", "did you mean '1KB'"), ("1 XB", "no unit that is known"), ("-5", "cannot be read"), (1.5, "1.5 has no unit")],
)  # fmt: skip
def test_a_size_that_cannot_be_read_says_why(text: object, says: str) -> None:
    """`kb` could be either: the person decides."""
    with pytest.raises(ValueError, match=says):
        u.parse_size(text)


@given(st.integers(0, u.parse_duration("366d")))
def test_a_duration_that_was_written_reads_back(milliseconds: int) -> None:
    """`config explain` shows what could be pasted into the file."""
    assert u.parse_duration(u.format_duration(milliseconds)) == milliseconds


@given(st.integers(0, 2**40))
def test_a_size_that_was_written_reads_back(size: int) -> None:
    """Exact, not rounded."""
    assert u.parse_size(u.format_size(size)) == size


@given(st.integers(0, 1_000_000), st.sampled_from(sorted(u.PERIODS_US)))
def test_a_rate_that_was_written_reads_back(limit: int, period: str) -> None:
    """In the period that the person chose."""
    assert u.format_rate(u.parse_rate(f"{limit}/{period}")) == f"{limit}/{period}"


def test_a_value_is_written_in_its_largest_exact_unit() -> None:
    """`1MiB`, not `1048576`."""
    assert u.format_size(1_048_576) == "1MiB"
    assert u.format_size(1000) == "1KB"
    assert u.format_size(0) == "0"
    assert u.format_duration(90_000) == "90s"
    assert u.format_duration(7_200_000) == "2h"
    assert u.format_duration(0) == "0s"


def test_a_rate_that_is_lowered_for_a_while_is_told_by_the_second() -> None:
    """While a ramp rises a period is some odd number of microseconds, which says nothing to a person."""
    assert u.format_rate(Rate(limit=50, period_us=3_787_879)) == "13.2/s"
