"""The window of one replica, both sides of its edges."""

import pytest

from breaker.core.quorum import Seen
from breaker.core.window import BUCKETS, Window

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND  # the beginning of a bucket
BUCKET = SECOND
WINDOW = BUCKETS * BUCKET


def a_window(*moments: int, failed: bool = True, slow: bool = False) -> Window:
    window = Window(window_us=WINDOW)
    for moment in moments:
        window.count(moment, failed=failed, slow=slow)
    return window


def test_calls_are_summed_up_by_how_they_ended() -> None:
    """Whoever decides: shares are of all calls, and a slow one may have succeeded."""
    window = a_window(NOW, NOW + BUCKET)
    window.count(NOW + BUCKET, failed=False, slow=True)
    window.count(NOW + 2 * BUCKET, failed=True, slow=True)
    moment = NOW + 2 * BUCKET
    assert window.seen(moment) == Seen(at_us=moment, calls=4, failed=3, slow=2, streak=0)


def test_a_call_of_a_buckets_first_microsecond_counts_for_the_whole_window() -> None:
    """The owner of a rare operation: a call a minute ago is no news, and one of half a minute ago is."""
    assert a_window(NOW).seen(NOW + WINDOW - 1).calls == 1
    assert a_window(NOW).seen(NOW + WINDOW).calls == 0


def test_a_call_of_a_buckets_last_microsecond_counts_for_all_but_one_bucket() -> None:
    """That is how exact ten buckets are: at least nine tenths of the window, never more than all of it."""
    window = a_window(NOW + BUCKET - 1)
    assert window.seen(NOW + WINDOW - 1).calls == 1
    assert window.seen(NOW + WINDOW).calls == 0


def test_what_is_old_goes_a_bucket_at_a_time() -> None:
    """A circuit must not forget all at once what failed over half a minute."""
    window = a_window(*(NOW + at * BUCKET for at in range(BUCKETS)))
    left = [window.seen(NOW + (BUCKETS - 1 + at) * BUCKET).calls for at in range(BUCKETS + 1)]
    assert left == list(range(BUCKETS, -1, -1))


def test_a_bucket_is_used_anew_and_not_added_to() -> None:
    """One call a second for a minute are ten in ten seconds."""
    window = a_window(*(NOW + at * BUCKET for at in range(6 * BUCKETS)))
    assert window.seen(NOW + (6 * BUCKETS - 1) * BUCKET).calls == BUCKETS


@pytest.mark.parametrize("silence", [WINDOW, WINDOW + 1, 7 * WINDOW + 3 * BUCKET])
def test_after_a_silence_nothing_is_left(silence: int) -> None:
    """Calls of last night say nothing of this morning."""
    window = a_window(*(NOW + at * BUCKET for at in range(BUCKETS)))
    latest = NOW + (BUCKETS - 1) * BUCKET
    window.count(latest + silence, failed=False, slow=False)
    assert window.seen(latest + silence).calls == 1


@pytest.mark.parametrize("back", [BUCKET, WINDOW, 3_600 * SECOND])
def test_a_clock_that_goes_back_makes_the_window_begin_anew(back: int) -> None:
    """What was counted then would else come to life again when time gets there."""
    window = a_window(NOW, NOW + 3 * BUCKET)
    assert window.seen(NOW + 3 * BUCKET - back).calls == 0
    window.count(NOW + 3 * BUCKET - back, failed=True, slow=False)
    assert window.seen(NOW + 3 * BUCKET).calls == (1 if back < WINDOW else 0)


def test_failures_in_a_row_are_counted_beyond_the_window() -> None:
    """Where there is a call an hour, five failures in a row are as bad as five in a second."""
    window = a_window(NOW, NOW + 10 * WINDOW, NOW + 20 * WINDOW)
    assert window.seen(NOW + 20 * WINDOW).streak == 3
    window.count(NOW + 20 * WINDOW, failed=False, slow=True)
    assert window.seen(NOW + 20 * WINDOW).streak == 0, "a slow answer is one"


@pytest.mark.parametrize(("lasted", "streak"), [(WINDOW - 1, 0), (WINDOW, 2)])
def test_failures_in_a_row_count_only_where_they_last(lasted: int, streak: int) -> None:
    """A burst of failures is judged by its number: `min_calls` would mean nothing if five in a second were enough."""
    window = a_window(NOW, NOW + lasted)
    assert window.seen(NOW + lasted).streak == streak


def test_a_new_generation_begins_with_nothing() -> None:
    """After probes have succeeded, failures from before must not open the circuit again."""
    window = a_window(NOW, NOW, NOW, slow=True)
    window.restart(7)
    assert window.generation == 7
    assert window.seen(NOW) == Seen(at_us=NOW)
