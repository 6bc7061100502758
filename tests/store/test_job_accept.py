"""
Accepting: a call starts now, or is a job from now on, or is refused; in one step.
"""

import asyncio
from typing import Any

import pytest
from redis import Redis

from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, Queued
from breaker.core.model import Capacity, Limits
from breaker.core.verdict import Admitted, Policy, Refused, TooCostly
from tests.store.job_world import HOUR, MINUTE, SECOND, START, Moment, a_queue, job_replica, leftovers
from tests.store.replicas import rate, slots

TWO = Capacity(limits=slots(2))


async def test_a_call_with_capacity_starts_and_the_next_is_a_job(store_url: str, cluster: str) -> None:
    """Support: work over capacity waits, and what has room pays nothing for the queue."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        direct = [await one.accept() for _ in range(2)]
        assert all(isinstance(answer, Admitted) and answer.leased for answer in direct)
        queued = await one.accept()
        assert isinstance(queued, Queued)
        assert (queued.is_known, queued.held, queued.depth) == (False, None, 1)
        assert await one.state(queued.job) == "queued"
        look = await one.look()
        assert (look.accepted, look.queued, one.jobs.given) == (1, 1, {one.operation: 1})


async def test_a_call_that_asks_to_be_a_job_is_one_although_there_is_room(
    store_url: str, cluster: str
) -> None:
    """`Prefer: respond-async`: the caller does not want to wait for the downstream."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        job = await one.queue(payload=b"body", callback="https://crm.example/done")
        record = await one.show(job)
        assert record
        assert (record.head.state, record.body, record.head.callback) == (
            "queued",
            b"body",
            "https://crm.example/done",
        )
        assert record.place
        assert (record.place.ahead, record.place.depth) == (0, 1)


async def test_a_call_for_later_is_scheduled_and_starts_then(store_url: str, cluster: str) -> None:
    """`Breaker-Not-Before`: not a microsecond earlier, and nobody waits behind it."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(capacity=TWO), moment=moment) as one:
        job = await one.queue(is_async=False, not_before_us=START + HOUR)
        record = await one.show(job)
        assert record
        assert (record.head.state, record.due_us) == ("scheduled", START + HOUR)
        assert isinstance(await one.accept(), Admitted), "a job for later holds nobody up"
        moment.now_us = START + HOUR - 1
        leases = await one.lease()
        assert (leases.jobs, leases.next_us, leases.waiting) == ((), 1, 1)
        moment.now_us += 1
        assert await one.leased() == [job]


@pytest.mark.parametrize("not_before", [START, START - 1])
async def test_a_call_for_a_moment_that_has_come_is_not_scheduled(
    store_url: str, cluster: str, not_before: int
) -> None:
    """It is as if nothing had been said."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        assert isinstance(await one.accept(not_before_us=not_before), Admitted)
        job = await one.queue(not_before_us=not_before)
        assert await one.state(job) == "queued"
        assert (await one.look()).queued == 1


async def test_nobody_overtakes_a_job_that_could_start(store_url: str, cluster: str) -> None:
    """A slot comes back: a new call must not have it before the job that was promised it."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        first, _ = await one.start(), await one.start()
        job = await one.queue(is_async=False)
        await one.give_back(first)
        later = await one.queue("globex", is_async=False)
        assert await one.leased() == [job]
        assert await one.state(later) == "queued"


async def test_a_free_operation_lets_nobody_overtake_within_one_round_trip(
    store_url: str, cluster: str
) -> None:
    """Calls that arrive together share a step: the second must see what the first became."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        answers = await asyncio.gather(one.accept(is_async=True), one.accept("globex"))
        assert [type(answer) for answer in answers] == [Queued, Queued]


async def test_a_tenant_at_its_own_cap_queues_behind_itself_and_blocks_nobody(
    store_url: str, cluster: str
) -> None:
    """One customer's flood is that customer's affair."""
    capped = Capacity(per_tenant=slots(1))
    async with job_replica(store_url, cluster, a_queue(capacity=capped)) as one:
        await one.start("acme")
        job = await one.queue("acme", is_async=False)
        # Nobody has looked at the line yet: from outside it could start, so that others go behind it.
        assert await one.leased() == []
        assert isinstance(await one.accept("globex"), Admitted), "it is parked, and blocks nobody"
        assert isinstance(await one.accept("acme"), Queued), "its own tenant's calls stand behind it"
        assert await one.state(job) == "queued"


async def test_a_capped_tenants_job_blocks_nobody_who_came_with_it(store_url: str, cluster: str) -> None:
    """Calls that arrive together share a step; one tenant's cap is still not the other's affair."""
    capped = Capacity(per_tenant=slots(1))
    async with job_replica(store_url, cluster, a_queue(capacity=capped)) as one:
        await one.start("acme")
        answers = await asyncio.gather(one.accept("acme"), one.accept("globex"), one.accept("acme"))
        assert [type(answer) for answer in answers] == [Queued, Admitted, Queued]


async def test_a_tenant_whose_cap_has_room_again_does_not_overtake_its_own_job(
    store_url: str, cluster: str
) -> None:
    """The slot that came back is the waiting job's."""
    capped = Capacity(per_tenant=slots(1))
    async with job_replica(store_url, cluster, a_queue(capacity=capped)) as one:
        running = await one.start("acme")
        job = await one.queue("acme", is_async=False)
        assert await one.leased() == []
        await one.give_back(running)
        assert isinstance(await one.accept("acme"), Queued)
        assert (await one.leased())[0] == job


