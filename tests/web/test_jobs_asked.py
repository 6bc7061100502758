"""What a caller can do with its jobs: ask, wait, fetch the result, cancel; and with nobody else's."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from tests.gateway.gateway_process import Start
from tests.web.job_scene import WORK, Desk, answer, document, header, job_scene
from tests.web.raw_caller import raw_caller, request

ASYNC = "Prefer: respond-async"


async def test_the_result_is_the_downstreams_own_answer(start_gateway: Start) -> None:
    """Status, headers and every byte of the body, as if the call had been answered directly."""
    body, date = bytes(range(256)), "Thu, 01 Jan 2026 00:00:00 GMT"
    lines = ("X-Own: a", "X-Own: b", "Set-Cookie: a=b", f"Date: {date}")
    desk = Desk(lambda _: answer(418, body, *lines, media="image/x-tea"))
    async with job_scene(start_gateway, desk=desk) as scene:
        await scene.fill()
        job = document(await scene.call("1"))
        early = await scene.own("GET", job["links"]["result"])
        assert (early.status, document(early)["state"]) == (202, "queued")
        assert early.has("Retry-After")
        desk.open.set()
        told = await scene.own("GET", f"{job['links']['result']}?wait=4")
        assert (told.status, told.body, told.all("X-Own")) == (418, body, ["a", "b"])
        assert (told.one("Content-Type"), told.one("Breaker-Outcome")) == ("image/x-tea", "forwarded")
        assert not told.has("Set-Cookie")
        assert told.one("Date") == date, "when it was given, and once"
        head = await scene.own("HEAD", job["links"]["result"])
        assert (head.status, head.body, head.one("Content-Length")) == (418, b"", "256")
        ended = await scene.job(job["id"])
        assert (ended["state"], ended["reason"], ended["status"]) == ("dead", "caller", 418)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_result_without_a_body_is_one(start_gateway: Start, status: int) -> None:
    """Many downstreams say 204; a body behind it would break the connection."""
    bare = f"HTTP/1.1 {status} Told\r\nX-Own: 1\r\n\r\n"
    async with job_scene(start_gateway, desk=Desk(lambda _: bare.encode())) as scene:
        job = await scene.queue()
        await scene.ended(job["id"])
        async with raw_caller(scene.served.port) as caller:
            told = await caller.ask(request("GET", job["links"]["result"]))
            assert (told.status, told.one("X-Own")) == (status, "1")
            assert (await caller.ask(request("GET", "/livez"))).body == b"ok\n"


async def test_an_answer_that_is_too_large_is_not_handed_out_in_part(start_gateway: Start) -> None:
    """The beginning of an answer that looks like all of it is worse than none."""
    desk = Desk(lambda _: answer(200, b"x" * 2_000))
    async with job_scene(start_gateway, desk=desk, queue={"payload_max": "1000B"}) as scene:
        job = await scene.queue("1", "Idempotency-Key: k")
        assert (await scene.ended(job["id"]))["state"] == "succeeded"
        for told in (
            await scene.own("GET", job["links"]["result"]),
            await scene.call("1", "Idempotency-Key: k"),
        ):
            assert (told.status, told.kind) == (410, "result-expired")
            assert (told.problem["job"], told.problem["state"]) == (job["id"], "succeeded")
            assert told.problem["status_of_downstream"] == 200
        waited = await scene.call("2", "Prefer: respond-async, wait=4")
        assert (waited.status, document(waited)["state"]) == (202, "succeeded")
        assert len(desk.of("/tasks/1")) == 1


async def test_a_job_that_has_not_changed_is_not_sent_again(start_gateway: Start) -> None:
    """A caller that looks often costs little."""
    async with job_scene(start_gateway) as scene:
        job = await scene.queue()
        await scene.ended(job["id"])
        first = await scene.own("GET", job["links"]["self"])
        tag = first.one("ETag")
        again = await scene.own("GET", job["links"]["self"], f"If-None-Match: {tag}")
        assert (again.status, again.body, again.one("ETag")) == (304, b"", tag)
        assert (await scene.own("GET", job["links"]["self"], "If-None-Match: *")).status == 304
        other = await scene.own("GET", job["links"]["self"], 'If-None-Match: "00"')
        assert (other.status, other.body) == (200, first.body)
        for sent, status in (('"\udcff"', 200), (f'"\udcff", {tag}', 304)):
            told = await scene.own("GET", job["links"]["self"], f"If-None-Match: {sent}")
            assert told.status == status, "bytes outside ASCII are somebody else's tag"
        head = await scene.own("HEAD", job["links"]["self"])
        assert (head.status, head.one("ETag"), head.body) == (200, tag, b"")


async def test_who_asks_and_waits_is_told_of_the_end_when_it_comes(start_gateway: Start) -> None:
    """One request instead of a hundred; and one caller that stops waiting does not make another deaf."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        job = document(await scene.call("1"))
        early = await scene.own("GET", f"/v1/jobs/{job['id']}?wait=1")
        assert document(early)["state"] == "queued"
        waits = [asyncio.ensure_future(scene.job(job["id"], wait=30)) for _ in range(3)]
        impatient = await scene.own("GET", f"/v1/jobs/{job['id']}?wait=1")
        assert document(impatient)["state"] == "queued"
        assert not any(wait.done() for wait in waits)
        started = time.monotonic()
        scene.desk.open.set()
        assert {found["state"] for found in await asyncio.gather(*waits)} == {"succeeded"}
        assert time.monotonic() - started < 4, "nobody was told"
        process = scene.served.process
        assert process is not None
        assert process.jobs._ended == {}


