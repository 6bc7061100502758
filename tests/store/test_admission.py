"""
What admission answers, example by example, on a real server.

`Twin` takes each step through the scripts and through `core/admission.py` and compares; these
tests explain, the random histories of `tests/model` catch.
"""

import pytest
from redis import Redis

from breaker.core.model import (
    LEASE_US,
    Limits,
    Mode,
    Overflow,
    Rate,
)
from breaker.core.state import Ask
from breaker.core.terms import Terms
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly
from tests.store.world import SECOND, START, World, a_rate

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


def test_a_clock_that_jumped_back_does_not_shut_an_operation_for_an_hour(world: World) -> None:
    """Debt is never more than two bursts, so one burst later the first call starts."""
    world.of(Terms(limits=a_rate(10, burst=2))).after(3_600 * SECOND)
    assert [world.starts(), world.starts()] == [True, True]
    assert world.after(0).call() == Refused(
        policy=Policy.RATE, retry_after_us=300_000, room=Room(policy=Policy.RATE, reset_us=300_000)
    )
    assert not world.after(299_999).starts()
    assert world.after(300_000).starts()


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


def test_a_slot_that_was_given_back_does_not_come_back_to_linger(world: World) -> None:
    """A hang-up that is told after the end of the call."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts(id_="AAAAAAAA.one")
    world.twin.settle("AAAAAAAA.one", "", None, 0)
    world.twin.settle("AAAAAAAA.one", "", SECOND, 0)
    assert world.starts()


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


def test_a_call_that_was_withdrawn_is_not_admitted_when_it_arrives(world: World) -> None:
    """The replica gave it up; whatever comes late is for nobody."""
    world.of(Terms(limits=Limits(concurrency=1)))
    late = Ask(id="AAAAAAAA.late")
    assert world.twin.withdraw(late, timed_out=False) is False
    assert world.twin.admit(late) is None
    assert world.starts()


def test_withdrawing_gives_back_what_the_call_took(world: World) -> None:
    """Its caller hung up before the answer came: slot and token, the operation's and the tenant's."""
    both = Limits(rate=Rate(limit=1, period_us=SECOND), concurrency=1)
    world.of(Terms(limits=both, per_tenant=both))
    gone = Ask(id="AAAAAAAA.gone", tenant="acme")
    assert isinstance(world.twin.admit(gone), Admitted)
    assert not world.starts("acme")
    assert world.twin.withdraw(gone, timed_out=False) is True
    assert world.starts("acme")


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
