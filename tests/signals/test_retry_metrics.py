"""Attempts that will be repeated, as they stand on the page."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from breaker.core.circuit_policy import DirectRetry
from breaker.core.events import CallRetried, Result
from breaker.core.jobs import Fate, Reason
from breaker.core.model import Operation
from breaker.signals.metrics import Metrics
from breaker.signals.retry_metrics import CALL_REASONS, JOB_REASONS
from tests.signals.scene import attempted, named, numbers, operation

CHARGE = "operation=billing.charge"


def retrying() -> dict[str, Operation]:
    return {"billing.charge": replace(operation("billing.charge"), direct_retry=DirectRetry())}


def retries(metrics: Metrics) -> dict[str, float]:
    return {
        sample.partition("reason=")[2].rstrip("}"): value
        for sample, value in numbers(metrics).items()
        if sample.startswith("breaker_retries_total{" + CHARGE)
    }


@pytest.mark.parametrize("reason", JOB_REASONS)
def test_an_attempt_of_a_job_that_will_be_repeated_is_a_retry(jobs: Metrics, reason: str) -> None:
    """Retries are load that nobody asked for: who tunes them needs to know why they happen."""
    fate = Fate.LATER if reason == Reason.SLOW_DOWN else Fate.RETRY
    jobs.listen(attempted(fate, reason, status=503, result=Result.SERVER_ERROR))
    jobs.listen(attempted())
    jobs.listen(attempted(Fate.DEAD, Reason.BUDGET, status=500, result=Result.SERVER_ERROR))
    jobs.listen(attempted(Fate.UNKNOWN, Reason.AMBIGUOUS, status=0, result=Result.TIMEOUT))
    assert retries(jobs) == {each: float(each == reason) for each in JOB_REASONS}


@pytest.mark.parametrize("reason", [Result(reason) for reason in CALL_REASONS])
def test_an_attempt_of_a_call_that_will_be_repeated_is_a_retry(
    make_metrics: Callable[..., Metrics], reason: Result
) -> None:
    """The same question about direct calls, in the downstream's own words; all at 0 before the first."""
    metrics = make_metrics()
    metrics.configured("v2", retrying())
    assert retries(metrics) == dict.fromkeys(CALL_REASONS, 0)
    metrics.listen(CallRetried("billing.charge", reason))
    assert retries(metrics) == {each: float(each == reason) for each in CALL_REASONS}


def test_only_operations_that_repeat_have_series_of_retries(metrics: Metrics) -> None:
    """Series that are for ever 0 cost as much as those that tell something."""
    metrics.listen(CallRetried("billing.charge", Result.TIMEOUT))
    assert not any(name.startswith("breaker_retries_total") for name in numbers(metrics))


def test_a_reload_changes_why_an_operation_repeats(make_metrics: Callable[..., Metrics]) -> None:
    """Dashboards list the reasons that can occur now."""
    metrics = make_metrics()
    shown = []
    for operations in (
        retrying(),
        named(queues=("billing.charge",)),
        named("billing.charge"),
        retrying(),
        {},
    ):
        metrics.configured("v2", operations)
        metrics.listen(CallRetried("billing.charge", Result.TIMEOUT))
        shown.append(tuple(retries(metrics)))
    assert shown == [CALL_REASONS, JOB_REASONS, (), CALL_REASONS, ()]


def test_a_reload_that_changes_nothing_keeps_the_count(make_metrics: Callable[..., Metrics]) -> None:
    """A rate over a reload would otherwise begin anew."""
    metrics = make_metrics()
    metrics.configured("v2", retrying())
    metrics.listen(CallRetried("billing.charge", Result.TIMEOUT))
    metrics.configured("v3", retrying())
    assert retries(metrics)[Result.TIMEOUT] == 1
