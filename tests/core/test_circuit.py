"""How a circuit opens, both sides of each edge; `tests/model` holds the scripts to the same rules."""

import pytest

from breaker.core.circuit import (
    TRANSITIONS,
    Circuit,
    CircuitState,
    Report,
    Trigger,
    bars,
    by_hand,
    is_probing,
    on_probe,
    on_report,
    open_it,
)
from breaker.core.model import LEASE_US
from breaker.core.quorum import Seen
from tests.core.circuit_world import (
    CLOSED,
    DISABLED,
    FAILING,
    FORCED,
    HALF_OPEN,
    LONGEST,
    NOW,
    OPEN,
    OPENED,
    RAMP,
    SECOND,
    TERMS,
    WINDOW,
    a_half_open,
    an_open,
    ends,
    told,
)

S, T = CircuitState, Trigger

# Why a state does not hear a trigger: nobody but these two may say so.
IMPOSSIBLE = {
    T.FAILING: "windows are looked at while it is closed",
    T.WAITED: "only an open circuit has a pause that ends",
    T.PASSED: "probes run while it is half-open",
    T.FAILED: "probes run while it is half-open",
    T.RELEASED: "nobody holds it",
}


# The table.


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("state", CircuitState)
def test_each_state_hears_each_trigger_or_it_is_said_why_not(state: CircuitState, trigger: Trigger) -> None:
    """Who draws the diagram from the table, and who adds a state to it."""
    hears = {
        T.FAILING: {S.CLOSED}, T.WAITED: {S.OPEN}, T.PASSED: {S.HALF_OPEN}, T.FAILED: {S.HALF_OPEN},
        T.RELEASED: {S.FORCED_OPEN, S.DISABLED}, T.FORCED: set(S), T.DISABLED: set(S),
    }  # fmt: skip
    assert ((state, trigger) in TRANSITIONS) is (state in hears[trigger])
    assert state in hears[trigger] or IMPOSSIBLE[trigger]


@pytest.mark.parametrize("state", [OPENED, HALF_OPEN, FORCED, DISABLED])
def test_only_a_closed_circuit_looks_at_windows(state: CircuitState) -> None:
    """What fails while it is open is known already; while a person holds it that decides."""
    circuit = Circuit(state=state, until_us=NOW + OPEN)
    assert not told(circuit)
    assert (circuit.state, circuit.generation, circuit.windows) == (state, 0, {})


@pytest.mark.parametrize("state", [CLOSED, OPENED, FORCED, DISABLED])
@pytest.mark.parametrize("outcome", [True, False])
def test_only_a_half_open_circuit_looks_at_probes(state: CircuitState, *, outcome: bool) -> None:
    """Probes of a generation ago come home late."""
    circuit = Circuit(state=state, until_us=NOW + OPEN, probes={"a": NOW + 1, "b": NOW + 1, "c": NOW + 1})
    assert ends(circuit, ("a", outcome), ("b", outcome), ("c", outcome)) is state
    assert circuit.generation == 0


@pytest.mark.parametrize("state", [CLOSED, OPENED, HALF_OPEN])
def test_there_is_nothing_to_hand_back_where_nobody_holds_it(state: CircuitState) -> None:
    """A person who says `automatic` twice restarts nothing."""
    circuit = Circuit(state=state, until_us=NOW + OPEN)
    assert not by_hand(circuit, Trigger.RELEASED, NOW, 0)
    assert (circuit.state, circuit.until_us, circuit.generation) == (state, NOW + OPEN, 0)


# Opening.


def test_it_opens_by_what_all_replicas_see_together() -> None:
    """Four calls in all are enough, whoever made them."""
    circuit = Circuit()
    assert not told(circuit, Seen(calls=3, failed=3, streak=3), by="one")
    assert circuit.state is CLOSED
    told(circuit, Seen(calls=3, failed=3, streak=3), by="two", after=SECOND)
    assert (circuit.state, circuit.generation, circuit.held_us) == (OPENED, 1, NOW + SECOND)
    assert circuit.windows == {}


def test_what_a_replica_tells_replaces_what_it_told() -> None:
    """Sums are told again and again: they must not add up."""
    circuit = Circuit()
    for at in range(5):
        told(circuit, Seen(calls=3, failed=2, streak=1), after=at)
    assert circuit.windows == {"one": Seen(at_us=NOW + 4, calls=3, failed=2, streak=1)}
    told(circuit, Seen(), after=5)
    assert circuit.windows == {}, "a window in which nothing is left is not kept"


@pytest.mark.parametrize(("age", "opens"), [(WINDOW - 1, True), (WINDOW, False)])
def test_what_a_replica_told_a_window_ago_is_not_looked_at(age: int, *, opens: bool) -> None:
    """A replica that died tells nothing more, and must not vote for ever."""
    circuit = Circuit()
    told(circuit, Seen(calls=3, failed=3, streak=3), by="dead")
    told(circuit, Seen(calls=3, failed=3, streak=3), by="two", after=age)
    assert (circuit.state is OPENED) is opens


