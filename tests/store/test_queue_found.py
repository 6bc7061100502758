"""
What the random histories of the queue, and reading its scripts beside the design, have found.

Each was a mistake of the scripts; here it is told as a story, for those who change them next.
"""

from dataclasses import replace

from breaker.core.job_policy import Band, Batch
from breaker.core.jobs import Fate, Queued
from breaker.core.model import LEASE_US, Capacity, Limits, Mode, Operation, Rate
from breaker.core.verdict import Admitted, Policy, Refused
from tests.store.job_world import HOUR, MINUTE, SECOND, START, JobReplica, Moment, a_queue, job_replica
from tests.store.replicas import rate, slots

BATCH = Batch(max_items=3, max_bytes=1_000_000, window_ms=10_000, path="/batch")


def batches(**changes: object) -> Operation:
    return replace(a_queue(**changes), batch=BATCH)  # type: ignore[arg-type]


async def publish(one: JobReplica, operation: Operation) -> None:
    """The files say something else from now on."""
    await one.capacity.publish({operation.name: operation}, "v2")


async def test_tenants_that_came_at_once_go_by_age_however_many_they_are(
    store_url: str, cluster: str
) -> None:
    """The 1,024th tenant went first: places among equals were counted modulo 1,024, and then by name."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        jobs = [await one.queue(f"t{(number * 617) % 1_100:04}") for number in range(1_100)]
        order = []
        while leased := await one.leased(64):
            order += leased
        assert order == jobs


async def test_who_comes_back_last_goes_first_whatever_its_name(store_url: str, cluster: str) -> None:
    """Lines at the front had the same score, so that callers could choose names that go first."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        for tenant in ("adam", "zoe", "zoe"):
            await one.queue(tenant)
        adam, zoe = (await one.lease(2)).jobs
        await one.end(adam, fate=Fate.BACK)
        await one.end(zoe, fate=Fate.BACK)
        assert (await one.leased(2)) == [zoe.head.id, adam.head.id]


