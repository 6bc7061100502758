"""
Circuits: in which state each one is over all replicas, as far as this one has heard.

As in `capacity.py` every replica exports the same, to be aggregated with `max`, and exports nothing when it has
not read the store for 15 s.

1. A circuit is closed until something else is heard, so that its series exist from the start.
2. One that the file has switched off is disabled, whatever the store remembers of it.
3. While a circuit holds work, its queue's jobs count as held, and nobody can say when they will start. One in
   shadow holds nothing, unless a person has forced it open.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from breaker.core.circuit import HOLDING, CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.model import Operation
from breaker.signals.capacity import STALE_S


@dataclass(frozen=True, slots=True)
class Heard:
    """A state, and when it was last known to be true; seconds of the collector's clock."""

    state: str
    at: float


class CircuitCollector(Collector):
    """The state of each operation's circuit, as long as it is fresh."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heard: dict[str, Heard] = {}
        self._modes: dict[str, CircuitMode] = {}

    def configured(self, operations: Mapping[str, Operation]) -> None:
        """These operations exist from now on, no others."""
        self._modes = {name: operation.circuit.mode for name, operation in operations.items()}
        now = self._now()
        self._heard = {name: self._heard.get(name) or Heard(CircuitState.CLOSED, now) for name in self._modes}

    def heard(self, operation: str, state: str) -> None:
        """The store said so, or another replica."""
        if operation in self._heard:
            self._heard[operation] = Heard(state, self._now())

    def holds(self, operation: str) -> bool:
        """Rule 3."""
        if operation not in self._heard:
            return False
        state = self._state(operation)
        is_shadow = self._modes[operation] is CircuitMode.SHADOW
        return state == CircuitState.FORCED_OPEN if is_shadow else state in HOLDING

    def collect(self) -> Iterator[GaugeMetricFamily]:
        fresh_since = self._now() - STALE_S
        family = GaugeMetricFamily(
            "breaker_circuit_state", "Whether the circuit is in this state, over all replicas.",
            labels=["operation", "state"],
        )  # fmt: skip
        for operation, heard in self._heard.items():
            if heard.at > fresh_since:
                own = self._state(operation)
                for state in CircuitState:
                    family.add_metric([operation, state], float(state == own))
        yield family

    def _state(self, operation: str) -> str:
        """Rule 2."""
        is_off = self._modes[operation] is CircuitMode.OFF
        return CircuitState.DISABLED if is_off else self._heard[operation].state
