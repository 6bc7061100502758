"""
Ends: each accepted job comes to exactly one, which is visible, whoever made it.
"""

import pytest
from redis import Redis

from breaker.core.jobs import Fate, JobRecord, Reason
from breaker.core.model import Capacity
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
from tests.store.replicas import slots

DAY_MS = 86_400_000
NOTE = b'{"what":"try"}'


async def kept(one: JobReplica, job: str) -> JobRecord:
    record = await one.show(job)
    assert record
    return record


@pytest.mark.parametrize(
    ("fate", "state"), [(Fate.SUCCEEDED, "succeeded"), (Fate.DEAD, "dead"), (Fate.UNKNOWN, "unknown")]
)
async def test_an_attempt_ends_its_job_as_it_says(
    store_url: str, cluster: str, fate: Fate, state: str
) -> None:
    """The caller sees that end, with the downstream's answer; a person also sees what was sent."""
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=DAY_MS), moment=Moment()) as one:
        job = await one.queue(payload=b"request")
        one.moment.now_us += SECOND  # type: ignore[union-attr]
        await one.end(
            await one.one(),
            fate=fate,
            reason=Reason.CALLER if fate is Fate.DEAD else "",
            result=b"answer",
            note=NOTE,
        )
        record = await kept(one, job)
        assert record.head.state == state
        assert record.head.since_us == START + SECOND
        assert record.notes == (NOTE,)
        if fate is Fate.SUCCEEDED:
            assert (record.body, record.answer) == (b"answer", b"")
        else:
            assert (record.body, record.answer) == (b"request", b"answer")
        look = await one.look()
        assert (look.succeeded, look.dead, look.unknown).count(1) == 1
        assert (look.running, look.queued) == (0, 0)


async def test_a_failed_attempt_is_made_again_after_its_delay(store_url: str, cluster: str) -> None:
    """Neither earlier, nor with a slot in its hand meanwhile."""
    moment = Moment()
    operation = a_queue(capacity=Capacity(limits=slots(1)))
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        job = await one.queue()
        await one.end(await one.one(), fate=Fate.RETRY, reason=Reason.DOWNSTREAM, delay_us=MINUTE, note=NOTE)
        record = await kept(one, job)
        assert (record.head.state, record.due_us, record.head.reason) == (
            "scheduled",
            START + MINUTE,
            "downstream",
        )
        await one.give_back(await one.start())  # the slot is free
        moment.now_us += MINUTE - 1
        assert await one.leased() == []
        moment.now_us += 1
        again = await one.one()
        assert (again.head.attempt, again.head.failures, again.head.first_us) == (2, 1, START)
        assert again.payload == b"{}"
        await one.end(again)


async def test_being_asked_to_slow_down_uses_no_attempt(store_url: str, cluster: str) -> None:
    """The downstream is busy, the job is not to blame."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        await one.queue()
        for _ in range(3):
            await one.end(await one.one(), fate=Fate.LATER, reason=Reason.SLOW_DOWN, delay_us=0)
        assert (await one.one()).head.failures == 0


@pytest.mark.parametrize("not_before", [0, START + 2 * HOUR])
async def test_a_job_that_did_not_start_in_time_expires(
    store_url: str, redis: Redis, cluster: str, not_before: int
) -> None:
    """Queued or scheduled: visibly, at that moment, and it is never run afterwards."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=DAY_MS), moment=moment) as one:
        job = await one.queue(expiry_us=START + HOUR, not_before_us=not_before)
        await one.desk.hold(one.operation, "paused", 0, "ann", "")
        assert (await one.lease()).next_us == HOUR
        moment.now_us = START + HOUR - 1
        assert (await one.lease()).expired == 0
        await one.desk.hold(one.operation, "", 0, "ann", "")
        moment.now_us += 1
        leases = await one.lease()
        assert (leases.expired, leases.jobs) == (1, ())
        assert (await kept(one, job)).head.state == "expired"
        look = await one.look()
        assert (look.expired, look.queued, look.scheduled) == (1, 0, 0)
        moment.now_us += 25 * HOUR
        assert (await one.lease()).jobs == ()
        assert leftovers(redis, one) == set()


async def test_a_job_that_has_started_does_not_expire(store_url: str, cluster: str) -> None:
    """`expire_after` is about starting: a retry is bounded by its own budget."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue(expiry_us=START + HOUR)
        await one.end(await one.one(), fate=Fate.RETRY, delay_us=2 * HOUR)
        moment.now_us = START + 2 * HOUR
        leases = await one.lease()
        assert (leases.expired, len(leases.jobs)) == (0, 1)


async def test_thousands_that_expire_together_are_ended_a_few_at_a_time_and_none_runs(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A queue that was held over its expiry must not stop the store while it empties, nor run what is over."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        await one.queue_many(300, expiry_us=START + HOUR)
        moment.now_us = START + HOUR
        expired = looks = 0
        while expired < 300:
            leases = await one.lease(64)
            assert leases.jobs == ()
            assert leases.next_us == 0 or expired + leases.expired == 300, (
                "it asks again at once while there is more"
            )
            assert 0 < leases.expired <= 256
            expired, looks = expired + leases.expired, looks + 1
        assert looks > 1
        assert leftovers(redis, one) == set()


@pytest.mark.parametrize("not_before", [0, START + HOUR])
async def test_a_waiting_job_is_cancelled_and_a_running_one_is_not(
    store_url: str, cluster: str, not_before: int
) -> None:
    """`DELETE` says what it found; a call that has been sent cannot be unsent."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=DAY_MS), moment=moment) as one:
        job = await one.queue(not_before_us=not_before, expiry_us=START + 2 * HOUR)
        assert await one.desk.cancel(one.operation, job) == "cancelled"
        assert (await kept(one, job)).head.state == "cancelled"
        assert await one.desk.cancel(one.operation, job) == "cancelled"
        assert (await one.look()).cancelled == 1
        running = await one.queue()
        await one.one()
        assert await one.desk.cancel(one.operation, running) == "running"
        assert await one.desk.cancel(one.operation, "01JNOSUCH") is None
        moment.now_us = START + 2 * HOUR
        assert (await one.lease()).expired == 0
