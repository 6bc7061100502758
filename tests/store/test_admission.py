"""
What admission answers, example by example, on a real server.

`Twin` takes each step through the scripts and through `core/admission.py` and compares; these
tests explain, the random histories of `tests/model` catch.
"""

from dataclasses import replace
from datetime import datetime
from itertools import count
from zoneinfo import ZoneInfo

import pytest
from redis import Redis

from breaker.core.admission import Ask
from breaker.core.model import (
    LEASE_US,
    Capacity,
    Downstream,
    Limits,
    Match,
    Mode,
    Operation,
    Overflow,
    Per,
    Quota,
    Rate,
)
from breaker.core.terms import Override, Terms
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly, Verdict, Waiting
from breaker.store.policy import terms_of
from tests.model.twin import OPERATION, Twin

SECOND = 1_000_000
START = 1_800_000_000 * SECOND
_numbers = count(1)


class World:
    """An operation with these terms, and simulated time."""

    def __init__(self, redis: Redis, cluster: str, start_us: int = START) -> None:
        self._redis, self._cluster, self._start_us = redis, cluster, start_us

    def of(self, terms: Terms) -> "World":
        self.twin = Twin(self._redis, self._cluster, terms, self._start_us)
        return self

    def after(self, us: int) -> "World":
        """The moment so many microseconds after the start."""
        self.twin.now_us = self._start_us + us
        return self

    def call(self, tenant: str = "", *, cost: int = 1, id_: str = "") -> Verdict | None:
        """One call that does not want to wait."""
        return self.twin.admit(Ask(id=id_ or f"AAAAAAAA.{next(_numbers):08}", tenant=tenant, cost=cost))

    def starts(self, tenant: str = "", *, cost: int = 1, id_: str = "") -> bool:
        return isinstance(self.call(tenant, cost=cost, id_=id_), Admitted)

    def refused_by(self, tenant: str = "", *, cost: int = 1) -> Policy:
        verdict = self.call(tenant, cost=cost)
        assert isinstance(verdict, Refused), verdict
        return verdict.policy


@pytest.fixture
def world(redis: Redis, cluster: str) -> World:
    return World(redis, cluster)


def a_rate(limit: int, *, burst: int = 1) -> Limits:
    return Limits(rate=Rate(limit=limit, period_us=SECOND, burst=burst))


# Rate and cost.


def test_a_rate_takes_its_burst_and_then_one_per_interval(world: World) -> None:
    """The owner of a downstream: the fourth call comes one interval later, not a microsecond sooner."""
    world.of(Terms(limits=a_rate(10, burst=3)))
    assert [world.starts() for _ in range(4)] == [True, True, True, False]
    assert not world.after(99_999).starts()
    assert world.after(100_000).starts()
    assert not world.after(100_000).starts()


def test_a_verdict_says_what_is_left(world: World) -> None:
    """A caller that paces itself by the RateLimit field."""
    world.of(Terms(limits=a_rate(10, burst=3)))
    rooms = [world.call().room for _ in range(4)]  # type: ignore[union-attr]
    rate = Policy.RATE
    assert rooms == [
        Room(policy=rate, remaining=2, reset_us=100_000),
        Room(policy=rate, remaining=1, reset_us=200_000),
        Room(policy=rate, remaining=0, reset_us=100_000),
        Room(policy=rate, remaining=0, reset_us=100_000),
    ]


def test_a_cost_that_can_never_fit_is_the_callers_mistake(world: World) -> None:
    """A caller is told 422, and does not come back for ever."""
    world.of(Terms(limits=a_rate(10, burst=3)))
    assert world.call(cost=4) == TooCostly(policy=Policy.RATE)
    assert world.starts(cost=3), "nothing was spent on the call that could never fit"
    assert world.refused_by(cost=3) is Policy.RATE


def test_a_rate_of_zero_is_closed_until_the_limits_change(world: World) -> None:
    """A desk that is shut: refused with the moment of its opening, never admitted."""
    opening = START + 3_600 * SECOND
    world.of(
        Terms(
            limits=a_rate(0),
            calendar=((START - SECOND, a_rate(0)), (opening, a_rate(1))),
            retry_max_us=10**10,
        )
    )
    assert world.call() == Refused(policy=Policy.CLOSED, retry_after_us=3_600 * SECOND)
    assert not world.after(3_600 * SECOND - 1).starts()
    assert world.after(3_600 * SECOND).starts()


