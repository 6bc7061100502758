"""
The job log: what becomes of jobs, as lines.

1. One line per job that an attempt ended: those that succeeded are sampled by counting, like plain
   forwards, and all others are always told. So is every attempt that will be repeated.
2. What a script ended is told by number, by the replica that asked for work: its jobs are not known here.
3. That a job was accepted is in the line of its call.
"""

from collections.abc import Callable
from typing import Any

from breaker.core.events import AcksLate, CallbackEnded, JobAttempted, JobsLost, JobsReclaimed
from breaker.core.jobs import Fate

JobEvent = JobAttempted | JobsReclaimed | JobsLost | AcksLate | CallbackEnded


class JobLog:
    """Listens to jobs, and tells."""

    def __init__(self, tell: Callable[..., None], *, sample: float) -> None:
        """
        Wire it.

        Args:
            tell: Takes level, event and fields, and writes them if the level is on.
            sample: Share of jobs that succeeded which are told, 0..1.

        """
        self._tell, self._sample = tell, sample
        self._due = 0.0

    def listen(self, event: JobEvent) -> None:
        """Write a line, if this is worth one."""
        match event:
            case JobAttempted():
                self._attempted(event)
            case JobsReclaimed():
                if event.lost:
                    self._tell("warning", "attempts_lost", operation=event.operation, count=event.lost)
                if event.expired:
                    self._tell("warning", "jobs_expired", operation=event.operation, count=event.expired)
            case JobsLost():
                self._tell("critical", "jobs_lost", operation=event.operation, count=event.count)
            case AcksLate():
                self._tell("warning", "acks_late", operation=event.operation, count=event.count)
            case CallbackEnded(result="ok"):
                self._tell("debug", "callback_delivered", **callback_fields(event))
            case CallbackEnded(result="retry"):
                self._tell("info", "callback_postponed", **callback_fields(event))
            case CallbackEnded():
                self._tell("warning", "callback_failed", **callback_fields(event))

    def _attempted(self, event: JobAttempted) -> None:
        if not event.is_ended:
            self._tell("info", "attempt_failed", **attempt_fields(event))
        elif event.fate != Fate.SUCCEEDED:
            self._tell("warning", f"job_{event.fate}", **attempt_fields(event))
        else:
            self._due += self._sample
            if self._due >= 1.0:
                self._due -= 1.0
                self._tell("info", "job_succeeded", **attempt_fields(event))


def attempt_fields(event: JobAttempted) -> dict[str, Any]:
    return {
        "operation": event.operation, "job": f"{event.operation}~{event.job}", "attempt": event.attempt,
        "reason": event.reason, "status": event.status, "result": event.result,
        "duration_ms": int(event.duration_s * 1e6) / 1e3, "dropped": event.dropped, "trace_id": event.trace_id,
    }  # fmt: skip


def callback_fields(event: CallbackEnded) -> dict[str, str]:
    return {"operation": event.operation, "job": f"{event.operation}~{event.job}", "detail": event.detail}
