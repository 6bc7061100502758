"""
Batches: jobs of one key that go downstream together, when they are due, as one lease.
"""

import pytest
from redis import Redis

from breaker.core.job_policy import Batch, Effects
from breaker.core.jobs import Fate, Queued
from breaker.core.model import LEASE_US, Capacity
from breaker.core.verdict import Admitted
from tests.store.job_world import MINUTE, SECOND, START, Moment, a_queue, job_replica, leftovers
from tests.store.replicas import rate, slots

EUR, USD = {"line": "acme~eur"}, {"line": "acme~usd"}


def batch(**changes: int) -> Batch:
    said = {"max_items": 3, "max_bytes": 100_000, "window_ms": 30_000} | changes
    return Batch(path="/batch", key="/currency", **said)


async def test_a_batch_goes_when_it_is_full_and_holds_one_slot(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A hundred invoices are one call downstream; what is left waits for company."""
    operation = a_queue(batch=batch(), capacity=Capacity(limits=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        jobs = await one.queue_many(2, **EUR)
        assert (await one.lease()).jobs == ()
        jobs += await one.queue_many(3, **EUR)
        leases = await one.lease()
        assert [job.head.id for job in leases.jobs] == jobs[:3]
        assert len({job.slot for job in leases.jobs}) == 1
        assert (await one.capacity.look(one.operation)).in_use == 1
        for job in leases.jobs:
            await one.end(job)
        assert (await one.capacity.look(one.operation)).in_use == 0
        assert (await one.lease()).jobs == ()
        one.moment.now_us += 30 * SECOND  # type: ignore[union-attr]
        assert await one.drain() == 2
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("first", [EUR, USD])
async def test_a_batch_holds_jobs_of_one_key(store_url: str, cluster: str, first: dict[str, str]) -> None:
    """Euros and dollars are two calls, and neither waits for the other."""
    second = USD if first is EUR else EUR
    async with job_replica(store_url, cluster, a_queue(batch=batch()), moment=Moment()) as one:
        lone = await one.queue(**first)
        three = await one.queue_many(3, **second)
        leases = await one.lease()
        assert [job.head.id for job in leases.jobs] == three
        assert await one.leased() == []
        await one.end(*leases.jobs)
        one.moment.now_us += 30 * SECOND  # type: ignore[union-attr]
        assert await one.leased() == [lone]


async def test_a_batch_goes_when_its_oldest_has_waited_for_the_window(store_url: str, cluster: str) -> None:
    """One invoice on a quiet day is not kept for company that does not come; the dispatcher knows when."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(batch=batch()), moment=moment) as one:
        first = await one.queue(**EUR)
        moment.now_us += 20 * SECOND
        second = await one.queue(**EUR)
        leases = await one.lease()
        assert (leases.jobs, leases.next_us) == ((), 10 * SECOND)
        moment.now_us += 10 * SECOND - 1
        assert await one.leased() == []
        moment.now_us += 1
        assert await one.leased() == [first, second]


async def test_a_batch_goes_when_a_deadline_needs_it(store_url: str, cluster: str) -> None:
    """The promise goes before the saving."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(batch=batch()), moment=moment) as one:
        job = await one.queue(**EUR, deadline_us=START + 5 * SECOND)
        assert (await one.lease()).next_us == 5 * SECOND
        moment.now_us += 5 * SECOND
        assert await one.leased() == [job]


async def test_a_batch_goes_when_its_bytes_are_enough_and_takes_no_more(store_url: str, cluster: str) -> None:
    """The downstream takes bodies up to a size."""
    operation = a_queue(batch=batch(max_items=100, max_bytes=5_000))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        jobs = await one.queue_many(3, **EUR, payload=b"x" * 1_500)
        assert await one.leased() == []
        jobs += await one.queue_many(2, **EUR, payload=b"x" * 1_500)
        taken = await one.leased()
        assert taken == jobs[:3]


async def test_a_batch_pays_its_rate_as_debt(store_url: str, cluster: str) -> None:
    """Three items at one a second: the next batch comes three seconds later, though no burst holds three."""
    moment = Moment()
    operation = a_queue(batch=batch(), capacity=Capacity(limits=rate(1, burst=1)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        jobs = await one.queue_many(6, **EUR)
        assert await one.leased() == jobs[:3]
        leases = await one.lease()
        assert (leases.jobs, leases.next_us) == ((), 3 * SECOND)
        moment.now_us += 3 * SECOND
        assert await one.leased() == jobs[3:]


async def test_a_tenants_cap_counts_the_items_of_a_batch(store_url: str, cluster: str) -> None:
    """One customer's thousand invoices leave room in the batch for the others'."""
    operation = a_queue(batch=batch(max_items=4), capacity=Capacity(per_tenant=slots(2)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        await one.queue_many(4, "acme", line="acme~eur")
        await one.queue("globex", line="globex~eur")
        leases = await one.lease()
        assert sorted(job.head.tenant for job in leases.jobs) == ["acme", "acme", "globex"]


@pytest.mark.parametrize("effects", list(Effects))
async def test_a_batch_whose_replica_died_comes_back_one_by_one_or_is_unknown(
    store_url: str, cluster: str, effects: Effects
) -> None:
    """One of them may be what killed it: each runs alone, so that the others survive."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(batch=batch(), effects=effects), moment=moment) as one:
        jobs = await one.queue_many(3, **EUR)
        await one.lease()
        moment.now_us += LEASE_US
        ran: list[str] = []
        while (leases := await one.lease()).jobs:
            assert (len(leases.jobs), leases.is_alone) == (1, True)
            ran.append(leases.jobs[0].head.id)
            await one.end(leases.jobs[0])
        look = await one.look()
        if effects is Effects.ONCE:
            assert (ran, look.unknown) == ([], 3)
        else:
            assert (sorted(ran), look.succeeded) == (sorted(jobs), 3)


async def test_items_of_a_batch_end_each_in_its_own_way(store_url: str, cluster: str) -> None:
    """One bad invoice fails alone."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(batch=batch()), moment=moment) as one:
        await one.queue_many(3, **EUR)
        fates = [Fate.SUCCEEDED, Fate.DEAD, Fate.RETRY]
        for job, fate in zip((await one.lease()).jobs, fates, strict=True):
            await one.end(job, fate=fate)
        look = await one.look()
        assert (look.succeeded, look.dead, look.queued, look.running) == (1, 1, 1, 0)
        moment.now_us += MINUTE
        assert await one.drain() == 1


async def test_a_call_with_room_does_not_wait_for_a_batch(store_url: str, cluster: str) -> None:
    """A batch saves calls of work that waits; what can start now starts, unless a batch is due."""
    async with job_replica(store_url, cluster, a_queue(batch=batch()), moment=Moment()) as one:
        await one.queue_many(2, "globex", line="globex~eur")
        assert isinstance(await one.accept(**EUR), Admitted)
        await one.queue("globex", line="globex~eur")
        assert isinstance(await one.accept(**EUR), Queued)
