"""
What replicas with different files publish, and what becomes of operations that no file names any more.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import pytest
from redis import Redis

from breaker.core.config import StoreSettings
from breaker.core.events import Event, StoreFailed
from breaker.core.ids import base32
from breaker.core.model import Capacity, Operation
from breaker.store.capacity import CapacityStore
from breaker.store.connection import open_client
from breaker.store.keys import Keys, cluster_key
from breaker.store.members import Members
from breaker.store.policy import publish_arguments, terms_of
from breaker.store.removed import LET_GO_US, UNNAMED_US, RemovedOperations
from breaker.store.steward import Stewardship
from tests.model.twin import Twin
from tests.store.job_world import FACTS, JobReplica, a_queue
from tests.store.replicas import an_operation, slots, until

MINUTE = 60_000_000
NAME = "billing.charge"
_numbers = count()


class Gateway:
    """A replica as far as it publishes: its files are `operations`, which have this version."""

    def __init__(self, url: str, cluster: str) -> None:
        settings, name = StoreSettings(url=url, timeout_ms=2_000), f"G{base32(next(_numbers), 7)}"
        self.events: list[Event] = []
        self.store = CapacityStore(settings, cluster=cluster, replica=name, emit=self.events.append)
        self.members = Members(
            settings, cluster=cluster, replica=name, emit=self.events.append, on_bug=self._on_bug
        )
        self.store.standing = lambda: self.members.standing
        self.members.on_standing = self.store.publish_soon
        self.members.on_reset = self.store.restore_soon

    def _on_bug(self, exc: BaseException) -> None:
        raise AssertionError from exc

    async def start(self, operations: Mapping[str, Operation], version: str) -> None:
        self.members.says(version, operations)
        await self.members.beat()
        await self.store.start(operations, version)
        self.members.start()

    async def reload(self, operations: Mapping[str, Operation], version: str) -> None:
        self.members.says(version, operations)
        await self.members.beat()
        await self.store.publish(operations, version)

    async def limit(self, name: str = NAME) -> int | None:
        """The concurrency that holds."""
        return (await self.store.look(name)).limits.concurrency

    async def close(self) -> None:
        await self.members.close()
        await self.store.close()


@asynccontextmanager
async def gateways(url: str, cluster: str, *slot_counts: int) -> AsyncIterator[list[Gateway]]:
    """Replicas whose files give the operation so many slots; the version is `v<slots>`."""
    async with AsyncExitStack() as stack:
        made = []
        for number in slot_counts:
            one = Gateway(url, cluster)
            stack.push_async_callback(one.close)
            await one.start(files(number), f"v{number}")
            made.append(one)
        yield made


def files(number: int, *names: str) -> dict[str, Operation]:
    return {name: an_operation(name, limits=slots(number)) for name in names or (NAME,)}


# Rolling changes.


async def test_new_limits_hold_when_most_replicas_have_them(store_url: str, cluster: str) -> None:
    """In between, all of them decide by the old ones, and nobody publishes back and forth."""
    async with gateways(store_url, cluster, 3, 3, 3) as (one, two, three):
        await one.reload(files(5), "v5")
        assert await three.limit() == 3
        await two.reload(files(5), "v5")
        assert await three.limit() == 5
        await three.reload(files(5), "v5")
        assert await one.limit() == 5


async def test_a_replica_that_restarts_with_old_files_does_not_bring_old_limits_back(
    store_url: str, cluster: str
) -> None:
    """Somebody restarts the one machine whose files were not changed yet."""
    async with gateways(store_url, cluster, 5, 5) as (one, two):
        await two.close()
        async with gateways(store_url, cluster, 3) as (old,):
            assert old.members.differing == 1
            assert not old.members.standing.is_in_force
            assert await one.limit() == 5
            await old.store.republish()
            assert await one.limit() == 5


async def test_a_single_replica_publishes_at_once(store_url: str, cluster: str) -> None:
    """A laptop, or a small shop: start and reload take effect when they say so."""
    async with gateways(store_url, cluster, 3) as (one,):
        assert await one.limit() == 3
        await one.reload(files(5), "v5")
        assert await one.limit() == 5


async def test_what_nobody_has_published_is_published_by_whoever_names_it(
    store_url: str, cluster: str
) -> None:
    """A new operation works on the first replica that has it: its callers come there on purpose."""
    async with gateways(store_url, cluster, 3, 3, 3) as (one, other, _):
        await one.reload(files(5, NAME, "billing.refund"), "v5")
        assert await other.limit("billing.refund") == 5
        assert await other.limit() == 3


async def test_a_replica_that_comes_to_be_of_the_majority_publishes_by_itself(
    store_url: str, cluster: str
) -> None:
    """Nobody reloads it a second time: the others have gone."""
    async with (
        gateways(store_url, cluster, 3, 3) as (one, two),
        gateways(store_url, cluster, 5) as (new,),
    ):
        assert await new.limit() == 3
        await one.close()
        await two.close()

        async def holds() -> bool:
            return await new.limit() == 5

        assert await until(holds) < 3


async def test_limits_that_were_flushed_are_published_again_by_a_beat(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Also when nobody calls: the dashboards of the night must not be empty."""
    async with gateways(store_url, cluster, 3) as (one,):
        for key in redis.scan_iter(f"brk:{cluster}:*"):
            redis.delete(key)

        async def is_back() -> bool:
            return bool(redis.exists(Keys(cluster, NAME).named("policy")))

        assert await until(is_back) < 3
        assert not [event for event in one.events if isinstance(event, StoreFailed)], (
            "nobody had to run into it"
        )