def test_a_changed_limit_rescales_the_debt(world: World) -> None:
    """On-call halves the rate: callers in debt wait twice as long, and not for ever."""
    world.of(Terms(limits=a_rate(10, burst=2)))
    assert [world.starts(), world.starts(), world.starts()] == [True, True, False]
    world.twin.publish(Terms(limits=a_rate(5, burst=2)))
    assert not world.starts(), "two calls of debt are two calls of debt"
    assert not world.after(199_999).starts()
    assert world.after(200_000).starts()


# Concurrency.


def test_slots_are_exact_and_a_lease_ends_at_its_moment(world: World) -> None:
    """A dead replica holds its slots for one lease, and not a microsecond longer."""
    world.of(Terms(limits=Limits(concurrency=2)))
    assert [world.starts(), world.starts(), world.starts()] == [True, True, False]
    assert not world.after(LEASE_US - 1).starts()
    assert world.after(LEASE_US).starts()


def test_giving_a_slot_back_twice_frees_one_slot(world: World) -> None:
    """A settle whose reply was lost is sent again."""
    world.of(Terms(limits=Limits(concurrency=2)))
    assert world.starts(id_="AAAAAAAA.one")
    assert world.starts(id_="AAAAAAAA.two")
    for _ in range(2):
        world.twin.settle("AAAAAAAA.one", "", None, 0)
    assert world.starts()
    assert world.refused_by() is Policy.SLOTS


def test_a_late_release_frees_nobody_elses_slot(world: World) -> None:
    """A replica that was frozen comes back and gives back what it lost long ago."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts(id_="AAAAAAAA.old")
    assert world.after(LEASE_US).starts(id_="BBBBBBBB.new")
    world.twin.settle("AAAAAAAA.old", "", None, 0)
    assert world.refused_by() is Policy.SLOTS


def test_a_renewed_lease_lives_on_and_a_lost_one_is_taken_again_and_counted(world: World) -> None:
    """The work is running, so it is counted in flight, above the limit if need be; on-call is told."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts(id_="AAAAAAAA.one")
    assert world.after(LEASE_US - 1).twin.renew([("AAAAAAAA.one", "")]) == 0
    assert not world.after(2 * LEASE_US - 2).starts()
    assert world.after(2 * LEASE_US - 1).starts(id_="BBBBBBBB.two"), "the renewed lease ended at its moment"
    assert world.twin.renew([("AAAAAAAA.one", "")]) == 1
    world.twin.settle("BBBBBBBB.two", "", None, 0)
    assert world.refused_by() is Policy.SLOTS


@pytest.mark.parametrize(
    ("linger_us", "stays_us"), [(0, 0), (700_000, 700_000), (60 * SECOND, LEASE_US), (-1, 300_000)]
)
def test_an_abandoned_call_keeps_its_slot_for_its_linger(world: World, linger_us: int, stays_us: int) -> None:
    """The downstream still works on it; -1 is the mean service time, and one lease is the most."""
    world.of(Terms(limits=Limits(concurrency=2)))
    assert world.starts(id_="AAAAAAAA.first")
    world.twin.settle("AAAAAAAA.first", "", None, 300_000)  # teaches the mean
    assert world.starts(id_="AAAAAAAA.kept")
    assert world.starts(id_="AAAAAAAA.gone")
    world.twin.settle("AAAAAAAA.gone", "", linger_us, 0)
    if stays_us:
        assert not world.after(stays_us - 1).starts()
    assert world.after(stays_us).starts()


# Tenants.


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
    by_hand = Override(limits=Limits(concurrency=3), until_us=START + 2 * SECOND)
    scheduled = ((START + SECOND, Limits(concurrency=2)),)
    world.of(Terms(limits=Limits(concurrency=1), calendar=scheduled))
    assert [world.starts(), world.starts()] == [True, False]  # the file
    assert [world.after(SECOND).starts(), world.starts()] == [True, False]  # the schedule
    world.twin.publish(replace(world.twin.terms, override=by_hand))
    assert [world.starts(), world.starts()] == [True, False]  # the person
    assert [slots_of(world.after(2 * SECOND - 1)), slots_of(world.after(2 * SECOND))] == [3, 2]


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
    world.twin.run("publish", 2, "digest", "of a new file", "file", "- - - - 1", 0)
    assert redis.hget(world.twin.keys.named("policy"), "override") == fields == b"- - - - 2"


# All limits or none, and what does not refuse.


