"""What an open circuit lets through and how it closes again, both sides of each edge."""

from dataclasses import replace

import pytest

from breaker.core.circuit import (
    HOLDING,
    HOLDS_MAX,
    PROBE_RETRY_US,
    Circuit,
    CircuitState,
    Report,
    Trigger,
    bars,
    by_hand,
    held_between,
    is_probing,
    on_probe,
    on_report,
    pauses,
    probes_free,
    standing,
)
from breaker.core.model import CLOCK_SKEW_US, LEASE_US
from breaker.core.quorum import Seen
from breaker.core.verdict import Policy
from tests.core.circuit_world import (
    CLOSED,
    DISABLED,
    FORCED,
    HALF_OPEN,
    LONGEST,
    NOW,
    OPEN,
    OPENED,
    SECOND,
    SHADOW,
    TERMS,
    WINDOW,
    a_half_open,
    an_open,
    ends,
    told,
)

# Open.


@pytest.mark.parametrize(("after", "bar"), [(0, OPEN), (OPEN - 1, 1), (OPEN, None), (OPEN + 1, None)])
def test_nothing_starts_until_the_pause_is_over(after: int, bar: int | None) -> None:
    """A caller is told when the first probe may go."""
    found = bars(an_open(), TERMS, NOW + after)
    assert found == (None if bar is None else (Policy.CIRCUIT, bar))
    assert is_probing(an_open(), TERMS, NOW + after) is (bar is None)


@pytest.mark.parametrize(("ahead", "state"), [(0, OPENED), (1, HALF_OPEN)])
def test_a_pause_that_ends_later_than_any_can_is_over(ahead: int, state: CircuitState) -> None:
    """The clock went back by an hour: the downstream must not be cut off for one."""
    circuit = an_open(until_us=NOW + LONGEST + CLOCK_SKEW_US + ahead)
    assert standing(circuit, TERMS, NOW) is state


def test_a_circuit_in_shadow_moves_and_bars_nothing() -> None:
    """It is rehearsed: opens, tries and closes as it would, and everything starts all the same."""
    circuit = Circuit()
    told(circuit, terms=SHADOW)
    assert circuit.state is OPENED
    assert bars(circuit, SHADOW, NOW) is None
    moment = circuit.until_us
    for id_ in "abc":
        on_probe(circuit, id_, moment, LEASE_US)
    assert bars(circuit, SHADOW, moment) is None
    assert not is_probing(circuit, SHADOW, moment), "what starts beyond its probes is none"


# Half-open.


def test_so_many_probes_go_and_no_more() -> None:
    """An ill downstream is tried by three calls, not by three of each replica."""
    circuit = an_open(until_us=NOW)
    for id_ in "abc":
        assert bars(circuit, TERMS, NOW) is None
        assert is_probing(circuit, TERMS, NOW)
        on_probe(circuit, id_, NOW, LEASE_US)
    assert bars(circuit, TERMS, NOW) == (Policy.CIRCUIT, PROBE_RETRY_US)
    assert not is_probing(circuit, TERMS, NOW)
    assert (circuit.state, circuit.generation) == (HALF_OPEN, 2), (
        "the first one moved it, and the others did not"
    )


def test_what_has_succeeded_is_not_tried_again() -> None:
    """Three in all must succeed: while one of them has, two more are tried."""
    circuit = a_half_open("a")
    assert ends(circuit, ("a", True)) is HALF_OPEN
    assert probes_free(circuit, TERMS, NOW) == 2


def test_it_closes_when_all_probes_have_succeeded() -> None:
    """And not at the last but one."""
    circuit = a_half_open("a", "b", "c")
    assert ends(circuit, ("a", True), ("b", True)) is HALF_OPEN
    assert ends(circuit, ("c", True), after=7) is CLOSED
    assert (circuit.generation, circuit.closed_us, circuit.held_us) == (3, NOW + 7, 0)
    assert circuit.holds == [(NOW, NOW + 7)]


