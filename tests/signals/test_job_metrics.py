"""What a replica counts of the jobs that it runs."""

from collections.abc import Callable

from breaker.core.events import (
    AcksLate,
    BatchSent,
    CallbackEnded,
    JobsLost,
    JobsReclaimed,
    JobStarted,
    Result,
)
from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, Reason
from breaker.signals.metrics import Metrics
from tests.signals.scene import attempted, named, numbers

CHARGE = "operation=billing.charge"


def test_only_the_first_attempt_counts_as_a_wait(jobs: Metrics) -> None:
    """The promise is about the start; a retry an hour later would look like a broken one."""
    jobs.listen(JobStarted("billing.charge", Band.HIGH, 1, 4.0))
    jobs.listen(JobStarted("billing.charge", Band.HIGH, 2, 0.0))
    jobs.listen(JobStarted("billing.charge", Band.LOW, 1, 4_000.0))
    found = numbers(jobs)
    assert found["breaker_queue_wait_seconds_count{band=high," + CHARGE + "}"] == 1
    assert found["breaker_queue_wait_seconds_bucket{band=high,le=5.0," + CHARGE + "}"] == 1
    assert found["breaker_queue_wait_seconds_bucket{band=high,le=1.0," + CHARGE + "}"] == 0
    assert found["breaker_queue_wait_seconds_sum{band=low," + CHARGE + "}"] == 4_000
    assert found["breaker_queue_wait_seconds_count{band=normal," + CHARGE + "}"] == 0


def test_an_attempt_is_a_downstream_call(jobs: Metrics) -> None:
    """The downstream's owner sees one stream of calls, from callers and from the queue."""
    jobs.listen(attempted())
    jobs.listen(attempted(Fate.RETRY, Reason.AMBIGUOUS, status=0, result=Result.TIMEOUT))
    found = numbers(jobs)
    assert found["breaker_downstream_calls_total{" + CHARGE + ",result=ok}"] == 1
    assert found["breaker_downstream_calls_total{" + CHARGE + ",result=timeout}"] == 1
    assert found["breaker_downstream_duration_seconds_sum{" + CHARGE + "}"] == 0.5


def test_a_payload_that_cannot_be_opened_is_no_downstream_call(jobs: Metrics) -> None:
    """Nothing was sent: the downstream must not be blamed for our keys."""
    jobs.listen(attempted(Fate.DEAD, Reason.UNDECRYPTABLE, status=0, result=Result.ABANDONED))
    found = numbers(jobs)
    assert found["breaker_downstream_calls_total{" + CHARGE + ",result=abandoned}"] == 0
    assert found["breaker_downstream_duration_seconds_count{" + CHARGE + "}"] == 0


def test_what_goes_wrong_with_jobs_is_counted(jobs: Metrics) -> None:
    """Each is a question that on-call asks: were replicas lost, is memory short, do callers hear of ends?"""
    jobs.listen(JobsReclaimed("billing.charge", 3, 1))
    jobs.listen(AcksLate("billing.charge", 2))
    jobs.listen(attempted(dropped=True))
    jobs.listen(BatchSent("billing.charge", 40))
    for result in ("ok", "retry", "retry", "failed"):
        jobs.listen(CallbackEnded("billing.charge", "01K", result, ""))
    found = numbers(jobs)
    assert found["breaker_attempts_lost_total{" + CHARGE + "}"] == 3
    assert found["breaker_jobs_late_total{" + CHARGE + "}"] == 2
    assert found["breaker_results_dropped_total{" + CHARGE + "}"] == 1
    assert found["breaker_batch_items_bucket{le=50.0," + CHARGE + "}"] == 1
    assert found["breaker_batch_items_bucket{le=20.0," + CHARGE + "}"] == 0
    callbacks = {
        result: found[f"breaker_callbacks_total{{{CHARGE},result={result}}}"]
        for result in ("ok", "retry", "failed")
    }
    assert callbacks == {"ok": 1, "retry": 2, "failed": 1}


def test_lost_jobs_are_shown_from_the_start_and_add_up(jobs: Metrics) -> None:
    """`BreakerJobsLost` needs a 0 to rise from, and a second failover must not hide the first."""
    name = "breaker_jobs_lost{" + CHARGE + "}"
    seen = [numbers(jobs)[name]]
    for count in (5, 2):
        jobs.listen(JobsLost("billing.charge", count))
        seen.append(numbers(jobs)[name])
    assert seen == [0, 5, 7]


def test_an_operation_without_a_queue_has_no_series_of_jobs(jobs: Metrics) -> None:
    """Hundreds of series that are for ever 0 cost as much as those that tell something."""
    of_jobs = ("breaker_queue_", "breaker_jobs_", "breaker_batch_", "breaker_retries_", "breaker_callbacks_")
    found = [name for name in numbers(jobs) if name.startswith(of_jobs)]
    assert found
    assert not any("support.create" in name or "_unknown" in name for name in found)


def test_a_reload_gives_a_queue_and_takes_it(make_metrics: Callable[..., Metrics]) -> None:
    """Dashboards of jobs list the operations that have a queue now."""
    metrics = make_metrics("billing.charge")
    wait, queued = "breaker_queue_wait_seconds_count{band=low," + CHARGE + "}", "outcome=queued,reason=rate}"
    shown = []
    for operations in (named(queues=("billing.charge",)), named("billing.charge"), {}):
        metrics.configured("v2", operations)
        found = numbers(metrics)
        shown.append((wait in found, any(name.endswith(queued) for name in found)))
        jobs_of_it = [name for name in found if CHARGE in name and "_lost{" in name]
        assert bool(jobs_of_it) == (wait in found), jobs_of_it
    assert shown == [(True, True), (False, False), (False, False)]


def test_a_job_that_ends_after_its_queue_was_removed_fails_nobody(jobs: Metrics) -> None:
    """Its last attempts run on; what they meet is still counted as calls of the downstream."""
    jobs.configured("v2", named("support.create"))
    jobs.listen(attempted(Fate.RETRY, Reason.DOWNSTREAM, status=500, result=Result.SERVER_ERROR))
    jobs.listen(JobsLost("billing.charge", 1))
    found = numbers(jobs)
    assert found["breaker_downstream_calls_total{operation=_unknown,result=server_error}"] == 1
    assert not any("billing.charge" in name for name in found)
