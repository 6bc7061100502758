"""
Circuit metrics: what this replica meets of ill downstreams, fed by events.

An event of an operation that a reload took away is left out. In which state a circuit is over all replicas is in `circuits.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from breaker.core.circuit import CircuitState
from breaker.core.events import CircuitMoved, CircuitSeen, LoneReplica, SlowedDown
from breaker.core.model import Operation
from breaker.signals.circuits import CircuitCollector
from breaker.signals.series import Add

CircuitEvent = CircuitMoved | CircuitSeen | LoneReplica | SlowedDown


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSeries:
    """All children of one operation: bound methods, found by what varies."""

    transitions: dict[str, Add]
    lone: Callable[[float], None]
    slow_downs: Add


class CircuitMetrics:
    """All that is exported of circuits by one process."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        """
        Make the families.

        Args:
            now: Seconds, monotonic.

        """
        self.states = CircuitCollector(now)
        registry.register(self.states)
        self._transitions = Counter(
            "breaker_circuit_transitions_total", "Moves of the circuit into a state, told by the replica that made them.",
            ["operation", "state"], registry=registry,
        )  # fmt: skip
        self._lone = Gauge(
            "breaker_circuit_lone", "Whether this replica is alone with the failures that it sees, and goes by its own circuit.",
            ["operation"], registry=registry,
        )  # fmt: skip
        self._slow_downs = Counter(
            "breaker_slow_downs_total", "Times that the downstream asked for time, for all or for one tenant.",
            ["operation"], registry=registry,
        )  # fmt: skip
        self._series: dict[str, CircuitSeries] = {}

    def configured(self, operations: Mapping[str, Operation]) -> None:
        """These operations exist from now on, no others."""
        self.states.configured(operations)
        for name in self._series.keys() - operations.keys():
            self._remove(name)
        for name in operations:
            if name not in self._series:
                self._series[name] = CircuitSeries(
                    transitions={state: self._transitions.labels(name, state).inc for state in CircuitState},
                    lone=self._lone.labels(name).set,
                    slow_downs=self._slow_downs.labels(name).inc,
                )

    def listen(self, event: CircuitEvent) -> None:
        """Count what happened."""
        series = self._series.get(event.operation)
        if series is None:
            return
        match event:
            case SlowedDown():
                series.slow_downs(1)
            case CircuitSeen():
                self.states.heard(event.operation, event.state)
            case CircuitMoved():
                series.transitions[event.state](1)
            case LoneReplica():
                series.lone(event.is_lone)

    def _remove(self, operation: str) -> None:
        for state in self._series.pop(operation).transitions:
            self._transitions.remove(operation, state)
        self._lone.remove(operation)
        self._slow_downs.remove(operation)
