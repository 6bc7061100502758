"""
Series: the metric families that have an operation, and each operation's children.

Children are looked up once, at start and at each reload; the path of a call finds bound methods
by what varies. What can be counted of an operation exists from the start, and goes with it.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from breaker.core.events import Action, Outcome, Result
from breaker.signals.bound import Add, Observe, bound_add, bound_observe
from breaker.signals.outcomes import SHADOWED, pairs_of

__all__ = ["ADMISSION_BUCKETS", "CALL_BUCKETS", "Add", "Families", "Observe", "Series"]

CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ADMISSION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All children of one operation: bound methods, found by what varies."""

    operation: str
    has_queue: bool
    calls: dict[tuple[str, str], Add]
    duration: dict[str, Observe]
    admission: Observe
    downstream: dict[str, Add]
    downstream_duration: Observe
    over: dict[str, Add]
    shadow: dict[str, Add]
    leases_lost: Add


class Families:
    """The families that have an operation, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        op = ["operation"]
        self._calls = Counter(
            "breaker_calls_total", "Calls that ended, exactly one count per call.",
            [*op, "outcome", "reason"], registry=registry,
        )  # fmt: skip
        self._duration = Histogram(
            "breaker_call_duration_seconds", "From the call's arrival to its end.",
            [*op, "outcome"], buckets=CALL_BUCKETS, registry=registry,
        )  # fmt: skip
        self._admission = Histogram(
            "breaker_admission_duration_seconds",
            "From the call's arrival until it was decided, its wait for a turn included.",
            op, buckets=ADMISSION_BUCKETS, registry=registry,
        )  # fmt: skip
        self._downstream = Counter(
            "breaker_downstream_calls_total", "Calls that the downstream was given, by what it made of them.",
            [*op, "result"], registry=registry,
        )  # fmt: skip
        self._downstream_duration = Histogram(
            "breaker_downstream_duration_seconds", "From forwarding to the end of the answer.",
            op, buckets=CALL_BUCKETS, registry=registry,
        )  # fmt: skip
        self._over = Counter(
            "breaker_over_capacity_total", "Calls that found no capacity, by what was done with them.",
            [*op, "action"], registry=registry,
        )  # fmt: skip
        self._shadow = Counter(
            "breaker_shadow_refusals_total", "Calls that a limit or a circuit in shadow would have refused.",
            [*op, "limit"], registry=registry,
        )  # fmt: skip
        self._leases_lost = Counter(
            "breaker_leases_lost_total", "Leases that were gone from the store while their calls ran.",
            op, registry=registry,
        )  # fmt: skip

    def make(self, operation: str, *, has_queue: bool) -> Series:
        """All children of an operation."""
        pairs = pairs_of(operation, has_queue=has_queue)
        return Series(
            operation=operation,
            has_queue=has_queue,
            calls={
                (outcome, reason): bound_add(self._calls.labels(operation, outcome, reason))
                for outcome, reasons in pairs.items()
                for reason in sorted(reasons)
            },
            duration={outcome: bound_observe(self._duration.labels(operation, outcome)) for outcome in pairs},
            admission=bound_observe(self._admission.labels(operation)),
            downstream={result: bound_add(self._downstream.labels(operation, result)) for result in Result},
            downstream_duration=bound_observe(self._downstream_duration.labels(operation)),
            over={action: bound_add(self._over.labels(operation, action)) for action in Action},
            shadow={policy: bound_add(self._shadow.labels(operation, policy)) for policy in sorted(SHADOWED)},
            leases_lost=bound_add(self._leases_lost.labels(operation)),
        )

    def add_pair(self, series: Series, outcome: Outcome, reason: str) -> Add:
        """A pair that is not in the table of outcomes; the caller sees to it that reasons are bounded."""
        add = series.calls[outcome, reason] = bound_add(self._calls.labels(series.operation, outcome, reason))
        if outcome not in series.duration:
            series.duration[outcome] = bound_observe(self._duration.labels(series.operation, outcome))
        return add

    def remove(self, series: Series) -> None:
        """The operation is not configured any more: its series end."""
        operation = series.operation
        for outcome, reason in series.calls:
            self._calls.remove(operation, outcome, reason)
        for outcome in series.duration:
            self._duration.remove(operation, outcome)
        for result in series.downstream:
            self._downstream.remove(operation, result)
        for action in series.over:
            self._over.remove(operation, action)
        for policy in series.shadow:
            self._shadow.remove(operation, policy)
        for metric in (self._admission, self._downstream_duration, self._leases_lost):
            metric.remove(operation)
