"""
Failover drills: the store's primary dies, and sentinels name a replica that has not got all of it. Row 6: `docs/faults.md`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.faults.call_drill import DEGRADED_LIMITS, call_drill
from tests.faults.callers import Callers, Wanted, follow
from tests.faults.calls import words
from tests.faults.checker import LEASE_S
from tests.faults.circuit_view import seen
from tests.faults.fleet import has_port
from tests.faults.proxy import Proxy, proxy
from tests.store.job_servers import StoreServer, server_with_waitaof, wait_until
from tests.store.topologies import Sentinel, sentinel_url

pytestmark = pytest.mark.timeout(180)

ORDERS = 100
BEHIND_S = 2.5
BACK_S = 20.0
PERSISTS = ("--appendonly", "yes")
RETRY = {"for": "10m", "base": "100ms", "cap": "1s"}
QUEUE = {"start_within": "60s", "max_jobs": 10_000, "durability": {"replicated": 1}}


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


@dataclass(slots=True, kw_only=True)
class Heirs:
    """
    A primary behind a proxy, by whose address all know it, its replica, and a sentinel.

    Attributes:
        client: Of the replica: it is looked into once it is the primary.

    """

    url: str
    client: Redis
    way: Proxy
    primary: StoreServer
    replica: StoreServer
    sentinel: Sentinel

    def fall_behind(self) -> None:
        """What is written from now on does not reach the replica; everybody else notices nothing."""
        self.way.cut_off(lambda port: has_port(self.replica.process.pid, port))

    async def fail_over(self) -> None:
        """The primary dies, and the replica takes over with what it has."""
        self.primary.kill()
        heir = str(self.replica.port).encode()
        await asyncio.to_thread(wait_until, lambda: self.sentinel.told()[b"port"] == heir, 20)

    async def come_back(self) -> None:
        """The old primary starts again, and the sentinel makes a replica of it."""
        await asyncio.to_thread(self.primary.start)
        await asyncio.to_thread(wait_until, lambda: self.client.wait(1, 100) == 1, 20)


@asynccontextmanager
async def heirs(folder: Path, seed: int) -> AsyncIterator[Heirs]:
    """All of them run until the block ends."""
    binary = await server_with_waitaof()
    primary = await asyncio.to_thread(StoreServer, binary, folder / "primary", *PERSISTS)
    async with proxy(f"127.0.0.1:{primary.port}", seed=seed) as way:
        port = int(way.address.rpartition(":")[2])
        replica = await asyncio.to_thread(
            StoreServer, binary, folder / "replica", *PERSISTS, "--replicaof", f"127.0.0.1 {port}"
        )
        await asyncio.to_thread(wait_until, lambda: primary.client.wait(1, 100) == 1)
        sentinel = await asyncio.to_thread(Sentinel, binary, folder / "sentinel", port, 1)
        try:
            await asyncio.to_thread(wait_until, lambda: sentinel.told()[b"num-slaves"] == b"1")
            yield Heirs(
                url=sentinel_url(sentinel.port), client=replica.client, way=way, primary=primary,
                replica=replica, sentinel=sentinel,
            )  # fmt: skip
        finally:
            sentinel.close()
            replica.close()
            primary.close()


@pytest.mark.drill
async def test_what_was_promised_survives_a_failover_to_a_replica_that_is_behind(
    tmp_path: Path, seed: int
) -> None:
    """Row 6: jobs that a 202 called replicated are there, what fell short was refused, and running calls are known again."""
    # More come than can start, so that what is accepted waits: a job that runs already cannot be taken back.
    changes = {"keyed": {"queue": QUEUE, "retry": RETRY, "capacity": {"concurrency": 4}}}
    async with (
        heirs(tmp_path, seed) as store,
        call_drill(tmp_path, store, seed=seed, store_timeout="300ms", service_ms=300, changes=changes) as scene,
    ):  # fmt: skip
        callers = Callers(scene.fleet.urls, scene.session)
        orders = [Wanted(operation="keyed", order=f"kept-{seed}-{number}") for number in range(ORDERS)]
        load = asyncio.ensure_future(callers.drive(orders, per_second=30, patience_s=60))
        calls = asyncio.ensure_future(
            scene.callers.drive(["read"], seconds=8, per_second=40, name=f"f{seed}")
        )
        await asyncio.sleep(1)
        before = len(callers.notes.accepted)
        store.fall_behind()
        await asyncio.sleep(BEHIND_S)
        short = callers.notes.refusals["503"]
        accepted_behind = len(callers.notes.accepted) - before
        await store.fail_over()
        await store.come_back()
        told = await calls
        await load

        numbers = iter(range(10_000))

        async def is_served() -> bool:
            return (await scene.callers.call("read", f"again-{seed}-{next(numbers)}")).status == 200

        await seen(is_served, seconds=BACK_S)
        # A job that ran already was not taken back: its 202 said how far it got, and it may be forgotten.
        promised = [each for each in callers.notes.accepted if each.durability == "replicated: 1"]
        jobs = await follow(scene.session, scene.fleet.urls, [each.job for each in promised], seconds=60)
        took_s = await scene.until_free("read", seconds=LEASE_S)
        judged = (await scene.judge.report())["keyed"]
        violations = await scene.verdict(limits=DEGRADED_LIMITS)
        print(
            f"{before} accepted before, {accepted_behind} while behind, when {short} were refused; "
            f"{dict(callers.notes.refusals)}; {dict(words(told))}; free after {took_s:.1f} s"
        )

    assert violations == []
    assert short >= 4, "nobody but the primary has it: no 202"
    assert callers.notes.gave_up == []
    assert len(promised) >= 0.9 * ORDERS
    assert {job.state if job else "lost" for job in jobs.values()} == {"succeeded"}
    assert {judged.orders[each.order].effects for each in callers.notes.accepted} == {1}
    assert {each.status for each in told} <= {200, 503}
    assert all('"degraded_ended"' in each.log for each in scene.fleet.replicas)
