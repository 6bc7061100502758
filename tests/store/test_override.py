"""Limits that a person sets for a while: one script, and all replicas go by them until they end by themselves."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from breaker.core.circuit import Report
from breaker.core.events import OverrideChanged
from breaker.core.model import Capacity, Limits, Rate
from breaker.core.override import Change, Wrong
from breaker.core.quorum import CircuitTerms, Seen
from breaker.core.terms import Terms
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.policy.units import parse_rate
from breaker.store.keys import jobs_channel
from tests.store.job_world import a_queue, job_replica
from tests.store.replicas import Replica, an_operation, rate, replica, slots
from tests.store.world import SECOND, START, World

LONG_S = 8.0  # what waits so long and is not woken has failed
HOUR_S = 3_600.0


async def set_limits(by: Replica, change: Change, seconds: float = HOUR_S) -> None:
    until_us = by.store.clock.now_us() + int(seconds * 1e6)
    found = await by.store.overrides.set(by.lane.operation, change, until_us, "ann", "month end")
    assert not isinstance(found, Wrong), found


async def heard(by: Replica, *, holds: bool) -> None:
    """Wait until this replica has heard of it, without asking the store."""
    while by.store.overrides.holds(by.lane) is not holds:
        await asyncio.sleep(0.002)


@pytest.mark.parametrize(("after", "starts"), [(SECOND - 1, True), (SECOND, False)])
def test_limits_hold_until_their_last_microsecond_and_not_a_moment_longer(
    world: World, after: int, starts: bool
) -> None:
    """'For an hour' is an hour, with nobody awake at its end."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts()
    world.twin.set_limits(Change(concurrency=2), START + SECOND)
    assert world.after(after).starts() is starts
    assert not world.starts()


TWENTY = Limits(rate=Rate(limit=20, period_us=SECOND, burst=40), concurrency=8)


@pytest.mark.parametrize(
    ("stated", "change", "after"),
    [
        (TWENTY, Change(rate=parse_rate("40/s")), "40 1000000 25000 40 8"),
        (TWENTY, Change(burst=80), "20 1000000 50000 80 8"),
        (TWENTY, Change(concurrency=12), "20 1000000 50000 40 12"),
        (TWENTY, Change(rate=parse_rate("600/min"), burst=1, concurrency=0), "600 60000000 100000 1 0"),
        (TWENTY, Change(rate=parse_rate("0/s")), "0 1000000 0 40 8"),
        (Limits(concurrency=3), Change(rate=parse_rate("5/s")), "5 1000000 200000 1 3"),
        (Limits(concurrency=3), Change(rate=parse_rate("5/s"), burst_least=7), "5 1000000 200000 7 3"),
        (Limits(), Change(concurrency=3, burst_least=7), "- - - - 3"),
    ],
)
def test_what_is_not_said_stays_as_it_is_stated(
    world: World, redis: Redis, stated: Limits, change: Change, after: str
) -> None:
    """Who doubles the rate does not want to look up the burst first; and every cost must go on to fit."""
    world.of(Terms(limits=stated))
    world.twin.set_limits(change, START + SECOND)
    assert redis.hget(world.twin.keys.named("policy"), "override") == after.encode()


def test_a_second_change_keeps_what_the_first_one_said(world: World) -> None:
    """Two people in one incident do not undo each other; what has ended is not carried on."""
    world.of(Terms(limits=TWENTY, calendar=((START + 5 * SECOND, Limits(concurrency=2)),)))
    world.twin.set_limits(Change(concurrency=9), START + SECOND)
    found = world.twin.set_limits(Change(burst=80), START + SECOND)
    assert found == Limits(rate=Rate(limit=20, period_us=SECOND, burst=80), concurrency=9)
    found = world.after(SECOND).twin.set_limits(Change(burst=60), START + 2 * SECOND)
    assert found == Limits(rate=Rate(limit=20, period_us=SECOND, burst=60), concurrency=8)
    # Beside the hours of the schedule, what was set goes by the schedule.
    assert world.after(5 * SECOND).twin.set_limits(
        Change(rate=parse_rate("1/s")), START + 6 * SECOND
    ) == Limits(rate=Rate(limit=1, period_us=SECOND), concurrency=2)