@pytest.mark.parametrize(
    "query", ["?wait=", "?wait=-1", "?wait=soon", "?wait=1e3", "?wait=%C2%B2", "?x=1", "?wait=0"]
)
async def test_a_wait_that_is_no_number_does_not_wait(start_gateway: Start, query: str) -> None:
    """A typing mistake must not hold a connection."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        job = document(await scene.call("1"))
        async with asyncio.timeout(3):
            told = await scene.own("GET", f"/v1/jobs/{job['id']}{query}")
        assert document(told)["state"] == "queued"
        ended = document(await scene.own("DELETE", f"/v1/jobs/{job['id']}"))
        endless = await scene.own("GET", f"/v1/jobs/{ended['id']}?wait={'9' * 5_000}")
        assert document(endless)["state"] == "cancelled"


async def test_a_waiting_job_can_be_cancelled_and_a_running_one_cannot(start_gateway: Start) -> None:
    """A customer changed his mind; what has been sent cannot be called back."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        job = document(await scene.call("1", "Idempotency-Key: k"))
        told = await scene.own("DELETE", job["links"]["self"])
        assert (told.status, document(told)["state"]) == (200, "cancelled")
        again = await scene.own("DELETE", job["links"]["self"])
        assert (again.status, document(again)["state"]) == (200, "cancelled"), (
            "a repeated DELETE does no harm"
        )
        later = await scene.queue(
            "2", "Breaker-Not-Before: " + f"{datetime.now(UTC) + timedelta(hours=1):%FT%TZ}"
        )
        assert document(await scene.own("DELETE", later["links"]["self"]))["state"] == "cancelled"
        repeated = await scene.call("1", "Idempotency-Key: k")
        assert (repeated.status, repeated.problem["state"]) == (410, "cancelled")
        filler = header(scene.desk.seen[0], "Breaker-Job")
        runs = await scene.own("DELETE", f"/v1/jobs/{filler}")
        assert (runs.status, runs.kind, runs.problem["state"]) == (409, "not-cancellable", "running")
        scene.desk.open.set()
        assert (await scene.ended(str(filler)))["state"] == "succeeded"
        assert scene.desk.of("/tasks/1") == scene.desk.of("/tasks/2") == []