async def test_a_capped_tenants_old_job_does_not_lift_its_band_over_the_critical_one(
    store_url: str, cluster: str
) -> None:
    """Its oldest job waits for its own cap; everybody else's high jobs went before all critical ones for that."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(tenants={"capped": Limits(rate=Rate(limit=0, period_us=SECOND))}))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        await one.queue("capped", band=Band.HIGH)
        moment.now_us += HOUR
        high = await one.queue("acme", band=Band.HIGH)
        critical = await one.queue("acme", band=Band.CRITICAL)
        assert await one.leased() == [critical, high]


async def test_a_call_that_its_tenants_cap_queues_blocks_nobody_else(store_url: str, cluster: str) -> None:
    """Until a dispatcher had looked at its line, all other tenants' calls were queued behind it."""
    operation = a_queue(capacity=Capacity(limits=slots(5), per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        await one.start("acme")
        assert isinstance(await one.accept("acme"), Queued)
        assert isinstance(await one.accept("beta"), Admitted)


async def test_scheduled_jobs_of_a_tenant_do_not_hold_its_calls_up(store_url: str, cluster: str) -> None:
    """Tomorrow's job cannot start now, and another tenant's cap is none of its business."""
    operation = a_queue(capacity=Capacity(limits=slots(5), per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        await one.queue("acme", not_before_us=START + HOUR)
        await one.start("beta")
        await one.accept("beta")
        assert isinstance(await one.accept("acme"), Admitted)


async def test_a_parked_line_is_tried_again_when_the_clock_went_back(store_url: str, cluster: str) -> None:
    """It was to be tried at a moment that the corrected clock reaches in an hour."""
    moment = Moment(START + HOUR)
    operation = a_queue(capacity=Capacity(limits=slots(5), per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        first, second = await one.queue_many(2)
        assert await one.leased() == [first]
        moment.now_us = START
        assert await one.leased() == [second]


async def test_a_slot_that_comes_back_frees_the_lines_of_a_batch_key_too(
    store_url: str, cluster: str
) -> None:
    """They are named after tenant and key, so that an ack did not find them, and stood still for 10 s."""
    moment = Moment()
    operation = batches(capacity=Capacity(limits=slots(5), per_tenant=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        jobs = [await one.queue(line="acme~eur") for _ in range(5)]
        held = await one.one()
        assert (await one.lease()).jobs == ()
        await one.end(held)
        moment.now_us += SECOND
        assert await one.leased() == [jobs[1]]


async def test_a_due_batch_without_a_slot_is_not_asked_for_all_the_time(store_url: str, cluster: str) -> None:
    """The dispatcher was told to ask again at once, and again, for as long as all slots were in use."""
    async with job_replica(
        store_url, cluster, batches(capacity=Capacity(limits=slots(1))), moment=Moment()
    ) as one:
        for _ in range(6):
            await one.queue(line="acme~eur")
        assert len((await one.lease()).jobs) == 3
        blocked = await one.lease()
        assert (blocked.jobs, blocked.has_more, blocked.next_us) == ((), False, LEASE_US)


async def test_a_batch_goes_when_its_deadline_needs_it_also_after_another_job_has_left(
    store_url: str, cluster: str
) -> None:
    """Recounted after a cancellation, the batch waited for its whole window again, past the promise."""
    moment = Moment()
    async with job_replica(store_url, cluster, batches(), moment=moment) as one:
        other = await one.queue(line="acme~eur")
        urgent = await one.queue(line="acme~eur", deadline_us=START + 2 * SECOND)
        await one.desk.cancel(one.operation, other)
        moment.now_us += 2 * SECOND
        assert await one.leased() == [urgent]


async def test_what_waited_before_batches_were_switched_on_is_not_forgotten(
    store_url: str, cluster: str
) -> None:
    """Batches that are due went first, always: jobs without a batch key never."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        before = await one.queue()
        await publish(one, batches())
        for _ in range(9):
            await one.queue(line="acme~eur")
        assert await one.leased() == [before]


async def test_what_is_parked_of_a_batch_key_blocks_nobody_when_batches_are_switched_off(
    store_url: str, cluster: str
) -> None:
    """The group that was left stood first for ever, and nothing behind it was looked at."""
    closed = {"closed": Limits(rate=Rate(limit=0, period_us=SECOND))}
    async with job_replica(
        store_url, cluster, batches(capacity=Capacity(tenants=closed)), moment=Moment()
    ) as one:
        await one.queue("closed", line="closed~eur")
        await publish(one, a_queue(capacity=Capacity(tenants=closed)))
        one.moment.now_us += 20 * SECOND  # type: ignore[union-attr]
        free = await one.queue("free")
        first = await one.lease()
        found = [job.head.id for job in first.jobs] + (await one.leased() if first.has_more else [])
        assert found == [free]


async def test_hundreds_of_parked_lines_do_not_hide_the_one_that_could_start(
    store_url: str, cluster: str
) -> None:
    """The work of one step is bounded; the step said to come back in a minute, not at once."""
    closed = {f"t{number:04}": Limits(rate=Rate(limit=0, period_us=SECOND)) for number in range(300)}
    async with job_replica(store_url, cluster, a_queue(capacity=Capacity()), moment=Moment()) as one:
        for tenant in closed:
            await one.queue(tenant)
        free = await one.queue("free")
        await publish(one, a_queue(capacity=Capacity(tenants=closed)))
        leases, asked = await one.lease(64), 1
        while leases.has_more and not leases.jobs:
            leases, asked = await one.lease(64), asked + 1
        assert [job.head.id for job in leases.jobs] == [free]
        assert asked == 2


async def test_a_job_that_costs_more_than_a_lowered_limit_waits_for_all_of_the_burst(
    store_url: str, cluster: str
) -> None:
    """It stood first, could never start, and stopped the whole operation."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=rate(1, burst=5)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        costly = await one.queue(cost=5)
        cheap = await one.queue("beta")
        await publish(one, a_queue(capacity=Capacity(limits=rate(1, burst=2))))
        running = await one.one()
        assert running.head.id == costly
        await one.end(running)
        moment.now_us += MINUTE
        assert await one.leased() == [cheap]


async def test_a_suspect_gets_the_slot_that_busy_replicas_give_back(store_url: str, cluster: str) -> None:
    """They took it again in the same step, so that a suspect waited until the whole backlog was done."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=slots(2)))
    async with (
        job_replica(store_url, cluster, operation, moment=moment) as idle,
        job_replica(store_url, cluster, operation, moment=moment) as busy,
    ):
        suspect = await idle.queue()
        await idle.one()
        moment.now_us += LEASE_US
        await busy.queue_many(10)
        running = list((await busy.lease(2, is_idle=False)).jobs)
        blocked = await idle.lease(1)
        assert (blocked.jobs, blocked.next_us) == ((), SECOND // 2)
        await busy.end(running.pop())
        assert (await busy.lease(2, is_idle=False)).jobs == (), "the slot is kept"
        assert await idle.leased(1) == [suspect]


async def test_suspects_of_a_tenant_without_room_hold_no_other_suspect_up(
    store_url: str, cluster: str
) -> None:
    """Only the first four were ever looked at; and they were looked at a thousand times a second."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        for _ in range(5):
            await one.queue("capped")
        free = await one.queue("free", deadline_us=START + HOUR)
        assert len((await one.lease()).jobs) == 6
        moment.now_us += LEASE_US
        await publish(one, a_queue(capacity=Capacity(tenants={"capped": slots(0)})))
        first = await one.lease(is_idle=True)
        assert first.lost == 6
        assert await one.leased(is_idle=True) == [free]
        assert (await one.lease(is_idle=True)).next_us >= SECOND // 2


async def test_a_record_whose_end_is_still_to_be_told_does_not_keep_the_others(
    store_url: str, cluster: str
) -> None:
    """A receiver that is down kept all results behind its own in the store."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=1_000), moment=moment) as one:
        await one.queue(callback="https://hooks.example.com/")
        await one.queue_many(5)
        assert await one.drain() == 6
        moment.now_us += MINUTE
        await one.lease()
        assert (await one.look()).results == 1


async def test_a_band_of_one_batch_key_saves_up_nothing_while_another_key_is_served(
    store_url: str, cluster: str
) -> None:
    """Shares are counted over all keys: high jobs in one kept normal ones out of it until they had caught up."""
    moment = Moment()
    async with job_replica(store_url, cluster, batches(), moment=moment) as one:
        bands: list[Band] = []

        async def come(number: int) -> None:
            for at in range(number):
                band = Band.NORMAL if at % 2 else Band.HIGH
                await one.queue(f"t{at % 2}", line=f"t{at % 2}~usd", band=band)

        await come(2)
        for _ in range(60):
            await one.queue(line="acme~eur")
        for _ in range(20):
            await one.end(*(await one.lease()).jobs)
        await come(24)
        for _ in range(4):
            bands += [job.head.band for job in (await one.lease()).jobs]
        assert (len(bands), bands.count(Band.NORMAL)) == (12, 3)


async def test_shadow_spends_what_it_admits(store_url: str, cluster: str) -> None:
    """Nothing was charged in shadow, so that a limit that is rehearsed never refused anybody."""
    capacity = Capacity(limits=rate(1, burst=2, period_us=MINUTE), mode=Mode.SHADOW)
    async with job_replica(store_url, cluster, a_queue(capacity=capacity), moment=Moment()) as one:
        answers = [await one.accept() for _ in range(3)]
        assert [getattr(answer, "shadow", "none") for answer in answers] == [None, None, Policy.RATE]


async def test_a_call_that_could_start_only_after_it_has_expired_is_refused_at_once(
    store_url: str, cluster: str
) -> None:
    """It was told 202, and then that it had expired; only a closed operation said so before."""
    moment = Moment()
    async with job_replica(
        store_url, cluster, a_queue(capacity=Capacity(limits=rate(1, period_us=MINUTE))), moment=moment
    ) as one:
        await one.start()
        refused = await one.accept(expiry_us=START + MINUTE)
        assert isinstance(refused, Refused)
        assert (refused.policy, refused.retry_after_us) == (Policy.RATE, MINUTE)
        assert isinstance(await one.accept(expiry_us=START + MINUTE + 1), Queued)


async def test_the_pace_is_measured_again_when_a_hold_is_over(store_url: str, cluster: str) -> None:
    """A hold that had ended by itself stopped it for ever; and tomorrow's jobs counted as waiting."""
    moment = Moment()
    async with job_replica(
        store_url, cluster, a_queue(capacity=Capacity(limits=slots(1))), moment=moment
    ) as one:
        await one.desk.hold(one.operation, "paused", START + SECOND, "ann", "lunch")
        moment.now_us += MINUTE
        await one.queue_many(8)
        for _ in range(6):
            job = await one.one()
            moment.now_us += SECOND
            await one.end(job)
        assert (await one.look()).pace.mean_us == SECOND


async def test_jobs_for_tomorrow_teach_nothing_about_the_pace(store_url: str, cluster: str) -> None:
    """Completions of an idle queue measure demand: one a minute would promise hours for a burst of 200."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue(not_before_us=START + 24 * HOUR)
        for _ in range(4):
            await one.queue()
            await one.end(await one.one())
            moment.now_us += MINUTE
        assert (await one.look()).pace.mean_us == 0


async def test_a_bound_on_a_tenants_bytes_that_is_set_later_finds_them_counted(
    store_url: str, cluster: str
) -> None:
    """They were counted only while there was a bound, so that the first reload let a tenant have twice as much."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue(payload=b"x" * 900)
        await publish(one, a_queue(tenant_bytes_max=1_500))
        refused = await one.accept(is_async=True, payload=b"x" * 900)
        assert isinstance(refused, Refused)
        assert refused.policy is Policy.TENANT_BYTES


async def test_a_scheduled_job_is_queued_since_it_was_due(store_url: str, cluster: str) -> None:
    """It was shown as queued since it had been accepted, days ago."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        job = await one.queue(not_before_us=START + HOUR)
        moment.now_us += HOUR
        await one.lease(0)
        record = await one.show(job)
        assert record
        assert (record.head.state, record.head.since_us) == ("queued", START + HOUR)


async def test_a_call_that_was_given_up_makes_nobody_elses_job_irrevocable(
    store_url: str, cluster: str
) -> None:
    """It was told nothing: the job is promised to its first caller alone, whose 202 may still get lost."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        first, given_up = (one.offer(key="k", is_async=True) for _ in range(2))
        assert isinstance(await one.jobs.accept(one.lane, first), Queued)
        assert not await one.capacity.coalescer.revoke(one.lane, given_up)
        assert await one.jobs.accept(one.lane, given_up) is None
        assert await one.capacity.coalescer.revoke(one.lane, first)