@pytest.mark.parametrize(
    ("stated", "change", "wrong"),
    [
        (Limits(concurrency=3), Change(burst=5, concurrency=4), Wrong.NO_RATE),
        (TWENTY, Change(rate=parse_rate("1/week"), burst=1_654), Wrong.TOO_FAR),
        (TWENTY, Change(rate=parse_rate("1/week"), burst=1_653), None),
    ],
)
def test_what_could_never_hold_changes_nothing(
    world: World, redis: Redis, stated: Limits, change: Change, wrong: Wrong | None
) -> None:
    """A burst that the store cannot count in microseconds would open the gate instead of raising it."""
    world.of(Terms(limits=stated))
    found = world.twin.set_limits(change, START + SECOND)
    assert (found if isinstance(found, Wrong) else None) is wrong
    assert redis.hexists(world.twin.keys.named("policy"), "override") is (wrong is None)


def test_a_rate_of_nothing_closes_the_operation_until_the_end(world: World) -> None:
    """A downstream is taken away for ten minutes, and its callers are told when to come back."""
    world.of(Terms(limits=TWENTY))
    world.twin.set_limits(Change(rate=parse_rate("0/s")), START + SECOND)
    assert world.refused_by() is Policy.CLOSED
    verdict = world.call()
    assert isinstance(verdict, Refused)
    assert SECOND <= verdict.retry_after_us < 2 * SECOND
    assert world.after(SECOND).starts()


def test_limits_can_end_early_and_ending_them_twice_does_nothing(world: World, redis: Redis) -> None:
    """The month end is over: what the schedule says holds again."""
    world.of(Terms(limits=Limits(concurrency=1), calendar=((START, Limits(concurrency=2)),)))
    world.twin.set_limits(Change(concurrency=0), START + SECOND)
    assert not world.starts()
    assert world.twin.end_limits()
    assert [world.starts(), world.starts(), world.starts()] == [True, True, False]
    assert not world.twin.end_limits()
    world.twin.set_limits(Change(concurrency=5), START + SECOND)
    assert not world.after(SECOND).twin.end_limits()
    left: list[Any] = list(redis.hkeys(world.twin.keys.named("policy")))
    assert not [field for field in left if field.startswith(b"override")]


@pytest.mark.parametrize(("concurrency", "adaptive"), [(5, 5), (6, 0), (20, 0), (None, 5)])
def test_concurrency_that_is_raised_holds_although_it_had_adapted(
    world: World, redis: Redis, concurrency: int | None, adaptive: int
) -> None:
    """'Raised to 20' must be 20, and not the 5 that a bad hour had left."""
    world.of(Terms(limits=TWENTY, circuit=CircuitTerms(), adaptive_min=1))
    world.twin.report(Report(replica="AAAAAAAA", generation=0, seen=Seen(calls=1), stress=1), {})  # 8 * 0.7
    key = world.twin.keys.named("circuit")
    assert redis.hget(key, "adaptive") == b"5"
    world.twin.set_limits(Change(rate=parse_rate("40/s"), concurrency=concurrency), START + SECOND)
    assert int(redis.hget(key, "adaptive") or 0) == adaptive


async def test_all_replicas_go_by_them_at_once_and_see_whose_they_are(store_url: str, cluster: str) -> None:
    """Whoever raises a limit at 3 a.m. must not wait for replicas to find out one by one."""
    one = an_operation(limits=slots(1))
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        await theirs.hold()
        assert isinstance(await theirs.admit(), Refused)
        before_us = ours.store.clock.now_us()
        await set_limits(ours, Change(concurrency=2))
        assert isinstance(await theirs.admit(), Admitted)
        look = await theirs.store.look(one.name)
        assert (look.source, look.limits, look.configured) == ("override", slots(2), slots(1))
        assert (look.override_author, look.override_reason) == ("ann", "month end")
        # Each replica estimates the store's clock.
        assert abs(look.override_since_us - before_us) < SECOND
        assert abs(look.override_until_us - look.override_since_us - HOUR_S * 1e6) < SECOND
        await theirs.store.overrides.end(one.name, "bob", "over")
        look = await ours.store.look(one.name)
        assert (look.source, look.stated, look.override_until_us) == ("file", slots(1), 0)
        assert (look.override_author, look.override_reason, look.override_since_us) == ("", "", 0)


async def test_of_limits_that_have_ended_nothing_is_told(store_url: str, cluster: str) -> None:
    """A gauge that says when they end, and an author, must not stand there for ever."""
    one = an_operation(limits=slots(1))
    async with replica(store_url, cluster, one) as ours:
        await set_limits(ours, Change(concurrency=2), 0.002)
        await asyncio.sleep(0.01)
        look = await ours.store.look(one.name)
        assert (look.source, look.stated) == ("file", slots(1))
        assert (look.override_until_us, look.override_since_us) == (0, 0)
        assert (look.override_author, look.override_reason) == ("", "")
        assert not ours.store.overrides.holds(ours.lane)


