"""
What follows the end of a job: callbacks, probes, and callers that wait for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from redis import Redis

from breaker.core.job_policy import Effects
from breaker.core.jobs import Fate, Reason
from breaker.store.connection import open_client
from breaker.store.job_desk import CHORE_LEASE_US
from breaker.store.keys import wake_prefix
from tests.store.job_world import (
    HOUR,
    SECOND,
    START,
    JobReplica,
    Moment,
    a_queue,
    job_replica,
    leftovers,
)
from tests.store.replicas import until

DAY_MS = 86_400_000
CALLBACK = "https://crm.example/done"


async def test_every_end_is_told_once_it_came_and_comes_back_until_it_was_told(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """The receiver is down, or the replica that delivers dies: the callback is still due, and then done."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue(callback=CALLBACK)
        assert await one.desk.due(one.lane, "callback", 10) == ([], -1)
        await one.end(await one.one(), result=b"ok")
        (chore,), next_us = await one.desk.due(one.lane, "callback", 10)
        assert (chore.job, chore.tries, chore.record.body, next_us) == (job, 1, b"ok", CHORE_LEASE_US)
        assert chore.record.head.callback == CALLBACK
        assert (await one.desk.due(one.lane, "callback", 10))[0] == [], "it is leased"
        moment.now_us += CHORE_LEASE_US
        (chore,), _ = await one.desk.due(one.lane, "callback", 10)
        assert chore.tries == 2, "its replica died"
        one.desk.again(one.lane, "callback", job, HOUR)
        assert await one.desk.due(one.lane, "callback", 10) == ([], HOUR)
        moment.now_us += HOUR
        assert len((await one.desk.due(one.lane, "callback", 10))[0]) == 1
        one.desk.done(one.lane, "callback", job)
        assert await one.desk.due(one.lane, "callback", 10) == ([], -1)
        moment.now_us += 2 * HOUR
        await one.lease()
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("end", ["dead", "unknown", "expired", "cancelled", "discarded"])
async def test_a_callback_follows_whatever_end_it_was(store_url: str, cluster: str, end: str) -> None:
    """A caller that only hears of successes waits for ever."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue(callback=CALLBACK, expiry_us=START + HOUR)
        match end:
            case "expired":
                moment.now_us += HOUR
                await one.lease()
            case "cancelled":
                await one.desk.cancel(one.operation, job)
            case "unknown":
                await one.end(await one.one(), fate=Fate.UNKNOWN)
            case _:
                await one.end(await one.one(), fate=Fate.DEAD)
                if end == "discarded":
                    await one.desk.discard(one.operation, job)
        (chore,), _ = await one.desk.due(one.lane, "callback", 10)
        assert chore.record.head.state == end


async def test_a_record_is_kept_until_its_end_was_told(store_url: str, cluster: str) -> None:
    """The receiver may be down for longer than results are kept; the callback says what came of it."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=1_000), moment=moment) as one:
        job = await one.queue(callback=CALLBACK)
        await one.end(await one.one(), result=b"ok")
        for _ in range(5):
            moment.now_us += 2 * HOUR
            await one.lease()
        (chore,), _ = await one.desk.due(one.lane, "callback", 10)
        assert (chore.job, chore.record.body) == (job, b"ok")
        one.desk.done(one.lane, "callback", job)
        await one.desk.due(one.lane, "callback", 10)
        moment.now_us += 2 * HOUR
        await one.lease()
        assert await one.state(job) == "gone"