async def test_a_caller_sees_its_own_jobs_only(start_gateway: Start) -> None:
    """Another's job is as good as none, so that ids need not be secret."""
    keys = {name: name * 4 for name in ("crm", "billing", "stranger")}
    callers = [
        {"id": name, "key_sha256": [sha256(key.encode()).hexdigest()],
         "operations": ["desk.other"] if name == "stranger" else ["*"]}
        for name, key in keys.items()
    ]  # fmt: skip
    async with job_scene(start_gateway, gateway={"callers": callers}) as scene:
        mine, *others = (f"Breaker-Key: {key}" for key in keys.values())
        job = await scene.queue("1", mine)
        await scene.job(job["id"], mine, wait=4)
        for other in others:
            for method, target in (
                ("GET", job["links"]["self"]), ("GET", f"{job['links']['self']}?wait=9"),
                ("GET", job["links"]["result"]), ("DELETE", job["links"]["self"]),
            ):  # fmt: skip
                told = await scene.own(method, target, other)
                assert (told.status, told.kind) == (404, "job-not-found"), (method, target)
        nobody = await scene.own("GET", job["links"]["self"])
        assert (nobody.status, nobody.kind) == (401, "unauthenticated")
        assert (await scene.own("GET", job["links"]["result"], mine)).status == 201


@pytest.mark.parametrize(
    "target", ["", "x", f"{WORK}~", f"{WORK}~{'0' * 26}", f"no.such~{'0' * 26}", f"{WORK}~{'0' * 26}/other",
               f"{WORK}~{'0' * 26}/result", f"../{WORK}", "%00", f"{WORK}~{'0' * 25}%0A"],
)  # fmt: skip
async def test_there_is_no_job_where_there_is_none(start_gateway: Start, target: str) -> None:
    """Whatever is asked for: a clear answer."""
    async with job_scene(start_gateway) as scene:
        told = await scene.own("GET", f"/v1/jobs/{target}")
        assert (told.status, told.kind) == (404, "job-not-found")
        assert (await scene.own("DELETE", f"/v1/jobs/{target}")).status in (404, 405)


async def test_a_job_takes_three_methods_and_its_result_two(start_gateway: Start) -> None:
    """405 says what it does take."""
    async with job_scene(start_gateway) as scene:
        job = await scene.queue()
        for method, target, allow in (
            ("POST", job["links"]["self"], "GET, HEAD, DELETE"),
            ("PUT", job["links"]["result"], "GET, HEAD"),
            ("DELETE", job["links"]["result"], "GET, HEAD"),
        ):
            told = await scene.own(method, target)
            assert (told.status, told.kind, told.one("Allow")) == (405, "method-not-allowed", allow)


async def test_a_body_that_no_job_may_have_is_refused_whether_or_not_there_is_room(
    start_gateway: Start,
) -> None:
    """What works at noon must not fail at month-end."""
    async with job_scene(start_gateway, queue={"payload_max": "1000B"}) as scene:
        for is_full in (False, True):
            if is_full:
                await scene.fill()
            told = await scene.call("1", body=b"x" * 1_001)
            assert (told.status, told.kind) == (413, "payload-too-large")
        assert (await scene.call("1", body=b"x" * 1_000)).status == 202


async def test_a_gateway_that_stops_holds_nobody_up(start_gateway: Start) -> None:
    """A rolling restart must not wait for callers that only wait themselves."""
    async with job_scene(start_gateway) as scene:
        moment = datetime.now(UTC) + timedelta(hours=1)
        job = await scene.queue("1", f"Breaker-Not-Before: {moment:%FT%TZ}")
        asks = asyncio.ensure_future(scene.own("GET", f"/v1/jobs/{job['id']}?wait=60"))
        calls = asyncio.ensure_future(
            scene.call("2", "Prefer: wait=60", f"Breaker-Not-Before: {moment:%FT%TZ}")
        )
        process = scene.served.process
        assert process is not None
        async with asyncio.timeout(5):
            while sum(watch.waiting for watch in process.jobs._ended.values()) < 2:
                await asyncio.sleep(0.005)
        started = time.monotonic()
        process.jobs.stop_waiting()
        asked, called = await asyncio.gather(asks, calls)
        assert time.monotonic() - started < 3
        assert (asked.status, called.status) == (200, 202)
        assert json.loads(asked.body)["state"] == json.loads(called.body)["state"] == "scheduled"
        assert document(await scene.own("GET", f"/v1/jobs/{job['id']}?wait=60"))["state"] == "scheduled"
