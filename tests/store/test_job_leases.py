"""
Leases of jobs: who may end an attempt, and what becomes of those whose replica died, stopped or heard nothing.

A replica dies here by not renewing: nothing renews unless a test says so.
"""

import asyncio

import pytest
from redis import Redis

from breaker.core.events import AcksLate, LeasesLost
from breaker.core.job_policy import Band, Effects
from breaker.core.jobs import Fate, Reason
from breaker.core.model import LEASE_US, Capacity
from tests.store.job_world import (
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
from tests.store.replicas import slots

DAY_MS = 86_400_000


async def extend(one: JobReplica) -> None:
    """What the renewing timer does, now."""
    held = [(job, *how) for job, how in one.lane.running.items()]
    await one.jobs._extend(one.lane, held)


async def test_only_the_attempt_that_holds_the_lease_ends_the_job(store_url: str, cluster: str) -> None:
    """A frozen replica comes back and says `succeeded` for a job that runs elsewhere: counted, ignored."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=slots(1)), keep_result_ms=DAY_MS)
    async with (
        job_replica(store_url, cluster, operation, moment=moment) as frozen,
        job_replica(store_url, cluster, operation, moment=moment) as other,
    ):
        job = await frozen.queue()
        first = await frozen.one()
        moment.now_us += LEASE_US
        second = await other.one()
        assert (second.head.id, second.head.attempt) == (job, 2)
        await frozen.end(first, fate=Fate.DEAD, result=b"late")
        assert await other.state(job) == "running"
        assert (await other.look()).late == 1
        assert frozen.seen(AcksLate) == 1
        assert (await other.capacity.look(other.operation)).in_use == 1, "nor did it free the other's slot"
        await other.end(second, result=b"ok")
        record = await other.show(job)
        assert record
        assert (record.head.state, record.body) == ("succeeded", b"ok")


async def test_an_attempt_that_ends_twice_counts_once(store_url: str, cluster: str) -> None:
    """An ack whose answer was lost is said again."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        await one.queue()
        job = await one.one()
        held = one.lane.running[job.head.id]
        await one.end(job)
        one.lane.running[job.head.id] = held
        await one.end(job)
        look = await one.look()
        assert (look.succeeded, look.late, look.running) == (1, 1, 0)


async def test_a_lease_that_is_renewed_is_not_lost(store_url: str, cluster: str) -> None:
    """A job may run for hours: its replica lives."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=slots(1), per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        await one.queue()
        job = await one.one()
        for _ in range(3):
            moment.now_us += LEASE_US - 1
            await extend(one)
            leases = await one.lease()
            assert (leases.lost, leases.jobs) == (0, ())
            assert (await one.capacity.look(one.operation)).in_use == 1
        moment.now_us += LEASE_US - 1
        await one.end(job)
        assert (await one.look()).succeeded == 1


async def test_a_lease_that_was_lost_is_not_taken_back_but_its_slot_is(store_url: str, cluster: str) -> None:
    """A replica that was frozen for long: the work runs twice now, and both count against the limit."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=slots(1), per_tenant=slots(1)))
    async with (
        job_replica(store_url, cluster, operation, moment=moment) as frozen,
        job_replica(store_url, cluster, operation, moment=moment) as other,
    ):
        job = await frozen.queue()
        first = await frozen.one()
        moment.now_us += LEASE_US
        second = await other.one()
        await extend(frozen)
        assert (await other.capacity.look(other.operation)).in_use == 2
        assert {type(event).__name__ for event in frozen.events} >= {"LeasesLost"}
        await frozen.end(first)
        assert (await other.capacity.look(other.operation)).in_use == 1
        await other.end(second)
        assert await other.state(job) == "gone"


async def test_a_dead_replicas_job_comes_back_when_its_lease_ends_and_before_all_others(
    store_url: str, cluster: str
) -> None:
    """It was promised first. Not a microsecond before, or it would run twice."""
    moment = Moment()
    operation = a_queue(keep_result_ms=DAY_MS)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        lost = await one.queue()
        await one.one()
        await one.queue_many(3, band=Band.CRITICAL)
        moment.now_us += LEASE_US - 1
        leases = await one.lease(0)
        assert (leases.lost, (await one.look()).running) == (0, 1)
        moment.now_us += 1
        leases = await one.lease(10)
        assert (leases.lost, leases.is_alone) == (1, True)
        assert [job.head.id for job in leases.jobs] == [lost]
        assert leases.jobs[0].head.is_suspect
        record = await one.show(lost)
        assert record
        assert b'"what":"lost"' in record.notes[0]


async def test_the_next_look_is_when_a_lease_could_end(store_url: str, cluster: str) -> None:
    """Within 15 s of a replica's death its jobs run again, though nobody polls."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue()
        await one.one()
        assert (await one.lease()).next_us == LEASE_US


async def test_a_suspect_waits_until_its_replica_is_idle_and_then_runs_alone(
    store_url: str, cluster: str
) -> None:
    """It may be what killed the last replica; its neighbours must not die with it."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        suspect = await one.queue()
        await one.one()
        moment.now_us += LEASE_US
        others = await one.queue_many(3)
        busy = await one.lease(2, is_idle=False)
        assert [job.head.id for job in busy.jobs] == others[:2], "others go on meanwhile"
        assert busy.wants_alone
        assert (await one.look()).suspects == 1
        alone = await one.lease(10, is_idle=True)
        assert [job.head.id for job in alone.jobs] == [suspect]
        assert alone.is_alone
        assert not alone.has_more


async def test_only_one_replica_at_a_time_empties_itself_for_a_suspect(store_url: str, cluster: str) -> None:
    """Else one bad job idles the whole cluster."""
    moment = Moment()
    async with (
        job_replica(store_url, cluster, a_queue(), moment=moment) as one,
        job_replica(store_url, cluster, a_queue(), moment=moment) as two,
    ):
        await one.queue()
        await one.one()
        moment.now_us += LEASE_US
        assert (await one.lease(2, is_idle=False)).wants_alone
        assert not (await two.lease(2, is_idle=False)).wants_alone
        assert (await one.lease(2, is_idle=False)).wants_alone, "it is the one"
        moment.now_us += LEASE_US
        assert (await two.lease(2, is_idle=False)).wants_alone, "and when it is gone, another"


async def test_a_job_that_kills_its_replica_twice_alone_is_poison_and_innocents_survive(
    store_url: str, cluster: str
) -> None:
    """Three jobs on the replica when it died: each runs alone; the one that kills again ends as dead."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        poison, *innocent = await one.queue_many(3)
        assert len(await one.leased()) == 3
        moment.now_us += LEASE_US
        deaths = 1
        while (leases := await one.lease(10)).jobs:
            (job,) = leases.jobs
            assert leases.is_alone
            if job.head.id == poison:
                deaths += 1
                moment.now_us += LEASE_US
            else:
                await one.end(job)
        assert deaths == 3, "once in company, and twice alone"
        look = await one.look()
        assert (look.succeeded, look.dead, look.waiting[Band.NORMAL]) == (2, 1, 0)
        record = await one.show(poison)
        assert record
        assert (record.head.state, record.head.reason) == ("dead", Reason.POISON)
        assert record.body == b"{}", "its payload is kept, for a person"
        assert [await one.state(job) for job in innocent] == ["gone", "gone"]


async def test_a_suspect_that_comes_through_is_a_job_like_any_other(store_url: str, cluster: str) -> None:
    """Its replica died of something else: a retry runs in company again."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue()
        await one.one()
        moment.now_us += LEASE_US
        alone = await one.one()
        await one.end(alone, fate=Fate.RETRY, reason=Reason.DOWNSTREAM)
        other = await one.queue()
        leases = await one.lease(10)
        assert {leased.head.id for leased in leases.jobs} == {job, other}
        assert not leases.is_alone


async def test_a_suspect_that_is_given_back_is_still_one(store_url: str, cluster: str) -> None:
    """It did not run: a rolling restart clears nobody of suspicion, and adds none."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue()
        await one.one()
        moment.now_us += LEASE_US
        for _ in range(3):
            await one.end(await one.one(), fate=Fate.BACK)
        leases = await one.lease(10)
        assert leases.is_alone
        assert leases.jobs[0].head.lost == 0


@pytest.mark.parametrize("probe", [False, True])
async def test_a_lost_attempt_that_must_not_be_repeated_is_unknown(
    store_url: str, cluster: str, probe: bool
) -> None:
    """`effects: once`: perhaps the refund went out. A probe asks, or a person decides."""
    moment = Moment()
    operation = a_queue(effects=Effects.ONCE, probe=probe)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        job = await one.queue()
        await one.one()
        moment.now_us += LEASE_US
        leases = await one.lease()
        assert (leases.lost, leases.jobs) == (1, ())
        record = await one.show(job)
        assert record
        assert (record.head.state, record.head.reason) == ("unknown", Reason.LOST)
        # The replica may be alive, and the request under way: not before that must have ended.
        timeout_us = operation.downstream.timeout_ms * 1_000
        moment.now_us += timeout_us + LEASE_US - 1
        assert await one.desk.due(one.lane, "probe", 10) == ([], 1 if probe else -1)
        moment.now_us += 1
        chores, _ = await one.desk.due(one.lane, "probe", 10)
        assert [chore.job for chore in chores] == ([job] if probe else [])


async def test_leases_that_a_stopping_replica_gives_back_start_at_once_and_first(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A rolling restart delays nobody by a lease, and marks nobody as a suspect."""
    operation = a_queue(capacity=Capacity(limits=slots(2), per_tenant=slots(2)))
    async with (
        job_replica(store_url, cluster, operation, moment=Moment()) as one,
        job_replica(store_url, cluster, operation, moment=one.moment) as two,
    ):
        jobs = await one.queue_many(4, expiry_us=START + HOUR)
        for job in (await one.lease(2)).jobs:
            await one.end(job, fate=Fate.BACK)
        leases = await two.lease(2)
        assert [job.head.id for job in leases.jobs] == jobs[:2]
        assert not leases.is_alone
        assert {job.head.failures for job in leases.jobs} == {0}
        for job in leases.jobs:
            await two.end(job)
        assert await two.drain() == 2
        assert leftovers(redis, one) == set()


async def test_a_lease_that_was_lost_is_told_once(store_url: str, cluster: str) -> None:
    """On-call counts jobs that lost their lease, not how long they ran on."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue()
        job = await one.one()
        moment.now_us += LEASE_US
        await one.lease(0)
        for _ in range(2):
            await extend(one)
        assert one.seen(LeasesLost) == 1
        await one.end(job)


async def test_the_end_of_a_lost_attempt_leaves_the_next_one_its_own(store_url: str, cluster: str) -> None:
    """A job that a person ran again on the replica where its lost attempt still runs: the next one counts."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue()
        first = await one.one()
        moment.now_us += LEASE_US
        second = await one.one()
        assert (second.head.id, second.head.attempt) == (first.head.id, 2)
        await one.end(first)
        assert list(one.lane.running) == [second.head.id]
        await one.end(second)
        look = await one.look()
        assert (look.succeeded, look.late, look.running) == (1, 1, 0)


async def test_leases_are_renewed_before_people_who_look(store_url: str, cluster: str) -> None:
    """A thousand callers who poll their jobs must not let the leases of those that run lapse."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        steps, order = one.capacity.coalescer, list[str]()

        async def ask(verb: str, *words: int) -> None:
            await steps.run(one.lane, verb, b"", *words)
            order.append(verb)

        await asyncio.gather(ask("look"), ask("look"), ask("look"), ask("extend", LEASE_US))
        assert order == ["extend", "look", "look", "look"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_job_that_was_only_given_back_still_expires(store_url: str, cluster: str, times: int) -> None:
    """It did not start, however often a replica stopped with it in hand."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue(expiry_us=START + HOUR)
        for _ in range(times):
            moment.now_us += SECOND
            await one.end(await one.one(), fate=Fate.BACK)
        moment.now_us = START + HOUR
        assert (await one.lease()).expired == 1


async def test_a_lease_whose_caller_has_gone_is_given_back(store_url: str, cluster: str) -> None:
    """A dispatcher that stops while it asks: the jobs go back, and nothing renews their slots for ever."""
    operation = a_queue(capacity=Capacity(limits=slots(2)))
    async with job_replica(store_url, cluster, operation) as one:
        jobs = await one.queue_many(2)
        task = asyncio.ensure_future(one.lease())
        while not one.capacity.coalescer._task:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is on its way
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await one.look()
        await one.look()
        assert one.lane.running == {}
        assert await one.leased() == jobs


async def test_a_lease_that_came_in_the_moment_of_a_stop_is_given_back(store_url: str, cluster: str) -> None:
    """The answer is there and nobody has seen it: else it would be held for as long as the process drains."""
    async with job_replica(store_url, cluster, a_queue(capacity=Capacity(limits=slots(2)))) as one:
        jobs = await one.queue_many(2)
        task = asyncio.ensure_future(one.lease())
        while not one.lane.running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert one.lane.running == {}
        await one.look()
        assert await one.leased() == jobs


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("effects", list(Effects))
async def test_jobs_of_an_answer_that_got_lost_start_with_the_next_question(
    store_url: str, cluster: str, effects: Effects, lost: int
) -> None:
    """Their replica knows that they run nowhere: no lease to wait for, no suspect, and no `unknown`."""
    operation = a_queue(capacity=Capacity(limits=slots(2), per_tenant=slots(2)), effects=effects)
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        jobs = await one.queue_many(3)
        for _ in range(lost):
            async with one.losing(Loss.ANSWER):
                await one.lease()
        leases = await one.lease()
        assert [job.head.id for job in leases.jobs] == jobs[:2]
        assert (leases.lost, leases.is_alone) == (0, False)
        assert {job.head.attempt for job in leases.jobs} == {1 + lost}
        for job in leases.jobs:
            await one.end(job)
        assert await one.drain() == 1


@pytest.mark.parametrize("loss", list(Loss))
async def test_a_job_whose_answer_was_heard_runs_on_when_a_later_one_gets_lost(
    store_url: str, cluster: str, loss: Loss
) -> None:
    """What runs must not be run a second time beside it, whatever came of the question after."""
    async with job_replica(store_url, cluster, a_queue(effects=Effects.ONCE), moment=Moment()) as one:
        await one.queue_many(2)
        running = await one.one()
        async with one.losing(loss):
            await one.lease(1)
        second = await one.one()
        assert second.head.id != running.head.id
        await one.end(running)
        await one.end(second)
        look = await one.look()
        assert (look.succeeded, look.late) == (2, 0)
