"""When a direct call is tried again, and how many may be at once; both sides of each edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.circuit_policy import DirectRetry
from breaker.core.retry_budget import ASKED_MAX_US, RetryBudget, pause_us

SECOND = 1_000_000
POLICY = DirectRetry(base_ms=100, cap_ms=1_000, attempts=10)
HARDLY_LESS_THAN_ONE = 1 - 2**-53


def pause(
    *,
    policy: DirectRetry = POLICY,
    attempts: int = 1,
    left_us: int | None = None,
    draw: float = 0.5,
    retry_after_us: int | None = None,
) -> int | None:
    return pause_us(policy, attempts=attempts, left_us=left_us, draw=draw, retry_after_us=retry_after_us)


@pytest.mark.parametrize(
    ("attempts", "most_us"),
    [(1, 100_000), (2, 200_000), (3, 400_000), (4, 800_000), (5, SECOND), (9, SECOND)],
)
def test_the_longest_pause_doubles_up_to_its_cap(attempts: int, most_us: int) -> None:
    """A downstream that stays ill is asked less and less often, but not for ever less often."""
    assert pause(attempts=attempts, draw=0.0) == 0
    assert pause(attempts=attempts, draw=0.25) == most_us // 4
    assert pause(attempts=attempts, draw=HARDLY_LESS_THAN_ONE) == most_us - 1


def test_attempts_are_counted_in_all() -> None:
    """Three attempts are three requests that a downstream gets, not four."""
    policy = DirectRetry(attempts=3)
    assert pause(policy=policy, attempts=2) is not None
    assert pause(policy=policy, attempts=3) is None


def test_a_pause_that_would_end_with_the_time_is_not_begun() -> None:
    """Else the caller would wait, and then be told what was known before."""
    assert pause(left_us=50_001) == 50_000
    assert pause(left_us=50_000) is None
    assert pause(left_us=0, draw=0.0) is None
    assert pause(left_us=-SECOND, draw=0.0) is None


def test_nobody_comes_back_before_the_moment_that_was_named_and_not_all_at_it() -> None:
    """A downstream that named one moment to a thousand callers must not meet them all at it."""
    assert pause(retry_after_us=2 * SECOND, draw=0.0) == 2 * SECOND
    assert pause(retry_after_us=2 * SECOND, draw=0.5) == 2 * SECOND + 50_000
    assert pause(retry_after_us=0, draw=0.5) == 50_000


def test_a_moment_that_does_not_fit_ends_the_call() -> None:
    """The answer that names it is worth more than one that comes too late."""
    assert pause(retry_after_us=2 * SECOND, draw=0.0, left_us=2 * SECOND + 1) == 2 * SECOND
    assert pause(retry_after_us=2 * SECOND, draw=0.0, left_us=2 * SECOND) is None


def test_many_attempts_do_not_make_a_huge_number() -> None:
    """Nobody configures them, but what is bounded is bounded."""
    policy = DirectRetry(attempts=10**6)
    assert pause(policy=policy, attempts=10**6 - 1, draw=HARDLY_LESS_THAN_ONE) == policy.cap_ms * 1_000 - 1


@pytest.mark.parametrize(
    ("calls", "most"), [(0, 3), (1, 3), (15, 3), (19, 3), (20, 4), (24, 4), (25, 5), (1_000, 200)]
)
def test_a_fifth_of_the_calls_may_be_retries_or_three(calls: int, most: int) -> None:
    """At recovery a downstream gets a fifth more than its calls, not three times as much."""
    budget = RetryBudget(calls=calls)
    assert [budget.begin() for _ in range(most + 2)] == [True] * most + [False, False]
    assert budget.retries == most


def test_a_retry_that_ended_makes_room_for_one() -> None:
    """A budget that leaked would switch retries off until the next restart."""
    budget = RetryBudget(calls=1)
    for _ in range(3):
        assert budget.begin()
    for _ in range(10):
        assert not budget.begin()
        budget.end()
        assert budget.begin()


def test_calls_that_end_take_their_share_with_them() -> None:
    """What was begun goes on; only nothing new begins until the share is kept again."""
    budget = RetryBudget(calls=50)
    assert all(budget.begin() for _ in range(10))
    budget.calls = 25
    assert not budget.begin()
    for _ in range(6):
        budget.end()
    assert budget.begin()
    assert not budget.begin()


@given(
    attempts=st.integers(1, 12),
    left_us=st.none() | st.sampled_from([0, 1, 99_999, 100_000, 100_001, SECOND, 5 * SECOND]),
    draw=st.sampled_from([0.0, 2**-53, 0.5, HARDLY_LESS_THAN_ONE]),
    retry_after_us=st.none() | st.sampled_from([0, 1, SECOND - 1, SECOND, SECOND + 1, 300 * SECOND]),
)
def test_a_pause_is_never_too_early_nor_too_late(
    attempts: int, left_us: int | None, draw: float, retry_after_us: int | None
) -> None:
    """Whatever the numbers: not before the downstream said, not after the caller has gone."""
    found = pause(attempts=attempts, left_us=left_us, draw=draw, retry_after_us=retry_after_us)
    if found is None:
        is_too_long = (retry_after_us or 0) > ASKED_MAX_US
        assert attempts >= POLICY.attempts or left_us is not None or is_too_long
        return
    assert attempts < POLICY.attempts
    assert (retry_after_us or 0) <= found < (retry_after_us or 0) + POLICY.cap_ms * 1_000
    assert left_us is None or found < left_us


@pytest.mark.parametrize(("asked_us", "waits"), [(ASKED_MAX_US, True), (ASKED_MAX_US + 1, False)])
def test_a_downstream_that_asks_for_long_is_answered_for_now(asked_us: int, waits: bool) -> None:
    """Somebody holds the line: a day is not what they meant."""
    assert (pause(attempts=1, left_us=None, draw=0.0, retry_after_us=asked_us) is not None) is waits
