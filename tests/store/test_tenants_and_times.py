"""Limits of tenants, quotas of calendar days, schedules and overrides: which limits hold for whom, when."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from redis import Redis

from breaker.core.model import (
    Capacity,
    Downstream,
    Limits,
    Match,
    Operation,
    Per,
    Quota,
    Rate,
)
from breaker.core.terms import Override, Terms
from breaker.core.verdict import Policy, Refused, TooCostly
from breaker.store.policy import terms_of
from tests.model.twin import OPERATION
from tests.store.world import SECOND, START, World, a_rate


def test_each_tenant_has_limits_of_its_own_and_some_have_others(world: World) -> None:
    """A partner who imports his customers does not push the others out; acme has paid for more."""
    world.of(Terms(per_tenant=a_rate(1), tenants={"acme": a_rate(1, burst=2), "free": Limits()}))
    assert [world.starts("beta"), world.starts("beta")] == [True, False]
    assert world.starts("gamma")
    assert [world.starts("acme") for _ in range(3)] == [True, True, False]
    assert all(world.starts("free") for _ in range(5))
    assert world.refused_by("beta") is Policy.TENANT_RATE


def test_a_tenants_slots_are_its_own(world: World) -> None:
    """A tenant at its own cap is refused as such (429), while the operation still has room."""
    world.of(Terms(limits=Limits(concurrency=3), per_tenant=Limits(concurrency=1)))
    assert world.starts("acme", id_="AAAAAAAA.one")
    assert world.refused_by("acme") is Policy.TENANT_SLOTS
    assert world.starts("beta")
    world.twin.settle("AAAAAAAA.one", "acme", None, 0)
    assert world.starts("acme")


def test_keys_of_a_tenant_have_a_ttl(world: World, redis: Redis, cluster: str) -> None:
    """The owner of the store: a hundred thousand tenants that came once cost nothing tomorrow."""
    world.of(Terms(limits=a_rate(5, burst=9), per_tenant=Limits(rate=a_rate(1).rate, concurrency=1)))
    assert world.starts("acme")
    assert not world.starts("acme")
    prefix = world.twin.keys.prefix
    found = [key.decode().removeprefix(prefix) for key in redis.scan_iter(f"brk:{cluster}:*:acme")]
    assert sorted(found) == ["rate:acme", "slots:acme"]
    for name in found:
        assert 0 < redis.pttl(prefix + name) <= 72_000


def test_the_clocks_of_a_tenant_outlive_its_debt(world: World, redis: Redis) -> None:
    """A tenant in debt for an hour is not forgiven because its key expired."""
    hour = Limits(rate=Rate(limit=1, period_us=3_600 * SECOND))
    world.of(Terms(per_tenant=hour))
    assert world.starts("acme")
    assert redis.pttl(world.twin.keys.named("rate:acme")) > 3_600_000


# Quota and calendar.


def berlin(text: str) -> int:
    """Microseconds of a local moment; `+1` behind it is the second showing of an ambiguous one."""
    moment = datetime.fromisoformat(text.removesuffix("+1")).replace(fold=int(text.endswith("+1")))
    return int(moment.replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("day", "last", "hours"),
    [("2026-10-24", "2026-10-24T23:59:59", 24), ("2026-10-25", "2026-10-25T23:59:59", 25), ("2026-03-29", "2026-03-29T23:59:59", 23)],
)  # fmt: skip
def test_a_daily_quota_counts_local_days(redis: Redis, cluster: str, day: str, last: str, hours: int) -> None:
    """A contract over so many a day means the days of its people, also when the clocks change."""
    quota = Quota(limit=2, per=Per.DAY, timezone="Europe/Berlin")
    begin = berlin(f"{day}T00:00:00")
    world = World(redis, cluster, begin).of(terms_of(operation(Capacity(quota=quota)), begin))
    assert [world.starts(), world.starts()] == [True, True]
    world.twin.now_us = berlin(last)
    assert world.call() == Refused(policy=Policy.QUOTA, retry_after_us=SECOND)
    world.twin.now_us = begin + hours * 3_600 * SECOND - 1
    assert not world.starts()
    world.twin.now_us += 1
    assert [world.starts(), world.starts(), world.starts()] == [True, True, False]


def test_a_call_may_weigh_more_than_one_of_a_quota(world: World) -> None:
    """A batch of three rows in a day of four."""
    world.of(Terms(quota=4, periods=((START, START + SECOND),)))
    assert world.starts(cost=3)
    assert world.refused_by(cost=2) is Policy.QUOTA
    assert world.starts(cost=1)
    assert world.call(cost=5) == TooCostly(policy=Policy.QUOTA)


def test_a_schedule_changes_at_its_moment_by_the_stores_clock(world: World) -> None:
    """Nobody needs to be awake at 08:00, and no replica is early."""
    world.of(Terms(calendar=((START, Limits(concurrency=1)), (START + SECOND, Limits(concurrency=2)))))
    assert world.starts()
    assert world.after(SECOND - 1).refused_by() is Policy.SLOTS
    assert world.after(SECOND).starts()
    assert world.refused_by() is Policy.SLOTS


def test_an_override_goes_before_the_schedule_before_the_file_until_it_expires(world: World) -> None:
    """What a person set for an hour ends by itself, at that moment."""
    by_hand = Override(limits=Limits(concurrency=6), until_us=START + 2 * SECOND)
    scheduled = ((START + SECOND, Limits(concurrency=2)),)
    world.of(Terms(limits=Limits(concurrency=1), calendar=scheduled))
    assert [world.starts(), world.starts()] == [True, False]  # the file
    assert [world.after(SECOND).starts(), world.starts()] == [True, False]  # the schedule
    world.twin.publish(replace(world.twin.terms, override=by_hand))
    assert [world.starts(), world.starts()] == [True, True]  # the person: four of six
    assert world.after(2 * SECOND - 1).starts()
    assert slots_of(world) == 6
    assert not world.after(2 * SECOND).starts()
    assert slots_of(world) == 2


def slots_of(world: World) -> int:
    """The concurrency that holds, as `look` tells it."""
    reply = world.twin.run("look", world.twin.now_us)
    return int(reply[2].decode().split(" ")[4])


def test_a_persons_override_outlives_a_change_of_the_files(world: World, redis: Redis) -> None:
    """A rolling deployment in the hour of the override must not undo it."""
    world.of(Terms(limits=Limits(concurrency=1)))
    world.twin.publish(
        replace(world.twin.terms, override=Override(limits=Limits(concurrency=2), until_us=START + SECOND))
    )
    redis.hset(world.twin.keys.named("policy"), "digest", "of another file")
    fields = redis.hget(world.twin.keys.named("policy"), "override")
    world.twin.run("publish", "", 2, "digest", "of a new file", "file", "- - - - 1", 0)
    assert redis.hget(world.twin.keys.named("policy"), "override") == fields == b"- - - - 2"


def operation(capacity: Capacity) -> Operation:
    return Operation(
        name=OPERATION, pipeline="billing", team="finance", match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:9"), capacity=capacity,
    )  # fmt: skip
