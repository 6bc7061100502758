"""What becomes of jobs, as lines."""

import pytest

from breaker.core.events import (
    AcksLate,
    CallbackEnded,
    JobAccepted,
    JobsLost,
    JobsReclaimed,
    JobStarted,
    Result,
)
from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, Reason
from tests.signals.scene import TRACE_ID, Lines, attempted


def test_a_job_that_ended_is_one_line(lines: Lines) -> None:
    """On-call searches by the id that the caller was given."""
    (line,) = lines(attempted(Fate.DEAD, Reason.CALLER, status=422, result=Result.CLIENT_ERROR))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning", "event": "job_dead", "operation": "billing.charge", "job": "billing.charge~01K",
        "attempt": 2, "reason": "caller", "status": 422, "result": "client_error", "duration_ms": 250.0,
        "trace_id": TRACE_ID,
    }  # fmt: skip


def test_jobs_that_succeeded_are_sampled_by_counting(lines: Lines) -> None:
    """At 4,000 a second a line each would cost more than the jobs."""
    assert len(lines(*[attempted()] * 100, sample=0.25)) == 25


def test_no_sample_still_tells_of_every_failure(lines: Lines) -> None:
    """What went wrong is what somebody asks about later."""
    found = lines(
        attempted(),
        attempted(Fate.RETRY, Reason.DOWNSTREAM, status=500, result=Result.SERVER_ERROR),
        attempted(Fate.UNKNOWN, Reason.AMBIGUOUS, status=0, result=Result.TIMEOUT),
        attempted(Fate.DEAD, Reason.BUDGET, status=500, result=Result.SERVER_ERROR),
        sample=0.0,
    )
    told = [(line["level"], line["event"], line["reason"]) for line in found]
    assert told == [
        ("info", "attempt_failed", "downstream"),
        ("warning", "job_unknown", "ambiguous"),
        ("warning", "job_dead", "budget"),
    ]


def test_a_result_that_was_not_kept_is_told(lines: Lines) -> None:
    """Its caller will ask where the answer went."""
    assert [line.get("dropped") for line in lines(attempted(dropped=True), attempted())] == [True, None]


@pytest.mark.parametrize(
    ("lost", "expired", "expected"),
    [(2, 0, ["attempts_lost"]), (0, 3, ["jobs_expired"]), (1, 1, ["attempts_lost", "jobs_expired"])],
)
def test_what_a_script_ended_is_told_by_number(
    lines: Lines, lost: int, expired: int, expected: list[str]
) -> None:
    """No attempt ended, so that nothing else would say a word of it."""
    found = lines(JobsReclaimed("billing.charge", lost, expired))
    assert [line["event"] for line in found] == expected
    assert [line["count"] for line in found] == [count for count in (lost, expired) if count]


def test_what_threatens_the_promise_to_lose_nothing_is_told(lines: Lines) -> None:
    found = lines(JobsLost("billing.charge", 4), AcksLate("billing.charge", 1))
    for line in found:
        del line["timestamp"]
    assert found == [
        {"level": "critical", "event": "jobs_lost", "operation": "billing.charge", "count": 4},
        {"level": "warning", "event": "acks_late", "operation": "billing.charge", "count": 1},
    ]


def test_callbacks_are_told_by_how_much_they_matter(lines: Lines) -> None:
    """One that was given up needs a person; one that will be tried again does not."""
    ends = [CallbackEnded("billing.charge", "01K", result, "500") for result in ("ok", "retry", "failed")]
    assert [(line["level"], line["event"]) for line in lines(*ends, level="debug")] == [
        ("debug", "callback_delivered"), ("info", "callback_postponed"), ("warning", "callback_failed"),
    ]  # fmt: skip


def test_what_the_line_of_its_call_says_is_not_said_again(lines: Lines) -> None:
    """One line when it comes, one when it ends."""
    assert lines(
        JobAccepted("billing.charge", "01K", Band.HIGH, "rate"), JobStarted("billing.charge", Band.HIGH, 1, 2.0)
    ) == []  # fmt: skip