async def test_the_downstream_is_asked_about_an_outcome_that_is_not_known(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A probe is due after a while; what it finds resolves the job."""
    moment = Moment()
    operation = a_queue(effects=Effects.ONCE, probe=True)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        job = await one.queue(payload=b"request")
        await one.end(await one.one(), fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS, probe_us=5 * SECOND)
        assert await one.desk.due(one.lane, "probe", 10) == ([], 5 * SECOND)
        moment.now_us += 5 * SECOND
        (chore,), _ = await one.desk.due(one.lane, "probe", 10)
        assert (chore.job, chore.tries, chore.record.body) == (job, 1, b"request")
        assert await one.desk.resolve(one.operation, job, Fate.SUCCEEDED, b"found")
        one.desk.done(one.lane, "probe", job)
        assert await one.desk.due(one.lane, "probe", 10) == ([], -1)
        look = await one.look()
        assert (look.succeeded, look.unknown, look.probes) == (1, 0, 0)
        assert leftovers(redis, one) == set()


@asynccontextmanager
async def listening(one: JobReplica) -> AsyncIterator[None]:
    """That replica hears what is published to it while the block runs."""
    task = asyncio.get_running_loop().create_task(one.capacity.wakes.run())
    client = open_client(one.capacity.wakes._settings)

    async def is_heard() -> bool:
        found = await client.pubsub_numsub(wake_prefix(one.keys.cluster) + one.name)
        return bool(found[0][1] == 1)

    try:
        await until(is_heard)
        yield
    finally:
        await client.aclose()
        task.cancel()
        await asyncio.wait([task])


async def test_a_replica_whose_caller_waits_hears_of_the_end_from_another(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """`Prefer: wait=N`: the job runs elsewhere, and its caller need not ask again and again."""
    async with (
        job_replica(store_url, cluster, a_queue(keep_result_ms=DAY_MS)) as one,
        job_replica(store_url, cluster, a_queue(keep_result_ms=DAY_MS)) as two,
        listening(one),
    ):
        by_offer = await one.queue(watches=True)
        by_look = await two.queue()
        assert await one.desk.show(one.operation, by_look, watch=True)
        by_key = await two.queue(key="k")
        await one.accept(key="k", watches=True)
        unwatched = await two.queue()
        waits = {}
        for job in (by_offer, by_look, by_key):
            one.jobs.expect_end(job)
            waits[job] = asyncio.ensure_future(one.jobs.wait_ended(job, 5))
        assert not await one.jobs.wait_ended(by_offer, 0)
        waits[by_offer] = asyncio.ensure_future(one.jobs.wait_ended(by_offer, 5))
        leases = await two.lease()
        assert {job.head.id for job in leases.jobs} == {by_offer, by_look, by_key, unwatched}
        for leased in leases.jobs:
            await two.end(leased)
        assert await asyncio.gather(*waits.values()) == [True] * 3
        assert one.jobs._ended == {}
        assert not redis.exists(one.keys.named("q:y"))


@pytest.mark.parametrize("how", ["expired", "cancelled", "lost"])
async def test_an_end_that_no_attempt_made_is_heard_as_well(store_url: str, cluster: str, how: str) -> None:
    """Whoever ended it: the caller that waits is told."""
    moment = Moment()
    operation = a_queue(effects=Effects.ONCE)
    async with (
        job_replica(store_url, cluster, operation, moment=moment) as one,
        job_replica(store_url, cluster, operation, moment=moment) as two,
        listening(one),
    ):
        job = await one.queue(watches=True, expiry_us=START + HOUR)
        wait = asyncio.ensure_future(one.jobs.wait_ended(job, 5))
        await asyncio.sleep(0)
        if how == "cancelled":
            await two.desk.cancel(two.operation, job)
        else:
            if how == "lost":
                await two.one()
            moment.now_us += HOUR
            await two.lease()
        assert await wait


async def test_replicas_hear_of_work_that_others_cannot_or_may_not_take(store_url: str, cluster: str) -> None:
    """An idle dispatcher sleeps: one that has its hands full says so, and so does whoever resumes or redrives."""
    async with (
        job_replica(store_url, cluster, a_queue()) as one,
        job_replica(store_url, cluster, a_queue()) as two,
        listening(one),
        listening(two),
    ):
        heard: dict[str, list[str | None]] = {one.name: [], two.name: []}
        news = asyncio.Event()

        def hears(name: str, operation: str | None) -> None:
            heard[name].append(operation)
            news.set()

        one.jobs.on_work, two.jobs.on_work = partial(hears, one.name), partial(hears, two.name)

        async def heard_after(step: Awaitable[Any]) -> None:
            news.clear()
            await step
            async with asyncio.timeout(5):
                await news.wait()

        await two.queue_many(3)
        await heard_after(two.lease(2))
        assert heard == {one.name: [one.operation], two.name: []}, "but for the one that says it"
        await heard_after(two.desk.hold(two.operation, "", 0, "ann", "over"))
        job = await two.one()
        await two.end(job, fate=Fate.DEAD)
        await heard_after(two.desk.requeue(two.operation, job.head.id))
        await until(lambda: is_heard_so_often(heard[one.name], 3))
        await until(lambda: is_heard_so_often(heard[two.name], 2))


async def is_heard_so_often(heard: list[str | None], times: int) -> bool:
    return heard == ["billing.charge"] * times
