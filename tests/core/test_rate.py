"""GCRA and slots, both sides of each edge; `tests/model` holds the scripts to the same rules."""

import pytest

from breaker.core import rate
from breaker.core.model import Limits, Rate
from breaker.core.rate import Bucket

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
TEN_A_SECOND = Limits(rate=Rate(limit=10, period_us=SECOND, burst=3))


def starts(bucket: Bucket, limits: Limits, now_us: int, cost: int = 1) -> bool:
    """One call at this moment: does it start? Spends if so."""
    rate.bring_up_to_date(bucket, limits, now_us)
    if rate.rate_wait_us(bucket, limits, cost, now_us) > 0:
        return False
    rate.charge(bucket, limits, cost, now_us)
    return True


def test_a_burst_starts_at_once_and_the_next_call_waits_one_interval() -> None:
    """The owner of a limit: `burst` is exact, not one more."""
    bucket = Bucket()
    assert [starts(bucket, TEN_A_SECOND, NOW) for _ in range(4)] == [True, True, True, False]
    assert rate.rate_wait_us(bucket, TEN_A_SECOND, 1, NOW) == 100_000
    assert not starts(bucket, TEN_A_SECOND, NOW + 99_999)
    assert starts(bucket, TEN_A_SECOND, NOW + 100_000)


def test_a_rate_that_does_not_divide_the_second_is_never_exceeded() -> None:
    """The owner of a downstream: three a second means three, not four in some second."""
    limits = Limits(rate=Rate(limit=3, period_us=SECOND))
    bucket = Bucket()
    took = [at for at in range(0, 60 * SECOND, 1_000) if starts(bucket, limits, NOW + at)]
    assert rate.interval_us(limits) == 333_334
    assert all(fourth - first >= SECOND for first, fourth in zip(took, took[3:], strict=False))
    assert len(took) >= 179


def test_a_cost_uses_so_many_intervals() -> None:
    """A caller with an import of a hundred rows pays for a hundred."""
    bucket = Bucket()
    assert starts(bucket, TEN_A_SECOND, NOW, cost=2)
    assert not starts(bucket, TEN_A_SECOND, NOW, cost=2)
    assert rate.rate_wait_us(bucket, TEN_A_SECOND, 2, NOW) == 100_000
    assert starts(bucket, TEN_A_SECOND, NOW, cost=1)


@pytest.mark.parametrize(("cost", "fits"), [(1, True), (3, True), (4, False)])
def test_a_cost_fits_up_to_the_whole_burst(cost: int, fits: bool) -> None:
    """A caller is told that waiting cannot help, instead of coming back for ever."""
    assert rate.can_fit(TEN_A_SECOND, cost) is fits


def test_a_limit_without_a_rate_takes_any_cost_at_once() -> None:
    """An operation that only states `concurrency`."""
    limits = Limits(concurrency=1)
    assert rate.can_fit(limits, 1_000)
    assert rate.rate_wait_us(Bucket(tat_us=NOW + SECOND), limits, 1_000, NOW) == 0


@pytest.mark.parametrize(
    ("limits", "closed"),
    [
        (Limits(), False),
        (Limits(rate=Rate(limit=0, period_us=SECOND)), True),
        (Limits(rate=Rate(limit=1, period_us=SECOND)), False),
        (Limits(concurrency=0), True),
        (Limits(concurrency=1), False),
    ],
)
def test_a_limit_of_zero_is_closed(limits: Limits, closed: bool) -> None:
    """An office that is closed at night says `rate: 0`."""
    assert rate.is_closed(limits) is closed


def test_a_lease_that_ends_at_this_very_moment_is_free() -> None:
    """The call that comes at that microsecond: both executions must agree on the edge."""
    bucket = Bucket(leases={"a": NOW})
    one = Limits(concurrency=1)
    assert rate.in_use(bucket, NOW - 1) == 1
    assert not rate.has_slot(bucket, one, NOW - 1)
    assert rate.in_use(bucket, NOW) == 0
    assert rate.has_slot(bucket, one, NOW)


