"""What alerts count of calls and jobs: every way in which one can end is in or out, on purpose."""

import pytest

from breaker.core.alert_table import FAILED_RESULTS, FULL_REASONS, REFUSED_REASONS, SERVED_RESULTS
from breaker.core.events import Action, JobsLost, Outcome, Result
from breaker.core.jobs import Fate, Reason
from breaker.signals.outcomes import PAIRS, QUEUE_PAIRS, UNKNOWN, UNKNOWN_PAIRS
from breaker.signals.tally import Tally
from breaker.store.tallies import NAMES
from tests.signals.scene import attempted, ended

CHARGE = "billing.charge"
# No fault of ours and no want of capacity: a mistake of the caller, or what somebody decided.
THEIRS = frozenset((
    "tenant", "tenant-slots", "tenant-jobs", "tenant-bytes", "tenant-slow-down",
    "bad-request", "request-timeout", "payload-too-large", "contract", "too-costly", "deadline",
    "unauthenticated", "forbidden", "idempotency-key-missing", "idempotency-key-reused", "in-progress", "result-expired",
    "unknown-operation", "method-not-allowed",
    "closed", "draining", "paused",
    "durability-not-met",
))  # fmt: skip


def test_every_reason_to_refuse_is_in_or_out_on_purpose() -> None:
    """A new one would else page nobody, or somebody for a caller's mistake."""
    known = PAIRS[Outcome.REFUSED] | QUEUE_PAIRS[Outcome.REFUSED] | UNKNOWN_PAIRS[Outcome.REFUSED]
    assert not THEIRS & set(REFUSED_REASONS)
    assert THEIRS | set(REFUSED_REASONS) == known
    assert set(FULL_REASONS) < set(REFUSED_REASONS)


def test_every_result_is_in_or_out_on_purpose() -> None:
    """What a caller abandoned says nothing of the downstream."""
    assert set(FAILED_RESULTS) | set(SERVED_RESULTS) | {Result.ABANDONED} == set(Result)
    assert not set(FAILED_RESULTS) & set(SERVED_RESULTS)


@pytest.mark.parametrize("reason", sorted(REFUSED_REASONS))
def test_a_refusal_for_want_of_capacity_is_a_bad_call(reason: str) -> None:
    """Its caller got no answer; where the queue is full that is counted too."""
    tally = Tally()
    tally.listen(ended(Outcome.REFUSED, reason, status=503, result=None))
    full = {"full": 1} if reason in FULL_REASONS else {}
    assert tally.take() == {CHARGE: {"refused": 1, "all": 1, "bad": 1} | full}


@pytest.mark.parametrize("reason", sorted(THEIRS))
def test_any_other_refusal_is_none_of_ours(reason: str) -> None:
    """Who pages on-call with a wrong request owns the telephone."""
    tally = Tally()
    tally.listen(ended(Outcome.REFUSED, reason, status=429, result=None))
    assert tally.take() == {}


def test_a_refusal_at_the_door_is_of_no_operation() -> None:
    """The store keeps tallies of operations only."""
    tally = Tally()
    tally.listen(ended(Outcome.REFUSED, "over-capacity", operation=UNKNOWN, status=503, result=None))
    assert tally.take() == {}


@pytest.mark.parametrize("result", list(Result))
def test_answers_are_counted_alike_of_calls_and_of_jobs(result: Result) -> None:
    """A queue whose attempts fail burns the same budget."""
    failed = {"answers": 1, "failures": 1, str(result): 1, "all": 1, "bad": 1}
    expected = (
        {} if result is Result.ABANDONED else failed if result in FAILED_RESULTS else {"answers": 1, "all": 1}
    )
    for event in (ended(result=result), attempted(result=result)):
        tally = Tally()
        tally.listen(event)
        assert {name: dict(counts) for name, counts in tally.take().items() if counts} == (
            {CHARGE: expected} if expected else {}
        )


def test_an_attempt_that_could_not_be_sent_is_no_answer() -> None:
    """The downstream never saw it."""
    tally = Tally()
    tally.listen(attempted(Fate.DEAD, Reason.UNDECRYPTABLE, result=Result.SERVER_ERROR))
    tally.listen(attempted(Fate.RETRY, Reason.DOWNSTREAM, result=None))
    tally.listen(JobsLost(CHARGE, 3))
    assert tally.take() == {}


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (Action.QUEUED, "queued"),
        (Action.DELAYED, "delayed"),
        (Action.REFUSED, "turned_away"),
        (Action.LET_THROUGH, "let_through"),
    ],
)
def test_what_was_done_with_a_call_beyond_capacity_is_counted(action: Action, name: str) -> None:
    """The alert says it: on-call asks first whether anything is lost."""
    tally = Tally()
    tally.listen(ended(Outcome.QUEUED, "rate", result=None, action=action))
    assert tally.take() == {CHARGE: {name: 1}}


def test_what_was_taken_is_told_once_and_what_was_not_told_is_not_lost() -> None:
    """The store did not take it: it comes with what is counted next."""
    tally = Tally()
    tally.listen(ended())
    first = tally.take()
    assert (first, tally.take()) == ({CHARGE: {"answers": 1, "all": 1}}, {})
    tally.listen(ended())
    for operation, counts in first.items():
        tally.put_back(operation, counts)
    assert tally.take() == {CHARGE: {"answers": 2, "all": 2}}


def test_the_store_reads_every_name_that_is_counted() -> None:
    """One that it did not know would be counted for nobody."""
    tally = Tally()
    for action in Action:
        tally.listen(ended(action=action))
    for result in Result:
        tally.listen(ended(result=result))
    tally.listen(ended(Outcome.REFUSED, "jobs", result=None))
    assert tally.take()[CHARGE].keys() == set(NAMES)
