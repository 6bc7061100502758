"""
What becomes of jobs when the store is not well: answers get lost, it pauses, is full, or forgets.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from breaker.core.errors import StoreError, StoreRefusedError
from breaker.core.events import JobsLost
from breaker.core.job_policy import Durability
from breaker.core.jobs import Fate
from breaker.core.model import LEASE_US, Capacity
from breaker.store.keys import Keys
from breaker.store.policy import publish_arguments, terms_of
from breaker.store.server_binary import find_server
from tests.store.job_servers import StoreServer
from tests.store.job_world import (
    FACTS,
    HOUR,
    SECOND,
    START,
    JobReplica,
    Loss,
    Moment,
    a_queue,
    job_replica,
    leftovers,
)
from tests.store.replicas import SCRIPTS, slots, until

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
REPLICATED = a_queue(durability=Durability.REPLICATED, replicas=1)


@pytest.fixture
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A store of this test alone, every write on disk."""
    made = StoreServer(asyncio.run(find_server()), tmp_path_factory.mktemp("lone") / "store", *ALWAYS)
    yield made
    made.close()


async def is_depth(one: JobReplica, depth: int) -> bool:
    return (await one.look()).queued == depth


# What gets lost on the way.


@pytest.mark.parametrize("loss", list(Loss))
async def test_an_accept_that_got_lost_is_withdrawn_and_never_runs(
    store_url: str, redis: Redis, cluster: str, loss: Loss
) -> None:
    """Its caller was told that nothing will happen; whether the store had done it, or is yet to hear of it."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        offer = one.offer(is_async=True, key="k")
        async with one.losing(loss):
            await one.jobs.accept(one.lane, offer)
        look = await one.look()
        assert (look.accepted, look.queued, look.bytes_used) == (0, 0, 0)
        assert one.jobs.given == {}
        assert await one.leased() == []
        if loss is Loss.QUESTION:
            # It was on its way all the time, and is read now.
            assert await one.jobs.accept(one.lane, offer) is None
            assert (await one.look()).accepted == 0
            assert leftovers(redis, one) == set()
        await one.queue(key="k")


async def test_an_ack_that_got_lost_is_said_again_and_counts_once(store_url: str, cluster: str) -> None:
    """The work is done: it must not run again, nor be counted twice."""
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=60_000), moment=Moment()) as one:
        jobs = await one.queue_many(2)
        for loss, job in zip(Loss, (await one.lease()).jobs, strict=True):
            async with one.losing(loss):
                await one.end(job, result=b"ok")
        look = await one.look()
        assert (look.succeeded, look.running) == (2, 0)
        assert [await one.state(job) for job in jobs] == ["succeeded"] * 2


PAUSE_S = 1.2


async def test_a_store_that_was_paused_accepts_and_leases_nothing_when_it_wakes(
    lone: StoreServer, cluster: str
) -> None:
    """It runs what was sent to it long ago: jobs for nobody, and leases that nobody works on."""
    async with job_replica(lone.url, cluster, a_queue(), timeout_ms=200) as one:
        waiting = await one.queue()
        lone.pause()
        try:
            accepting = [asyncio.ensure_future(one.accept(is_async=True)) for _ in range(5)]
            leasing = asyncio.ensure_future(one.lease())
            ended = await asyncio.gather(*accepting, leasing, return_exceptions=True)
            assert all(isinstance(what, StoreError) for what in ended), ended
            await asyncio.sleep(PAUSE_S)
        finally:
            lone.resume()
        await until(lambda: is_depth(one, 1))
        look = await one.look()
        assert (look.accepted, look.running, look.late) == (1, 0, 0)
        assert await one.leased() == [waiting]


@pytest.mark.parametrize("verb", ["accept", "lease"])
@pytest.mark.parametrize(
    ("estimate", "not_after", "what"),
    [
        (START, START, 0), (START, START - 1, 1), (START - 2 * SECOND, START, 0), (START + 2 * SECOND, START, 0),
        (START - 2 * SECOND - 1, START + HOUR, 2), (START + 2 * SECOND + 1, START + HOUR, 2),
        (START - 12 * SECOND, START - 12 * SECOND + 100_000, 2),
    ],
)  # fmt: skip
async def test_nothing_is_accepted_or_leased_after_its_moment(
    redis: Redis, cluster: str, verb: str, estimate: int, not_after: int, what: int
) -> None:
    """To the microsecond, and byte for byte; also after a pause of twelve seconds."""
    keys = Keys(cluster, "billing.charge")
    operation = a_queue()

    def run(name: str, *words: Any) -> list[Any]:
        reply: list[Any] = redis.eval(SCRIPTS[name].text, len(keys.all), *keys.all, *words)
        return reply

    run("publish", *publish_arguments(terms_of(operation, START), "v1"))
    job = ("R.1", "01J1", "acme", 1, "crm", "-", "f", 2, "acme", "a", 0, START + HOUR, 0, "-", b"{}")
    run("accept", START, "", "", "R", LEASE_US, "w:", *job)
    words: tuple[Any, ...] = ("R", LEASE_US, "w:", "R.2", "01J2", *job[2:])
    if verb == "lease":
        words = ("R", LEASE_US, "w:", 10, "1", operation.name, "", "")
    before = {name: redis.dump(name) for name in sorted(redis.scan_iter(f"brk:{cluster}:*"))}
    reply = run(verb, START, estimate, not_after, *words)
    assert reply[:2] == [what, START]
    after = {name: redis.dump(name) for name in sorted(redis.scan_iter(f"brk:{cluster}:*"))}
    assert (after == before) is (what != 0)


# A store that is full.


async def test_a_store_without_memory_takes_nothing_new_and_can_be_emptied(
    lone: StoreServer, cluster: str
) -> None:
    """Jobs still run, end, expire and are cancelled: a full store can always drain."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=slots(4)), keep_result_ms=60_000)
    async with job_replica(lone.url, cluster, operation, moment=moment) as one:
        jobs = await one.queue_many(3)
        expiring = await one.queue(expiry_us=START + HOUR)
        dead = await one.queue()
        await one.desk.cancel(one.operation, dead)
        direct_before = (await one.capacity.look(one.operation)).in_use
        lone.client.config_set("maxmemory", 1)
        with pytest.raises(ResponseError):
            lone.client.set("probe", "x")
        for is_async in (True, False):
            with pytest.raises(StoreRefusedError):
                await one.accept(is_async=is_async, key="k")
        assert (await one.capacity.look(one.operation)).in_use == direct_before, "nothing was half written"
        assert (await one.look()).accepted == 5
        first = await one.one()
        assert first.head.id == jobs[0]
        held = [(job, *how) for job, how in one.lane.running.items()]
        await one.jobs._extend(one.lane, held)
        await one.end(first, result=b"ok")
        await one.end(await one.one(), fate=Fate.RETRY, delay_us=SECOND)
        moment.now_us += SECOND
        assert await one.desk.cancel(one.operation, jobs[2]) == "cancelled"
        moment.now_us = START + HOUR
        assert (await one.lease(0)).expired == 1
        assert await one.state(expiring) == "expired"
        assert await one.drain() == 1
        look = await one.look()
        assert (look.succeeded, look.cancelled, look.expired, look.queued) == (2, 2, 1, 0)
        assert await one.desk.listed(one.operation, "queued") == ([], "")  # type: ignore[arg-type]
        lone.client.config_set("maxmemory", 0)
        await one.queue(key="k")


