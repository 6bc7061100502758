"""
Traces: events as spans, for the calls and jobs that are sampled.

1. Whose caller sampled is sampled, whose caller did not is not (`traceparent`); of calls that come without a trace
   every so many begin one. By counting: the same share at any traffic.
2. Spans are made after the fact: one for a call, one below it for the part at its downstream, one for each attempt of
   a job. Nothing is measured for them that the event does not say, and they never hold bodies, keys or headers.
3. An attempt belongs to the trace of the call that made its job, and links to it: a trace of hours is
   better found by one id than cut in two.
4. OpenTelemetry is spoken in `otlp.py`, which is imported only where traces are on.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from breaker.core.errors import StartError
from breaker.core.events import CallEnded, Event, JobAttempted, Result
from breaker.core.trace import Span, parent_of

SERVER_ERROR = 500
NO_FAULT = frozenset({Result.OK, Result.ABANDONED})  # a caller that hangs up says nothing of the downstream


@dataclass(slots=True, kw_only=True)
class Finished:
    """
    A span as it is sent.

    Attributes:
        is_server: It was called; else it calls.
        is_remote: Its parent is another process's.
        start_ns, end_ns: Nanoseconds since 1970.
        attributes: By name.
        error: What went wrong, a word; empty when nothing did.
        links_to: Id of a span of the same trace; empty for none.

    """

    name: str
    trace_id: str
    id: str
    parent_id: str
    is_server: bool
    is_remote: bool
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int]
    error: str = ""
    links_to: str = ""


class Receiver(Protocol):
    """Where spans go."""

    def put(self, span: Finished) -> None:
        """Take one; never waits."""

    async def close(self) -> None:
        """Send what is left, within 2 s."""


class Traces:
    """Says what is sampled, listens, and makes spans."""

    def __init__(
        self, receiver: Receiver, *, sample: float, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """
        Wire it.

        Args:
            receiver: Where spans go.
            sample: Share of the calls without a trace that begin one, 0..1.
            now_ns: Nanoseconds since 1970.

        """
        self._put, self.close = receiver.put, receiver.close
        self._sample, self._now_ns = sample, now_ns
        self._due = 0.0

    def of_call(self, traceparent: str) -> Span | None:
        """The span of a call that begins; None when it is not sampled."""
        parent = parent_of(traceparent) if traceparent else None
        if parent is not None:
            if not parent.is_sampled:
                return None
            return Span(trace_id=parent.trace_id, id=new_id(), parent_id=parent.id, down_id=new_id())
        self._due += self._sample
        if self._due < 1.0:
            return None
        self._due -= 1.0
        return Span(trace_id=f"{new_id()}{new_id()}", id=new_id(), down_id=new_id())

    def of_attempt(self, traceparent: str) -> Span | None:
        """The span of an attempt that begins, by what was stored with its job; None when that is not sampled."""
        parent = parent_of(traceparent)
        if parent is None or not parent.is_sampled:
            return None
        own = new_id()
        return Span(trace_id=parent.trace_id, id=own, parent_id=parent.id, down_id=own)

    def listen(self, event: Event) -> None:
        """Make the spans of what ended, if it is sampled."""
        if type(event) is CallEnded:
            if event.span is not None:
                self._call(event, event.span)
        elif isinstance(event, JobAttempted) and event.span is not None:
            self._attempt(event, event.span)

    def _call(self, event: CallEnded, span: Span) -> None:
        end = self._now_ns()
        start = end - int(event.duration_s * 1e9)
        failed = (event.reason or event.outcome) if event.status >= SERVER_ERROR else ""
        self._put(
            Finished(
                name=event.operation, trace_id=span.trace_id, id=span.id, parent_id=span.parent_id,
                is_server=True, is_remote=True, start_ns=start, end_ns=end, error=failed,
                attributes=stated(
                    operation=event.operation, outcome=event.outcome, reason=event.reason, decision=event.decision,
                    status=event.status, caller=event.caller, tenant=event.tenant, request=event.request_id,
                ),
            )
        )  # fmt: skip
        if event.result is None:
            return
        started = start + int(event.admission_s * 1e9)
        self._put(
            Finished(
                name=f"{event.operation} downstream", trace_id=span.trace_id, id=span.down_id, parent_id=span.id,
                is_server=False, is_remote=False, start_ns=started,
                end_ns=min(end, started + int(event.downstream_s * 1e9)),
                error="" if event.result in NO_FAULT else event.result,
                attributes=stated(operation=event.operation, result=event.result),
            )
        )  # fmt: skip

    def _attempt(self, event: JobAttempted, span: Span) -> None:
        end = self._now_ns()
        self._put(
            Finished(
                name=f"{event.operation} attempt", trace_id=span.trace_id, id=span.id, parent_id=span.parent_id,
                is_server=False, is_remote=True, start_ns=end - int(event.duration_s * 1e9), end_ns=end,
                error="" if event.result is None or event.result in NO_FAULT else event.result,
                links_to=span.parent_id,
                attributes=stated(
                    operation=event.operation, job=f"{event.operation}~{event.job}", attempt=event.attempt,
                    fate=event.fate, reason=event.reason, status=event.status, result=event.result or "",
                ),
            )
        )  # fmt: skip


def stated(*, status: int = 0, **words: str | int) -> dict[str, str | int]:
    """Attributes; what says nothing is left out, as in a log line."""
    found: dict[str, str | int] = {f"breaker.{name}": value for name, value in words.items() if value}
    if status:
        found["http.response.status_code"] = status
    return found


def new_id() -> str:
    """16 hex digits, not all of them zero."""
    return f"{random.getrandbits(64) or 1:016x}"


def open_traces(endpoint: str, *, sample: float, resource: dict[str, str]) -> Traces:
    """
    Traces that are sent to a receiver.

    Args:
        endpoint: URL of an OTLP/HTTP receiver, path included.
        resource: Attributes of this process.

    Raises:
        StartError: OpenTelemetry is not installed.

    """
    try:
        from breaker.signals.otlp import Otlp  # noqa: PLC0415 - an extra, and a third of a second to load
    except ModuleNotFoundError as exc:
        raise StartError(
            f"`traces.endpoint` needs OpenTelemetry, and {exc.name} is not installed: pip install 'breaker[otel]', "
            "or leave the field out"
        ) from exc
    return Traces(Otlp(endpoint, resource), sample=sample)
