"""The world of the circuit tests: a small circuit, and what is told of it."""

from dataclasses import replace
from typing import Any

from breaker.core.circuit import (
    Circuit,
    CircuitState,
    Report,
    on_probe,
    on_report,
)
from breaker.core.model import LEASE_US
from breaker.core.quorum import CircuitTerms, Seen

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
WINDOW, RAMP, OPEN, LONGEST = 30 * SECOND, 20 * SECOND, 5 * SECOND, 60 * SECOND
TERMS = CircuitTerms(
    min_calls=4, consecutive=5, window_us=WINDOW, open_us=OPEN, open_max_us=LONGEST, probes=3, ramp_us=RAMP
)  # fmt: skip
SHADOW = replace(TERMS, is_shadow=True)
AS_SAID = 500  # a draw with which pauses are as long as stated
FAILING = Seen(calls=8, failed=8, streak=4)
CLOSED, OPENED, HALF_OPEN, FORCED, DISABLED = CircuitState


def told(
    circuit: Circuit, seen: Seen = FAILING, *, by: str = "one", after: int = 0, generation: int | None = None,
    terms: CircuitTerms = TERMS, draw: int = AS_SAID,
) -> bool:  # fmt: skip
    """A replica tells what it sees so long after NOW; whether it is alone with that."""
    counted = circuit.generation if generation is None else generation
    report = Report(replica=by, generation=counted, seen=seen, draw=draw)
    return on_report(circuit, terms, report, NOW + after)


def ends(circuit: Circuit, *probes: tuple[str, bool | None], after: int = 0) -> CircuitState:
    """A replica tells how probes ended."""
    report = Report(
        replica="one", generation=circuit.generation, seen=Seen(), probes=tuple(probes), draw=AS_SAID
    )
    on_report(circuit, TERMS, report, NOW + after)
    return circuit.state


def an_open(**changes: Any) -> Circuit:
    said: dict[str, Any] = {
        "since_us": NOW,
        "until_us": NOW + OPEN,
        "opens": 1,
        "held_us": NOW,
        "generation": 1,
    } | changes
    return Circuit(state=OPENED, **said)


def a_half_open(*probes: str) -> Circuit:
    """Half-open at NOW, with these probes under way."""
    circuit = an_open(until_us=NOW)
    for id_ in probes:
        on_probe(circuit, id_, NOW, LEASE_US)
    return circuit
