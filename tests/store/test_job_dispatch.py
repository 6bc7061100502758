"""
Dispatch: which jobs run where, and what becomes of those whose replica died.

A replica dies here by not renewing: nothing renews unless a test says so.
"""

from breaker.core.job_policy import Band
from breaker.core.model import LEASE_US, Capacity
from breaker.core.verdict import Admitted
from tests.store.job_world import (
    HOUR,
    MINUTE,
    START,
    Moment,
    a_queue,
    job_replica,
)
from tests.store.replicas import rate, slots


async def test_leasing_a_job_is_its_admission(store_url: str, cluster: str) -> None:
    """No more run than there is capacity, whoever asks for however many."""
    operation = a_queue(capacity=Capacity(limits=slots(3)))
    async with (
        job_replica(store_url, cluster, operation) as one,
        job_replica(store_url, cluster, operation) as two,
    ):
        jobs = await one.queue_many(5)
        first = await one.lease(2)
        second = await two.lease(64)
        assert [job.head.id for job in (*first.jobs, *second.jobs)] == jobs[:3]
        assert first.has_more
        assert not second.has_more
        assert (await one.lease()).jobs == ()
        assert not isinstance(await one.accept(), Admitted), "slots are shared with direct calls"
        await one.end(first.jobs[0])
        assert await two.leased() == jobs[3:4]
        assert (await one.capacity.look(one.operation)).in_use == 3


async def test_rate_slots_and_tenant_caps_hold_in_one_step(store_url: str, cluster: str) -> None:
    """A job refused by one limit has spent nothing of another."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=rate(1, burst=4), per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        await one.queue_many(3, "acme")
        await one.queue("globex")
        leases = await one.lease()
        assert [job.head.tenant for job in leases.jobs] == ["acme", "globex"]
        for job in leases.jobs:
            await one.end(job)
        assert len(await one.leased()) == 1, "two tokens were left: the parked line had taken none"
        assert len(await one.leased()) == 0


async def test_a_parked_line_goes_on_as_soon_as_its_tenant_has_room(store_url: str, cluster: str) -> None:
    """At the settle, not at the end of a lease ten seconds later."""
    operation = a_queue(capacity=Capacity(per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        jobs = await one.queue_many(3)
        for job in jobs:
            running = await one.one()
            assert running.head.id == job
            assert (await one.lease()).jobs == ()
            await one.end(running)


async def test_bands_go_by_urgency_and_a_line_by_deadline(store_url: str, cluster: str) -> None:
    """Critical first; inside a tenant's line whoever must start first."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        low = await one.queue(band=Band.LOW)
        late = await one.queue(deadline_us=START + 3 * MINUTE)
        soon = await one.queue(deadline_us=START + 2 * MINUTE)
        critical = await one.queue(band=Band.CRITICAL)
        order = await one.leased()
        assert order[:2] == [critical, soon]
        assert sorted(order[2:]) == sorted([low, late])


async def test_a_flood_does_not_stand_before_others(store_url: str, cluster: str) -> None:
    """Five thousand jobs of one tenant: the next tenant's first one is the next but one."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        await one.queue_many(300, "flood")
        await one.leased(5)
        light = await one.queue("light")
        assert light in await one.leased(2)


async def test_a_paused_operation_leases_nothing_and_still_reclaims_and_expires(
    store_url: str, cluster: str
) -> None:
    """Held jobs burn no attempts; their deadlines count, and a dead replica's jobs are theirs again."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        lost = await one.queue()
        await one.one()
        expiring = await one.queue(expiry_us=START + LEASE_US)
        await one.desk.hold(one.operation, "paused", 0, "ann", "incident")
        moment.now_us += LEASE_US
        leases = await one.lease()
        assert (leases.jobs, leases.lost, leases.expired) == ((), 1, 1)
        assert [await one.state(job) for job in (lost, expiring)] == ["queued", "gone"]
        await one.desk.hold(one.operation, "", 0, "ann", "over")
        assert await one.leased() == [lost]


async def test_a_hold_ends_by_itself(store_url: str, cluster: str) -> None:
    """Paused for an hour: the dispatcher knows when to look again, without a person."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue()
        await one.desk.hold(one.operation, "paused", START + HOUR, "ann", "maintenance")
        assert (await one.lease()).next_us == HOUR
        moment.now_us += HOUR
        assert len(await one.leased()) == 1


async def test_a_clock_that_goes_back_keeps_no_job_running_for_ever(store_url: str, cluster: str) -> None:
    """The lease of a dead replica would end an hour from now, by the clock as it is."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue()
        await one.one()
        moment.now_us -= HOUR
        assert await one.leased() == [], "it is looked at first"
        moment.now_us += LEASE_US
        assert await one.leased() == [job]
