"""
OTLP: spans on their way to a collector. The one file that speaks OpenTelemetry; imported only where traces are on.

1. The SDK's own thread encodes and sends; a call only leaves its span in a queue, which is bounded: when the receiver
   does not keep up, the oldest are dropped.
2. Whatever the SDK complains of becomes one line in ten seconds.
3. Stopping takes 2 s at most, whether the receiver listens or not.

What is not stated here (headers for the receiver, its certificates, compression) comes from the standard
`OTEL_EXPORTER_OTLP_*` variables, and more attributes of the process from `OTEL_RESOURCE_ATTRIBUTES`.
"""

import asyncio
import logging
import threading
import time
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from breaker.signals.quiet import Quiet
from breaker.signals.traces import Finished

SPANS_MAX = 4_096  # in the queue, some 6 MB
BATCH_MAX = 128  # encoding one holds the interpreter for some 3 ms, in which no call goes on
BATCH_MS = 1_000
TIMEOUT_S = 5.0  # for one batch, its repetitions included
CLOSE_S = 2.0
POLL_S = 0.01
DETAIL_MAX = 400  # characters

SDK = logging.getLogger("opentelemetry")
SDK.addHandler(logging.NullHandler())  # else what is said after `close` goes to standard error
FLAGS = TraceFlags(TraceFlags.SAMPLED)
FINE = Status(StatusCode.UNSET)


class Otlp:
    """A receiver of spans somewhere else."""

    def __init__(self, endpoint: str, resource: dict[str, str], *, spans_max: int = SPANS_MAX) -> None:
        """
        Start the thread.

        Args:
            endpoint: URL, path included.
            resource: Attributes of this process.
            spans_max: Size of the queue.

        """
        self._complaints = Complaints()
        SDK.propagate = False
        SDK.addHandler(self._complaints)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=spans_max,
            schedule_delay_millis=BATCH_MS,
            max_export_batch_size=min(BATCH_MAX, spans_max),
        )
        self._resource = OneResource.of(resource)
        self._scope = InstrumentationScope("breaker", resource.get("service.version"))

    def put(self, span: Finished) -> None:
        """Take one; never waits."""
        self._processor.on_end(self._sdk_span(span))

    async def close(self) -> None:
        """Send what is left, within 2 s."""
        # In a thread of its own: the SDK waits for as long as the receiver lets it.
        closing = threading.Thread(target=self._processor.shutdown, name="traces-close", daemon=True)
        closing.start()
        end = time.monotonic() + CLOSE_S
        while closing.is_alive() and time.monotonic() < end:  # noqa: ASYNC110 - a thread sets no event of the loop
            await asyncio.sleep(POLL_S)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # breaks off what it repeats
        SDK.removeHandler(self._complaints)

    def _sdk_span(self, span: Finished) -> ReadableSpan:
        trace_id = int(span.trace_id, 16)
        parent: SpanContext | None = None
        links: tuple[Link, ...] = ()
        if span.parent_id:
            parent = SpanContext(trace_id, int(span.parent_id, 16), span.is_remote, FLAGS)
        if span.links_to:
            links = (Link(SpanContext(trace_id, int(span.links_to, 16), is_remote=True, trace_flags=FLAGS)),)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, int(span.id, 16), is_remote=False, trace_flags=FLAGS),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            links=links,
            kind=SpanKind.SERVER if span.is_server else SpanKind.CLIENT,
            status=Status(StatusCode.ERROR, span.error) if span.error else FINE,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


class OneResource(Resource):
    """Attributes of the process, told apart by identity: the SDK's own writes JSON for a hash with every span."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @classmethod
    def of(cls, attributes: dict[str, str]) -> "OneResource":
        whole = Resource.create({**attributes})
        return cls(dict(whole.attributes), whole.schema_url)


class Complaints(logging.Handler):
    """What the SDK says of receivers that are away and of queues that are full."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._quiet = Quiet(time.monotonic)
        self._say: Any = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """One line in ten seconds; `left_out` says how many complaints had none."""
        left_out = self._quiet.left_out("traces")
        if left_out is None:
            return
        self._say.warning("traces_failed", detail=record.getMessage()[:DETAIL_MAX], left_out=left_out)
