"""What a caller is told of a job, from its 202 to its end, and what it can do with it."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from tests.gateway.gateway_process import Start
from tests.web.job_scene import WORK, Desk, Scene, answer, document, header, job_scene
from tests.web.raw_caller import raw_caller, request

ASYNC = "Prefer: respond-async"


async def test_a_call_starts_at_once_while_there_is_room_and_is_a_job_beyond(start_gateway: Start) -> None:
    """A caller gets the downstream's answer as ever; only what has no room becomes a job."""
    async with job_scene(start_gateway) as scene:
        direct = await scene.call("1")
        assert (direct.status, direct.one("Breaker-Outcome"), direct.body) == (
            201,
            "forwarded",
            b'{"done": true}',
        )
        await scene.fill()
        second = await scene.call("2", body=b'{"n": 2}')
        assert (second.status, second.reason) == (202, "Accepted")
        assert second.one("Breaker-Outcome") == "queued"
        told = document(second)
        assert told["id"] == second.one("Breaker-Job") == second.one("Breaker-Decision")
        assert second.one("Location") == f"/v1/jobs/{told['id']}" == told["links"]["self"]
        assert (told["operation"], told["state"], told["band"], told["position"]) == (
            WORK,
            "queued",
            "normal",
            0,
        )
        assert told["durability"] == "memory"
        assert 1 <= int(second.one("Retry-After")) <= 60
        assert not second.has("Preference-Applied")
        promised = datetime.fromisoformat(told["deadline"]) - datetime.now(UTC)
        assert timedelta(seconds=50) < promised <= timedelta(seconds=61)
        third = await scene.call("3")
        assert document(third)["position"] == 1
        scene.desk.open.set()
        assert (await scene.ended(told["id"]))["state"] == "succeeded"
        (sent,) = scene.desk.of("/work/2")
        assert sent.body == b'{"n": 2}'
        assert header(sent, "Idempotency-Key") == header(sent, "Breaker-Job") == told["id"]


async def test_a_caller_that_asks_for_it_is_answered_at_once_although_there_is_room(
    start_gateway: Start,
) -> None:
    """`Prefer: respond-async` is for callers that never want to wait."""
    async with job_scene(start_gateway) as scene:
        told = await scene.call("1", ASYNC)
        assert (told.status, told.one("Preference-Applied")) == (202, "respond-async")
        ended = await scene.ended(document(told)["id"])
        assert (ended["state"], ended["status"], ended["attempts"]) == ("succeeded", 201, 1)


async def test_a_caller_that_waits_long_enough_gets_the_downstreams_answer(start_gateway: Start) -> None:
    """With `wait` a queue looks like a slow downstream, which every client can handle."""
    desk = Desk(lambda _: answer(200, b"hello", "X-Own: 1", media="text/plain"))
    async with job_scene(start_gateway, desk=desk) as scene:
        await scene.fill()
        waiting = asyncio.ensure_future(scene.call("1", "Prefer: wait=30"))
        async with asyncio.timeout(5):
            while not await scene.served.outcomes(WORK) or scene.store.zcard(queued(scene)) == 0:
                await asyncio.sleep(0.005)
        assert not waiting.done()
        desk.open.set()
        told = await waiting
        assert (told.status, told.body, told.one("X-Own")) == (200, b"hello", "1")
        assert told.one("Content-Type") == "text/plain"
        assert (told.one("Breaker-Outcome"), told.one("Preference-Applied")) == ("delayed", "wait=30")
        assert told.one("Content-Location") == f"/v1/jobs/{told.one('Breaker-Job')}/result"
        assert not told.has("Idempotent-Replayed")
        assert len(desk.of("/work/1")) == 1


