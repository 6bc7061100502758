"""
Bounds: what does not fit is refused, and what was accepted is never dropped to make room.
"""

from typing import Any

import pytest
from redis import Redis

from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, Queued
from breaker.core.model import Capacity
from breaker.core.verdict import Policy, Refused
from tests.store.job_world import HOUR, SECOND, START, JobReplica, Moment, a_queue, job_replica, leftovers
from tests.store.replicas import rate

KB = b"x" * 1_000


async def refused_by(one: JobReplica, tenant: str = "acme", **changes: Any) -> Policy:
    answer = await one.accept(tenant, is_async=True, **changes)
    assert isinstance(answer, Refused), answer
    assert answer.retry_after_us > 0, "it says when to come back"
    return answer.policy


async def test_a_queue_takes_as_many_jobs_as_it_may_and_one_more_when_one_starts(
    store_url: str, cluster: str
) -> None:
    """`max_jobs` counts what waits, scheduled ones too."""
    async with job_replica(store_url, cluster, a_queue(jobs_max=3)) as one:
        await one.queue_many(2)
        await one.queue(not_before_us=one.now_us() + HOUR)
        assert await refused_by(one) is Policy.JOBS
        await one.one()
        await one.queue()
        assert await refused_by(one) is Policy.JOBS


async def test_the_jobs_of_one_round_trip_count_each_other(store_url: str, cluster: str) -> None:
    """A burst that arrives in one step must not walk through the bound."""
    async with job_replica(store_url, cluster, a_queue(jobs_max=3, tenant_jobs_max=2)) as one:
        with pytest.raises(AssertionError, match="Refused"):
            await one.queue_many(5)
        assert (await one.look()).queued == 2
        await one.queue("globex")
        assert await refused_by(one, "hooli") is Policy.JOBS


async def test_a_tenant_fills_its_own_share_and_leaves_the_others_theirs(
    store_url: str, cluster: str
) -> None:
    """Bound by tenant: 429 for the one, nothing for the rest."""
    async with job_replica(store_url, cluster, a_queue(jobs_max=9, tenant_jobs_max=2)) as one:
        jobs = await one.queue_many(2)
        assert await refused_by(one) is Policy.TENANT_JOBS
        await one.queue("globex")
        assert await one.desk.cancel(one.operation, jobs[0]) == "cancelled"
        await one.queue()


@pytest.mark.parametrize(
    ("bound", "policy"), [("bytes_max", Policy.BYTES), ("tenant_bytes_max", Policy.TENANT_BYTES)]
)
async def test_bytes_are_bounded_too(store_url: str, cluster: str, bound: str, policy: Policy) -> None:
    """A hundred large payloads are not a hundred small ones."""
    limit: dict[str, Any] = {bound: 5_000}
    async with job_replica(store_url, cluster, a_queue(**limit)) as one:
        taken = 0
        while isinstance(answer := await one.accept(is_async=True, payload=KB), Queued):
            taken += 1
        assert isinstance(answer, Refused)
        assert (answer.policy, taken) == (policy, 4)
        assert 4_000 < (await one.look()).bytes_used <= 5_000
        await one.one()
        answer = await one.accept(is_async=True, payload=KB)
        # A tenant's bound is on what waits; the operation's on all that is stored, and that job is.
        assert isinstance(answer, Queued) is (bound == "tenant_bytes_max")


async def test_no_form_of_a_job_is_larger_than_what_was_reserved_for_it(store_url: str, cluster: str) -> None:
    """Key, callback and names count: a queue of small bodies with long addresses has its bound as well."""
    async with job_replica(store_url, cluster, a_queue(bytes_max=20_000)) as one:
        number = 0
        while isinstance(
            answer := await one.accept(
                "t" * 64, is_async=True, payload=b"", key=f"{number:0>255}", callback="https://" + "c" * 1_900
            ),
            Queued,
        ):
            number += 1
        assert isinstance(answer, Refused)
        assert (await one.look()).bytes_used <= 20_000


