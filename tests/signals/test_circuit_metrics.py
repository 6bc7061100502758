"""What stands on the page about ill downstreams."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, CircuitPolicy
from breaker.core.events import CircuitMoved, CircuitSeen, LoneReplica, SlowedDown
from breaker.core.job_policy import BANDS, Band
from breaker.core.model import Operation
from breaker.signals.expected import Expected
from breaker.signals.metrics import Metrics
from breaker.store.capacity import CircuitLook
from tests.signals.scene import Clock, look, named, numbers, operation, queue_look

CHARGE = "operation=billing.charge"
OPENED = CircuitMoved("billing.charge", "closed", "open", 7, "62 % of 40 calls failed")


def with_circuit(mode: CircuitMode, *, has_queue: bool = False) -> dict[str, Operation]:
    plain = operation("billing.charge", has_queue=has_queue)
    return {"billing.charge": replace(plain, circuit=CircuitPolicy(mode=mode))}


def states(metrics: Metrics) -> dict[str, float]:
    return {
        sample.partition("state=")[2].rstrip("}"): value
        for sample, value in numbers(metrics).items()
        if sample.startswith("breaker_circuit_state{" + CHARGE)
    }


def only(state: str) -> dict[str, float]:
    return {each: float(each == state) for each in CircuitState}


def test_a_circuit_is_closed_until_something_else_is_heard(metrics: Metrics) -> None:
    """An alert on `open` needs a series to look at before the first incident."""
    assert states(metrics) == only("closed")


@pytest.mark.parametrize("state", CircuitState)
def test_a_circuit_is_in_one_state_at_a_time(metrics: Metrics, state: CircuitState) -> None:
    """Two states at once would stack to two circuits on the dashboard's timeline."""
    metrics.listen(CircuitSeen("billing.charge", CircuitState.OPEN))
    metrics.listen(CircuitSeen("billing.charge", state))
    assert states(metrics) == only(state)
    assert numbers(metrics)["breaker_circuit_state{operation=support.create,state=closed}"] == 1


def test_the_state_vanishes_when_the_store_was_not_read_for_15_s(metrics: Metrics, clock: Clock) -> None:
    """A replica that is cut off would hold an alert on `open` long after the downstream was well again."""
    metrics.listen(CircuitSeen("billing.charge", "open"))
    clock.seconds += 14.9
    assert states(metrics) == only("open")
    clock.seconds += 0.1
    assert states(metrics) == {}


def test_reading_the_store_keeps_the_state_without_another_move(metrics: Metrics, clock: Clock) -> None:
    """A circuit that stays open for an hour moves no more, and is still open."""
    metrics.listen(CircuitSeen("billing.charge", "open"))
    for _ in range(5):
        clock.seconds += 5
        metrics.observe("billing.charge", look(circuit=CircuitLook(state=CircuitState.OPEN)), None)
    assert states(metrics) == only("open")
    assert "breaker_circuit_state{operation=support.create,state=closed}" not in numbers(metrics)


def test_a_look_corrects_what_was_heard(metrics: Metrics) -> None:
    """The word that a circuit has closed may get lost, and an idle replica asks for no admission that would say so."""
    metrics.listen(CircuitSeen("billing.charge", "open"))
    metrics.observe("billing.charge", look(), None)
    assert states(metrics) == only("closed")


def test_moves_are_counted_by_the_state_they_led_to(metrics: Metrics) -> None:
    """How often it opened this week; and no move was seen before the first."""
    name = "breaker_circuit_transitions_total{" + CHARGE + ",state="
    assert all(numbers(metrics)[name + state + "}"] == 0 for state in CircuitState)
    half_open = replace(OPENED, was="open", state="half-open", generation=8)
    for move in (OPENED, half_open, OPENED):
        metrics.listen(move)
    found = numbers(metrics)
    assert {state: found[name + state + "}"] for state in CircuitState} == {
        "closed": 0, "open": 2, "half-open": 1, "forced-open": 0, "disabled": 0,
    }  # fmt: skip


def test_what_one_replica_does_to_a_circuit_is_no_word_of_the_store(metrics: Metrics) -> None:
    """The state is what all replicas agree on: it is heard, not concluded."""
    metrics.listen(OPENED)
    assert states(metrics) == only("closed")