async def test_a_reload_keeps_them_with_their_author(store_url: str, cluster: str) -> None:
    """A rolling deployment within the hour must neither undo them nor forget whose they are."""
    one = an_operation(limits=slots(1))
    async with replica(store_url, cluster, one) as ours:
        await set_limits(ours, Change(concurrency=3))
        before = await ours.store.look(one.name)
        await ours.store.publish({one.name: an_operation(limits=slots(2))}, "v2")
        after = await ours.store.look(one.name)
        assert after.configured == slots(2)
        assert replace(after, configured=before.configured, version=before.version) == before


async def test_each_change_is_told_once_by_the_replica_that_was_asked(store_url: str, cluster: str) -> None:
    """In a log, and as an annotation: who, why, until when, and what holds now."""
    one = an_operation(limits=rate(20, burst=40))
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        await set_limits(ours, Change(rate=parse_rate("40/s")))
        await ours.store.overrides.end(one.name, "bob", "over")
        await ours.store.overrides.end(one.name, "bob", "over")
        wrong = await ours.store.overrides.set(
            one.name, Change(rate=parse_rate("1/week"), burst=10**7), 1, "", ""
        )
        assert wrong is Wrong.TOO_FAR
        told = [event for event in ours.events if isinstance(event, OverrideChanged)]
        assert [(event.author, event.reason, event.words) for event in told] == [
            ("ann", "month end", "40/s, burst 40"), ("bob", "over", "20/s, burst 40"),
        ]  # fmt: skip
        assert told[0].until_us > ours.store.clock.now_us()
        assert told[1].until_us == 0
        assert theirs.seen(OverrideChanged) == 0


async def test_waiting_calls_of_other_replicas_start_at_once_when_limits_are_raised(
    store_url: str, cluster: str
) -> None:
    """They wait for what was just given; their own timers would look half a second later, or never."""
    one = an_operation(limits=slots(1))
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        await theirs.hold()
        turn = await theirs.wait(theirs.an_ask(wait_s=LONG_S))
        assert theirs.lane.grant_timer is not None
        theirs.lane.grant_timer.cancel()  # nobody but the one who raises the limit looks whose turn it is
        began = time.monotonic()
        await set_limits(ours, Change(concurrency=2))
        assert isinstance(await turn, Admitted)
        assert time.monotonic() - began < LONG_S / 2, "it was woken, and did not only ask at the end"


async def test_whoever_has_jobs_to_run_is_told_of_other_limits(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A backlog of 40,000 invoices goes on at the new pace at once, and not after the next look in 15 s."""
    one = a_queue(capacity=Capacity(limits=slots(1)))
    async with job_replica(store_url, cluster, one) as ours:
        await ours.queue_many(3)
        assert len(await ours.leased()) == 1
        with redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(jobs_channel(cluster))
            channel.get_message(timeout=1)
            overrides, until_us = ours.capacity.overrides, ours.now_us() + 60 * SECOND
            for ends_us in (until_us, 0):
                if ends_us:
                    await overrides.set(one.name, Change(concurrency=2), ends_us, "ann", "x")
                else:
                    await overrides.end(one.name, "ann", "x")
                heard = [(channel.get_message(timeout=5) or {}).get("data") for _ in range(2)]
                assert heard == [f"=limits {one.name} {ends_us}".encode(), f"=work {one.name} -".encode()]
                assert len(await ours.leased()) == (1 if ends_us else 0)


async def test_an_operation_without_limits_has_some_as_long_as_a_person_set_them(
    store_url: str, cluster: str
) -> None:
    """Its calls do not ask the store; each replica must hear that they have to, and may stop again."""
    one = an_operation()
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        assert not theirs.store.overrides.holds(theirs.lane)
        await set_limits(ours, Change(concurrency=1))
        assert ours.store.overrides.holds(ours.lane)
        await asyncio.wait_for(heard(theirs, holds=True), 5)
        await theirs.hold()
        assert isinstance(await ours.admit(), Refused)
        await theirs.store.overrides.end(one.name, "ann", "over")
        await asyncio.wait_for(heard(ours, holds=False), 5)
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as late:
        late.store.wakes.on_limits = None
        await set_limits(ours, Change(concurrency=1))
        assert not late.store.overrides.holds(late.lane)
        await late.store.look(one.name)  # a message was lost: every replica looks every 5 s
        assert late.store.overrides.holds(late.lane)