def test_debt_is_rescaled_when_the_limit_changes() -> None:
    """On-call doubles a rate: the debt of the old rate is worth half the time."""
    slow = Limits(rate=Rate(limit=1, period_us=SECOND, burst=4))
    fast = Limits(rate=Rate(limit=2, period_us=SECOND, burst=4))
    bucket = Bucket()
    for _ in range(4):
        assert starts(bucket, slow, NOW)
    assert bucket.tat_us == NOW + 4 * SECOND
    rate.bring_up_to_date(bucket, fast, NOW)
    assert (bucket.tat_us, bucket.interval_us) == (NOW + 2 * SECOND, 500_000)
    rate.bring_up_to_date(bucket, slow, NOW)
    assert (bucket.tat_us, bucket.interval_us) == (NOW + 4 * SECOND, SECOND)


def test_debt_of_before_a_pause_without_a_rate_keeps_its_measure() -> None:
    """A rate that was taken out of the file and put back starts from what it knew."""
    bucket = Bucket()
    assert starts(bucket, TEN_A_SECOND, NOW)
    rate.bring_up_to_date(bucket, Limits(), NOW)
    assert (bucket.tat_us, bucket.interval_us) == (NOW + 100_000, 100_000)


@pytest.mark.parametrize(
    ("ahead_us", "kept_us"), [(599_999, 599_999), (600_000, 600_000), (600_001, 600_000)]
)
def test_debt_is_clamped_at_two_bursts(ahead_us: int, kept_us: int) -> None:
    """A clock that jumped back an hour must not shut a key for an hour."""
    bucket = Bucket(tat_us=NOW + ahead_us, interval_us=100_000)
    rate.bring_up_to_date(bucket, TEN_A_SECOND, NOW)
    assert bucket.tat_us == NOW + kept_us


def test_spending_beyond_the_limit_is_clamped_too() -> None:
    """`overflow: alert` for an hour must not mean refusals for an hour when it is switched off."""
    bucket = Bucket()
    for _ in range(50):
        rate.charge(bucket, TEN_A_SECOND, 1, NOW)
    assert bucket.tat_us == NOW + 600_000


@pytest.mark.parametrize(
    ("service_us", "slots", "step_us"),
    [(0, 4, 25_000), (1_000_000, 4, 250_000), (1_000_000, None, 1_000_000), (3, 4, 1)],
)
def test_a_slot_comes_back_once_per_service_time_and_slot(
    service_us: int, slots: int | None, step_us: int
) -> None:
    """Retry tickets of a full operation are spaced by the speed at which it works."""
    assert rate.slot_step_us(service_us, Limits(concurrency=slots)) == step_us


def test_the_promise_falls_back_only_when_the_whole_burst_is_free() -> None:
    """Falling back at each admission was tried: 53 refusals per completed call instead of one."""
    bucket = Bucket(tat_us=NOW + 1, interval_us=100_000, promise_us=NOW + SECOND)
    rate.bring_up_to_date(bucket, TEN_A_SECOND, NOW)
    assert bucket.promise_us == NOW + SECOND
    rate.bring_up_to_date(bucket, TEN_A_SECOND, NOW + 1)
    assert bucket.promise_us == 0


def test_the_promise_of_slots_falls_back_only_when_no_slot_is_in_use() -> None:
    """The same for operations that are limited by `concurrency`."""
    limits = Limits(concurrency=2)
    bucket = Bucket(leases={"a": NOW + 1}, slots_promise_us=NOW + SECOND)
    rate.bring_up_to_date(bucket, limits, NOW)
    assert bucket.slots_promise_us == NOW + SECOND
    rate.bring_up_to_date(bucket, limits, NOW + 1)
    assert bucket.slots_promise_us == 0