def test_a_lone_replica_shows_it_until_it_is_not(metrics: Metrics) -> None:
    """`BreakerLoneReplicaFailing` names the node that should be taken out."""
    name, seen = "breaker_circuit_lone{" + CHARGE + "}", []
    seen.append(numbers(metrics)[name])
    for is_lone in (True, False):
        metrics.listen(LoneReplica("billing.charge", is_lone=is_lone, detail="8 of 9 calls failed"))
        seen.append(numbers(metrics)[name])
    assert seen == [0, 1, 0]


def test_a_downstream_that_asks_for_time_is_counted(metrics: Metrics) -> None:
    """Whoever owns the limits sees that they are too high, also when one tenant is meant."""
    name = "breaker_slow_downs_total{" + CHARGE + "}"
    assert numbers(metrics)[name] == 0
    metrics.listen(SlowedDown("billing.charge", "", 30.0))
    metrics.listen(SlowedDown("billing.charge", "acme", 2.5))
    assert numbers(metrics)[name] == 2


def test_a_circuit_that_the_file_switched_off_is_disabled(make_metrics: Callable[..., Metrics]) -> None:
    """`closed` would say that something is being watched; and what the store remembers of it bars nothing."""
    metrics = make_metrics()
    metrics.configured("v2", with_circuit(CircuitMode.OFF))
    shown = [states(metrics)]
    metrics.listen(CircuitSeen("billing.charge", "forced-open"))
    shown.append(states(metrics))
    metrics.observe("billing.charge", look(circuit=CircuitLook(state=CircuitState.FORCED_OPEN)), None)
    shown.append(states(metrics))
    assert shown == [only("disabled")] * 3


def test_a_reload_keeps_what_was_heard_and_takes_away_what_is_gone(metrics: Metrics) -> None:
    """A reload during an incident must not close a circuit on the dashboard."""
    metrics.listen(CircuitSeen("billing.charge", "open"))
    metrics.listen(OPENED)
    opened = "breaker_circuit_transitions_total{" + CHARGE + ",state=open}"
    metrics.configured("v2", named("billing.charge"))
    assert (states(metrics), numbers(metrics)[opened]) == (only("open"), 1)
    metrics.configured("v3", {})
    for event in (OPENED, CircuitSeen("billing.charge", "open"), SlowedDown("billing.charge", "", 1.0)):
        metrics.listen(event)
    assert not any(CHARGE in name for name in numbers(metrics))
    metrics.configured("v4", named("billing.charge"))
    assert (states(metrics), numbers(metrics)[opened]) == (only("closed"), 0)


@pytest.mark.parametrize(
    ("mode", "state", "is_held"),
    [
        (CircuitMode.ENFORCE, "closed", False),
        (CircuitMode.ENFORCE, "open", True),
        (CircuitMode.ENFORCE, "half-open", True),
        (CircuitMode.ENFORCE, "forced-open", True),
        (CircuitMode.ENFORCE, "disabled", False),
        (CircuitMode.SHADOW, "open", False),
        (CircuitMode.SHADOW, "forced-open", True),
        (CircuitMode.OFF, "open", False),
    ],
)
def test_jobs_are_held_while_their_circuit_holds_them(
    make_metrics: Callable[..., Metrics], mode: CircuitMode, state: str, is_held: bool
) -> None:
    """A queue that grows while the downstream is ill is no capacity problem, and nobody knows when it moves."""
    metrics = make_metrics()
    metrics.configured("v2", with_circuit(mode, has_queue=True))
    metrics.listen(CircuitSeen("billing.charge", state))
    metrics.observe_queue(
        "billing.charge", queue_look(waiting={Band.LOW: 7}), dict.fromkeys(BANDS, 3.0), Expected()
    )
    found = numbers(metrics)
    assert found["breaker_queue_jobs{" + CHARGE + ",state=held}"] == (7 if is_held else 0)
    assert found["breaker_queue_jobs{" + CHARGE + ",state=queued}"] == (0 if is_held else 7)
    assert ("breaker_queue_eta_seconds{band=low," + CHARGE + "}" in found) is not is_held


@pytest.mark.parametrize(("pause_until_us", "held"), [(0, 0), (1_000_000, 0), (1_000_001, 7)])
def test_jobs_are_held_while_the_downstream_wants_time(jobs: Metrics, pause_until_us: int, held: int) -> None:
    """Their callers are told `held`; the page must not tell on-call another story."""
    seen = queue_look(waiting={Band.LOW: 7}, now_us=1_000_000)
    jobs.observe_queue("billing.charge", seen, {}, Expected(), pause_until_us=pause_until_us)
    assert numbers(jobs)["breaker_queue_jobs{" + CHARGE + ",state=held}"] == held
