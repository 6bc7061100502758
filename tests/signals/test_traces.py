"""Spans of real calls and jobs, as a receiver of OTLP over HTTP gets them."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from breaker.core.config import Gateway
from breaker.core.errors import ConfigError, StartError
from breaker.core.events import Outcome, Result
from breaker.core.jobs import Fate
from breaker.core.trace import Span
from breaker.policy.restart import refuse_what_needs_a_restart
from breaker.signals import otlp
from breaker.signals.quiet import QUIET_S, Quiet
from breaker.signals.traces import Finished, Traces, open_traces
from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Peer, Received, raw_downstream
from tests.signals.scene import TRACE_ID, Clock, attempted, ended
from tests.signals.test_docs import table, words
from tests.web.job_scene import header

CALLER = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01", "tracestate": "a=b"}
SECRET = "brk-secret-5b0f2c9d41"
QUEUE = {
    "match": "POST /jobs/{id}", "overflow": "queue", "retry": {"base": "1ms"},
    "queue": {"start_within": "1m", "max_jobs": 100, "durability": "memory"},
}  # fmt: skip
BATCH = {
    **QUEUE,
    "match": "POST /many/{id}",
    "batch": {"path": "POST /batch", "window": "1s", "max_items": 2},
}


@dataclass(slots=True)
class Collector:
    """A receiver, and what it got."""

    url: str = ""
    status: int = 200
    raw: list[bytes] = field(default_factory=list)
    resource: dict[str, str] = field(default_factory=dict)
    spans: list[Sent] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw.append(body)
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {each.key: each.value.string_value for each in one.resource.attributes}
            for scope in one.scope_spans:
                self.spans += scope.spans
        return web.Response(status=self.status)

    def named(self, name: str) -> list[Sent]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = "http://{}:{}/v1/traces".format(*runner.addresses[0][:2])
    yield found
    await runner.cleanup()


class Desk:
    """A downstream that writes down what it is told; each path gets its next status, and then 200."""

    def __init__(self, **statuses: list[int]) -> None:
        self.statuses, self.seen = statuses, list[Received]()

    async def __call__(self, peer: Peer) -> None:
        while True:
            received = await peer.request()
            self.seen.append(received)
            name = received.head.split(b" ")[1].decode().rpartition("/")[2]
            statuses = self.statuses.get(name, [])
            body = b"{}"
            if name == "batch":
                count = len(json.loads(received.body)["items"])
                body = json.dumps({"results": [{"status": 200}] * count}).encode()
            line = (
                f"HTTP/1.1 {statuses.pop(0) if statuses else 200} Told\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            await peer.send(line.encode() + body)

    def parents(self) -> list[str | None]:
        return [header(received, "traceparent") for received in self.seen]


@contextlib.asynccontextmanager
async def gateway(
    start: Start, desk: Desk, endpoint: str, **settings: Any
) -> AsyncIterator[tuple[str, Path]]:
    """Its url and its log; when the block has ended, all spans have been sent."""
    operations = {"get": {"match": "GET /{id}"}, "work": QUEUE, "many": BATCH}
    async with raw_downstream(desk) as below:
        pipeline = {"team": "t", "downstream": {"url": below.url}, "operations": operations}
        async with start({"desk": pipeline}, traces={"endpoint": endpoint, **settings}) as served:
            yield served.url, served.folder / "log"


async def get(url: str, headers: dict[str, str] | None = None) -> int:
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/desk/thing") as told:
        return told.status


async def run_jobs(url: str, *paths: str) -> list[str]:
    """Queue these, and wait until each has ended; their ids."""
    headers = {"Prefer": "respond-async", **SAMPLED}
    async with asyncio.timeout(15), aiohttp.ClientSession(headers=headers) as session:
        ids = []
        for path in paths:
            async with session.post(f"{url}/desk/{path}", json={"card": SECRET}) as told:
                assert told.status == 202
                ids.append((await told.json())["id"])
        for id_ in ids:
            async with session.get(f"{url}/v1/jobs/{id_}?wait=10") as shown:
                assert (await shown.json())["state"] == "succeeded"
    return ids


def attributes(span: Sent) -> dict[str, Any]:
    return {
        one.key: one.value.int_value if one.value.HasField("int_value") else one.value.string_value
        for one in span.attributes
    }


def lines(log: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == event]


# Calls.


async def test_a_call_is_a_span_between_its_caller_and_its_downstream(
    start_gateway: Start, collector: Collector
) -> None:
    """Who looks for lost time sees how much of it was ours."""
    desk = Desk()
    async with gateway(start_gateway, desk, collector.url) as (url, log):
        assert await get(url, {**SAMPLED, "Authorization": SECRET}) == 200
    call, down = collector.named("desk.get")[0], collector.named("desk.get downstream")[0]
    assert len(collector.spans) == 2
    assert {call.trace_id.hex(), down.trace_id.hex()} == {TRACE_ID}
    assert (call.parent_span_id.hex(), down.parent_span_id) == (CALLER, call.span_id)
    assert (call.kind, down.kind) == (Sent.SPAN_KIND_SERVER, Sent.SPAN_KIND_CLIENT)
    assert call.start_time_unix_nano <= down.start_time_unix_nano
    assert down.start_time_unix_nano < down.end_time_unix_nano <= call.end_time_unix_nano
    told = lines(log, "call")[0]
    assert told["trace_id"] == TRACE_ID
    assert attributes(call) == {
        "breaker.operation": "desk.get", "breaker.outcome": "forwarded", "breaker.decision": told["decision"],
        "breaker.caller": told["caller"], "breaker.tenant": told["tenant"], "breaker.request": told["request_id"],
        "http.response.status_code": 200,
    }  # fmt: skip
    assert attributes(down) == {"breaker.operation": "desk.get", "breaker.result": "ok"}
    assert {call.status.code, down.status.code} == {Status.STATUS_CODE_UNSET}
    assert desk.parents() == [f"00-{TRACE_ID}-{down.span_id.hex()}-01"]
    assert header(desk.seen[0], "tracestate") == "a=b"
    assert header(desk.seen[0], "Authorization") == SECRET
    assert collector.resource["service.name"] == "breaker"
    assert {"service.version", "service.instance.id", "service.namespace"} < collector.resource.keys()
    assert SECRET.encode() not in b"".join(collector.raw)


@pytest.mark.parametrize("headers", [{"traceparent": f"00-{TRACE_ID}-{CALLER}-00", "tracestate": "a=b"}, {}])
async def test_a_call_that_is_not_sampled_makes_no_span_and_is_passed_on_as_it_came(
    start_gateway: Start, collector: Collector, headers: dict[str, str]
) -> None:
    """Who pays for the receiver decides how much it gets."""
    desk = Desk()
    async with gateway(start_gateway, desk, collector.url, sample=0.0) as (url, _):
        assert await get(url, headers) == 200
    assert collector.raw == []
    assert desk.parents() == [headers.get("traceparent")]
    assert header(desk.seen[0], "tracestate") == headers.get("tracestate")


async def test_every_second_call_without_a_trace_begins_one(
    start_gateway: Start, collector: Collector
) -> None:
    """Callers that know nothing of traces are seen all the same; a `tracestate` without a trace says nothing."""
    desk = Desk()
    async with gateway(start_gateway, desk, collector.url, sample=0.5) as (url, log):
        for _ in range(4):
            assert await get(url, {"traceparent": "broken", "tracestate": "a=b"}) == 200
    calls = collector.named("desk.get")
    assert len(calls) == 2
    assert {call.parent_span_id for call in calls} == {b""}
    assert len({call.trace_id for call in calls}) == 2
    assert [line.get("trace_id") for line in lines(log, "call")] == [
        None, calls[0].trace_id.hex(), None, calls[1].trace_id.hex()
    ]  # fmt: skip
    downs = {down.trace_id: down.span_id for down in collector.named("desk.get downstream")}
    assert desk.parents()[1::2] == [
        f"00-{call.trace_id.hex()}-{downs[call.trace_id].hex()}-01" for call in calls
    ]
    assert [header(received, "tracestate") for received in desk.seen] == ["a=b", None, "a=b", None]


# Jobs.


async def test_each_attempt_of_a_job_links_to_the_call_that_made_it(
    start_gateway: Start, collector: Collector
) -> None:
    """A job that failed at night is found from the call of the day before, and the other way round."""
    desk = Desk(broken=[500])
    async with gateway(start_gateway, desk, collector.url) as (url, _):
        (job,) = await run_jobs(url, "jobs/broken")
    (call,) = collector.named("desk.work")
    first, second = sorted(collector.named("desk.work attempt"), key=lambda span: span.start_time_unix_nano)
    assert len(collector.spans) == 3  # the call never reached its downstream
    assert attributes(call)["breaker.outcome"] == "queued"
    for span in (first, second):
        assert span.trace_id.hex() == TRACE_ID
        assert span.parent_span_id == call.span_id
        assert [(link.trace_id, link.span_id) for link in span.links] == [(call.trace_id, call.span_id)]
    plain = {"breaker.operation": "desk.work", "breaker.job": job}
    assert attributes(first) == {
        **plain, "breaker.attempt": 1, "breaker.fate": "retry", "breaker.reason": "downstream",
        "breaker.result": "server_error", "http.response.status_code": 500,
    }  # fmt: skip
    assert attributes(second) == {
        **plain, "breaker.attempt": 2, "breaker.fate": "succeeded", "breaker.result": "ok",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert (first.status.code, second.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET)
    assert desk.parents() == [f"00-{TRACE_ID}-{span.span_id.hex()}-01" for span in (first, second)]
    assert SECRET.encode() not in b"".join(collector.raw)


async def test_each_job_of_a_batch_has_its_own_span_and_the_request_has_no_parent(
    start_gateway: Start, collector: Collector
) -> None:
    """One request for many callers belongs to none of their traces."""
    desk = Desk()
    async with gateway(start_gateway, desk, collector.url) as (url, _):
        ids = await run_jobs(url, "many/1", "many/2")
    attempts = collector.named("desk.many attempt")
    assert sorted(str(attributes(span)["breaker.job"]) for span in attempts) == sorted(ids)
    assert {link.span_id for span in attempts for link in span.links} == {
        call.span_id for call in collector.named("desk.many")
    }
    assert desk.parents() == [None]


# What events become.


class Kept:
    """A receiver in this process."""

    def __init__(self) -> None:
        self.spans: list[Finished] = []
        self.put = self.spans.append

    async def close(self) -> None:
        pass


SPAN = Span(trace_id=TRACE_ID, id="a" * 16, parent_id=CALLER, down_id="b" * 16)


@pytest.mark.parametrize(("status", "error"), [(499, ""), (500, "failed"), (503, "failed")])
def test_a_5xx_is_an_error_of_the_call(status: int, error: str) -> None:
    """Error budgets in the traces must be those of the metrics."""
    kept = Kept()
    Traces(kept, sample=0.0).listen(replace(ended(Outcome.FAILED, status=status), span=SPAN))
    assert [span.error for span in kept.spans] == [error, ""]


@pytest.mark.parametrize(
    ("result", "errors"),
    [(None, []), (Result.OK, [""]), (Result.ABANDONED, [""]), (Result.CLIENT_ERROR, ["client_error"])],
)
def test_the_downstream_has_a_span_when_it_was_reached(result: Result | None, errors: list[str]) -> None:
    """A refusal must not look as if the downstream had been slow."""
    kept = Kept()
    Traces(kept, sample=0.0, now_ns=lambda: 10**18).listen(replace(ended(result=result), span=SPAN))
    call, *downs = kept.spans
    assert (call.start_ns, call.end_ns) == (10**18 - 20_000_000, 10**18)
    assert [down.error for down in downs] == errors
    assert all((down.start_ns, down.end_ns) == (10**18 - 19_600_000, 10**18) for down in downs)


def test_what_has_no_span_is_not_told() -> None:
    """Nine of ten calls at the usual rate, and their jobs."""
    kept = Kept()
    traces = Traces(kept, sample=1.0)
    traces.listen(ended())
    traces.listen(attempted(Fate.RETRY))
    assert kept.spans == []
    assert traces.of_attempt("") is None
    assert traces.of_attempt(f"00-{TRACE_ID}-{CALLER}-00") is None


def test_a_sample_is_a_share_by_count() -> None:
    """0 is none, 1 is all, and a tenth is every tenth."""
    for sample, count in ((0.0, 0), (0.1, 10), (1.0, 100)):
        traces = Traces(Kept(), sample=sample)
        assert sum(traces.of_call("") is not None for _ in range(101)) in (count, count + int(sample))


# The receiver's troubles.


@pytest.fixture
def told() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is said through structlog."""
    with structlog.testing.capture_logs() as said:
        yield said


