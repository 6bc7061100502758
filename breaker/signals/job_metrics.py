"""
Job metrics: counts what this replica does with jobs, fed by events.

An event of an operation that has no queue any more (a reload took it away while its last jobs ran) is left
out: the store goes on counting those jobs.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from breaker.core.events import (
    AcksLate,
    BatchSent,
    CallbackEnded,
    JobAttempted,
    JobsLost,
    JobsReclaimed,
    JobStarted,
)
from breaker.signals.job_series import JobFamilies, JobSeries

JobEvent = JobStarted | JobAttempted | BatchSent | JobsReclaimed | AcksLate | CallbackEnded | JobsLost


class JobMetrics:
    """All that is exported of jobs by one process, besides what the store says."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families = JobFamilies(registry)
        self._series: dict[str, JobSeries] = {}

    def keep(self, operations: Iterable[str]) -> None:
        """These operations have a queue, no others."""
        wanted = set(operations)
        for name in self._series.keys() - wanted:
            self._families.remove(self._series.pop(name))
        for name in wanted - self._series.keys():
            self._series[name] = self._families.make(name)

    def listen(self, event: JobEvent) -> None:
        """Count what happened."""
        series = self._series.get(event.operation)
        if series is None:
            return
        match event:
            case JobStarted():
                if event.attempt == 1:
                    series.waits[event.band](event.wait_s)
            case JobAttempted():
                if event.dropped:
                    series.results_dropped(1)
            case BatchSent():
                series.batch_items(event.items)
            case JobsReclaimed():
                series.attempts_lost(event.lost)
            case AcksLate():
                series.late(event.count)
            case CallbackEnded():
                series.callbacks[event.result](1)
            case JobsLost():
                series.lost(event.count)