def test_a_call_that_one_limit_refuses_has_spent_nothing_of_the_others(world: World) -> None:
    """A slot refusal costs no rate token, no quota, and nothing of the tenant."""
    both = Limits(rate=Rate(limit=1, period_us=SECOND, burst=2), concurrency=1)
    world.of(Terms(limits=both, per_tenant=a_rate(1, burst=2), quota=2, periods=((START, START + SECOND),)))
    assert world.starts("acme", id_="AAAAAAAA.one")
    for _ in range(5):
        assert world.refused_by("acme") is Policy.SLOTS
    world.twin.settle("AAAAAAAA.one", "acme", None, 0)
    assert world.starts("acme"), "the second token, quota and tenant token were still there"


def test_a_limit_in_shadow_changes_nothing(world: World, redis: Redis) -> None:
    """A limit that is rehearsed: its refusals are told, and every call starts."""
    world.of(Terms(limits=Limits(concurrency=1), mode=Mode.SHADOW))
    assert world.call() == Admitted(room=Room(policy=Policy.SLOTS), leased=True)
    again = world.call(id_="AAAAAAAA.over")
    assert again == Admitted(shadow=Policy.SLOTS, room=Room(policy=Policy.SLOTS))
    assert redis.zscore(world.twin.keys.named("slots"), "AAAAAAAA.over") is None


def test_alert_lets_calls_through_beyond_the_limit_and_says_so(world: World) -> None:
    """Work that must never wait: over capacity is marked, and the debt stays within one burst."""
    world.of(Terms(limits=a_rate(10, burst=2), overflow=Overflow.ALERT))
    overs = [verdict.over if isinstance(verdict := world.call(), Admitted) else None for _ in range(9)]
    assert overs == [None, None, *[Policy.RATE] * 7]
    assert world.twin.state.own.tat_us == START + 400_000, "two bursts of 200 ms, not nine intervals"


def test_alert_counts_calls_in_flight_beyond_the_limit(world: World) -> None:
    """In flight is what runs, whatever the limit says."""
    world.of(Terms(limits=Limits(concurrency=1), overflow=Overflow.ALERT))
    assert [world.call().over for _ in range(3)] == [None, Policy.SLOTS, Policy.SLOTS]  # type: ignore[union-attr]
    assert world.twin.run("look", START)[5] == 3


def test_too_costly_is_said_in_alert_too(world: World) -> None:
    """A mistake of the caller is no overload."""
    world.of(Terms(limits=a_rate(10, burst=2), overflow=Overflow.ALERT))
    assert world.call(cost=3) == TooCostly(policy=Policy.RATE)


# Waiting, in the terms of the scripts; over replicas see test_waiting.py.


def test_a_call_joins_the_line_only_if_its_turn_comes_in_time(world: World) -> None:
    """A caller that cannot be served in its time is told at once, with a ticket."""
    world.of(Terms(limits=a_rate(1)))
    assert world.starts()
    joined = [world.twin.admit(Ask(id=f"AAAAAAAA.{n}", wait_us=2 * SECOND)) for n in range(3)]
    assert [type(verdict) for verdict in joined] == [Waiting, Waiting, Refused]


@pytest.mark.parametrize("waiting_max", [0, 1, 2])
def test_the_line_is_bounded(world: World, waiting_max: int) -> None:
    """The memory of the store, and the patience of callers."""
    world.of(Terms(limits=Limits(concurrency=1), waiting_max=waiting_max))
    assert world.starts()
    joined = [world.twin.admit(Ask(id=f"AAAAAAAA.{n}", wait_us=SECOND)) for n in range(3)]
    assert sum(isinstance(verdict, Waiting) for verdict in joined) == waiting_max


def test_nobody_overtakes_a_call_that_waits_for_the_same_limits(world: World) -> None:
    """The call that came first: when its token is there, a newcomer does not take it."""
    world.of(Terms(limits=a_rate(1)))
    assert world.starts()
    assert isinstance(world.twin.admit(Ask(id="AAAAAAAA.first", wait_us=5 * SECOND)), Waiting)
    assert world.after(SECOND).refused_by() is Policy.WAITING
    assert world.twin.grant("AAAAAAAA", keeps_alive=True) == ["AAAAAAAA.first"]


def operation(capacity: Capacity) -> Operation:
    return Operation(
        name=OPERATION, pipeline="billing", team="finance", match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:9"), capacity=capacity,
    )  # fmt: skip
