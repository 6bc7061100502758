"""
Idempotency keys: the same key and the same request have one effect, whatever crashes.
"""

import asyncio

import pytest
from redis import Redis

from breaker.core.job_policy import Effects
from breaker.core.jobs import Fate, InProgress, KeptResult, KeyReused, OutcomeUnknown, Queued
from breaker.core.model import LEASE_US, Capacity
from breaker.core.verdict import Admitted
from tests.store.job_world import SECOND, START, JobReplica, Moment, a_queue, job_replica, leftovers
from tests.store.replicas import slots

TWO = Capacity(limits=slots(2))
WINDOW_MS = 3_600_000


def ttl_of(redis: Redis, one: JobReplica, key: str, caller: str = "crm") -> int:
    """Milliseconds that the store remembers this key, parts length-prefixed; -2 when it does not."""
    return int(redis.pttl(one.keys.named(f"q:i:{len(caller)}:{caller}:{key}")))


async def test_the_same_request_again_is_the_same_job(store_url: str, cluster: str) -> None:
    """A caller that retries its POST gets the id it had, and counts once."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        first = await one.queue(key="k")
        for is_async in (True, False):
            again = await one.accept(key="k", is_async=is_async)
            assert isinstance(again, Queued)
            assert (again.job, again.is_known) == (first, True)
        look = await one.look()
        assert (look.accepted, look.queued, one.jobs.given) == (1, 1, {one.operation: 1})


async def test_two_that_come_together_are_one_job(store_url: str, cluster: str) -> None:
    """They share a round trip: the second must see the first."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        first, second = await asyncio.gather(one.queue(key="k"), one.queue(key="k"))
        assert first == second
        assert (await one.look()).accepted == 1


async def test_of_two_that_come_together_one_starts(store_url: str, cluster: str) -> None:
    """A double click, in one round trip: the second finds the first in progress."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        answers = await asyncio.gather(*(one.accept(key="k") for _ in range(3)))
        assert [type(answer) for answer in answers] == [Admitted, InProgress, InProgress]


async def test_another_request_under_the_same_key_is_refused_in_every_state(
    store_url: str, cluster: str
) -> None:
    """It would silently get the other one's answer."""
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=WINDOW_MS)) as one:
        direct = await one.start("globex", caller="erp", key="k")
        await one.queue(key="k")
        assert await one.accept(key="k", fingerprint="e" * 32) == KeyReused()
        assert await one.accept(caller="erp", key="k", fingerprint="e" * 32) == KeyReused()
        one.jobs.keep(one.lane, direct, "kept", b"201")
        await one.end(await one.one())
        assert await one.accept(key="k", fingerprint="e" * 32) == KeyReused()
        assert await one.accept(caller="erp", key="k", fingerprint="e" * 32) == KeyReused()


async def test_keys_of_two_callers_are_two_keys(store_url: str, cluster: str) -> None:
    """Also where caller and key would read the same in a row: `a` `b:c` and `a:b` `c`."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        jobs = {
            await one.queue(caller=caller, key=key)
            for caller, key in (("a", "b:c"), ("a:b", "c"), ("a", "b"), ("b", "a"), ("1:a", "b"))
        }
        assert len(jobs) == 5


async def test_a_job_that_has_ended_is_known_by_its_key(store_url: str, cluster: str) -> None:
    """The retry of a call whose job is done gets the result, and causes nothing."""
    async with job_replica(store_url, cluster, a_queue(keep_result_ms=WINDOW_MS)) as one:
        job = await one.queue(key="k")
        await one.end(await one.one(), result=b"201 created")
        assert await one.accept(key="k") == KeptResult(job=job)
        record = await one.show(job)
        assert record
        assert (record.head.state, record.body) == ("succeeded", b"201 created")


@pytest.mark.parametrize("fate", [Fate.DEAD, Fate.UNKNOWN])
async def test_a_job_that_a_person_must_look_at_is_known_by_its_key(
    store_url: str, cluster: str, fate: Fate
) -> None:
    """Not run again behind that person's back."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        job = await one.queue(key="k")
        await one.end(await one.one(), fate=fate)
        assert await one.accept(key="k") == KeptResult(job=job)


