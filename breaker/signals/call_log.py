"""
The call log: events as lines.

1. One line per call. Plain forwards, refusals and 202s are sampled by counting, everything else is always told.
2. What becomes of jobs is told by `job_log.py`, of downstreams by `circuit_log.py`, of the store and the replicas
   by `store_log.py`, all through the same sink.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from breaker.core.events import (
    AcksLate,
    AlertMoved,
    BatchSent,
    CallbackEnded,
    CallEnded,
    CallRetried,
    CircuitMoved,
    CircuitSeen,
    ClockJumped,
    ConfigLoaded,
    DegradedBegan,
    DegradedEnded,
    Event,
    JobAccepted,
    JobAttempted,
    JobsLost,
    JobsReclaimed,
    JobStarted,
    LeasesLost,
    LetterEnded,
    LoneReplica,
    Outcome,
    OverAdmitted,
    OverrideChanged,
    ReplicasSeen,
    RoundTripEnded,
    SlowedDown,
    StewardChanged,
    StoreFailed,
    StoreRecovered,
    StoreReset,
    TenantsExceeded,
)
from breaker.signals.alert_log import AlertLog
from breaker.signals.circuit_log import CircuitLog
from breaker.signals.job_log import JobLog
from breaker.signals.logs import Logs, head
from breaker.signals.store_log import StoreLog

SERVER_ERROR = 500


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
        self._logs, self._put = logs, logs.put
        self._sample = sample
        self._due = 0.0
        self._jobs = JobLog(self._tell, sample=sample)
        self._alerts = AlertLog(self._tell)
        self._circuits, self._store = CircuitLog(self._tell, now=now), StoreLog(self._tell, now=now)

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
            case CircuitMoved() | CircuitSeen() | LoneReplica() | SlowedDown() | CallRetried():
                self._circuits.listen(event)
            case StoreFailed() | StoreRecovered() | ClockJumped() | StoreReset():
                self._store.listen(event)
            case DegradedBegan() | DegradedEnded() | OverAdmitted() | ReplicasSeen() | StewardChanged():
                self._store.listen(event)
            case LeasesLost():
                self._tell("warning", "leases_lost", operation=event.operation, count=event.count)
            case OverrideChanged():
                self._override(event)
            case AlertMoved() | LetterEnded():
                self._alerts.listen(event)
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

    def _override(self, event: OverrideChanged) -> None:
        moment = datetime.fromtimestamp(event.until_us / 1e6, UTC).isoformat(timespec="seconds")
        until = moment.replace("+00:00", "Z") if event.until_us else ""
        self._tell(
            "info", "override_set" if until else "override_ended", operation=event.operation, author=event.author,
            reason=event.reason, until=until, limits=event.words,
        )  # fmt: skip

    def _tell(self, level: str, event: str, **fields: Any) -> None:
        """Like a call's line, what says nothing is left out."""
        if self._logs.is_on(level):
            self._put({**head(level, event), **{name: value for name, value in fields.items() if value}})
