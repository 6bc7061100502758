"""When replicas together see that a downstream fails, both sides of each edge."""

from dataclasses import replace

import pytest

from breaker.core.quorum import CircuitTerms, Seen, is_over, trips

TERMS = CircuitTerms(failure_ppm=500_000, min_calls=10, consecutive=5)
FAILS = Seen(calls=20, failed=20, streak=20)
FINE = Seen(calls=1)


def a_share(failed: int, calls: int) -> Seen:
    """Failures that do not come in a row."""
    return Seen(calls=calls, failed=failed, streak=1)


@pytest.mark.parametrize(
    ("rate_ppm", "failed", "calls", "opens"),
    [
        (500_000, 5, 10, True), (500_000, 4, 10, False), (500_000, 499, 1_000, False), (500_000, 500, 1_000, True),
        (333_333, 4, 12, True), (333_334, 4, 12, False), (1_000_000, 19, 20, False), (1_000_000, 20, 20, True),
    ],
)  # fmt: skip
def test_it_opens_from_the_stated_share_on(rate_ppm: int, failed: int, calls: int, *, opens: bool) -> None:
    """Who writes `failure_rate: 50%` means 50 %, and not one call more or less."""
    assert trips(replace(TERMS, failure_ppm=rate_ppm), [a_share(failed, calls)]) is opens


@pytest.mark.parametrize(("slow", "opens"), [(2, False), (3, True)])
def test_slow_calls_count_from_their_own_share_on(slow: int, *, opens: bool) -> None:
    """A downstream that answers after a minute is as useless as one that does not."""
    assert trips(replace(TERMS, slow_ppm=300_000), [Seen(calls=10, slow=slow)]) is opens


def test_slow_calls_do_not_count_unless_somebody_says_so() -> None:
    """Most operations state no `slow_rate`, and must not open because calls take long."""
    assert not trips(TERMS, [Seen(calls=100, slow=100)])


def test_slow_and_failed_calls_are_not_added_up() -> None:
    """A call may be both: it must not count twice."""
    assert not trips(replace(TERMS, slow_ppm=500_000), [Seen(calls=10, failed=4, slow=4, streak=1)])


@pytest.mark.parametrize(("calls", "opens"), [(9, False), (10, True)])
def test_shares_mean_something_from_the_least_number_of_calls_on(calls: int, *, opens: bool) -> None:
    """One failure of two calls is no reason to stop a business."""
    assert trips(TERMS, [a_share(calls, calls)]) is opens


def test_the_least_number_is_of_calls_over_all_replicas() -> None:
    """With seven replicas each of them sees a seventh."""
    assert trips(TERMS, [a_share(5, 5), a_share(5, 5)])
    assert not trips(TERMS, [a_share(5, 5), a_share(4, 4)])


@pytest.mark.parametrize(("streak", "opens"), [(4, False), (5, True)])
def test_where_calls_are_rare_failures_in_a_row_count_instead(streak: int, *, opens: bool) -> None:
    """An operation with a call a minute never has ten in a window."""
    assert trips(TERMS, [Seen(calls=1, failed=1, streak=streak)]) is opens


def test_failures_in_a_row_do_not_count_while_most_calls_succeed() -> None:
    """On a busy operation five in a row are an accident."""
    assert not trips(TERMS, [Seen(calls=100, failed=5, streak=5)])
    assert not trips(TERMS, [Seen(calls=9, failed=4, streak=4), Seen(calls=2, failed=1, streak=5)])


def test_nothing_is_too_high_a_share_of_no_calls() -> None:
    """An operation that nobody calls must not open because of a streak of last night."""
    assert not is_over(TERMS, 0, 0, 0)
    assert not trips(TERMS, [])
    assert not trips(TERMS, [Seen(calls=0, streak=9)])


@pytest.mark.parametrize(
    ("replicas", "needed"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (6, 2), (7, 3), (9, 3), (10, 4)]
)
def test_enough_replicas_must_see_it_by_themselves(replicas: int, needed: int) -> None:
    """The owner of the good nodes: one bad one, or two of seven, must not cut them off."""
    for seeing in range(replicas + 1):
        windows = [FAILS] * seeing + [FINE] * (replicas - seeing)
        assert trips(TERMS, windows) is (seeing >= needed), f"{seeing} of {replicas}"


def test_replicas_without_calls_have_no_say_and_are_not_counted() -> None:
    """Where one replica of three makes all calls, it decides."""
    assert trips(TERMS, [FAILS, Seen(), Seen(streak=7)])


@pytest.mark.parametrize(("calls", "opens"), [(2, False), (3, True)])
def test_a_replica_votes_from_three_calls_on(calls: int, *, opens: bool) -> None:
    """One failed call on a second node does not confirm what the first sees."""
    assert trips(TERMS, [FAILS, a_share(calls, calls)]) is opens


@pytest.mark.parametrize(("streak", "opens"), [(4, False), (5, True)])
def test_a_replica_with_few_calls_votes_by_failures_in_a_row(streak: int, *, opens: bool) -> None:
    """Its calls may be rare while the other's are not."""
    assert trips(TERMS, [FAILS, Seen(calls=1, failed=1, streak=streak)]) is opens


def test_a_replica_that_sees_too_small_a_share_does_not_vote() -> None:
    """It sees failures, too, but no more than are allowed."""
    assert not trips(TERMS, [Seen(calls=90, failed=90, streak=90), a_share(4, 10)])
    assert trips(TERMS, [Seen(calls=90, failed=90, streak=90), a_share(5, 10)])


def test_rare_failures_in_a_row_need_a_quorum_of_their_own() -> None:
    """Two calls that failed on one node are not yet news on the other."""
    rare = Seen(calls=1, failed=1, streak=5)
    assert trips(TERMS, [rare, rare])
    assert not trips(TERMS, [rare, a_share(3, 3)]), "it votes, but not by failures in a row"
