"""
The desk: what people see of jobs and do with them, by hand and one step each.
"""

from typing import Any

import pytest
from redis import Redis

from breaker.core.job_policy import Band, Effects
from breaker.core.jobs import Fate, Queued, Reason
from breaker.core.model import Capacity
from breaker.store.job_desk import CHORE_LEASE_US
from tests.store.job_world import (
    HOUR,
    MINUTE,
    SECOND,
    START,
    JobReplica,
    Moment,
    a_queue,
    job_replica,
    leftovers,
)
from tests.store.replicas import rate

DAY_MS = 86_400_000


async def dead(one: JobReplica, **changes: Any) -> str:
    """A job that ended as dead, after two attempts that failed."""
    job = await one.queue(**changes)
    await one.end(await one.one(), fate=Fate.RETRY, reason=Reason.DOWNSTREAM)
    await one.end(
        await one.one(), fate=Fate.DEAD, reason=Reason.BUDGET, result=b"500", note=b'{"what":"500"}'
    )
    return job


async def test_a_dead_job_is_run_again_as_itself_with_a_fresh_budget(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Redrive: the same job, its payload, a higher attempt; the ledger counts it once."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await dead(one, payload=b"request", expiry_us=START + HOUR)
        moment.now_us += 2 * HOUR
        assert await one.desk.requeue(one.operation, job)
        assert await one.state(job) == "queued"
        again = await one.one()
        assert (again.head.id, again.payload, again.head.attempt) == (job, b"request", 3)
        assert (again.head.failures, again.head.lost, again.head.reason) == (0, 0, "")
        assert again.head.first_us == START + 2 * HOUR, "its retries begin again"
        await one.end(again)
        look = await one.look()
        assert (look.accepted, look.succeeded, look.dead, look.bytes_used) == (1, 1, 0, 0)
        assert leftovers(redis, one) == set()


async def test_poison_is_run_again_in_company(store_url: str, cluster: str) -> None:
    """A person has mended what killed the replicas: it is no suspect any more."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue()
        for _ in range(3):
            await one.one()
            moment.now_us += 10 * SECOND
        await one.lease()
        assert await one.state(job) == "dead"
        assert await one.desk.requeue(one.operation, job)
        await one.queue()
        leases = await one.lease()
        assert (len(leases.jobs), leases.is_alone) == (2, False)


async def test_a_callback_that_was_under_way_does_not_survive_a_redrive(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """The receiver would hear `dead` of a job that runs; the new end is told, counting from one."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await dead(one, callback="https://crm.example/done")
        assert len((await one.desk.due(one.lane, "callback", 10))[0]) == 1
        assert await one.desk.requeue(one.operation, job)
        moment.now_us += CHORE_LEASE_US
        one.desk.again(one.lane, "callback", job, 0)
        assert await one.desk.due(one.lane, "callback", 10) == ([], -1)
        await one.end(await one.one())
        (chore,), _ = await one.desk.due(one.lane, "callback", 10)
        assert (chore.record.head.state, chore.tries) == ("succeeded", 1)
        one.desk.done(one.lane, "callback", job)
        await one.desk.due(one.lane, "callback", 10)
        moment.now_us += 2 * HOUR
        await one.lease()
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("fate", [Fate.DEAD, Fate.UNKNOWN])
async def test_what_is_given_up_is_counted_and_its_payload_is_gone(
    store_url: str, redis: Redis, cluster: str, fate: Fate
) -> None:
    """Purge: `discarded`, never nothing."""
    async with job_replica(store_url, cluster, a_queue(probe=True), moment=Moment()) as one:
        job = await one.queue(payload=b"x" * 500)
        await one.end(
            await one.one(),
            fate=fate,
            result=b"500",
            note=b"{}",
            probe_us=HOUR if fate is Fate.UNKNOWN else 0,
        )
        assert await one.desk.discard(one.operation, job)
        assert not await one.desk.discard(one.operation, job)
        look = await one.look()
        assert (look.discarded, look.dead, look.unknown, look.probes, look.bytes_used) == (1, 0, 0, 0, 0)
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("fate", [Fate.SUCCEEDED, Fate.DEAD])
async def test_a_person_says_what_came_of_an_unknown_job(
    store_url: str, redis: Redis, cluster: str, fate: Fate
) -> None:
    """It happened, or it did not; a probe that was tried leaves nothing behind."""
    moment = Moment()
    operation = a_queue(effects=Effects.ONCE, probe=True, keep_result_ms=DAY_MS)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        job = await one.queue()
        await one.end(await one.one(), fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS, result=b"504", probe_us=1)
        moment.now_us += 1
        assert len((await one.desk.due(one.lane, "probe", 10))[0]) == 1
        assert await one.desk.resolve(one.operation, job, fate, b"seen")  # type: ignore[arg-type]
        record = await one.show(job)
        assert record
        assert str(record.head.state) == str(fate)
        look = await one.look()
        assert (look.unknown, look.probes, look.succeeded + look.dead) == (0, 0, 1)
        if fate is Fate.DEAD:
            assert (record.head.reason, record.answer) == (Reason.AMBIGUOUS, b"seen")
            assert await one.desk.discard(one.operation, job)
        else:
            assert record.body == b"seen"
        moment.now_us += 25 * HOUR
        await one.lease()
        await one.desk.due(one.lane, "probe", 10)
        assert leftovers(redis, one) == set()


async def test_an_unknown_job_may_be_run_again_by_a_person(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A machine never does; whoever knows that it did not happen may."""
    moment = Moment()
    async with job_replica(
        store_url, cluster, a_queue(effects=Effects.ONCE, probe=True), moment=moment
    ) as one:
        job = await one.queue()
        await one.end(await one.one(), fate=Fate.UNKNOWN, probe_us=1)
        moment.now_us += 1
        await one.desk.due(one.lane, "probe", 10)
        assert await one.desk.requeue(one.operation, job)
        assert (await one.look()).probes == 0
        await one.end(await one.one())
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("how", ["by hand", "by time"])
async def test_a_probe_that_was_tried_leaves_nothing_behind(
    store_url: str, redis: Redis, cluster: str, how: str
) -> None:
    """The owner of the store: an unknown job that is given up is gone, with all that was counted for it."""
    moment = Moment()
    operation = a_queue(effects=Effects.ONCE, probe=True, keep_dead_ms=3_600_000)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        job = await one.queue()
        await one.end(await one.one(), fate=Fate.UNKNOWN, probe_us=1)
        moment.now_us += 1
        assert len((await one.desk.due(one.lane, "probe", 10))[0]) == 1
        if how == "by hand":
            assert await one.desk.discard(one.operation, job)
        else:
            moment.now_us += HOUR
            await one.lease()
        assert (await one.look()).discarded == 1
        assert leftovers(redis, one) == set()


async def test_deeds_fit_the_state_or_are_not_done(store_url: str, cluster: str) -> None:
    """Two people at once: the second one's click changes nothing, and is told so."""
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=DAY_MS)) as one:
        job = await one.queue()
        await nothing_is_done(one, job, "queued")
        running = await one.one()
        await nothing_is_done(one, job, "running")
        await one.end(running)
        await nothing_is_done(one, job, "succeeded")
        assert not await one.desk.requeue(one.operation, "01JNOSUCH")
        job = await dead(one)
        assert not await one.desk.resolve(one.operation, job, Fate.SUCCEEDED)
        assert await one.desk.cancel(one.operation, job) == "dead"


