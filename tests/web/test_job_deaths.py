"""A gateway that dies in the middle of a call or a job: no key stays locked, and nothing happens twice."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.gateway.gateway_process import Served, serving, serving_child, write_config
from tests.gateway.raw_downstream import raw_downstream
from tests.web.job_scene import WORK, Desk, Scene, header, pipeline

KEY = "Idempotency-Key: invoice-7"


REPLAYED = "Idempotent-Replayed"


class Fleet:
    """One gateway that can be killed, and its successor on the same store."""

    def __init__(self, folder: Path, redis: Redis, store_url: str, cluster: str) -> None:
        self._folder, self._arguments = folder, (redis, store_url, cluster)
        self.redis = redis
        self.has_killed = False
        self.prefix = f"brk:{cluster}:{{{WORK}}}:"

    def configure(self, url: str, **fields: Any) -> None:
        write_config(self._folder, {"desk": pipeline(url, **fields)}, {}, {})

    @asynccontextmanager
    async def mortal(self) -> AsyncIterator[Served]:
        """A gateway that may be killed: only one that is must not end as it should."""
        try:
            async with serving_child(self._folder, *self._arguments) as served:
                yield served
        except AssertionError:
            if not self.has_killed:
                raise

    def successor(self) -> Any:
        return serving(self._folder, *self._arguments)

    async def kill(self, served: Served) -> None:
        """SIGKILL; and then as if its leases had run out, which takes 10 s otherwise."""
        os.kill(served.pid, signal.SIGKILL)
        self.has_killed = True
        while is_alive(served.pid):
            await asyncio.sleep(0.005)
        for name in ("slots", "q:l"):
            for member, _ in self.redis.zscan_iter(self.prefix + name):
                self.redis.zadd(self.prefix + name, {member: int(time.time() * 1e6) - 1}, xx=True)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@asynccontextmanager
async def killed_mid_call(fleet: Fleet, desk: Desk, **fields: Any) -> AsyncIterator[Scene]:
    """A gateway was killed while its downstream worked on a call; its successor."""
    async with raw_downstream(desk) as downstream:
        fleet.configure(downstream.url, **fields)
        async with fleet.mortal() as first:
            call = asyncio.ensure_future(Scene(served=first, desk=desk).call("1", KEY))
            await desk.until_seen(1)
            await fleet.kill(first)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await call
        async with fleet.successor() as second:
            yield Scene(served=second, desk=desk)


@pytest.fixture
def fleet(tmp_path: Path, redis: Redis, store_url: str, cluster: str) -> Fleet:
    return Fleet(tmp_path / "config", redis, store_url, cluster)


async def test_a_gateway_that_dies_mid_call_leaves_no_key_locked(fleet: Fleet) -> None:
    """With `effects: keyed` the caller repeats its call, and the downstream sees the same key."""
    desk = Desk()
    async with killed_mid_call(fleet, desk) as scene:
        desk.open.set()
        told = await scene.call("1", KEY)
        assert (told.status, told.has(REPLAYED)) == (201, False)
        assert [header(sent, "Idempotency-Key") for sent in desk.seen] == ["invoice-7"] * 2


async def test_a_gateway_that_dies_mid_call_causes_no_second_effect(fleet: Fleet) -> None:
    """With `effects: once` nobody knows whether the downstream did it, so nobody guesses."""
    desk = Desk()
    async with killed_mid_call(fleet, desk, effects="once") as scene:
        desk.open.set()
        for _ in range(2):
            told = await scene.call("1", KEY)
            assert (told.status, told.kind) == (504, "outcome-unknown")
        assert len(desk.seen) == 1


async def test_a_job_of_a_gateway_that_dies_runs_again_with_its_key(fleet: Fleet) -> None:
    """The 202 was a promise, and the successor keeps it."""
    desk = Desk()
    async with killed_mid_job(fleet, desk) as (scene, job):
        desk.open.set()
        ended = await scene.ended(job)
        assert (ended["state"], ended["attempts"]) == ("succeeded", 2)
        assert [header(sent, "Idempotency-Key") for sent in desk.seen] == ["invoice-7"] * 2
        assert [header(sent, "Breaker-Attempt") for sent in desk.seen] == ["1", "2"]
        assert (await scene.call("1", KEY)).one(REPLAYED) == "true"


async def test_a_job_of_a_gateway_that_dies_is_unknown_where_it_must_not_run_twice(fleet: Fleet) -> None:
    """With `effects: once` the job ends visibly, for a person or a probe to settle."""
    desk = Desk()
    async with killed_mid_job(fleet, desk, effects="once") as (scene, job):
        ended = await scene.ended(job)
        assert (ended["state"], ended["reason"], ended["attempts"]) == ("unknown", "lost", 1)
        for told in (await scene.own("GET", f"/v1/jobs/{job}/result"), await scene.call("1", KEY)):
            assert (told.status, told.kind, told.problem["job"]) == (504, "outcome-unknown", job)
        assert len(desk.seen) == 1


@asynccontextmanager
async def killed_mid_job(fleet: Fleet, desk: Desk, **fields: Any) -> AsyncIterator[tuple[Scene, str]]:
    """A gateway was killed while a job ran; its successor, and the job."""
    async with raw_downstream(desk) as downstream:
        fleet.configure(downstream.url, **fields)
        job: dict[str, Any] = {}
        async with fleet.mortal() as first:
            job = await Scene(served=first, desk=desk).queue("1", KEY)
            await desk.until_seen(1)
            await fleet.kill(first)
        async with fleet.successor() as second:
            yield Scene(served=second, desk=desk), job["id"]