async def test_a_dead_job_counts_until_it_is_discarded(store_url: str, cluster: str) -> None:
    """Nothing that was accepted is dropped to make room, so that its room is not given away."""
    async with job_replica(store_url, cluster, a_queue(bytes_max=2_000)) as one:
        job = await one.queue(payload=KB)
        await one.end(await one.one(), fate=Fate.DEAD, result=b"r" * 300)
        assert await refused_by(one, payload=KB) is Policy.BYTES
        assert await one.desk.discard(one.operation, job)
        assert (await one.look()).bytes_used == 0
        await one.queue(payload=KB)


async def test_a_full_queue_says_when_room_is_expected(store_url: str, cluster: str) -> None:
    """When the next one starts; and a thousand callers that are told the same second come back together."""
    operation = a_queue(jobs_max=1, capacity=Capacity(limits=rate(1, burst=1)))
    async with job_replica(store_url, cluster, operation, moment=Moment()) as one:
        await one.start()
        await one.queue()
        waits = []
        for _ in range(3):
            answer = await one.accept(is_async=True)
            assert isinstance(answer, Refused)
            waits.append(answer.retry_after_us)
        assert waits == [SECOND, 2 * SECOND, 3 * SECOND]


async def test_results_that_take_more_than_half_of_the_room_go_oldest_first(
    store_url: str, cluster: str
) -> None:
    """Results are a convenience, jobs are a promise: yesterday's answers must not refuse today's work."""
    moment = Moment()
    operation = a_queue(bytes_max=10_000, keep_result_ms=86_400_000)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        jobs = []
        for _ in range(12):
            jobs.append(await one.queue(payload=b""))
            await one.end(await one.one(), result=KB)
            moment.now_us += 1
        await one.lease()
        look = await one.look()
        assert 3_000 < look.bytes_results <= 5_000
        states = [await one.state(job) for job in jobs]
        kept = look.results
        assert states == ["gone"] * (12 - kept) + ["succeeded"] * kept


async def test_a_result_is_kept_for_its_time_and_not_longer(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """`keep_result`: the caller may fetch it for so long, and then its data is gone."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=3_600_000), moment=moment) as one:
        job = await one.queue()
        await one.end(await one.one(), result=b"ok", note=b'{"what":"ok"}')
        moment.now_us = START + HOUR - 1
        await one.lease()
        assert await one.state(job) == "succeeded"
        moment.now_us += 1
        await one.lease()
        assert await one.state(job) == "gone"
        assert (await one.look()).bytes_used == 0
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("fate", [Fate.DEAD, Fate.UNKNOWN])
async def test_what_a_person_must_look_at_is_kept_for_its_time_and_ends_as_discarded(
    store_url: str, redis: Redis, cluster: str, fate: Fate
) -> None:
    """`keep_dead`: bounded, and in the ledger to the last."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(keep_dead_ms=3_600_000), moment=moment) as one:
        await one.queue()
        await one.end(await one.one(), fate=fate, result=b"500", note=b'{"what":"no"}', probe_us=HOUR)
        moment.now_us = START + HOUR - 1
        await one.lease()
        look = await one.look()
        assert (look.dead + look.unknown, look.discarded) == (1, 0)
        moment.now_us += 1
        await one.lease()
        look = await one.look()
        assert (look.dead + look.unknown, look.discarded) == (0, 1)
        assert leftovers(redis, one) == set()


async def test_a_thousand_mixed_jobs_leave_nothing_behind(store_url: str, redis: Redis, cluster: str) -> None:
    """An operation that is empty costs its limits and its counts, however long it ran."""
    async with job_replica(store_url, cluster, a_queue(tenant_bytes_max=10_000_000)) as one:
        for number, band in enumerate(Band):
            for tenant in ("acme", "globex", "hooli"):
                await one.queue_many(80, tenant, band=band, expiry_us=one.now_us() + HOUR * (1 + number))
        jobs = await one.queue_many(40)
        for job in jobs[:20]:
            await one.desk.cancel(one.operation, job)
        assert await one.drain() == 4 * 3 * 80 + 20
        look = await one.look()
        assert (look.accepted, look.succeeded, look.cancelled, look.bytes_used) == (1_000, 980, 20, 0)
        assert leftovers(redis, one) == set()