async def test_a_job_of_a_band_below_is_not_overtaken_either(store_url: str, cluster: str) -> None:
    """Bands say whose turn it is among jobs; a call that just came is not among them."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        await one.queue(band=Band.LOW)
        assert isinstance(await one.accept(band=Band.CRITICAL), Queued)


async def test_the_number_ahead_is_that_of_jobs_in_its_own_and_higher_bands(
    store_url: str, cluster: str
) -> None:
    """The 202 says a bound that costs O(1): what stands below does not count."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        for band, number in ((Band.CRITICAL, 1), (Band.NORMAL, 2), (Band.LOW, 4)):
            await one.queue_many(number, band=band)
        ahead = {}
        for band in Band:
            answer = await one.accept("other", band=band, is_async=True)
            assert isinstance(answer, Queued)
            ahead[str(band)] = answer.ahead
            await one.desk.cancel(one.operation, answer.job)
        assert ahead == {"critical": 1, "high": 1, "normal": 3, "low": 7}


async def test_a_call_that_can_never_fit_is_its_callers_mistake(store_url: str, cluster: str) -> None:
    """A job that can never start would wait for ever."""
    async with job_replica(store_url, cluster, a_queue(capacity=Capacity(limits=rate(10, burst=2)))) as one:
        assert await one.accept(cost=3, is_async=True) == TooCostly(policy=Policy.RATE)
        assert isinstance(await one.accept(cost=2), Admitted)


async def test_a_job_spends_no_rate_before_it_starts(store_url: str, cluster: str) -> None:
    """Waiting is free; leasing is admission, and pays."""
    moment = Moment()
    capacity = Capacity(limits=rate(1, burst=1))
    async with job_replica(store_url, cluster, a_queue(capacity=capacity), moment=moment) as one:
        jobs = await one.queue_many(3)
        assert await one.leased() == jobs[:1]
        leases = await one.lease()
        assert (leases.jobs, leases.next_us) == ((), SECOND)
        moment.now_us += SECOND
        assert await one.leased() == jobs[1:2]


async def test_a_closed_operation_refuses_what_would_expire_before_it_opens(
    store_url: str, cluster: str
) -> None:
    """Said now, when the caller can do something about it, and not with an `expired` tomorrow."""
    closed = Capacity(limits=Limits(concurrency=0))
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(capacity=closed), moment=moment) as one:
        redis = Redis.from_url(store_url)
        # A person opens it in two hours: until then the override holds.
        policy = {"override": "- - - - 0", "override_until": str(START + 2 * HOUR)}
        redis.hset(one.keys.named("policy"), mapping=policy)  # type: ignore[arg-type]
        redis.close()
        refused = await one.accept(expiry_us=START + 2 * HOUR)
        assert isinstance(refused, Refused)
        assert refused.policy is Policy.CLOSED
        assert isinstance(await one.accept(expiry_us=START + 2 * HOUR + 1), Queued)


async def test_an_offer_that_is_taken_back_leaves_nothing(store_url: str, redis: Redis, cluster: str) -> None:
    """Its caller hung up, or it was not durable enough: it never was."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        later: dict[str, Any] = {"not_before_us": one.now_us() + HOUR}
        for changes in ({}, later, {"expiry_us": one.now_us() + HOUR}):
            offer = one.offer(is_async=True, key="k", **changes)
            assert isinstance(await one.jobs.accept(one.lane, offer), Queued)
            assert await one.capacity.coalescer.revoke(one.lane, offer)
        assert (await one.look()).accepted == 0
        assert leftovers(redis, one) == set()
        assert redis.get(one.keys.named(f"q:given:{one.name}")) == b"0"


async def test_a_job_that_runs_is_not_taken_back(store_url: str, cluster: str) -> None:
    """Too late: it is told as accepted, because it is."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        offer = one.offer(is_async=True)
        await one.jobs.accept(one.lane, offer)
        running = await one.one()
        assert not await one.capacity.coalescer.revoke(one.lane, offer)
        await one.end(running)
        look = await one.look()
        assert (look.accepted, look.succeeded) == (1, 1)


async def test_a_job_that_has_run_is_not_taken_back_although_it_waits(store_url: str, cluster: str) -> None:
    """Its first attempt failed, and may have had an effect: it goes on to its own end."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        offer = one.offer(is_async=True)
        await one.jobs.accept(one.lane, offer)
        await one.end(await one.one(), fate=Fate.RETRY, delay_us=HOUR)
        assert not await one.capacity.coalescer.revoke(one.lane, offer)
        assert await one.state(offer.job) == "scheduled"


async def test_a_caller_that_hangs_up_while_we_ask_leaves_neither_job_nor_slot(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """It never heard of the job, so that nobody would come for it."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        for is_async in (False, True):
            task = asyncio.ensure_future(one.accept(is_async=is_async))
            while not one.capacity.coalescer._task:
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # it is on its way
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await one.look()
            look = await one.look()
            assert (look.accepted, look.queued) == (0, 0)
        assert {name for name in leftovers(redis, one) if name != "tombs"} == set()
        assert one.jobs.given == {}


async def test_a_paused_operation_takes_calls_as_held_jobs_and_a_draining_one_refuses(
    store_url: str, cluster: str
) -> None:
    """Pausing burns nothing and refuses nobody; draining is for an operation that is to be empty."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        await one.desk.hold(one.operation, "paused", 0, "ann", "incident")
        held = await one.accept()
        assert isinstance(held, Queued)
        assert held.held is Policy.PAUSED
        assert await one.leased() == []
        until_us = one.now_us() + 10 * MINUTE
        await one.desk.hold(one.operation, "draining", until_us, "ann", "moving")
        refused = await one.accept()
        assert isinstance(refused, Refused)
        assert refused.policy is Policy.DRAINING
        assert 9 * MINUTE < refused.retry_after_us <= 10 * MINUTE, "when it takes calls again"
        assert await one.leased() == [held.job], "what was accepted still runs"
