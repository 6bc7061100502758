"""
The turn: whose job starts next, told by the jobs that are leased one after another.
"""

from collections import Counter

from breaker.core.job_policy import Band
from breaker.core.jobs import Fate
from breaker.core.model import Capacity
from tests.store.job_world import HOUR, MINUTE, START, JobReplica, Moment, a_queue, job_replica
from tests.store.replicas import slots


async def tenants_of(one: JobReplica, number: int) -> list[str]:
    """Whose jobs start next; each ends before the next one starts."""
    found = []
    for _ in range(number):
        job = await one.one()
        found.append(job.head.tenant)
        await one.end(job)
    return found


async def bands_of(one: JobReplica, number: int) -> list[str]:
    found = []
    for _ in range(number):
        job = await one.one()
        found.append(str(job.head.band))
        await one.end(job)
    return found


async def test_who_idled_is_not_owed_for_that_time(store_url: str, cluster: str) -> None:
    """A tenant that sends nothing all night must not own the morning."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue_many(20, "busy")
        assert await tenants_of(one, 9) == ["busy"] * 9
        await one.queue_many(9, "rested")
        assert (await tenants_of(one, 8)).count("rested") == 4


async def test_who_leaves_and_comes_back_has_not_started_anew(store_url: str, cluster: str) -> None:
    """Sending jobs one at a time must not be faster than sending them at once."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue_many(10, "patient")
        found = []
        for _ in range(6):
            await one.queue("drip")
            found += await tenants_of(one, 1)
        assert found.count("drip") == 3


async def test_shares_go_by_weight_as_it_is_now(store_url: str, cluster: str) -> None:
    """A weight that is raised helps the backlog that made somebody raise it."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue_many(40, "big")
        await one.queue_many(40, "small")
        assert Counter(await tenants_of(one, 8)) == {"big": 4, "small": 4}
        weighted = a_queue(weights={"big": 3})
        await one.capacity.publish({weighted.name: weighted}, "v2")
        assert Counter(await tenants_of(one, 16)) == {"big": 12, "small": 4}


async def test_a_costly_job_uses_more_of_its_tenants_share(store_url: str, cluster: str) -> None:
    """Shares are of capacity, not of a number of calls."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue_many(20, "dear", cost=3)
        await one.queue_many(20, "cheap")
        assert Counter(await tenants_of(one, 12)) == {"cheap": 9, "dear": 3}


async def test_bands_share_by_their_weights(store_url: str, cluster: str) -> None:
    """High before normal before low, and nobody starves."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        for band in (Band.HIGH, Band.NORMAL, Band.LOW):
            await one.queue_many(30, band=band, deadline_us=START + HOUR)
        assert Counter(await bands_of(one, 26)) == {"high": 16, "normal": 8, "low": 2}


async def test_a_band_that_was_empty_is_not_owed_for_that_time(store_url: str, cluster: str) -> None:
    """A night of low jobs must not be paid for with a morning without them."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue_many(40, band=Band.LOW, deadline_us=START + HOUR)
        assert await bands_of(one, 20) == ["low"] * 20
        await one.queue_many(40, band=Band.NORMAL, deadline_us=START + HOUR)
        assert Counter(await bands_of(one, 20)) == {"normal": 17, "low": 3}


async def test_a_band_counts_as_the_next_higher_after_half_of_its_promise(
    store_url: str, cluster: str
) -> None:
    """Low jobs are late too, some day; until then high ones go first."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue_many(9, "patient", band=Band.HIGH, deadline_us=START + MINUTE)
        moment.now_us += MINUTE // 2
        await one.queue_many(9, band=Band.CRITICAL, deadline_us=START + HOUR)
        assert await bands_of(one, 1) == ["critical"]
        moment.now_us += 1
        assert await bands_of(one, 9) == ["high"] * 9


async def test_a_job_that_did_not_run_costs_its_tenant_no_turn(store_url: str, cluster: str) -> None:
    """A replica that stops gives back what it had leased; its tenants must not wait a round for that."""
    operation = a_queue(capacity=Capacity(limits=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        for tenant in ("acme", "beta", "gamma"):
            await one.queue_many(2, tenant)
        stopped = await one.one()
        await one.end(stopped, fate=Fate.BACK)
        assert await tenants_of(one, 4) == ["acme", "beta", "gamma", "acme"]