def test_one_failure_opens_it_for_longer() -> None:
    """Also when the others succeed, in the same report even."""
    circuit = a_half_open("a", "b", "c")
    assert ends(circuit, ("a", True), ("b", False), ("c", True)) is OPENED
    assert (circuit.until_us, circuit.opens, circuit.probes) == (NOW + 2 * OPEN, 2, {})


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    """Its caller hung up: nobody knows how the downstream is."""
    circuit = a_half_open("a", "b", "c")
    assert ends(circuit, ("b", None)) is HALF_OPEN
    assert probes_free(circuit, TERMS, NOW) == 1


def test_a_probe_that_nobody_knows_says_nothing() -> None:
    """It is of a generation before, or has been told of already."""
    circuit = a_half_open("a")
    assert ends(circuit, ("z", True), ("y", False)) is HALF_OPEN
    assert ends(circuit, ("a", True), ("a", True)) is HALF_OPEN
    assert circuit.passed == 1


@pytest.mark.parametrize(("after", "free"), [(LEASE_US - 1, 0), (LEASE_US, 3), (LEASE_US + 1, 3)])
def test_a_lost_probe_frees_itself_after_its_lease(after: int, free: int) -> None:
    """Its replica died: the circuit must not stay half-open for good."""
    assert probes_free(a_half_open("a", "b", "c"), TERMS, NOW + after) == free


@pytest.mark.parametrize(
    ("back", "free"), [(0, 0), (CLOCK_SKEW_US, 0), (CLOCK_SKEW_US + 1, 3), (3_600 * SECOND, 3)]
)
def test_a_probe_from_before_the_clock_went_back_does_not_count(back: int, free: int) -> None:
    """A probe that is lost then would else bar the way for an hour."""
    assert probes_free(a_half_open("a", "b", "c"), TERMS, NOW - back) == free


# By hand.


@pytest.mark.parametrize("state", CircuitState)
@pytest.mark.parametrize("trigger", [Trigger.FORCED, Trigger.DISABLED])
def test_a_person_may_open_or_close_it_in_any_state(state: CircuitState, trigger: Trigger) -> None:
    """Also to say it again with another end."""
    circuit = Circuit(state=state)
    assert by_hand(circuit, trigger, NOW, NOW + 9)
    assert (circuit.state, circuit.until_us, circuit.generation) == (
        FORCED if trigger is Trigger.FORCED else DISABLED, NOW + 9, 1
    )  # fmt: skip


@pytest.mark.parametrize(("after", "state"), [(8, FORCED), (9, HALF_OPEN), (10, HALF_OPEN)])
def test_what_is_forced_open_is_tried_when_its_time_is_up(after: int, state: CircuitState) -> None:
    """A person who opened it for the night finds out in the morning, by probes."""
    circuit = Circuit(state=FORCED, until_us=NOW + 9)
    assert standing(circuit, TERMS, NOW + after) is state
    assert bars(circuit, TERMS, NOW + after) == ((Policy.CIRCUIT, 9 - after) if state is FORCED else None)
    assert is_probing(circuit, TERMS, NOW + after) is (state is HALF_OPEN)


@pytest.mark.parametrize(("after", "state"), [(8, DISABLED), (9, CLOSED)])
def test_what_is_disabled_counts_again_when_its_time_is_up(after: int, state: CircuitState) -> None:
    """From then on, and not by what was counted in between."""
    circuit = Circuit(state=DISABLED, until_us=NOW + 9)
    assert standing(circuit, TERMS, NOW + after) is state
    assert bars(circuit, TERMS, NOW + after) is None
    told(circuit, after=after)
    assert (circuit.state, circuit.windows) == (state, {})
    told(circuit, after=after)
    assert circuit.state is (OPENED if state is CLOSED else DISABLED)


@pytest.mark.parametrize("state", [FORCED, DISABLED])
def test_without_an_end_it_lasts_until_it_is_handed_back(state: CircuitState) -> None:
    """However long that takes, and wherever the clock goes."""
    circuit = Circuit(state=state)
    for after in (0, 10**15, -(10**15)):
        assert standing(circuit, TERMS, NOW + after) is state
    assert by_hand(circuit, Trigger.RELEASED, NOW, NOW + 9)
    assert (circuit.state, circuit.until_us) == (HALF_OPEN if state is FORCED else CLOSED, 0)
    assert circuit.closed_us == 0, "no ramp: nothing was ill"


