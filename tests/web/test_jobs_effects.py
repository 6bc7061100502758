"""What the downstream sees of jobs: attempts, keys and credentials; and what is done when nobody knows."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Received
from tests.web.job_scene import Desk, Scene, answer, document, header, job_scene

Said = bytes | None


def by_path(*, work: list[Said], probes: list[Said]) -> Callable[[Received], Said]:
    """What a downstream says to work, in order, and to questions; the last one goes on."""

    def said(received: Received) -> Said:
        left = probes if received.head.startswith(b"GET ") else work
        return left.pop(0) if len(left) > 1 else left[0]

    return said


ONCE: dict[str, Any] = {
    "effects": "once",
    "downstream": {"timeout": "200ms"},
    "idempotency": {"key": "required"},
}


async def test_a_failed_job_is_tried_again_with_the_same_key(start_gateway: Start) -> None:
    """A downstream that deduplicates must see that it is the same work."""
    desk = Desk(by_path(work=[answer(500), answer(502), None, answer(503), answer(201)], probes=[None]))
    async with job_scene(start_gateway, desk=desk, downstream={"timeout": "200ms"}) as scene:
        job = await scene.queue("1", "Content-Type: text/x", "X-Request-Id: request-1")
        ended = await scene.ended(job["id"])
        assert (ended["state"], ended["attempts"]) == ("succeeded", 5)
        assert [header(sent, "Breaker-Attempt") for sent in desk.seen] == ["1", "2", "3", "4", "5"]
        for name, value in (
            ("Idempotency-Key", job["id"]), ("Breaker-Job", job["id"]), ("Content-Type", "text/x"), ("X-Request-Id", "request-1"),
        ):  # fmt: skip
            assert {header(sent, name) for sent in desk.seen} == {value}


@pytest.mark.parametrize("status", [409, 429, 503])
async def test_a_downstream_that_asks_for_time_gets_it_and_no_attempt_is_counted(
    start_gateway: Start, status: int
) -> None:
    """A 409 with Retry-After says that it still works on this very key: dead would be wrong."""
    desk = Desk(by_path(work=[answer(status, b"{}", "Retry-After: 0"), answer(201)], probes=[None]))
    async with job_scene(start_gateway, desk=desk, retry={"base": "1ms", "attempts": 1}) as scene:
        job = await scene.queue()
        assert (await scene.ended(job["id"]))["state"] == "succeeded"
        assert len(desk.seen) == 2


async def test_a_conflict_without_a_time_is_the_callers_to_mend(start_gateway: Start) -> None:
    """Both sides of that edge."""
    desk = Desk(by_path(work=[answer(409)], probes=[None]))
    async with job_scene(start_gateway, desk=desk) as scene:
        ended = await scene.ended((await scene.queue())["id"])
        assert (ended["state"], ended["reason"], ended["status"]) == ("dead", "caller", 409)


async def unknown(scene: Scene) -> str:
    """A job that was sent, and of which nothing more is known."""
    job = await scene.queue("1", "Idempotency-Key: pay-1")
    ended = await scene.ended(job["id"])
    assert (ended["state"], ended["reason"], ended["attempts"]) == ("unknown", "ambiguous", 1)
    return str(job["id"])


async def test_with_effects_once_a_job_is_sent_once(start_gateway: Start) -> None:
    """Without a probe a person decides; no machine guesses."""
    desk = Desk(by_path(work=[None, answer(201)], probes=[None]))
    async with job_scene(start_gateway, desk=desk, **ONCE) as scene:
        job = await unknown(scene)
        for told in (
            await scene.own("GET", f"/v1/jobs/{job}/result"),
            await scene.call("1", "Idempotency-Key: pay-1"),
            await scene.call("1", "Idempotency-Key: pay-1", "Prefer: wait=1"),
        ):
            assert (told.status, told.kind, told.problem["job"]) == (504, "outcome-unknown", job)
        assert (await scene.own("DELETE", f"/v1/jobs/{job}")).kind == "not-cancellable"
        assert len(desk.seen) == 1


async def until_state(scene: Scene, job: str, state: str) -> None:
    """Wait until a job is in this state: it leaves `unknown` without a new end to wait for."""
    for _ in range(2_000):
        if (await scene.job(job))["state"] == state:
            return
    raise AssertionError((await scene.job(job), scene.desk.seen))


async def test_what_the_downstream_says_happened_has_succeeded(start_gateway: Start) -> None:
    """The probe asks by the key that the downstream was sent, so that nobody has to look."""
    desk = Desk(by_path(work=[None], probes=[answer(200)]))
    async with job_scene(start_gateway, desk=desk, **ONCE, probe="GET /done/{idempotency_key}") as scene:
        job = await unknown(scene)
        await until_state(scene, job, "succeeded")
        (question,) = [sent for sent in desk.seen if sent.head.startswith(b"GET ")]
        assert question.head.startswith(b"GET /done/pay-1 HTTP/1.1")
        assert len(desk.of("/tasks/1")) == 1
        told = await scene.own("GET", f"/v1/jobs/{job}/result")
        assert (told.status, told.problem["state"]) == (410, "succeeded")
        assert "its answer was lost" in told.problem["detail"]


async def test_what_the_downstream_does_not_know_of_runs_again(start_gateway: Start) -> None:
    """404 says that it never arrived: now it may be sent, and is."""
    desk = Desk(by_path(work=[None, answer(201)], probes=[answer(404)]))
    async with job_scene(start_gateway, desk=desk, **ONCE, probe="GET /done/{idempotency_key}") as scene:
        job = await unknown(scene)
        await until_state(scene, job, "succeeded")
        assert (await scene.own("GET", f"/v1/jobs/{job}/result")).status == 201
        assert [header(sent, "Idempotency-Key") for sent in desk.of("/tasks/1")] == ["pay-1"] * 2


async def test_a_jobs_credential_is_the_configured_one_and_never_its_callers(start_gateway: Start) -> None:
    """A token that a caller sent is not kept: it would be spent hours later, by us."""
    secret = "Bearer callers-own-token"
    lines = (
        f"Authorization: {secret}",
        "Cookie: session=callers-own",
        "Breaker-Key: callers-own-key",
        "X-Other: callers-own",
    )
    async with job_scene(start_gateway) as scene:
        direct = await scene.call("1", *lines)
        assert direct.status == 201
        assert header(scene.desk.seen[0], "Authorization") == secret
        await scene.fill()
        job = document(await scene.call("2", *lines, "Idempotency-Key: k"))
        assert b"callers-own" not in stored(scene)
        scene.desk.open.set()
        await scene.ended(job["id"])
        (sent,) = scene.desk.of("/tasks/2")
        assert b"callers-own" not in sent.head
        assert header(sent, "Authorization") is None


async def test_a_jobs_credential_is_read_when_it_is_sent(start_gateway: Start) -> None:
    """A password that was changed while jobs waited is the new one."""
    credentials = {"header": "Authorization", "file": "../secrets/token"}
    async with job_scene(
        start_gateway, downstream={"credentials": credentials}, gateway={"secrets": {"token": "Bearer first"}}
    ) as scene:
        await scene.fill()
        job = document(await scene.call("1", "Authorization: Bearer callers-own"))
        assert b"Bearer" not in stored(scene)
        (scene.served.folder / "secrets" / "token").write_text("Bearer second")
        process = scene.served.process
        assert process is not None
        await process.reload()
        scene.desk.open.set()
        await scene.ended(job["id"])
        assert header(scene.desk.seen[0], "Authorization") == "Bearer first"
        assert header(scene.desk.of("/tasks/1")[0], "Authorization") == "Bearer second"


def stored(scene: Scene) -> bytes:
    """Everything that the store holds for this gateway, keys included."""
    store, pieces = scene.store, []
    for key in store.scan_iter(f"brk:{scene.served.cluster}:*", count=1_000):
        pieces.append(key)
        kind = store.type(key)
        if kind == b"string":
            pieces.append(store.get(key))
        elif kind == b"hash":
            pieces += [part for pair in store.hgetall(key).items() for part in pair]
        elif kind == b"list":
            pieces += store.lrange(key, 0, -1)
        elif kind == b"zset":
            pieces += store.zrange(key, 0, -1)
        elif kind == b"stream":
            pieces += [repr(entry).encode() for entry in store.xrange(key) or ()]
        else:
            raise AssertionError((key, kind))
    return b"\n".join(pieces)


KEYS = [{"id": "new", "file": "secrets/new"}]


async def test_nothing_of_a_sealed_job_can_be_read_in_the_store(start_gateway: Start) -> None:
    """Whoever can read the store learns that there are jobs, and not what is in them."""
    desk = Desk(lambda _: answer(201, b"secret-answer", "X-Own: secret-header"))
    gateway = {"payload_keys": KEYS, "secrets": {"new": "ab" * 32}}
    queue = {"store_headers": ["X-Plan"]}
    async with job_scene(start_gateway, desk=desk, queue=queue, gateway=gateway) as scene:
        await scene.fill()
        job = document(
            await scene.call("secret-path", "X-Plan: secret-plan", "Idempotency-Key: k", body=b"secret-body")
        )
        direct = "2?secret-query"
        assert b"q:j:" in stored(scene)
        assert b"secret" not in stored(scene)
        desk.open.set()
        await scene.ended(job["id"])
        (sent,) = desk.of("/tasks/secret-path")
        assert (sent.body, header(sent, "X-Plan")) == (b"secret-body", "secret-plan")
        await scene.call(direct, "Idempotency-Key: direct", body=b"secret-body")
        replay = await scene.call(direct, "Idempotency-Key: direct", body=b"secret-body")
        assert (replay.status, replay.body, replay.has("Idempotent-Replayed")) == (
            201,
            b"secret-answer",
            True,
        )
        assert b"secret" not in stored(scene)
        result = await scene.own("GET", f"/v1/jobs/{job['id']}/result")
        assert (result.body, result.one("X-Own")) == (b"secret-answer", "secret-header")


async def test_a_job_that_no_key_opens_is_dead_and_says_so(start_gateway: Start) -> None:
    """A key that was removed too early: nothing runs wrongly, nothing is lost, and a person can put it back."""
    desk, job = Desk(), dict[str, Any]()
    for ring, id_ in (({"new": "ab" * 32}, "new"), ({"other": "cd" * 32}, "other")):
        gateway = {"payload_keys": [{"id": id_, "file": f"secrets/{id_}"}], "secrets": ring}
        async with job_scene(start_gateway, desk=desk, gateway=gateway) as scene:
            process = scene.served.process
            assert process is not None
            if id_ == "new":
                await process.desk.hold("desk.work", "paused", 0, "test", "to wait")
                job = document(await scene.call("1", "Idempotency-Key: k"))
                assert (job["state"], job["held"], job["eta"]) == ("held", "paused", None)
            else:
                await process.desk.hold("desk.work", "", 0, "test", "to go on")
                ended = await scene.ended(job["id"])
                assert (ended["state"], ended["reason"], ended["attempts"]) == ("dead", "undecryptable", 1)
                told = await scene.own("GET", f"/v1/jobs/{job['id']}/result")
                assert (told.status, told.problem["state"]) == (410, "dead")
                assert "not in the key ring" in told.problem["detail"]
    assert desk.seen == []