async def test_a_caller_that_has_waited_in_vain_keeps_its_job(start_gateway: Start) -> None:
    """It gave up waiting, not the work."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        told = await scene.call("1", "Prefer: respond-async, wait=1")
        assert (told.status, told.one("Preference-Applied")) == (202, "respond-async, wait=1")
        assert (document(told)["state"], document(told)["durability"]) == ("queued", "memory")
        scene.desk.open.set()
        assert (await scene.ended(document(told)["id"]))["state"] == "succeeded"
        assert len(scene.desk.of("/work/1")) == 1


async def test_a_deadline_ends_the_wait_and_not_the_job(start_gateway: Start) -> None:
    """`Request-Timeout` bounds what the caller waits; the job has a promise of its own."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        started = time.monotonic()
        told = await scene.call("1", "Prefer: wait=30", "Request-Timeout: 0.3")
        assert told.status == 202
        assert 0.25 < time.monotonic() - started < 3
        assert (await scene.job(document(told)["id"]))["state"] == "queued"


async def test_who_waits_for_a_job_that_ends_without_an_answer_has_the_job(start_gateway: Start) -> None:
    """There is nothing to hand out; the job says how it ended, and nothing looks like a success."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        told = await scene.call("1", "Prefer: wait=4", "Breaker-Expires-In: 100ms")
        assert (told.status, document(told)["state"]) == (202, "expired")
        gone = await scene.own("GET", document(told)["links"]["result"])
        assert (gone.status, gone.kind, gone.problem["state"]) == (410, "result-expired", "expired")
        assert scene.desk.of("/work/1") == []


def queued(scene: Scene) -> str:
    return f"brk:{scene.served.cluster}:{{{WORK}}}:q:g:2"


async def test_a_job_waits_until_its_moment(start_gateway: Start) -> None:
    """`Breaker-Not-Before` keeps work back until its time has come, however much room there is."""
    async with job_scene(start_gateway) as scene:
        moment = datetime.now(UTC) + timedelta(hours=1)
        job = await scene.queue("later", f"Breaker-Not-Before: {moment:%Y-%m-%dT%H:%M:%S}Z")
        assert (job["state"], job["position"], job["eta"]) == ("scheduled", None, None)
        assert job["due_at"] == f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"
        assert datetime.fromisoformat(job["deadline"]) - moment < timedelta(seconds=61)
        soon = datetime.now(UTC) + timedelta(milliseconds=400)
        job = document(await scene.call("soon", f"Breaker-Not-Before: {soon.isoformat()}"))
        assert (await scene.ended(job["id"]))["state"] == "succeeded"
        assert datetime.now(UTC) >= soon
        past = await scene.call("past", "Breaker-Not-Before: 2001-01-01T00:00:00Z")
        assert past.status == 201


async def test_a_job_that_did_not_start_in_time_expires(start_gateway: Start) -> None:
    """Work that is of no use any more is not done, and its caller sees that it was not."""
    async with job_scene(start_gateway, queue={"expire_after": "2m"}) as scene:
        await scene.fill()
        job = document(await scene.call("1", "Breaker-Expires-In: 200ms"))
        assert datetime.fromisoformat(job["expires_at"]) - datetime.now(UTC) < timedelta(seconds=1)
        assert job["deadline"] == job["expires_at"], "a promise beyond the end would be none"
        later = document(await scene.call("2", "Breaker-Expires-In: 1h"))
        assert datetime.fromisoformat(later["expires_at"]) - datetime.now(UTC) <= timedelta(minutes=2)
        ended = await scene.ended(job["id"])
        assert (ended["state"], ended["attempts"], ended["status"]) == ("expired", 0, None)
        assert scene.desk.of("/work/1") == []


async def test_only_callers_that_may_name_bands_do(start_gateway: Start) -> None:
    """Else everybody's work would be critical."""
    keys = {name: name * 8 for name in ("lead", "plain")}
    callers = [
        {"id": name, "key_sha256": [sha256(key.encode()).hexdigest()], "operations": ["*"],
         **({"may_name": ["band"]} if name == "lead" else {})}
        for name, key in keys.items()
    ]  # fmt: skip
    bands = {"header": "X-Plan", "values": {"gold": "high"}, "default": "low"}
    async with job_scene(start_gateway, queue={"bands": bands}, gateway={"callers": callers}) as scene:

        async def band(who: str, *lines: str) -> str:
            found = await scene.queue("1", f"Breaker-Key: {keys[who]}", *lines)
            return str(found["band"])

        assert await band("lead", "Breaker-Band: critical", "X-Plan: gold") == "critical"
        assert await band("plain", "Breaker-Band: critical") == "low"
        assert await band("plain", "Breaker-Band: critical", "X-Plan: gold") == "high"
        wrong = await scene.call("1", f"Breaker-Key: {keys['plain']}", "Breaker-Band: urgent")
        assert (wrong.status, wrong.kind) == (400, "bad-request")