def test_a_person_opens_also_what_is_in_shadow() -> None:
    """Shadow is about what the circuit thinks, not about what a person says."""
    assert bars(Circuit(state=FORCED), SHADOW, NOW) == (Policy.CIRCUIT, LONGEST)


# Slow down, and what was held.


@pytest.mark.parametrize(("left", "found"), [(-1, 0), (0, 0), (1, 1), (300, 300), (301, 0)])
def test_a_pause_holds_until_its_moment_and_no_longer_than_any(left: int, found: int) -> None:
    """One that is longer than the longest met a clock that went back."""
    assert pauses(NOW + left, 300, NOW) == found


def test_the_longest_pause_that_was_asked_for_holds() -> None:
    """A hundred calls are told to wait, by a little different times."""
    circuit = Circuit()
    for asked in (2 * SECOND, 5 * SECOND, SECOND, 0):
        report = Report(replica="one", generation=0, seen=Seen(), pause_us=asked)
        on_report(circuit, TERMS, report, NOW)
    assert circuit.pause_us == NOW + 5 * SECOND
    assert circuit.state is CLOSED, "it is no failure"


@pytest.mark.parametrize(
    ("from_us", "to_us", "held"),
    [(0, 10, 0), (0, 11, 1), (10, 20, 10), (12, 15, 3), (19, 30, 1), (20, 30, 0), (0, 50, 20), (45, 60, 5)],
)
def test_time_in_which_work_was_held_is_known_afterwards(from_us: int, to_us: int, held: int) -> None:
    """The owner of a job: an hour in which nothing could start is none of its retries' hour."""
    circuit = Circuit(holds=[(10, 20), (40, 50)])
    assert held_between(circuit, TERMS, from_us, to_us) == held


@pytest.mark.parametrize(("from_us", "to_us", "held"), [(0, 40, 0), (0, 45, 5), (42, 45, 3), (30, 39, 0)])
def test_time_in_which_work_is_still_held_counts_as_well(from_us: int, to_us: int, held: int) -> None:
    """A job that becomes due while the circuit is open."""
    assert held_between(Circuit(state=OPENED, held_us=40), TERMS, from_us, to_us) == held


def test_a_hold_lasts_from_the_first_opening_to_the_closing() -> None:
    """Between two pauses only probes go: that is one hold. The last eight are known."""
    circuit = Circuit()
    for at in range(0, 10 * WINDOW, WINDOW):
        told(circuit, after=at)
        on_probe(circuit, "a", circuit.until_us, LEASE_US)
        ends(circuit, ("a", False), after=at + OPEN)
        assert circuit.held_us == NOW + at
        by_hand(circuit, Trigger.FORCED, NOW + at, 0)
        assert (circuit.state in HOLDING, circuit.held_us) == (True, NOW + at)
        by_hand(circuit, Trigger.DISABLED, NOW + at + 7, 0)
        by_hand(circuit, Trigger.RELEASED, NOW + at + 8, 0)
    assert circuit.holds == [(NOW + at, NOW + at + 7) for at in range(2 * WINDOW, 10 * WINDOW, WINDOW)]
    assert len(circuit.holds) == HOLDS_MAX


def test_a_circuit_closes_also_when_fewer_probes_are_asked_for_meanwhile() -> None:
    """A reload while it is tried: as many have passed as are asked for now, and somebody must still say so."""
    circuit = Circuit(state=CircuitState.HALF_OPEN, passed=2)
    fewer = replace(TERMS, probes=2)
    assert bars(circuit, fewer, NOW) is None
    on_probe(circuit, "x", NOW, LEASE_US)
    assert bars(circuit, fewer, NOW) is not None
    report = Report(replica="R", generation=circuit.generation, seen=Seen(), probes=(("x", True),))
    on_report(circuit, fewer, report, NOW)
    assert circuit.state is CircuitState.CLOSED
