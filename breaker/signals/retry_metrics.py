"""
Retry metrics: attempts that will be repeated, of calls and of jobs.

One family, because both are load on the downstream that no caller sent. Jobs say why in their own words (those of
their timelines), direct calls by what the downstream made of the attempt. Only operations that repeat have series.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter

from breaker.core.events import CallRetried, JobAttempted, Result
from breaker.core.jobs import Reason
from breaker.core.model import Operation
from breaker.signals.series import Add

JOB_REASONS: tuple[str, ...] = (Reason.DOWNSTREAM, Reason.AMBIGUOUS, Reason.SLOW_DOWN)
CALL_REASONS: tuple[str, ...] = (Result.CONNECT_ERROR, Result.TIMEOUT, Result.SERVER_ERROR, Result.SLOW_DOWN)


class RetryMetrics:
    """All that is exported of retries by one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._retries = Counter(
            "breaker_retries_total", "Attempts of calls and of jobs that will be repeated.",
            ["operation", "reason"], registry=registry,
        )  # fmt: skip
        self._series: dict[str, dict[str, Add]] = {}

    def configured(self, operations: Mapping[str, Operation]) -> None:
        """These operations exist from now on, no others."""
        wanted = {name: reasons_of(operation) for name, operation in operations.items()}
        for name, series in list(self._series.items()):
            if tuple(series) != wanted.get(name):  # one that gained or lost its queue has other reasons
                for reason in series:
                    self._retries.remove(name, reason)
                del self._series[name]
        for name, reasons in wanted.items():
            if reasons and name not in self._series:
                self._series[name] = {reason: self._retries.labels(name, reason).inc for reason in reasons}

    def listen(self, event: CallRetried | JobAttempted) -> None:
        """Count what will be repeated; an operation that was removed meanwhile is left out."""
        if isinstance(event, JobAttempted) and event.is_ended:
            return
        series = self._series.get(event.operation, {})
        if count := series.get(event.reason):
            count(1)


def reasons_of(operation: Operation) -> tuple[str, ...]:
    """Why attempts of this operation are repeated; empty when none is."""
    if operation.queue:
        return JOB_REASONS
    return CALL_REASONS if operation.direct_retry else ()
