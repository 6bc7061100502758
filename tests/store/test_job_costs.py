"""
Costs: a step is the same few commands with a thousand jobs waiting and with twenty thousand.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from breaker.core.job_policy import Band
from breaker.core.jobs import JobState
from breaker.core.model import Capacity
from breaker.store.job_parts import AcceptPart
from breaker.store.lane import AcceptItem
from tests.store.job_world import HOUR, JobReplica, a_queue, job_replica, names
from tests.store.replicas import SCRIPTS, rate, slots

FEW, MANY = 1_000, 20_000
TENANTS = 40
SCANS = {"keys", "scan", "hgetall", "hkeys", "hvals", "smembers", "sort", "lrange", "hscan", "zscan", "sscan"}


def calls(redis: Redis) -> dict[str, int]:
    """How often each command ran on the store, inside scripts too."""
    stats = redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(of["calls"]) for name, of in stats.items()}


async def cost_of(redis: Redis, step: Callable[[], Coroutine[Any, Any, Any]]) -> dict[str, int]:
    """The commands of one step."""
    before = calls(redis)
    await step()
    after = calls(redis)
    cost = {name: number - before.get(name, 0) for name, number in after.items()}
    cost["info"] -= 1
    return {name: number for name, number in cost.items() if number}


def load(one: JobReplica, redis: Redis, number: int) -> None:
    """So many jobs of forty tenants, half of them with an expiry, through the real script."""
    until_us = one.now_us() + HOUR
    for tenant in range(TENANTS):
        changes = {
            "band": list(Band)[tenant % 4],
            "expiry_us": until_us if tenant % 2 else 0,
            "is_async": True,
        }
        answer: Any = None  # nobody waits for it
        items = [AcceptItem(one.offer(f"t{tenant}", **changes), answer) for _ in range(number // TENANTS)]
        part = AcceptPart(one.lane, SCRIPTS["accept"], one.name, "w:", items)
        redis.execute_command(*part.command(one.now_us(), until_us))  # type: ignore[no-untyped-call]


async def measured(one: JobReplica, redis: Redis) -> dict[str, dict[str, int]]:
    """What each step costs now."""
    costs: dict[str, dict[str, int]] = {}
    offer = one.offer(is_async=True, key="k", expiry_us=one.now_us() + HOUR)
    costs["accept"] = await cost_of(redis, lambda: one.jobs.accept(one.lane, offer))
    costs["known"] = await cost_of(redis, lambda: one.jobs.accept(one.lane, offer))
    costs["show"] = await cost_of(redis, lambda: one.show(offer.job))
    costs["look"] = await cost_of(redis, one.look)
    costs["list"] = await cost_of(redis, lambda: one.desk.listed(one.operation, JobState.QUEUED, limit=10))
    costs["cancel"] = await cost_of(redis, lambda: one.desk.cancel(one.operation, offer.job))
    job = await one.one()
    costs["ack"] = await cost_of(redis, lambda: one.end(job))
    costs["lease"] = await cost_of(redis, one.one)
    costs["lease 10"] = await cost_of(redis, lambda: one.lease(10))
    return costs


async def test_the_cost_of_a_step_does_not_depend_on_the_depth(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A month-end's backlog must not slow down the very calls that deal with it."""
    # Above 200 lines the position is a bound; below, it reads each line once, so that lines are alike in both.
    async with job_replica(store_url, cluster, a_queue(), timeout_ms=20_000) as one:
        load(one, redis, FEW)
        few = await measured(one, redis)
        load(one, redis, MANY - FEW)
        assert (await one.look()).queued > MANY - 100
        many = await measured(one, redis)
    redis.unlink(*names(redis, one.keys.prefix))  # other tests look through all keys
    for step, cost in few.items():
        assert sum(many[step].values()) <= sum(cost.values()) + 2, (step, cost, many[step])
        assert not SCANS & set(many[step]) - ({"lrange"} if step == "show" else set()), step
    bounds = {"accept": 60, "known": 30, "ack": 60, "lease": 80, "lease 10": 300, "look": 60}
    assert {
        step: sum(many[step].values()) for step in bounds if sum(many[step].values()) > bounds[step]
    } == {}


async def test_a_lease_among_a_thousand_tenants_at_their_cap_looks_at_few_of_them(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Parked lines are not looked at again and again; the first look parks a bounded number."""
    operation = a_queue(capacity=Capacity(per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, timeout_ms=20_000) as one:
        for tenant in range(300):
            await one.queue_many(2, f"t{tenant}")
        while await one.leased(64):
            pass
        assert (await one.look()).running == 300
        cost = await cost_of(redis, lambda: one.lease(64))
        assert sum(cost.values()) < 60, cost


async def test_a_refused_lease_costs_little_however_much_waits(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """No token: the dispatcher is told when the next one is due, and asks then."""
    async with job_replica(store_url, cluster, a_queue(capacity=Capacity(limits=rate(1)))) as one:
        await one.queue_many(500)
        await one.one()
        leases = await one.lease(64)
        assert leases.jobs == ()
        assert 0 < leases.next_us <= 1_000_000
        cost = await cost_of(redis, lambda: one.lease(64))
        assert sum(cost.values()) < 60, cost


@asynccontextmanager
async def started(store_url: str, cluster: str) -> AsyncIterator[JobReplica]:
    """A replica with all that runs by itself."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        await one.capacity.start(one.operations, "v1")
        one.jobs.start()
        yield one


async def test_an_idle_replica_sends_the_store_nothing(store_url: str, redis: Redis, cluster: str) -> None:
    """A hundred operations without work cost what none costs: no polling."""
    async with started(store_url, cluster) as one:
        await one.queue()
        await one.drain()
        assert (await one.lease()).next_us == -1, "wait to be woken"
        await asyncio.sleep(0.1)  # what starts by itself has started
        assert await cost_of(redis, lambda: asyncio.sleep(1.5)) == {}


@pytest.mark.parametrize("number", [1, 40])
async def test_running_jobs_are_renewed_together(
    store_url: str, redis: Redis, cluster: str, number: int
) -> None:
    """One script per operation, however many run."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        await one.queue_many(number)
        await one.leased(64)
        for job, (attempt, tenant, slot, _) in one.lane.running.items():
            one.lane.running[job] = (attempt, tenant, slot, -1e9)  # as if leased long ago
        before = calls(redis)["evalsha"]
        one.jobs.start()
        await asyncio.sleep(1.9)  # the timer looks twice in a renewal's time
        assert calls(redis)["evalsha"] - before == 1
        assert all(how[3] > 0 for how in one.lane.running.values())


async def test_jobs_that_arrive_together_share_a_round_trip(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Fifty calls in flight are one script, and each is one fsync less."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        before = calls(redis)["evalsha"]
        await one.queue_many(50)
        assert calls(redis)["evalsha"] - before <= 2


async def test_an_ended_job_and_the_next_lease_share_a_round_trip(store_url: str, cluster: str) -> None:
    """Ack, result and the next job in one exchange: the dispatcher's throughput."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        await one.queue_many(2)
        first = await one.one()
        exchanges: list[int] = []
        exchange = one.capacity.coalescer._line.exchange

        async def counted(commands: Any) -> list[Any]:
            exchanges.append(len(commands))
            return await exchange(commands)

        one.capacity.coalescer._line.exchange = counted  # type: ignore[method-assign]
        ending = asyncio.ensure_future(one.end(first))
        leasing = asyncio.ensure_future(one.lease(1))
        await asyncio.gather(ending, leasing)
        assert len(exchanges) == 1
