"""
The call log: events as lines.

1. One line per call. Plain forwards, refusals and 202s are sampled by counting, everything else is always told.
2. An outage of the store is told when it begins, every 10 s while it lasts, and when it ends;
   one line per failed exchange would drown what matters.
3. What becomes of jobs is told by `job_log.py`, through the same sink.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from breaker.core.events import (
    AcksLate,
    BatchSent,
    CallbackEnded,
    CallEnded,
    ClockJumped,
    ConfigLoaded,
    Event,
    JobAccepted,
    JobAttempted,
    JobsLost,
    JobsReclaimed,
    JobStarted,
    LeasesLost,
    Outcome,
    RoundTripEnded,
    StoreFailed,
    StoreRecovered,
    TenantsExceeded,
)
from breaker.signals.job_log import JobLog
from breaker.signals.logs import Logs, head

FAILURES_S = 10.0  # one line per kind of store failure in this time
SERVER_ERROR = 500


@dataclass(slots=True)
class Quiet:
    """A kind of failure that was told: not again before `until`, and how many were left out since."""

    until: float
    left_out: int = 0


class CallLog:
    """Listens, and writes lines."""

    def __init__(self, logs: Logs, *, sample: float, now: Callable[[], float] = time.monotonic) -> None:
        """
        Wire it.

        Args:
            logs: Where to.
            sample: Share of plain forwards, and of jobs that succeeded, that are told, 0..1.
            now: Seconds, monotonic.

        """
        self._logs, self._put, self._now = logs, logs.put, now
        self._sample = sample
        self._due = 0.0
        self._quiet: dict[str, Quiet] = {}
        self._jobs = JobLog(self._tell, sample=sample)

    def listen(self, event: Event) -> None:
        """Write a line, if this is worth one."""
        if type(event) is CallEnded:
            if self._logs.is_info_on:
                self._call(event)
            return
        match event:  # what happens most often first
            case CallEnded() | RoundTripEnded() | JobAccepted() | JobStarted() | BatchSent():
                pass  # told above, or with its call; and round trips are counted, not told
            case JobAttempted() | JobsReclaimed() | JobsLost() | AcksLate() | CallbackEnded():
                self._jobs.listen(event)
            case StoreFailed():
                self._store_failed(event)
            case StoreRecovered():
                left_out = sum(quiet.left_out for quiet in self._quiet.values())
                self._quiet.clear()
                self._tell("warning", "store_recovered", seconds=round(event.seconds, 3), left_out=left_out)
            case ClockJumped():
                self._tell("error", "clock_jumped", seconds=event.jumped_us / 1e6)
            case LeasesLost():
                self._tell("warning", "leases_lost", operation=event.operation, count=event.count)
            case TenantsExceeded():
                self._tell("warning", "tenants_exceeded", caller=event.caller)
            case ConfigLoaded(ok=True):
                self._tell("info", "config_loaded", version=event.version, detail=event.detail)
            case ConfigLoaded():
                self._tell("error", "config_refused", version=event.version, detail=event.detail)

    def _call(self, event: CallEnded) -> None:
        is_plain = event.outcome is Outcome.FORWARDED and event.status < SERVER_ERROR and event.shadow is None
        if is_plain or event.outcome in (Outcome.REFUSED, Outcome.QUEUED):
            # By counting, not by chance: the same calls give the same lines. Refusals and 202s too: at
            # ten times the capacity nine of ten lines would be such, which the metrics count.
            self._due += self._sample
            if self._due < 1.0:
                return
            self._due -= 1.0
        line: dict[str, Any] = {
            "timestamp": datetime.now(UTC), "level": "info", "event": "call",
            "operation": event.operation, "outcome": event.outcome,
        }  # fmt: skip
        if event.reason:
            line["reason"] = event.reason
        if event.status:
            line["status"] = event.status
        if event.caller:
            line["caller"] = event.caller
        if event.tenant:
            line["tenant"] = event.tenant
        if event.decision:
            line["decision"] = event.decision
        if event.request_id:
            line["request_id"] = event.request_id
        # Whole microseconds, so that no line says 1.2000000000000002.
        line["duration_ms"] = int(event.duration_s * 1e6) / 1e3
        line["admission_ms"] = int(event.admission_s * 1e6) / 1e3
        if event.downstream_s:
            line["downstream_ms"] = int(event.downstream_s * 1e6) / 1e3
        if event.trace_id:
            line["trace_id"] = event.trace_id
        self._put(line)

    def _store_failed(self, event: StoreFailed) -> None:
        now = self._now()
        quiet = self._quiet.get(event.kind)
        if quiet and now < quiet.until:
            quiet.left_out += 1
            return
        left_out = quiet.left_out if quiet else 0
        self._quiet[event.kind] = Quiet(now + FAILURES_S)
        self._tell("error", "store_failed", kind=event.kind, detail=event.detail, left_out=left_out)

    def _tell(self, level: str, event: str, **fields: Any) -> None:
        """Like a call's line, what says nothing is left out."""
        if self._logs.is_on(level):
            self._put({**head(level, event), **{name: value for name, value in fields.items() if value}})
