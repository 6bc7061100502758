"""How a call becomes a job, and what its caller is told at once."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from breaker.core.errors import StoreError
from breaker.store.job_desk import JobDesk
from tests.gateway.gateway_process import Start
from tests.web.job_scene import WORK, Desk, Scene, answer, document, header, job_scene

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
        (sent,) = scene.desk.of("/tasks/2")
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
        assert len(desk.of("/tasks/1")) == 1


async def test_a_caller_that_has_waited_in_vain_keeps_its_job(start_gateway: Start) -> None:
    """It gave up waiting, not the work."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        told = await scene.call("1", "Prefer: respond-async, wait=1")
        assert (told.status, told.one("Preference-Applied")) == (202, "respond-async, wait=1")
        assert (document(told)["state"], document(told)["durability"]) == ("queued", "memory")
        scene.desk.open.set()
        assert (await scene.ended(document(told)["id"]))["state"] == "succeeded"
        assert len(scene.desk.of("/tasks/1")) == 1


async def test_a_job_that_was_accepted_is_told_also_when_it_cannot_be_looked_at(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store went away after it had written the job: "nothing was executed" would make it be sent twice."""

    async def gone(*_: object, **__: object) -> None:
        raise StoreError("planted")

    async with job_scene(start_gateway) as scene:
        await scene.fill()
        with monkeypatch.context() as patched:
            patched.setattr(JobDesk, "show", gone)
            told = await scene.call("1", "Idempotency-Key: k", "Prefer: wait=1")
            assert (told.status, document(told)["state"]) == (202, "queued")
            again = await scene.call("1", "Idempotency-Key: k", "Prefer: wait=1")
            assert (again.status, again.kind) == (503, "degraded")
            looked = await scene.own("GET", f"/v1/jobs/{document(told)['id']}?wait=1")
            assert (looked.status, looked.kind) == (503, "degraded")
        process = scene.served.process
        assert process is not None
        assert process.jobs._ended == {}, "who cannot wait is not expected to"
        scene.desk.open.set()
        assert (await scene.ended(document(told)["id"]))["state"] == "succeeded"
        assert len(scene.desk.of("/tasks/1")) == 1


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
        assert scene.desk.of("/tasks/1") == []


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
        assert scene.desk.of("/tasks/1") == []


async def test_a_job_behind_direct_calls_expires_in_time_as_well(start_gateway: Start) -> None:
    """Nothing of the queue runs here, so that no end of a job makes anybody look."""
    async with job_scene(start_gateway) as scene:
        scene.desk.open.clear()
        direct = asyncio.ensure_future(scene.call("direct"))
        await scene.desk.until_seen(1)
        await scene.call("1")
        started = time.monotonic()
        job = document(await scene.call("2", "Breaker-Expires-In: 200ms"))
        assert (await scene.job(job["id"], wait=30))["state"] == "expired"
        assert time.monotonic() - started < 4
        scene.desk.open.set()
        await direct


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
        assert scene.desk.seen[1].head.startswith(b"POST /tasks/critical ")


async def test_a_full_queue_refuses_with_a_time(start_gateway: Start) -> None:
    """Nothing that was accepted is dropped to make room; who comes too late is told when to come back."""
    async with job_scene(start_gateway, queue={"max_jobs": 2}) as scene:
        await scene.fill()
        assert [(await scene.call(str(number))).status for number in range(3)] == [202, 202, 503]
        told = await scene.call("9")
        assert (told.kind, told.one("Breaker-Outcome")) == ("queue-full", "refused")
        assert (told.problem["policy"], told.problem["limit"]) == ("jobs", "2 jobs")
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
        assert told.problem["limit"] == "1 job"
        assert int(told.one("Retry-After")) >= 1
        assert (await scene.call("3", "Breaker-Tenant: wonka")).status == 202


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
