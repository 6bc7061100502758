"""
Store metrics: how exchanges with the store go, and what operations do while they do not.

1. `breaker_store_up` is 0 after an exchange that failed, and all the while that the replica is degraded:
   what is settled late or tried in between does not make the store usable. What one node of a Cluster fails is
   counted, and does not make it 0: the operations that it has show their mode.
2. An operation shows the mode that it is in while degraded. One that the store must remember refuses.
"""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.errors import (
    StoreClockError,
    StoreError,
    StoreRefusedError,
    StoreResetError,
    StoreTimeoutError,
)
from breaker.core.events import (
    ClockJumped,
    DegradedBegan,
    DegradedEnded,
    OverAdmitted,
    RoundTripEnded,
    StoreFailed,
    StoreReset,
)
from breaker.core.job_policy import Effects
from breaker.core.model import Operation
from breaker.signals.bound import Add, Observe, bound_observe
from breaker.signals.outcomes import OTHER

STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
BATCH_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
STORE_ERRORS = (StoreError, StoreTimeoutError, StoreRefusedError, StoreClockError, StoreResetError)
KINDS = (*(error.kind for error in STORE_ERRORS), OTHER)
JUMP_SHOWN_S = 600.0  # a clock jump is an incident, not a state: the gauge falls back to 0 after this

StoreEvent = (
    RoundTripEnded | StoreFailed | ClockJumped | StoreReset | DegradedBegan | DegradedEnded | OverAdmitted
)


class StoreMetrics:
    """All that is exported of the store by one process, besides what the store says."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        """
        Make the families.

        Args:
            now: Seconds, monotonic.

        """
        self._now = now
        self._jump: tuple[float, float] | None = None
        self._answers: bool | None = None
        self._is_degraded = False
        self._apart: set[str] = set()  # operations that are degraded by themselves
        self._modes: dict[str, WhenStoreDown] = {}
        self._over: dict[str, Add] = {}
        self._make_exchanges(registry)
        self._degraded = Gauge(
            "breaker_degraded", "Whether the operation goes by this mode now, because the store cannot be used.",
            ["operation", "mode"], registry=registry,
        )  # fmt: skip
        self._over_admitted = Counter(
            "breaker_over_admitted_total", "Cost that all replicas together started beyond the limits while degraded.",
            ["operation"], registry=registry,
        )  # fmt: skip

    def configured(self, operations: Mapping[str, Operation]) -> None:
        """These operations exist from now on, no others."""
        for name in self._modes.keys() - operations.keys():
            for mode in WhenStoreDown:
                self._degraded.remove(name, mode)
            self._over_admitted.remove(name)
            del self._over[name]
        self._modes = {name: mode_of(operation) for name, operation in operations.items()}
        for name in self._modes:
            self._over[name] = self._over_admitted.labels(name).inc
        self._show_modes()

    def round_trip(self, event: RoundTripEnded) -> None:
        """Count one; it happens about as often as a call."""
        self._round_trip(event.seconds)
        self._batch_size(event.calls)
        if self._answers is not True:
            self._show_up(answers=True)

    def listen(self, event: StoreEvent) -> None:
        """Count what happened."""
        match event:  # what happens most often first
            case RoundTripEnded():
                self.round_trip(event)
            case StoreFailed():
                self._errors[event.kind if event.kind in self._errors else OTHER](1)
                if not event.is_partial:
                    self._show_up(answers=False)
            case ClockJumped():
                self._jump = (self._now(), event.jumped_us / 1e6)
            case StoreReset():
                self._resets(1)
            case DegradedBegan(operation=name) if name:
                self._apart.add(name)
                self._show_modes()
            case DegradedEnded(operation=name) if name:
                self._apart.discard(name)
                self._show_modes()
            case DegradedBegan() | DegradedEnded():
                self._is_degraded = isinstance(event, DegradedBegan)
                self._show_up(answers=not self._is_degraded)
                self._show_modes()
            case OverAdmitted():
                if count := self._over.get(event.operation):
                    count(event.over)

    def _show_up(self, *, answers: bool) -> None:
        """Rule 1."""
        self._answers = answers
        self._up(answers and not self._is_degraded)

    def _show_modes(self) -> None:
        """Rule 2."""
        for name, own in self._modes.items():
            is_degraded = self._is_degraded or name in self._apart
            for mode in WhenStoreDown:
                self._degraded.labels(name, mode).set(is_degraded and mode is own)

    def _make_exchanges(self, registry: CollectorRegistry) -> None:
        self._up = Gauge(
            "breaker_store_up", "Whether the store is used: the last exchange succeeded, and nothing is degraded.",
            registry=registry,
        ).set  # fmt: skip
        errors = Counter(
            "breaker_store_errors_total", "Exchanges with the store that failed.", ["kind"], registry=registry
        )
        self._errors: dict[str, Add] = {kind: errors.labels(kind).inc for kind in KINDS}
        self._resets: Add = Counter(
            "breaker_store_resets_total", "Times that the store had lost what it knew: flushed, restored, another one.",
            registry=registry,
        ).inc  # fmt: skip
        self._round_trip: Observe = bound_observe(Histogram(
            "breaker_store_round_trip_seconds", "One exchange with the store.",
            buckets=STORE_BUCKETS, registry=registry,
        ))  # fmt: skip
        self._batch_size: Observe = bound_observe(Histogram(
            "breaker_store_batch_size", "Decisions that shared one exchange; 0 when it only gave back or looked.",
            buckets=BATCH_BUCKETS, registry=registry,
        ))  # fmt: skip
        Gauge(
            "breaker_store_clock_jump_seconds",
            "By how much the store's clock last jumped, within 10 minutes; 0 otherwise.", registry=registry,
        ).set_function(self._recent_jump)  # fmt: skip

    def _recent_jump(self) -> float:
        return self._jump[1] if self._jump and self._now() - self._jump[0] < JUMP_SHOWN_S else 0.0


def mode_of(operation: Operation) -> WhenStoreDown:
    """What the operation does while degraded, whatever its file says: what must be remembered is refused."""
    is_remembered = operation.queue is not None or operation.effects is Effects.ONCE
    return WhenStoreDown.REFUSE if is_remembered else operation.when_store_down