def test_who_was_overtaken_while_it_published_changes_nothing(redis: Redis, cluster: str) -> None:
    """Its step stood in a queue while another version came into force, or another steward."""
    terms = {number: terms_of(an_operation(limits=slots(number)), 0) for number in (3, 5, 7)}
    twin = Twin(redis, cluster, terms[3], 0)
    policy = twin.keys.named("policy")
    for guard in ("edition", "term"):
        newer = publish_arguments(terms[5], "v5", guards={guard: 8})
        assert twin.run("publish", *newer)[0:2] == [0, 1]
        older = publish_arguments(terms[7], "v7", guards={guard: 7})
        assert twin.run("publish", *older) == [0, 2]
        assert redis.hget(policy, "version") == b"v5"
        assert twin.run("publish", *publish_arguments(terms[7], "v7", guards={guard: 8})) == [0, 1]
        again = publish_arguments(terms[7], "v7", guards={guard: 9})
        assert twin.run("publish", *again) == [0, 0], "the same limits"
        assert twin.run("publish", *publish_arguments(terms[3], "v3", guards={guard: 8})) == [0, 2]
        redis.delete(policy)


def test_a_steward_that_renews_does_not_let_in_who_was_overtaken(redis: Redis, cluster: str) -> None:
    """Its publication says its term and not the edition, which is remembered all the same."""
    terms = {number: terms_of(an_operation(limits=slots(number)), 0) for number in (3, 5, 7)}
    twin = Twin(redis, cluster, terms[3], 0)
    assert twin.run("publish", *publish_arguments(terms[5], "v5", guards={"edition": 8})) == [0, 1]
    renewal = publish_arguments(terms[7], "v5", renews=True, guards={"term": 2})
    assert twin.run("publish", *renewal) == [0, 1]
    assert twin.run("publish", *publish_arguments(terms[3], "v3", guards={"edition": 7})) == [0, 2]


# Operations that no file names any more.


class Remains:
    """An operation of which the files have forgotten, and the steward that may let go of it."""

    def __init__(self, one: JobReplica, redis: Redis, url: str) -> None:
        self.one, self.redis = one, redis
        self.cluster = one.keys.cluster
        self.client = open_client(StoreSettings(url=url))
        self.removed = RemovedOperations(one.capacity, self.client, self.cluster)
        self.named_us = one.capacity.clock.now_us()
        redis.zadd(cluster_key(self.cluster, "named"), {one.operation: self.named_us})

    def is_published(self) -> bool:
        return bool(self.redis.exists(self.one.keys.named("policy")))

    async def let_go(self, after_us: int = LET_GO_US + MINUTE, *, term: int = 1) -> None:
        """What the steward does so long after it was named last."""
        now_us = self.named_us + after_us
        await self.removed.let_go(Stewardship(term=term, since_us=now_us - LET_GO_US), now_us)


@asynccontextmanager
async def remains(url: str, redis: Redis, cluster: str, operation: Operation) -> AsyncIterator[Remains]:
    one = JobReplica(url, cluster, operation, moment=None, timeout_ms=2_000)
    await one.capacity.publish(one.operations, "v1")
    one.jobs.configure(one.operations, FACTS)
    found = Remains(one, redis, url)
    try:
        yield found
    finally:
        await found.client.aclose()
        await one.jobs.close()
        await one.capacity.close()