async def test_a_receiver_that_refuses_is_one_line(
    start_gateway: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers are served whatever becomes of traces, and the log is not flooded."""
    monkeypatch.setattr(otlp, "BATCH_MAX", 1)  # each span is a failure of its own
    collector.status = 400
    async with gateway(start_gateway, Desk(), collector.url) as (url, log):
        for _ in range(3):
            assert await get(url, SAMPLED) == 200
    assert len(collector.raw) == 6
    (line,) = lines(log, "traces_failed")
    assert line["level"] == "warning"
    assert "400" in line["detail"]
    assert not [line for line in map(json.loads, log.read_text().splitlines()) if "logger" in line]


async def test_a_receiver_that_is_away_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, told: list[MutableMapping[str, Any]]
) -> None:
    """A rolling restart does not wait for a collector that is down."""
    monkeypatch.setattr(otlp, "CLOSE_S", 0.1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    traces = open_traces("http://127.0.0.1:9/v1/traces", sample=0.0, resource={})
    traces.listen(replace(ended(), span=SPAN))
    await traces.close()
    assert [(line["event"], line["log_level"]) for line in told] == [("traces_failed", "warning")]


async def test_a_full_queue_drops_the_oldest_and_says_so(
    collector: Collector, told: list[MutableMapping[str, Any]]
) -> None:
    """The memory of a gateway is bounded, however slow the collector."""
    receiver = otlp.Otlp(collector.url, {}, spans_max=4)
    batches = receiver._processor._batch_processor
    with batches._export_lock:  # nothing is sent meanwhile
        for number in range(6):
            receiver.put(
                Finished(
                    name=str(number), trace_id=TRACE_ID, id=f"{number + 1:016x}", parent_id="", is_server=True,
                    is_remote=True, start_ns=1, end_ns=2, attributes={},
                )
            )  # fmt: skip
    await receiver.close()
    assert [span.name for span in collector.spans] == ["2", "3", "4", "5"]
    assert [line["event"] for line in told] == ["traces_failed"]


def test_complaints_are_one_line_in_ten_seconds(told: list[MutableMapping[str, Any]]) -> None:
    """A collector that is away for a night is no reason to rotate logs."""
    clock = Clock()
    complaints = otlp.Complaints()
    complaints._quiet = Quiet(clock)
    for step in (0.0, 1.0, QUIET_S - 1.001, 0.001):
        clock.seconds += step
        complaints.emit(logging.makeLogRecord({"msg": "x" * 1_000}))
    assert [(line["left_out"], len(line["detail"])) for line in told] == [
        (0, otlp.DETAIL_MAX),
        (2, otlp.DETAIL_MAX),
    ]


# The settings, and the extra.


@pytest.mark.parametrize("changed", [{"traces_sample": 0.5}, {"traces_endpoint": "http://127.0.0.1:9"}])
def test_a_reload_that_changes_traces_is_refused_by_name(changed: dict[str, Any], tmp_path: Path) -> None:
    """Who halves the sample on a busy day must not believe that it is in force."""
    with pytest.raises(ConfigError, match=f"needs a restart: {next(iter(changed))};"):
        refuse_what_needs_a_restart(Gateway(), replace(Gateway(), **changed), tmp_path)


def test_without_the_extra_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies the setting from the manual reads one line, not a stack of calls."""
    monkeypatch.delitem(sys.modules, "breaker.signals.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(StartError, match=r"`traces\.endpoint` needs .* pip install 'breaker\[otel\]'"):
        open_traces("http://127.0.0.1:9/v1/traces", sample=1.0, resource={})


def test_nothing_of_it_is_loaded_where_traces_are_off() -> None:
    """Most installations never have it: neither its memory nor the time that it takes to load."""
    look = "import breaker.cli.app, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_manual_has_every_span_and_attribute() -> None:
    """Searches in the tracing system are written from this page."""
    kept = Kept()
    traces = Traces(kept, sample=0.0)
    traces.listen(replace(ended(Outcome.OVER_CAPACITY, "rate"), span=SPAN))
    traces.listen(replace(attempted(Fate.RETRY, "downstream"), span=SPAN))
    made = {
        (span.name.replace("billing.charge", "<operation>"), "server" if span.is_server else "client"): set(
            span.attributes
        )
        for span in kept.spans
    }
    rows = table("traces.md", "name", "kind", "parent", "attributes")
    assert {(words(name)[0], kind): set(words(found)) for name, kind, _, found in rows} == made
