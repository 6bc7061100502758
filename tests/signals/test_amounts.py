"""Numbers as a person reads them at 3 a.m., and as `breaker ops set` takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.model import Limits, Rate
from breaker.policy.units import parse_rate
from breaker.signals import amounts

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1, "1"), (5.2, "5.2"), (5.25, "5.2"), (9.99, "10"), (10.4, "10"), (34.6, "35"), (0.25, "0.25"), (216_000, "216000")],
)  # fmt: skip
def test_a_number_has_as_many_digits_as_matter(value: float, shown: str) -> None:
    """5.1837 slots are 5.2."""
    assert amounts.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(34, "34/s"), (1, "1/s"), (0.999, "60/min"), (0.2, "12/min"), (1 / 60, "1/min"), (1 / 1_800, "2/h"), (2 / 86_400, "2/day"),
     (1 / 604_800, "1/week"), (1e-9, "0.0006/week"), (0, "0/s"), (-1, "0/s")],
)  # fmt: skip
def test_a_slow_rate_has_a_longer_unit(value: float, shown: str) -> None:
    """0.0166 a second says nothing to anybody; and nothing at all is 0/s."""
    assert amounts.per_second(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 s"), (-5, "0 s"), (0.4, "0 s"), (0.6, "1 s"), (41, "41 s"), (59.6, "1 min"), (60, "1 min"), (61, "1 min 1 s"), (3_599, "59 min 59 s"),
     (3_600, "1 h"), (3_605, "1 h"), (11_100, "3 h 5 min"), (86_400, "1 d"), (90_061, "1 d 1 h"), (2_592_000, "30 d")],
)  # fmt: skip
def test_a_span_has_two_units_at_most(value: float, shown: str) -> None:
    """Three hours and five minutes; the seconds do not matter then."""
    assert amounts.span(value) == shown


def test_shares_moments_and_counts_are_plain() -> None:
    """The zone is said, because on-call sits in another one."""
    assert (amounts.share(1.3), amounts.share(0.004), amounts.share(0)) == ("130%", "0%", "0%")
    assert amounts.moment(1_767_708_120 * SECOND) == "2026-01-06 14:02 UTC"
    assert [amounts.counted(count, "call", "calls") for count in (0, 1, 2)] == [
        "0 calls",
        "1 call",
        "2 calls",
    ]


@pytest.mark.parametrize(
    ("needed", "shown"),
    [(34, "34/s"), (33.2, "34/s"), (34.000_000_1, "34/s"), (0.2, "12/min"), (0.205, "13/min"), (0.01, "36/h"), (0, "0/s"), (1e-9, "1/week")],
)  # fmt: skip
def test_a_rate_that_is_needed_is_rounded_up(needed: float, shown: str) -> None:
    """One less would not be enough."""
    assert amounts.rate_at_least(needed) == shown


@given(st.floats(min_value=1e-7, max_value=1e5))
def test_a_rate_that_is_needed_is_a_rate_that_can_be_set(needed: float) -> None:
    """Who was woken types what the alert says; a word that the command does not know costs minutes."""
    rate = parse_rate(amounts.rate_at_least(needed))
    given_per_s = rate.limit * 1e6 / rate.period_us
    assert given_per_s >= needed - 1e-6
    assert given_per_s <= max(2 * needed, 1 / 604_800)


RATE, SLOTS = Rate(limit=20, period_us=SECOND, burst=20), 10


@pytest.mark.parametrize(
    ("limits", "per_s", "slots", "shown"),
    [
        (Limits(rate=RATE), 34.0, 99.0, "rate=34/s"),
        (Limits(concurrency=SLOTS), 99.0, 11.2, "concurrency=12"),
        (Limits(rate=RATE, concurrency=SLOTS), 34.0, 11.2, "rate=34/s concurrency=12"),
        (Limits(rate=RATE, concurrency=SLOTS), 34.0, 10.0, "rate=34/s"),
        (Limits(rate=RATE, concurrency=SLOTS), 20.0, 11.0, "concurrency=11"),
        (Limits(rate=RATE, concurrency=SLOTS), 20.0, 10.0, "rate=20/s"),
        (Limits(concurrency=SLOTS), 5.0, 2.0, "concurrency=10"),
        (Limits(rate=Rate(limit=0, period_us=SECOND)), 3.0, 1.0, "rate=3/s"),
        (Limits(rate=Rate(limit=600, period_us=60 * SECOND)), 10.1, 1.0, "rate=11/s"),
        (Limits(), 3.0, 1.0, "rate=3/s"),
    ],
)
def test_the_limits_that_are_too_low_are_raised_and_no_others(
    limits: Limits, per_s: float, slots: float, shown: str
) -> None:
    """A limit that the operation does not have would be a new one; and nothing is lowered."""
    assert amounts.raised(limits, per_s, slots) == shown