async def test_a_critical_job_overtakes_others(start_gateway: Start) -> None:
    """What is critical goes first, also when it came last."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        low = document(await scene.call("low", "Breaker-Band: low"))
        normal = document(await scene.call("normal"))
        critical = document(await scene.call("critical", "Breaker-Band: critical"))
        assert (low["position"], normal["position"], critical["position"]) == (0, 0, 0)
        assert (await scene.job(low["id"]))["position"] == 2
        scene.desk.open.set()
        await scene.ended(low["id"])
        await scene.ended(normal["id"])
        # The others share what is left, so either of them may come next.
        assert scene.desk.seen[1].head.startswith(b"POST /work/critical ")


async def test_the_result_is_the_downstreams_own_answer(start_gateway: Start) -> None:
    """Status, headers and every byte of the body, as if the call had been answered directly."""
    body = bytes(range(256))
    desk = Desk(lambda _: answer(418, body, "X-Own: a", "X-Own: b", "Set-Cookie: a=b", media="image/x-tea"))
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
        assert len(desk.of("/work/1")) == 1


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
        assert scene.desk.of("/work/1") == scene.desk.of("/work/2") == []


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


async def test_a_full_queue_refuses_with_a_time(start_gateway: Start) -> None:
    """Nothing that was accepted is dropped to make room; who comes too late is told when to come back."""
    async with job_scene(start_gateway, queue={"max_jobs": 2}) as scene:
        await scene.fill()
        assert [(await scene.call(str(number))).status for number in range(3)] == [202, 202, 503]
        told = await scene.call("9")
        assert (told.kind, told.problem["policy"], told.one("Breaker-Outcome")) == (
            "queue-full",
            "jobs",
            "refused",
        )
        assert int(told.one("Retry-After")) >= 1
        assert told.problem["retry_after_ms"] > 0


async def test_a_queue_that_is_full_of_one_tenant_takes_others_work(start_gateway: Start) -> None:
    """A flood of one customer is that customer's own affair."""
    async with job_scene(
        start_gateway, queue={"max_jobs_per_tenant": 1}, tenant={"header": "Breaker-Tenant"}
    ) as scene:
        await scene.fill()
        assert (await scene.call("1", "Breaker-Tenant: acme")).status == 202
        told = await scene.call("2", "Breaker-Tenant: acme")
        assert (told.status, told.kind, told.problem["policy"]) == (429, "tenant-limit", "tenant-jobs")
        assert int(told.one("Retry-After")) >= 1
        assert (await scene.call("3", "Breaker-Tenant: wonka")).status == 202


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


async def test_a_wish_that_cannot_be_read_is_refused(start_gateway: Start) -> None:
    """Work that starts too early, or is told to nobody, is worse than a 400."""
    wrong = [
        "Breaker-Not-Before: tomorrow", "Breaker-Not-Before: 2026-01-01T00:00:00", "Breaker-Not-Before: 9999-12-31T00:00:00Z",
        "Breaker-Expires-In: 0", "Breaker-Expires-In: 999999999d", "Breaker-Band: Critical", "Breaker-Callback: https://a.example/",
        "Idempotency-Key: two words", f"Idempotency-Key: {'x' * 256}", "Idempotency-Key: a\r\nIdempotency-Key: b",
    ]  # fmt: skip
    async with job_scene(start_gateway) as scene:
        for line in wrong:
            told = await scene.call("1", line)
            assert (told.status, told.kind) == (400, "bad-request"), line
            assert line.partition(":")[0] in told.problem["detail"]
        assert scene.desk.seen == []


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
