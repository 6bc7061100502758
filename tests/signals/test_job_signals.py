"""What a real gateway tells of jobs that it really ran."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, raw_downstream
from tests.signals.scene import TRACE_ID

ANSWERS = {"fine": [200], "wrong": [422], "broken": [500, 200]}
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
OPERATION = {
    "match": "POST /{order}", "overflow": "queue", "retry": {"base": "1ms"},
    "queue": {"start_within": "1m", "max_jobs": 100, "durability": "memory"},
}  # fmt: skip


def pipelines(url: str) -> dict[str, Any]:
    operations = {"work": OPERATION, "plain": {"match": "GET /{order}"}}
    return {"desk": {"team": "t", "downstream": {"url": url}, "operations": operations}}


def desk() -> Callable[[Peer], Any]:
    """A downstream that answers each order with its next status."""
    left = {order: list(statuses) for order, statuses in ANSWERS.items()}

    async def script(peer: Peer) -> None:
        while True:
            order = (await peer.request()).head.split(b" ")[1].removeprefix(b"/").decode()
            await peer.send(f"HTTP/1.1 {left[order].pop(0)} Told\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    return script


async def run_jobs(served: Served, *orders: str) -> None:
    """Queue these orders, and wait until each has ended."""
    headers = {"Prefer": "respond-async", "traceparent": TRACEPARENT}
    async with asyncio.timeout(15), aiohttp.ClientSession(headers=headers) as session:
        for order in orders:
            async with session.post(f"{served.url}/desk/{order}") as told:
                assert told.status == 202, await told.text()
                job = (await told.json())["id"]
            async with session.get(f"{served.url}/v1/jobs/{job}?wait=10") as shown:
                assert (await shown.json())["state"] in ("succeeded", "dead")


async def looked(served: Served) -> dict[str, float]:
    """The page after a look at the store."""
    assert served.process
    assert served.process._watch
    await served.process._watch.look_at_all()
    return await served.metrics()


async def test_the_page_adds_up(start_gateway: Start) -> None:
    """A dashboard is believed when its numbers are those of one story."""
    async with raw_downstream(desk()) as below, start_gateway(pipelines(below.url)) as served:
        await run_jobs(served, "fine", "wrong", "broken")
        found = await looked(served)
    own = {
        name.removeprefix("breaker_").replace(",operation=desk.work", "").replace("operation=desk.work,", "")
        .replace("operation=desk.work", ""): value
        for name, value in found.items()
        if "desk.work" in name
    }  # fmt: skip
    assert own["jobs_accepted_total{}"] == own["calls_total{outcome=queued,reason=asked}"] == 3
    assert (own["jobs_finished_total{result=succeeded}"], own["jobs_finished_total{result=dead}"]) == (2, 1)
    assert own["queue_jobs{state=dead}"] == 1
    assert own["queue_wait_seconds_count{band=normal}"] == 3
    assert own["retries_total{reason=downstream}"] == 1
    calls = {name: value for name, value in own.items() if name.startswith("downstream_calls_total")}
    assert calls == {
        "downstream_calls_total{result=ok}": 2, "downstream_calls_total{result=client_error}": 1,
        "downstream_calls_total{result=server_error}": 1,
    }  # fmt: skip
    assert own["downstream_duration_seconds_count{}"] == sum(calls.values())
    assert own["downstream_duration_seconds_sum{}"] > 0
    assert own["queue_limit_jobs{}"] == 100


async def test_each_end_has_its_line_with_the_trace_of_its_call(start_gateway: Start) -> None:
    """From a caller's trace to what became of its job, hours later."""
    async with raw_downstream(desk()) as below, start_gateway(pipelines(below.url)) as served:
        await run_jobs(served, "wrong", "broken")
        log = served.folder / "log"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    of_jobs = [line for line in lines if "job" in line]
    assert [(line["event"], line["attempt"], line["trace_id"]) for line in of_jobs] == [
        ("job_dead", 1, TRACE_ID), ("attempt_failed", 1, TRACE_ID), ("job_succeeded", 2, TRACE_ID),
    ]  # fmt: skip
    calls = [line["decision"] for line in lines if line["event"] == "call" and line["outcome"] == "queued"]
    assert [line["job"] for line in of_jobs] == [calls[0], calls[1], calls[1]], "they are found by one id"


async def test_status_tells_of_the_queue(start_gateway: Start) -> None:
    """One page for a person without a dashboard."""
    async with raw_downstream(desk()) as below, start_gateway(pipelines(below.url)) as served:
        await run_jobs(served, "wrong")
        assert served.process
        operations = (await served.process.own_pages.status())["operations"]
    assert operations["desk.work"]["queue"]["dead"] == 1
    assert operations["desk.work"]["queue"]["ledger"]["unaccounted"] == 0
    assert operations["desk.plain"]["queue"] is None
    assert operations["desk.plain"]["in_use"] == 0


async def test_results_are_dropped_while_the_store_is_short_of_memory(start_gateway: Start) -> None:
    """What was accepted goes before what was answered; and it is counted and told."""
    async with raw_downstream(desk()) as below, start_gateway(pipelines(below.url)) as served:
        assert served.process
        assert served.process._watch
        await served.process._watch.close()  # it would read how full the test's store is
        for ratio in (0.91, 0.9):
            served.process._watch.memory_ratio = ratio
            await run_jobs(served, "fine" if ratio > 0.9 else "broken")
        found = await served.metrics()
        log = served.folder / "log"
    assert found["breaker_results_dropped_total{operation=desk.work}"] == 1
    ended = [
        line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "job_succeeded"
    ]
    assert [line.get("dropped") for line in ended] == [True, None]