async def test_an_operation_without_jobs_is_let_go_of_after_five_minutes(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """And not before: a file that was moved away by mistake comes back within minutes."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        await found.let_go(LET_GO_US)
        assert found.is_published()
        await found.let_go(LET_GO_US + 1_000_000)
        assert not found.is_published()
        assert redis.zcard(cluster_key(cluster, "named")) == 0


async def test_a_steward_that_has_just_been_elected_lets_go_of_nothing(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """The store was away for an hour: nothing was named for an hour."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        now_us = found.named_us + 10 * LET_GO_US
        await found.removed.let_go(Stewardship(term=1, since_us=now_us - LET_GO_US + 1), now_us)
        assert found.is_published()
        await found.removed.let_go(Stewardship(term=1, since_us=now_us - LET_GO_US), now_us)
        assert not found.is_published()


async def test_a_steward_that_was_deposed_lets_go_of_nothing(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """It was frozen, and its step runs minutes later."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        redis.hset(found.one.keys.named("policy"), "term", 2)
        await found.let_go(term=1)
        assert found.is_published()
        await found.let_go(term=2)
        assert not found.is_published()


async def test_an_operation_with_a_job_stays_and_its_job_is_still_there_for_people(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A job that was accepted is never orphaned: it is shown, and can be cancelled."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        job = await found.one.queue()
        await found.let_go()
        assert found.is_published()
        assert await found.one.state(job) == "queued"
        assert await found.one.desk.cancel(found.one.operation, job) is not None
        await found.let_go()
        assert not found.is_published()


@pytest.mark.parametrize("by_hand", [{"hold": "paused", "hold_until": "0"}, {"override_until": str(10**17)}])
async def test_what_a_person_set_keeps_its_operation(
    store_url: str, redis: Redis, cluster: str, by_hand: dict[str, str]
) -> None:
    """Who paused it must find it paused when the file comes back."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        policy = found.one.keys.named("policy")
        for field, value in by_hand.items():
            redis.hset(policy, field, value)
        await found.let_go()
        assert found.is_published()
        for field in by_hand:
            if field.endswith("_until"):
                redis.hset(policy, field, "1")
        await found.let_go()
        assert not found.is_published()


async def test_an_operation_that_was_published_again_meanwhile_stays(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """The steward had it on its list when a replica came that names it."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        found.named_us -= LET_GO_US  # so that the moment of letting go is now
        redis.zadd(cluster_key(cluster, "named"), {found.one.operation: found.named_us})
        await found.let_go(LET_GO_US + 1_000_000)
        assert found.is_published()


async def test_an_operation_that_comes_back_goes_on_with_its_ledger_and_quota(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A month's quota must not begin anew because a file was away for ten minutes."""
    async with remains(store_url, redis, cluster, a_queue(capacity=Capacity(limits=slots(1)))) as found:
        await found.one.give_back(await found.one.start())
        before = await found.one.capacity.look(found.one.operation)
        assert before.started == 1
        await found.let_go()
        assert not found.is_published()
        assert redis.ttl(found.one.keys.named("rate")) > 31 * 86_400
        await found.one.capacity.publish(found.one.operations, "v2")
        assert (await found.one.capacity.look(found.one.operation)).started == 1
        assert redis.ttl(found.one.keys.named("rate")) == -1


async def test_results_that_have_had_their_time_do_not_keep_an_operation(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Nobody else lets go of them: no replica works for this operation any more."""
    async with remains(store_url, redis, cluster, a_queue(keep_result_ms=60_000)) as found:
        await found.one.queue()
        await found.one.end(await found.one.one(), result=b"done")
        now_us = found.named_us
        found.named_us = now_us - LET_GO_US
        redis.zadd(cluster_key(cluster, "named"), {found.one.operation: found.named_us})
        redis.hset(found.one.keys.named("policy"), "published", 0)
        await found.let_go(LET_GO_US + 30_000_000)
        assert found.is_published(), "its result can still be fetched"
        await found.let_go(LET_GO_US + 90_000_000)
        assert not found.is_published()


async def test_an_operation_counts_as_removed_when_nobody_has_named_it_for_a_while(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """People see it within half a minute; one that a living replica names is not shown."""
    async with remains(store_url, redis, cluster, a_queue()) as found:
        named = cluster_key(cluster, "named")
        now_us = found.one.capacity.clock.now_us()
        redis.zadd(named, {found.one.operation: now_us - UNNAMED_US + 10_000_000})
        assert await found.removed.names() == []
        redis.zadd(named, {found.one.operation: now_us - UNNAMED_US - 1, "billing.never": 1})
        assert await found.removed.names() == [found.one.operation], "and not what was never published"


async def test_a_replica_names_its_operations_again_and_again(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Otherwise they would count as removed while it runs them."""
    async with AsyncExitStack() as stack:
        one = Gateway(store_url, cluster)
        stack.push_async_callback(one.close)
        one.members.says("v1", files(3))
        named = cluster_key(cluster, "named")
        start = 1_800_000_000_000_000
        for second in range(25):
            await one.members.beat(start + second * 1_000_000)
        at = redis.zscore(named, NAME)
        assert at is not None
        assert at >= start + 14_000_000
