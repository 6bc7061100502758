"""
Job series: the metric families of what this replica does with jobs, and each operation's children.

Only operations with a queue have them. How many jobs there are is not counted here: that is known to the
store alone, see `queues.py`. Their retries are counted with those of calls, see `retry_metrics.py`.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from breaker.core.job_policy import BANDS
from breaker.signals.series import Add, Observe

WAIT_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)  # from at once to a day
ITEM_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
CALLBACK_RESULTS = ("ok", "retry", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeries:
    """All children of one operation: bound methods, found by what varies."""

    operation: str
    waits: dict[str, Observe]
    batch_items: Observe
    callbacks: dict[str, Add]
    late: Add
    attempts_lost: Add
    results_dropped: Add
    lost: Add


class JobFamilies:
    """The families, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        op = ["operation"]
        self._waits = Histogram(
            "breaker_queue_wait_seconds", "From a job's acceptance (or its Breaker-Not-Before) to its first attempt.",
            [*op, "band"], buckets=WAIT_BUCKETS, registry=registry,
        )  # fmt: skip
        self._batch_items = Histogram(
            "breaker_batch_items", "Jobs that went downstream in one request.",
            op, buckets=ITEM_BUCKETS, registry=registry,
        )  # fmt: skip
        self._callbacks = Counter(
            "breaker_callbacks_total", "Tries to tell a job's caller of its end.",
            [*op, "result"], registry=registry,
        )  # fmt: skip
        self._late = Counter(
            "breaker_jobs_late_total", "Attempts that ended after their lease was lost; what they said was ignored.",
            op, registry=registry,
        )  # fmt: skip
        self._attempts_lost = Counter(
            "breaker_attempts_lost_total", "Attempts whose replica died, as found by this one.",
            op, registry=registry,
        )  # fmt: skip
        self._results_dropped = Counter(
            "breaker_results_dropped_total", "Results that were not kept, because the store is short of memory.",
            op, registry=registry,
        )  # fmt: skip
        self._lost = Gauge(
            "breaker_jobs_lost", "Jobs that this replica gave a 202 for and the store does not know.",
            op, registry=registry,
        )  # fmt: skip

    def make(self, operation: str) -> JobSeries:
        """All children of an operation."""
        return JobSeries(
            operation=operation,
            waits={band: self._waits.labels(operation, band).observe for band in BANDS},
            batch_items=self._batch_items.labels(operation).observe,
            callbacks={result: self._callbacks.labels(operation, result).inc for result in CALLBACK_RESULTS},
            late=self._late.labels(operation).inc,
            attempts_lost=self._attempts_lost.labels(operation).inc,
            results_dropped=self._results_dropped.labels(operation).inc,
            lost=self._lost.labels(operation).inc,
        )

    def remove(self, series: JobSeries) -> None:
        """The operation is not configured any more, or has no queue: its series end."""
        operation = series.operation
        for band in series.waits:
            self._waits.remove(operation, band)
        for result in series.callbacks:
            self._callbacks.remove(operation, result)
        self._batch_items.remove(operation)
        self._lost.remove(operation)
        for metric in (self._late, self._attempts_lost, self._results_dropped):
            metric.remove(operation)
