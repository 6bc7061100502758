"""What the end of an attempt means and what follows, both sides of each edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.job_policy import Effects, Retry
from breaker.core.jobs import Fate, Reason
from breaker.core.retry import (
    RETRY_AFTER_MAX_US,
    SLOW_DOWN_US,
    Failed,
    FailureClass,
    Next,
    after,
    classify,
)

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
POLICY = Retry(for_ms=60_000, base_ms=1_000, cap_ms=8_000)
HARDLY_LESS_THAN_ONE = 1 - 2**-53


def next_of(
    failure: FailureClass | None,
    effects: Effects = Effects.KEYED,
    *,
    policy: Retry = POLICY,
    failures: int = 0,
    first_us: int = NOW,
    draw: float = 0.5,
    retry_after_us: int | None = None,
    says_never: bool = False,
    was_sent: bool = True,
) -> Next:
    """What follows at NOW; by default of a first attempt that has just begun."""
    return after(
        policy, effects, failure, failures=failures, first_us=first_us, now_us=NOW, draw=draw,
        was_sent=was_sent, retry_after_us=retry_after_us, says_never=says_never,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((200, 201, 202, 204, 207, 299), None),
        ((300, 301, 302, 304, 307, 308, 399), FailureClass.CALLER),
        (
            (400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 423, 424, 426, 428, 451, 499),
            FailureClass.CALLER,
        ),
        ((425, 500, 501, 503, 505, 599), FailureClass.DOWNSTREAM),
        ((429,), FailureClass.SLOW_DOWN),
        ((408, 502, 504), FailureClass.AMBIGUOUS),
        ((-1, 0, 100, 199, 600, 999), FailureClass.AMBIGUOUS),
    ],
)
def test_every_status_has_one_class(statuses: tuple[int, ...], expected: FailureClass | None) -> None:
    """The owner of a downstream reads in the table what an answer leads to."""
    assert {classify(status=status) for status in statuses} == {expected}


def test_unavailable_with_a_time_asks_to_slow_down_and_other_answers_do_not() -> None:
    """
    A 503 that says when to come back uses no attempt; Retry-After beside a 500 or 404 changes nothing.

    Nor does a 409: the downstream still works on the very same key, so dead would be told of a success.
    """
    told = {
        status: classify(status=status, retry_after_us=0) for status in (503, 409, 429, 500, 502, 404, 200)
    }
    assert told == {
        503: FailureClass.SLOW_DOWN, 409: FailureClass.SLOW_DOWN, 429: FailureClass.SLOW_DOWN, 500: FailureClass.DOWNSTREAM,
        502: FailureClass.AMBIGUOUS, 404: FailureClass.CALLER, 200: None,
    }  # fmt: skip


@pytest.mark.parametrize("failed", [Failed.CONNECT, Failed.TIMEOUT, Failed.BROKEN])
def test_without_an_answer_it_matters_whether_the_request_was_sent(failed: Failed) -> None:
    """A charge that never left us may be repeated; one that may have arrived is another matter."""
    assert classify(status=None, was_sent=False, failed=failed) is FailureClass.DOWNSTREAM
    assert classify(status=None, was_sent=True, failed=failed) is FailureClass.AMBIGUOUS


def test_an_unusable_answer_counts_as_none_whatever_its_status() -> None:
    """A 200 that is not what was agreed on is no success."""
    assert classify(status=200, failed=Failed.BROKEN) is FailureClass.AMBIGUOUS
    assert classify(status=None, was_sent=False, failed=Failed.UNSENDABLE) is FailureClass.CALLER
    assert classify(status=None, failed=Failed.TOO_LARGE) is FailureClass.UNREADABLE


@pytest.mark.parametrize("effects", list(Effects))
def test_success_and_the_callers_mistakes_are_final(effects: Effects) -> None:
    """A caller: no second charge after a success, no hour of retries for a typing mistake."""
    assert next_of(None, effects) == Next(fate=Fate.SUCCEEDED)
    assert next_of(None, effects, says_never=True) == Next(fate=Fate.SUCCEEDED)
    for says_never in (False, True):
        dead = next_of(FailureClass.CALLER, effects, says_never=says_never)
        assert dead == Next(fate=Fate.DEAD, reason=Reason.CALLER)


def test_an_ambiguous_outcome_is_repeated_only_where_keys_are_honoured() -> None:
    """The customer of a downstream without deduplication is never charged twice by a machine."""
    keyed = next_of(FailureClass.AMBIGUOUS, Effects.KEYED)
    assert keyed == Next(fate=Fate.RETRY, reason=Reason.AMBIGUOUS, delay_us=SECOND // 2)
    unknown = Next(fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS)
    assert next_of(FailureClass.AMBIGUOUS, Effects.ONCE) == unknown
    assert next_of(FailureClass.AMBIGUOUS, Effects.ONCE, says_never=True) == unknown


@pytest.mark.parametrize("effects", list(Effects))
def test_an_answer_that_is_too_large_is_not_asked_for_again(effects: Effects) -> None:
    """The same answer would come for an hour, and then the work would be called dead although it was done."""
    expected = Next(fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS)
    assert next_of(FailureClass.UNREADABLE, effects) == expected


def test_a_downstream_can_forbid_a_repetition() -> None:
    """`Breaker-Retry: never` ends what would be tried again."""
    told = Next(fate=Fate.DEAD, reason=Reason.TOLD)
    for failure in (FailureClass.DOWNSTREAM, FailureClass.SLOW_DOWN, FailureClass.AMBIGUOUS):
        assert next_of(failure, Effects.KEYED, says_never=True) == told
    assert next_of(FailureClass.DOWNSTREAM, Effects.ONCE, says_never=True, was_sent=False) == told


def test_what_is_done_once_is_sent_again_only_if_it_never_arrived() -> None:
    """A downstream that answers 500 may have charged the card before it failed."""
    unknown = Next(fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS)
    assert next_of(FailureClass.DOWNSTREAM, Effects.ONCE) == unknown
    assert next_of(FailureClass.DOWNSTREAM, Effects.ONCE, says_never=True) == unknown
    again = next_of(FailureClass.DOWNSTREAM, Effects.ONCE, was_sent=False)
    assert again == Next(fate=Fate.RETRY, reason=Reason.DOWNSTREAM, delay_us=SECOND // 2)


def test_pauses_double_up_to_the_cap() -> None:
    """The owner of a failing downstream: the longer it fails, the less it is asked."""
    longest = [
        next_of(FailureClass.DOWNSTREAM, failures=n, draw=HARDLY_LESS_THAN_ONE).delay_us for n in range(6)
    ]
    assert longest == [s * SECOND - 1 for s in (1, 2, 4, 8, 8, 8)]
    assert next_of(FailureClass.DOWNSTREAM, failures=10**6, draw=0.5).delay_us == 4 * SECOND
    assert next_of(FailureClass.DOWNSTREAM, failures=3, draw=0.0).delay_us == 0


def test_a_pause_that_ends_with_the_budget_is_begun_and_a_longer_one_is_not() -> None:
    """An operator is told that a job is dead when that is clear, not minutes later."""
    start = NOW - 59 * SECOND - SECOND // 2  # of a budget of 60 s, half a second is left
    on_time = next_of(FailureClass.DOWNSTREAM, failures=1, first_us=start, draw=0.25)
    assert on_time == Next(fate=Fate.RETRY, reason=Reason.DOWNSTREAM, delay_us=SECOND // 2)
    dead = Next(fate=Fate.DEAD, reason=Reason.BUDGET)
    assert next_of(FailureClass.DOWNSTREAM, failures=1, first_us=start - 1, draw=0.25) == dead


def test_a_stated_number_of_failures_is_the_most() -> None:
    """`attempts: 3` is three attempts, also when there is time for more."""
    policy = Retry(for_ms=3_600_000, attempts=3)
    fates = [next_of(FailureClass.DOWNSTREAM, policy=policy, failures=n) for n in range(3)]
    assert [fate.fate for fate in fates] == [Fate.RETRY, Fate.RETRY, Fate.DEAD]
    assert fates[2].reason is Reason.BUDGET
    assert next_of(FailureClass.SLOW_DOWN, policy=policy, failures=2).fate is Fate.LATER


def test_asked_to_slow_down_a_job_comes_back_not_before_and_not_all_at_once() -> None:
    """The owner of a full downstream gets the time that it asked for, and then no herd."""
    delays = [
        next_of(FailureClass.SLOW_DOWN, retry_after_us=7 * SECOND, draw=draw).delay_us
        for draw in (0.0, 0.5, HARDLY_LESS_THAN_ONE)
    ]
    assert delays == [7 * SECOND, 7 * SECOND + SECOND // 2, 8 * SECOND - 1]
    next_ = next_of(FailureClass.SLOW_DOWN, retry_after_us=0, draw=0.0)
    assert next_ == Next(fate=Fate.LATER, reason=Reason.SLOW_DOWN, delay_us=0)


def test_a_downstream_that_names_no_time_gets_one_pause() -> None:
    """A 429 without Retry-After is not answered by asking again at once."""
    assert next_of(FailureClass.SLOW_DOWN, draw=0.0).delay_us == SECOND
    assert next_of(FailureClass.SLOW_DOWN, draw=0.0, failures=2).delay_us == 4 * SECOND


def test_nobody_can_stop_a_job_for_longer_than_five_minutes_at_a_time() -> None:
    """`Retry-After: 86400` by mistake does not cost a day."""
    for asked in (RETRY_AFTER_MAX_US, RETRY_AFTER_MAX_US + 1, 10**15):
        next_ = next_of(FailureClass.SLOW_DOWN, retry_after_us=asked, draw=0.0)
        assert next_.delay_us == RETRY_AFTER_MAX_US


@pytest.mark.parametrize("for_ms", [60_000, 2 * SLOW_DOWN_US // 1_000])
def test_slowing_down_is_bounded_by_a_day_or_a_longer_budget(for_ms: int) -> None:
    """A quota that is renewed at midnight passes; a downstream that never takes a job does not keep it."""
    policy = Retry(for_ms=for_ms)
    start = NOW - max(for_ms * 1_000, SLOW_DOWN_US) + 5 * SECOND
    last = next_of(FailureClass.SLOW_DOWN, policy=policy, first_us=start, retry_after_us=5 * SECOND, draw=0)
    assert last.fate is Fate.LATER
    over = next_of(
        FailureClass.SLOW_DOWN, policy=policy, first_us=start - 1, retry_after_us=5 * SECOND, draw=0
    )
    assert over == Next(fate=Fate.DEAD, reason=Reason.BUDGET)


def test_a_job_that_was_only_asked_to_wait_has_its_whole_budget_ahead() -> None:
    """Hours of 429 and then one 500 do not kill a job that never failed before."""
    long_ago = NOW - 10 * 3_600 * SECOND
    assert next_of(FailureClass.DOWNSTREAM, failures=0, first_us=long_ago).fate is Fate.RETRY
    assert next_of(FailureClass.DOWNSTREAM, failures=1, first_us=long_ago).fate is Fate.DEAD


@given(
    failure=st.sampled_from(FailureClass),
    effects=st.sampled_from(Effects),
    failures=st.sampled_from([0, 1, 2, 3, 50, 2_000]),
    age_us=st.sampled_from([0, 1, 59 * SECOND, 60 * SECOND, 61 * SECOND, SLOW_DOWN_US, SLOW_DOWN_US + 1]),
    draw=st.sampled_from([0.0, 0.25, HARDLY_LESS_THAN_ONE]),
    asked_us=st.sampled_from([None, 0, 1, SECOND, RETRY_AFTER_MAX_US, 10**15]),
    says_never=st.booleans(),
    attempts=st.sampled_from([None, 1, 2, 3]),
)
def test_whatever_happens_is_safe_and_bounded(
    failure: FailureClass,
    effects: Effects,
    failures: int,
    age_us: int,
    draw: float,
    asked_us: int | None,
    says_never: bool,
    attempts: int | None,
) -> None:
    """Nobody: a job neither circles for ever, nor is repeated where a machine must not."""
    policy = Retry(for_ms=60_000, base_ms=1_000, cap_ms=8_000, attempts=attempts)
    next_ = next_of(
        failure, effects, policy=policy, failures=failures, first_us=NOW - age_us, draw=draw,
        retry_after_us=asked_us, says_never=says_never,
    )  # fmt: skip
    comes_back = next_.fate in (Fate.RETRY, Fate.LATER)
    assert next_.reason is not None
    assert 0 <= next_.delay_us <= RETRY_AFTER_MAX_US + SECOND
    assert not (next_.delay_us and not comes_back)
    assert not (comes_back and says_never)
    assert not (comes_back and effects is Effects.ONCE and failure is FailureClass.AMBIGUOUS)
    assert (next_.fate is Fate.LATER) <= (failure is FailureClass.SLOW_DOWN)
    if next_.fate is Fate.RETRY:
        assert attempts is None or failures + 1 < attempts
        assert failures == 0 or next_.delay_us <= 60 * SECOND - age_us
    if next_.fate is Fate.LATER:
        assert next_.delay_us <= SLOW_DOWN_US - age_us
        assert next_.delay_us >= min(asked_us or 0, RETRY_AFTER_MAX_US)
