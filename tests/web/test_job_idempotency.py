"""A key is one piece of work: whatever is repeated, and whatever dies in between."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from breaker.store import job_parts
from breaker.store.coalescer import Coalescer
from breaker.store.lane import Lane
from breaker.store.parts import SettlePart
from breaker.store.replies import Part
from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Received
from tests.web.job_scene import WORK, Desk, Scene, answer, document, header, job_scene
from tests.web.raw_caller import Answer

KEY = "Idempotency-Key: invoice-7"


REPLAYED = "Idempotent-Replayed"


async def test_an_operation_that_requires_a_key_refuses_a_call_without_one(start_gateway: Start) -> None:
    """A charge without a key cannot be repeated safely, so it is not begun."""
    async with job_scene(start_gateway, idempotency={"key": "required"}) as scene:
        for lines in ((), ("Idempotency-Key: ",), ("Prefer: respond-async",)):
            told = await scene.call("1", *lines)
            assert (told.status, told.kind) == (400, "idempotency-key-missing")
        assert scene.desk.seen == []
        assert (await scene.call("1", KEY)).status == 201


async def test_fifty_calls_at_once_are_one_execution(start_gateway: Start) -> None:
    """A client that goes mad charges once."""
    async with job_scene(start_gateway, capacity={"concurrency": 10}) as scene:
        scene.desk.open.clear()
        calls = [asyncio.ensure_future(scene.call("1", KEY)) for _ in range(50)]
        await scene.desk.until_seen(1)
        while sum(call.done() for call in calls) < 49:
            await asyncio.sleep(0.005)
        scene.desk.open.set()
        told = await asyncio.gather(*calls)
        assert Counter(one.status for one in told) == {201: 1, 409: 49}
        assert {one.kind for one in told if one.status == 409} == {"in-progress"}
        assert all(int(one.one("Retry-After")) >= 1 for one in told if one.status == 409)
        (sent,) = scene.desk.seen
        assert header(sent, "Idempotency-Key") == "invoice-7"
        assert await until_replayed(scene) == b'{"done": true}'
        assert len(scene.desk.seen) == 1


async def until_replayed(scene: Scene, *lines: str) -> bytes:
    """Repeat the call until its answer is kept, which takes a moment; the body."""
    async with asyncio.timeout(5):
        while (told := await scene.call("1", KEY, *lines)).status == 409:
            await asyncio.sleep(0.005)
    assert (told.one(REPLAYED), told.one("Breaker-Outcome")) == ("true", "replayed"), told
    return told.body


async def test_fifty_calls_beyond_capacity_are_one_job(start_gateway: Start) -> None:
    """All are told of the same job, and none of a second."""
    async with job_scene(start_gateway) as scene:
        await scene.fill()
        told = await asyncio.gather(*(scene.call("1", KEY) for _ in range(50)))
        assert {one.status for one in told} == {202}
        assert len({document(one)["id"] for one in told}) == 1
        assert sum(one.has(REPLAYED) for one in told) == 49
        waiting = [asyncio.ensure_future(scene.call("1", KEY, "Prefer: wait=30")) for _ in range(10)]
        async with asyncio.timeout(5):
            while (await scene.served.outcomes(WORK)).get("queued:known", 0) < 49 or not waits(scene, 10):
                await asyncio.sleep(0.005)
        scene.desk.open.set()
        joined = await asyncio.gather(*waiting)
        assert {(one.status, one.body, one.one(REPLAYED)) for one in joined} == {
            (201, b'{"done": true}', "true")
        }
        assert len(scene.desk.of("/tasks/1")) == 1


def waits(scene: Scene, count: int) -> bool:
    """Whether so many callers wait for one job."""
    process = scene.served.process
    assert process is not None
    return any(watch.waiting == count for watch in process.jobs._ended.values())


async def test_another_request_under_the_same_key_is_refused(start_gateway: Start) -> None:
    """Two invoices with one key: the second must not pass for paid."""
    async with job_scene(start_gateway) as scene:
        assert (await scene.call("1", KEY, body=b'{"amount": 1}')).status == 201
        for path, body in (("1", b'{"amount": 2}'), ("2", b'{"amount": 1}'), ("1?x=1", b'{"amount": 1}')):
            told = await scene.call(path, KEY, body=body)
            assert (told.status, told.kind, told.has("Retry-After")) == (422, "idempotency-key-reused", False)
        await scene.fill()
        await scene.call("3", "Idempotency-Key: queued", body=b"a")
        assert (await scene.call("3", "Idempotency-Key: queued", body=b"b")).status == 422
        assert len(scene.desk.seen) == 2


async def test_a_direct_call_is_replayed_as_it_was_answered(start_gateway: Start) -> None:
    """A caller whose connection broke asks again and gets what it missed."""
    desk = Desk(lambda _: answer(422, b"no\xff", "X-Own: 1", media="text/plain"))
    async with job_scene(start_gateway, desk=desk) as scene:
        first = await scene.call("1", KEY)
        assert (first.status, first.one("Breaker-Outcome"), first.has(REPLAYED)) == (422, "forwarded", False)
        assert await until_replayed(scene) == b"no\xff"
        again = await scene.call("1", KEY)
        assert (again.status, again.one("X-Own"), again.one("Content-Type")) == (422, "1", "text/plain")
        assert again.one("Breaker-Job") == first.one("Breaker-Decision")
        record = await scene.own("GET", again.one("Content-Location"))
        assert (record.status, record.body) == (422, b"no\xff")
        assert len(desk.seen) == 1


async def test_a_job_that_ended_is_replayed(start_gateway: Start) -> None:
    """The same for work that went through the queue."""
    async with job_scene(start_gateway) as scene:
        job = await scene.queue("1", KEY)
        await scene.ended(job["id"])
        told = await scene.call("1", KEY)
        assert (told.status, told.one(REPLAYED), told.one("Breaker-Job")) == (201, "true", job["id"])
        assert len(scene.desk.seen) == 1


async def test_keys_of_different_callers_have_nothing_to_do_with_each_other(start_gateway: Start) -> None:
    """`1` is a key that everybody uses."""
    keys = {name: name * 8 for name in ("a", "b")}
    callers = [
        {"id": name, "key_sha256": [sha256(key.encode()).hexdigest()], "operations": ["*"]}
        for name, key in keys.items()
    ]
    async with job_scene(start_gateway, gateway={"callers": callers}) as scene:
        told = [await scene.call("1", "Idempotency-Key: 1", f"Breaker-Key: {key}") for key in keys.values()]
        assert [(one.status, one.has(REPLAYED)) for one in told] == [(201, False)] * 2
        assert len(scene.desk.seen) == 2


def first_then(first: bytes | None, then: bytes) -> Callable[[Received], bytes | None]:
    """One answer for the first request, another for all others."""
    told: list[bytes | None] = [first]
    return lambda _: told.pop() if told else then


@pytest.mark.parametrize(
    "first",
    [
        answer(500, b"{}"),
        answer(503, b"{}", "Retry-After: 0"),
        answer(429, b"{}"),
        answer(409, b"{}", "Retry-After: 1"),
    ],
    ids=["500", "503", "429", "409"],
)
async def test_a_downstream_that_did_not_do_it_frees_the_key(start_gateway: Start, first: bytes) -> None:
    """A failure that can be mended must not stick to the key for a day."""
    async with job_scene(start_gateway, desk=Desk(first_then(first, answer()))) as scene:
        failed = await scene.call("1", KEY)
        assert failed.status == int(first.split(b" ")[1])
        assert (await until_free(scene)).status == 201
        assert await until_replayed(scene) == b'{"done": true}'
        assert len(scene.desk.seen) == 2


async def until_free(scene: Scene) -> Answer:
    """Repeat the call until the key is not in progress any more."""
    async with asyncio.timeout(5):
        while (told := await scene.call("1", KEY)).status == 409:
            await asyncio.sleep(0.005)
    return told


@pytest.mark.parametrize(
    ("first", "status"), [(None, 504), (answer(500, b"{}"), 500), (answer(502, b"{}"), 502)]
)
async def test_with_effects_once_an_outcome_that_is_not_known_is_not_repeated(
    start_gateway: Start, first: bytes | None, status: int
) -> None:
    """The downstream does not deduplicate: a second call might be a second payment."""
    desk = Desk(first_then(first, answer()))
    async with job_scene(start_gateway, desk=desk, effects="once", downstream={"timeout": "300ms"}) as scene:
        assert (await scene.call("1", KEY)).status == status
        told = await until_free(scene)
        assert (told.status, told.kind, told.one("Breaker-Outcome")) == (504, "outcome-unknown", "unknown")
        assert "job" not in told.problem, "a direct call leaves no job to look at"
        assert len(desk.seen) == 1


async def test_a_failure_before_anything_was_sent_frees_the_key_also_with_effects_once(
    start_gateway: Start,
) -> None:
    """No connection, no effect: nobody needs to look."""
    async with job_scene(start_gateway, effects="once", downstream={"url": "http://127.0.0.1:9"}) as scene:
        for _ in range(2):
            told = await until_free(scene)
            assert (told.status, told.kind) == (502, "downstream-unreachable")


async def test_a_key_is_kept_before_its_lease_goes(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two, another replica would take the call's gateway for dead and execute it again."""
    sent: list[str] = []
    left: list[int] = []
    parts_of = Coalescer._parts_of

    def noted(self: Coalescer, lane: Lane) -> Iterator[Part]:
        for part in parts_of(self, lane):
            sent.append(type(part).__name__)
            if isinstance(part, SettlePart):
                left.append(len(lane.keeps))
            yield part

    async with job_scene(start_gateway, capacity={"concurrency": 20}) as scene:
        monkeypatch.setattr(Coalescer, "_parts_of", noted)
        monkeypatch.setattr(job_parts, "ITEMS_MAX", 1)  # so that they do not all go at once
        scene.desk.open.clear()
        calls = [asyncio.ensure_future(scene.call("1", f"Idempotency-Key: {number}")) for number in range(20)]
        await scene.desk.until_seen(20)
        scene.desk.open.set()
        assert {told.status for told in await asyncio.gather(*calls)} == {201}
        await until_replayed_as(scene, "Idempotency-Key: 0")
    first = min(sent.index("KeepPart"), sent.index("SettlePart"))
    assert sent[first] == "KeepPart", sent
    assert set(left) == {0}, "a lease went while a key was still to be kept"


async def until_replayed_as(scene: Scene, key: str) -> None:
    async with asyncio.timeout(5):
        while not (await scene.call("1", key)).has(REPLAYED):
            await asyncio.sleep(0.005)
