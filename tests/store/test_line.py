"""Who joins the line, who is granted, and who is dropped from it, to the microsecond; over real replicas see test_waiting.py."""

import pytest

from breaker.core.model import (
    Limits,
)
from breaker.core.state import Ask
from breaker.core.terms import Terms
from breaker.core.verdict import Policy, Refused, Waiting
from tests.store.world import SECOND, World, a_rate


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


@pytest.mark.parametrize(("after_us", "granted"), [(SECOND - 1, ["AAAAAAAA.first"]), (SECOND, [])])
def test_a_waiting_call_is_not_granted_when_its_time_is_up(
    world: World, after_us: int, granted: list[str]
) -> None:
    """By then its caller has been answered; a slot for it would be held for nobody."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts(id_="AAAAAAAA.holder")
    assert isinstance(world.twin.admit(Ask(id="AAAAAAAA.first", wait_us=SECOND)), Waiting)
    world.twin.settle("AAAAAAAA.holder", "", None, 0)
    assert world.after(after_us).twin.grant("AAAAAAAA", keeps_alive=True) == granted


@pytest.mark.parametrize(("silent_us", "granted"), [(2 * SECOND - 1, ["AAAAAAAA.first"]), (2 * SECOND, [])])
def test_a_replica_that_was_silent_for_two_seconds_waits_no_more(
    world: World, silent_us: int, granted: list[str]
) -> None:
    """It died; another one looks whose turn it is, and drops its calls."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts(id_="BBBBBBBB.holder")
    assert isinstance(world.twin.admit(Ask(id="AAAAAAAA.first", wait_us=60 * SECOND)), Waiting)
    world.twin.settle("BBBBBBBB.holder", "", None, 0)
    assert world.after(silent_us).twin.grant("BBBBBBBB", keeps_alive=True) == granted


@pytest.mark.parametrize("own", [Limits(concurrency=1), a_rate(1)])
def test_a_tenant_that_is_blocked_by_itself_steps_aside(world: World, own: Limits) -> None:
    """Acme's second call came first; its own limit holds it, and beta's call does not stand behind it."""
    world.of(Terms(limits=Limits(concurrency=2), per_tenant=own))
    assert world.starts("acme", id_="AAAAAAAA.one")
    assert world.starts("gamma", id_="AAAAAAAA.two")
    assert isinstance(world.twin.admit(Ask(id="AAAAAAAA.acme", tenant="acme", wait_us=SECOND * 9)), Waiting)
    assert isinstance(world.twin.admit(Ask(id="AAAAAAAA.beta", tenant="beta", wait_us=SECOND * 9)), Waiting)
    world.twin.settle("AAAAAAAA.two", "gamma", None, 0)
    assert world.twin.grant("AAAAAAAA", keeps_alive=True) == ["AAAAAAAA.beta"]