async def test_a_key_lives_as_long_as_its_job_and_then_for_its_window(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A job that waits for days is protected for days; after the window the store has forgotten."""
    async with job_replica(store_url, cluster, a_queue(window_ms=WINDOW_MS)) as one:
        await one.queue(key="k")
        assert ttl_of(redis, one, "k") > 30 * 86_400_000, "longer than any job waits"
        running = await one.one()
        assert ttl_of(redis, one, "k") > 30 * 86_400_000
        await one.end(running)
        assert WINDOW_MS - 10_000 < ttl_of(redis, one, "k") <= WINDOW_MS


async def test_a_dead_job_that_is_run_again_is_protected_again(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A redrive must not run beside a caller's retry of the same work."""
    async with job_replica(store_url, cluster, a_queue(window_ms=WINDOW_MS)) as one:
        job = await one.queue(key="k")
        await one.end(await one.one(), fate=Fate.DEAD)
        assert ttl_of(redis, one, "k") <= WINDOW_MS
        assert await one.desk.requeue(one.operation, job)
        assert ttl_of(redis, one, "k") > 30 * 86_400_000
        again = await one.accept(key="k")
        assert isinstance(again, Queued)
        assert (again.job, again.is_known) == (job, True)


async def test_a_direct_call_with_a_key_is_in_progress_until_it_ends(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Calls that start at once are protected too: the second one would charge twice."""
    operation = a_queue(capacity=TWO, keep_result_ms=WINDOW_MS, window_ms=WINDOW_MS)
    async with job_replica(store_url, cluster, operation) as one:
        direct = await one.start(key="k")
        again = await one.accept(key="k")
        assert isinstance(again, InProgress)
        assert again.retry_after_us == SECOND, "at least a second: it is not a spin lock"
        assert await one.accept(key="k", is_async=True) == again, "it does not become a job either"
        one.jobs.keep(one.lane, direct, "kept", b"201 created")
        await one.give_back(direct)
        assert await one.accept(key="k") == KeptResult(job=direct.job)
        assert WINDOW_MS - 10_000 < ttl_of(redis, one, "k") <= WINDOW_MS
        record = await one.show(direct.job)
        assert record
        assert (record.head.state, record.body, record.head.tenant) == ("succeeded", b"201 created", "acme")
        look = await one.look()
        assert (look.accepted, look.succeeded, look.results) == (0, 0, 1), "it never was a job"


async def test_a_direct_call_with_a_key_holds_a_lease_where_nothing_limits_calls(
    store_url: str, cluster: str
) -> None:
    """The lease says that its gateway lives; without it the key would be free at once."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        answer = await one.accept(key="k")
        assert isinstance(answer, Admitted)
        assert answer.leased
        assert isinstance(await one.accept(key="k"), InProgress)


async def test_a_key_that_was_released_is_free(store_url: str, redis: Redis, cluster: str) -> None:
    """A call that had no effect (refused by the downstream, never sent) may be tried again."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        direct = await one.start(key="k")
        one.jobs.keep(one.lane, direct, "released")
        await one.give_back(direct)
        assert leftovers(redis, one) == set()
        assert isinstance(await one.accept(key="k", fingerprint="e" * 32), Admitted)


async def test_a_key_whose_call_nobody_knows_the_end_of_says_so(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """It timed out: not in progress, not done, and not to be done again by a machine."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO, window_ms=WINDOW_MS)) as one:
        direct = await one.start(key="k")
        one.jobs.keep(one.lane, direct, "unknown")
        await one.give_back(direct)
        assert await one.accept(key="k") == OutcomeUnknown(job=direct.job)
        assert WINDOW_MS - 10_000 < ttl_of(redis, one, "k") <= WINDOW_MS


@pytest.mark.parametrize("effects", list(Effects))
async def test_a_gateway_that_died_in_a_call_locks_no_key_and_causes_no_second_effect(
    store_url: str, cluster: str, effects: Effects
) -> None:
    """While its lease lives the call is in progress; then `keyed` runs again, `once` is unknown."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(capacity=TWO, effects=effects), moment=moment) as one:
        dead = await one.start(key="k")
        moment.now_us += LEASE_US - 1
        assert isinstance(await one.accept(key="k"), InProgress)
        moment.now_us += 1
        answer = await one.accept(key="k")
        if effects is Effects.ONCE:
            assert answer == OutcomeUnknown(job=dead.job)
        else:
            assert isinstance(answer, Admitted)
            assert isinstance(await one.accept(key="k"), InProgress), "and it is in progress again"


async def test_a_call_that_lost_its_key_does_not_take_it_from_the_next(store_url: str, cluster: str) -> None:
    """A gateway that was frozen comes back and says what came of it: too late, the key is another's."""
    moment = Moment()
    operation = a_queue(capacity=TWO, keep_result_ms=WINDOW_MS)
    async with job_replica(store_url, cluster, operation, moment=moment) as one:
        frozen = await one.start(key="k")
        moment.now_us += LEASE_US
        second = await one.start(key="k")
        one.jobs.keep(one.lane, frozen, "released")
        one.jobs.keep(one.lane, frozen, "kept", b"too late")
        await one.look()
        assert isinstance(await one.accept(key="k"), InProgress)
        one.jobs.keep(one.lane, second, "kept", b"in time")
        await one.look()
        assert await one.accept(key="k") == KeptResult(job=second.job)
        assert await one.state(frozen.job) == "gone"


async def test_taking_back_an_offer_frees_its_key_and_no_other(store_url: str, cluster: str) -> None:
    """An accept that is withdrawn must not lock its key for a day, nor unlock somebody else's."""
    async with job_replica(store_url, cluster, a_queue(capacity=TWO)) as one:
        offer = one.offer(key="k")
        assert isinstance(await one.jobs.accept(one.lane, offer), Admitted)
        assert await one.capacity.coalescer.revoke(one.lane, offer)
        job = await one.queue(key="k")
        await one.capacity.coalescer.revoke(one.lane, offer)
        again = await one.accept(key="k")
        assert isinstance(again, Queued)
        assert (again.job, again.is_known) == (job, True)


@pytest.mark.parametrize("not_before_us", [0, START + SECOND])
async def test_a_job_that_a_repeated_request_was_told_of_is_not_taken_back(
    store_url: str, cluster: str, not_before_us: int
) -> None:
    """The first answer got lost, the caller asked again and has a 202: its job must not vanish under it."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        offer = one.offer(key="k", is_async=True, not_before_us=not_before_us)
        assert isinstance(await one.jobs.accept(one.lane, offer), Queued)
        assert await one.queue(key="k") == offer.job
        assert not await one.capacity.coalescer.revoke(one.lane, offer)
        assert (await one.look()).withdrawn == 0
        assert await one.queue(key="k") == offer.job
        assert await one.state(offer.job) == ("scheduled" if not_before_us else "queued")


async def test_a_known_key_is_answered_while_the_operation_drains_or_is_full(
    store_url: str, cluster: str
) -> None:
    """It adds nothing; a caller that asks for its job must not be told that there is no room."""
    async with job_replica(store_url, cluster, a_queue(jobs_max=1)) as one:
        job = await one.queue(key="k")
        for word in ("", "draining"):
            await one.desk.hold(one.operation, word, 0, "ann", "")
            again = await one.accept(key="k", is_async=True)
            assert isinstance(again, Queued)
            assert again.job == job