async def nothing_is_done(one: JobReplica, job: str, state: str) -> None:
    """Of what is for jobs in other states."""
    assert not await one.desk.requeue(one.operation, job)
    assert not await one.desk.discard(one.operation, job)
    assert not await one.desk.resolve(one.operation, job, Fate.SUCCEEDED)
    if state != "queued":
        assert await one.desk.cancel(one.operation, job) == state
        assert await one.desk.move(one.operation, job, Band.HIGH) == state
    assert await one.state(job) == state


@pytest.mark.parametrize("not_before", [0, START + MINUTE])
async def test_a_job_that_is_moved_takes_its_turn_in_its_new_band(
    store_url: str, cluster: str, not_before: int
) -> None:
    """An angry customer's ticket goes to `critical`: before those that came earlier."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue(band=Band.LOW, not_before_us=not_before)
        await one.queue_many(3, not_before_us=not_before)
        assert await one.desk.move(one.operation, job, Band.CRITICAL) == "queued"
        look = await one.look()
        if not not_before:
            assert (look.waiting[Band.CRITICAL], look.waiting[Band.LOW]) == (1, 0)
        moment.now_us += MINUTE
        first = await one.one()
        assert (first.head.id, first.head.band) == (job, Band.CRITICAL)
        assert await one.drain() == 3
        await one.end(first)


async def test_a_hold_says_who_since_when_and_why_and_outlives_new_files(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Somebody paused refunds in an incident: a deployment must not resume them."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.desk.hold(one.operation, "paused", START + HOUR, "ann", "chargebacks")
        new = a_queue(jobs_max=5, capacity=Capacity(limits=rate(9)))
        await one.capacity.publish({new.name: new}, "v2")
        look = await one.look()
        assert (look.held, look.held_until_us, look.held_since_us) == ("paused", START + HOUR, START)
        assert (look.held_author, look.held_reason) == ("ann", "chargebacks")
        assert isinstance(await one.accept(), Queued)
        await one.desk.hold(one.operation, "", 0, "bob", "over")
        look = await one.look()
        assert (look.held, look.held_since_us, look.held_author) == ("", 0, "")
        assert len(await one.leased()) == 1
        assert redis.hget(one.keys.named("policy"), "version") == b"v2"


async def test_a_record_says_where_a_job_stands(store_url: str, cluster: str) -> None:
    """Position by the fair order: one of a light tenant is next, although a hundred came before."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        flood = await one.queue_many(100, "flood")
        light = await one.queue("light")
        places = {}
        for job in (flood[0], flood[99], light):
            record = await one.show(job)
            assert record
            assert record.place
            places[job] = record.place
        assert places[flood[0]].ahead <= 1
        assert places[flood[99]].ahead == 100
        assert places[light].ahead == 1
        assert {place.depth for place in places.values()} == {101}
        assert await one.show("01JNOSUCH") is None


async def test_the_look_says_what_waits_since_when_and_by_when(store_url: str, cluster: str) -> None:
    """The gauges that alerts are made of: depth, oldest age and the promise that ends next, by band."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue(band=Band.HIGH, deadline_us=START + MINUTE)
        moment.now_us += 10 * SECOND
        await one.queue(band=Band.HIGH, deadline_us=START + 2 * MINUTE)
        await one.queue(not_before_us=START + HOUR)
        moment.now_us += 5 * SECOND
        look = await one.look()
        assert look.waiting == {Band.CRITICAL: 0, Band.HIGH: 2, Band.NORMAL: 0, Band.LOW: 0}
        assert (look.oldest_us[Band.HIGH], look.oldest_us[Band.LOW]) == (15 * SECOND, 0)
        assert look.deadline_us[Band.HIGH] == START + MINUTE
        assert (look.scheduled, look.running, look.queued) == (1, 0, 2)
        await one.one()
        look = await one.look()
        assert (look.oldest_us[Band.HIGH], look.running) == (5 * SECOND, 1)