# A store that forgot.


async def test_a_store_that_was_emptied_is_noticed_by_whoever_was_given_jobs(
    lone: StoreServer, cluster: str
) -> None:
    """Both sides of the ledger are gone together: it balances, and two callers wait for ever."""
    async with job_replica(lone.url, cluster, a_queue()) as one:
        await one.queue_many(3)
        await one.end(await one.one())
        assert (await one.look()).lost == 0
        lone.client.flushall()
        await one.capacity.publish(one.operations, "v1")
        look = await one.look()
        assert (look.unaccounted, look.lost) == (0, 2), "the one that had ended is not missed"
        assert [event for event in one.events if isinstance(event, JobsLost)] == [JobsLost(one.operation, 2)]
        await one.look()
        await one.queue_many(2)
        assert (await one.look()).lost == 2
        assert one.seen(JobsLost) == 1, "said once"


async def test_a_store_that_forgets_again_is_noticed_again(lone: StoreServer, cluster: str) -> None:
    """A smaller loss after a larger one is a loss as well."""
    async with job_replica(lone.url, cluster, a_queue()) as one:
        for number in (3, 1):
            await one.queue_many(number)
            await one.look()
            lone.client.flushall()
            await one.capacity.publish(one.operations, "v1")
            await one.look()
        assert [event.count for event in one.events if isinstance(event, JobsLost)] == [3, 1]
        assert (await one.look()).lost == 4


async def test_a_store_that_went_back_is_noticed_to_the_job(tmp_path: Any, cluster: str) -> None:
    """A failover to a replica that lagged, or a restart from an old snapshot."""
    server = StoreServer(await find_server(), tmp_path / "store")
    try:
        async with job_replica(server.url, cluster, a_queue(), facts=replace(FACTS, fsync="off")) as one:
            await one.queue_many(3)
            await one.look()
            server.client.save()
            await one.end(await one.one())
            await one.queue_many(2)
            server.kill()
            server.start()
            await until(lambda: is_lost(one, 2))
            await one.queue()
            look = await one.look()
            assert (look.lost, look.unaccounted, look.accepted) == (2, 0, 4)
    finally:
        server.close()


async def is_lost(one: JobReplica, number: int) -> bool:
    return (await one.look()).lost == number


async def test_a_count_that_was_let_go_after_days_of_silence_is_no_loss(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A weekend without calls, and a job for next month: nobody is to be woken."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        await one.queue(not_before_us=one.now_us() + 1_000 * HOUR)
        await one.look()
        redis.delete(one.keys.named(f"q:given:{one.name}"))
        assert (await one.look()).lost == 0
        await one.queue()
        assert (await one.look()).lost == 0
        assert one.seen(JobsLost) == 0


async def test_a_job_that_was_not_told_is_not_missed(store_url: str, cluster: str) -> None:
    """Withdrawn, or joined by its key: only 202s that were given are counted."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue(key="k")
        await one.queue(key="k")
        async with one.losing(Loss.ANSWER):
            await one.accept(is_async=True)
        look = await one.look()
        assert (look.accepted, look.lost, one.jobs.given) == (1, 0, {one.operation: 1})