@pytest.mark.parametrize(("back", "opens"), [(0, True), (1, False)])
def test_what_was_told_in_a_time_to_come_is_not_looked_at(back: int, *, opens: bool) -> None:
    """The clock went back: it would else be new for an hour."""
    circuit = Circuit()
    told(circuit, Seen(calls=3, failed=3, streak=3), by="other")
    told(circuit, Seen(calls=3, failed=3, streak=3), by="two", after=-back)
    assert (circuit.state is OPENED) is opens


@pytest.mark.parametrize("generation", [2, 4])
def test_what_was_counted_in_another_generation_is_not_looked_at(generation: int) -> None:
    """Calls that began before it closed end after it did."""
    circuit = Circuit(generation=3)
    told(circuit, generation=generation)
    assert (circuit.state, circuit.windows) == (CLOSED, {})
    told(circuit, generation=3)
    assert circuit.state is OPENED


def test_a_replica_that_is_alone_is_told_so_and_opens_nothing() -> None:
    """One bad node must not cut off good ones."""
    circuit = Circuit()
    assert not told(circuit, Seen(calls=2), by="two")
    assert told(circuit, FAILING, by="one")
    assert circuit.state is CLOSED
    assert not told(circuit, Seen(calls=3), by="two"), "the others are not"
    assert not told(circuit, Seen(calls=8, failed=3, streak=3), by="one"), "and it is not, once it is well"


def test_who_makes_all_calls_is_not_alone() -> None:
    """Nobody says the opposite: it opens for all."""
    circuit = Circuit()
    assert not told(circuit, FAILING)
    assert circuit.state is OPENED


def test_without_a_circuit_only_the_pause_is_kept() -> None:
    """`mode: off` still obeys a downstream that asks for time."""
    circuit = Circuit()
    report = Report(replica="one", generation=0, seen=FAILING, pause_us=SECOND)
    assert not on_report(circuit, None, report, NOW)
    assert (circuit.state, circuit.windows, circuit.pause_us) == (CLOSED, {}, NOW + SECOND)
    assert bars(an_open(), None, NOW) is None
    assert not is_probing(a_half_open(), None, NOW)


# The pause.


@pytest.mark.parametrize(("draw", "permille"), [(0, 750), (1, 750), (2, 751), (500, 1_000), (999, 1_249)])
def test_a_pause_is_shaken_by_a_quarter(draw: int, permille: int) -> None:
    """A hundred operations of one downstream must not try it in the same moment."""
    circuit = Circuit()
    told(circuit, draw=draw)
    assert circuit.until_us == NOW + OPEN * permille // 1_000


def test_pauses_double_while_probes_fail_up_to_the_longest() -> None:
    """A downstream that is away for the night is not asked every five seconds."""
    circuit, found = Circuit(), list[int]()
    told(circuit)
    while len(found) < 6:
        found.append(circuit.until_us - circuit.since_us)
        tried_us = circuit.until_us - NOW
        on_probe(circuit, "a", NOW + tried_us, LEASE_US)
        assert ends(circuit, ("a", False), after=tried_us) is OPENED
    assert [pause // SECOND for pause in found] == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize("opens", [4, 31, 1_000])
@pytest.mark.parametrize("draw", [0, 999])
def test_no_pause_is_longer_than_the_longest(opens: int, draw: int) -> None:
    """Not even a shaken one, or the thousandth; and the shortest of them is no shorter than three quarters."""
    circuit = Circuit(state=HALF_OPEN, opens=opens)
    open_it(circuit, TERMS, Trigger.FAILED, NOW, draw)
    assert circuit.until_us - NOW == (LONGEST * 3 // 4 if draw == 0 else LONGEST)


@pytest.mark.parametrize(
    ("after", "pause"),
    [
        (1, 4 * OPEN),
        (RAMP + WINDOW - 1, 4 * OPEN),
        (RAMP + WINDOW, OPEN),
        (RAMP + WINDOW + 1, OPEN),
        (-1, OPEN),
    ],
)
def test_pauses_begin_anew_after_a_stable_while(after: int, pause: int) -> None:
    """One that fails again as soon as it gets all calls is not well; one that failed last week had time to be."""
    circuit = Circuit(closed_us=NOW, opens=2)
    told(circuit, after=after)
    assert circuit.until_us == NOW + after + pause


def test_a_person_who_closes_it_makes_pauses_begin_anew() -> None:
    """They have mended it."""
    circuit = an_open(opens=3)
    by_hand(circuit, Trigger.DISABLED, NOW, 0)
    by_hand(circuit, Trigger.RELEASED, NOW, 0)
    told(circuit, after=1)
    assert circuit.until_us == NOW + 1 + OPEN
