"""
Durability: what a 202 promises is checked for the write itself, and what falls short is not promised.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from breaker.core.config import StoreSettings
from breaker.core.job_policy import Durability
from breaker.core.jobs import DurabilityNotMet, Queued
from breaker.core.model import Capacity
from breaker.store.checks import StoreFacts, check_store
from breaker.store.jobs import REACH_MS
from breaker.store.server_binary import find_server
from tests.store.job_servers import Pair, StoreServer, server_with_waitaof, wait_until
from tests.store.job_world import (
    FACTS,
    JobReplica,
    a_queue,
    job_replica,
    leftovers,
)
from tests.store.replicas import slots, until

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
REPLICATED = a_queue(durability=Durability.REPLICATED, replicas=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(asyncio.run(find_server()), tmp_path_factory.mktemp("pair"))
    yield made
    made.close()


async def facts_of(server: StoreServer) -> StoreFacts:
    return await check_store(StoreSettings(url=server.url))


@pytest.mark.parametrize(("options", "words"), [(ALWAYS, "fsync"), (EVERYSEC, "memory"), ((), "memory")])
async def test_without_a_way_to_ask_a_202_says_what_the_store_gives_of_itself(
    store_url: str, cluster: str, options: tuple[str, ...], words: str
) -> None:
    """An operator who forgot `appendfsync always` reads `memory`, not a promise."""
    fsync = {ALWAYS: "always", EVERYSEC: "everysec", (): "off"}[options]
    async with job_replica(store_url, cluster, a_queue(), facts=replace(FACTS, fsync=fsync)) as one:
        answer = await one.accept(is_async=True)
        assert isinstance(answer, Queued)
        assert (answer.durability, answer.reach) == (words, None)
        assert one.jobs._checked is None, "nor does it cost a connection"


async def test_where_the_store_can_be_asked_each_accept_is_fsynced_before_its_202(
    tmp_path: Any, cluster: str
) -> None:
    """`appendfsync everysec` and WAITAOF: as safe as `always`, for accepted jobs alone."""
    server = StoreServer(await server_with_waitaof(), tmp_path / "store", *EVERYSEC)
    try:
        facts = await facts_of(server)
        async with job_replica(server.url, cluster, a_queue(), facts=facts) as one:
            answer = await one.accept(is_async=True)
            assert isinstance(answer, Queued)
            assert (answer.durability, answer.reach) == ("fsync", (True, 0))
            server.kill()
            server.start()
            await until(lambda: is_state(one, answer.job, "queued"))
    finally:
        server.close()


async def test_a_store_that_stopped_fsyncing_meanwhile_is_noticed(tmp_path: Any, cluster: str) -> None:
    """Somebody turned the append-only file off: from that write on, nothing is promised."""
    server = StoreServer(await server_with_waitaof(), tmp_path / "store", *EVERYSEC)
    try:
        async with job_replica(server.url, cluster, a_queue(), facts=await facts_of(server)) as one:
            server.client.config_set("appendonly", "no")
            assert await one.accept(is_async=True) == DurabilityNotMet(durability="memory")
            look = await one.look()
            assert (look.accepted, look.queued, one.jobs.given) == (0, 0, {})
    finally:
        server.close()


async def is_state(one: JobReplica, job: str, state: str) -> bool:
    return await one.state(job) == state


async def test_a_job_that_reached_a_replica_says_so(pair: Pair, cluster: str) -> None:
    """A failover loses what no replica has: checked for each write, since configuration alone lost 423 of 673."""
    async with job_replica(pair.primary.url, cluster, REPLICATED) as one:
        await until(lambda: reaches(one))  # a machine that is busy may need another try
        assert one.jobs.given == {one.operation: 1}
        (job,) = (await one.lease()).jobs
        assert pair.replica.client.exists(one.keys.named(f"q:j:{job.head.id}"))


async def test_a_call_that_starts_directly_is_not_kept_for_it(pair: Pair, cluster: str) -> None:
    """It is no job: its verdict promises nothing that a replica must have."""
    operation = replace(REPLICATED, capacity=Capacity(limits=slots(1)))
    async with job_replica(pair.primary.url, cluster, operation) as one:
        await one.give_back(await one.start())


async def test_a_job_that_reached_no_replica_is_withdrawn_and_never_runs(pair: Pair, cluster: str) -> None:
    """A 503 and no job; not a 202 that a failover takes back."""
    async with job_replica(pair.primary.url, cluster, REPLICATED) as one:
        pair.replica.pause()
        try:
            began = time.monotonic()
            offer = one.offer(is_async=True, key="k")
            answer = await one.jobs.accept(one.lane, offer)
            assert answer == DurabilityNotMet(durability="fsync")
            assert time.monotonic() - began < REACH_MS / 1_000 + 1
            look = await one.look()
            assert (look.accepted, look.queued, look.bytes_used) == (0, 0, 0)
            assert await one.state(offer.job) == "gone"
            assert await one.leased() == []
            assert one.jobs.given == {}
            assert leftovers(pair.primary.client, one) == set(), "nor is its key locked"
        finally:
            pair.replica.resume()
        wait_until(pair.is_in_step)
        await until(lambda: reaches(one))


async def reaches(one: JobReplica) -> bool:
    answer = await one.accept(is_async=True)
    return isinstance(answer, Queued) and answer.durability == "replicated: 1"


async def test_a_job_that_already_runs_is_told_with_what_it_reached(pair: Pair, cluster: str) -> None:
    """It cannot be taken back, so that it is a 202 that does not say more than is so."""
    async with (
        job_replica(pair.primary.url, cluster, REPLICATED) as one,
        job_replica(pair.primary.url, cluster, REPLICATED) as two,
    ):
        pair.replica.pause()
        try:
            accepting = asyncio.ensure_future(one.accept(is_async=True))
            await until(lambda: starts_one(two))
            answer = await accepting
        finally:
            pair.replica.resume()
        assert isinstance(answer, Queued)
        assert answer.durability == "fsync"
        assert one.jobs.given == {one.operation: 1}
        assert await two.state(answer.job) == "running"


async def starts_one(two: JobReplica) -> bool:
    return len(await two.leased()) == 1


async def test_waiting_for_a_replica_stalls_nobody_else(pair: Pair, cluster: str) -> None:
    """WAIT holds its connection: leases, acks and direct admissions go by another one."""
    async with job_replica(pair.primary.url, cluster, REPLICATED) as one:
        pair.replica.pause()
        try:
            accepting = asyncio.ensure_future(one.accept(is_async=True))
            await until(lambda: is_depth(one, 1))
            assert not accepting.done()
            began = time.monotonic()
            await one.look()
            assert time.monotonic() - began < REACH_MS / 2_000
            await accepting
        finally:
            pair.replica.resume()


async def is_depth(one: JobReplica, depth: int) -> bool:
    return (await one.look()).queued == depth


async def test_a_reload_that_asks_for_more_replicas_is_obeyed(pair: Pair, cluster: str) -> None:
    """The files said 1 and say 2 now; there is one: nothing that falls short is promised."""
    async with job_replica(pair.primary.url, cluster, REPLICATED) as one:
        await until(lambda: reaches(one))
        two = a_queue(durability=Durability.REPLICATED, replicas=2)
        one.jobs.configure({two.name: two}, FACTS)
        assert await one.accept(is_async=True) == DurabilityNotMet(durability="replicated: 1")
        assert one.jobs._checked
        assert [command[:2] for command in one.jobs._checked.after] == [("WAIT", 2)]
