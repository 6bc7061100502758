"""
Metrics: Prometheus counters, histograms and gauges, fed by events.

One registry a process. Labels come from the configuration and from closed sets; what is in neither
counts as `_unknown` or `other`, so that no caller can make series. `docs/metrics.md` lists every
name, and a test holds the two together.

`listen` is on the path of every call: children are looked up once and kept.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, disable_created_metrics

from breaker.core.events import (
    AcksLate,
    AlertMoved,
    BatchSent,
    CallbackEnded,
    CallEnded,
    CallRetried,
    CircuitMoved,
    CircuitSeen,
    ClockJumped,
    ConfigLoaded,
    DegradedBegan,
    DegradedEnded,
    Event,
    JobAccepted,
    JobAttempted,
    JobsLost,
    JobsReclaimed,
    JobStarted,
    LeasesLost,
    LetterEnded,
    LoneReplica,
    OverAdmitted,
    OverrideChanged,
    ReplicasSeen,
    RoundTripEnded,
    SlowedDown,
    StewardChanged,
    StoreFailed,
    StoreRecovered,
    StoreReset,
    TenantsExceeded,
)
from breaker.core.job_policy import Band, Queue
from breaker.core.jobs import Reason
from breaker.core.model import Operation
from breaker.signals.alert_metrics import AlertMetrics
from breaker.signals.capacity import CapacityCollector, Demand
from breaker.signals.circuit_metrics import CircuitMetrics
from breaker.signals.expected import Expected
from breaker.signals.exposition import pages_of
from breaker.signals.job_metrics import JobMetrics
from breaker.signals.outcomes import OTHER, PAIRS, QUEUE_PAIRS, UNKNOWN
from breaker.signals.queues import QueueCollector
from breaker.signals.replica_metrics import ReplicaMetrics
from breaker.signals.retry_metrics import RetryMetrics
from breaker.signals.series import Add, Families, Observe, Series
from breaker.signals.store_metrics import StoreMetrics
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

TRACE_ID_MAX = 64  # an exemplar may carry 128 characters, names included


class Metrics:
    """
    All that is exported by one process.

    Attributes:
        operations: Names of those of the configuration, without `_unknown`.
        queues: Of these, those that have a queue.
        alerts: What is exported of alerts.

    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        replica: str,
        cluster: str,
        version: str,
        reasons: frozenset[str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Make all series.

        Args:
            operations: Those of the configuration, by name.
            replica, cluster: Stand in `breaker_build_info`, and nowhere else.
            version: Of Breaker itself.
            reasons: Every word that `CallEnded.reason` may hold; others count as `other`.
            now: Seconds, monotonic.

        """
        # `_created` doubles the counters, and no query asks for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.operations: tuple[str, ...] = ()
        self.queues: Mapping[str, Queue] = {}
        self._reasons = reasons.union(*PAIRS.values(), *QUEUE_PAIRS.values())
        self._series: dict[str, Series] = {}
        self._families = Families(self.registry)
        self._jobs, self._retries = JobMetrics(self.registry), RetryMetrics(self.registry)
        self._circuits = CircuitMetrics(self.registry, now)
        self._store, self._replicas = StoreMetrics(self.registry, now), ReplicaMetrics(self.registry, now)
        self.alerts = AlertMetrics(self.registry)
        self._make_process_metrics()
        self._capacities, self._queues = CapacityCollector(now), QueueCollector(now)
        self.registry.register(self._capacities)
        self.registry.register(self._queues)
        Info("breaker_build", "The running program.", registry=self.registry).info(
            {"version": version, "replica": replica, "cluster": cluster}
        )
        self._unknown = self._series[UNKNOWN] = self._families.make(UNKNOWN, has_queue=False)
        self._set_operations(operations)

    def listen(self, event: Event) -> None:
        """Count what happened."""
        if type(event) is CallEnded:
            self._count_call(event)
            return
        if type(event) is RoundTripEnded:
            self._store.round_trip(event)
            return
        self._count_other(event)

    def _count_other(self, event: Event) -> None:
        match event:  # what happens most often first
            case JobAccepted():
                pass  # counted by the store, and as a call that was queued
            case JobAttempted():
                self._count_attempt(event)
                self._jobs.listen(event)
                self._retries.listen(event)
            case JobStarted() | BatchSent() | JobsReclaimed() | AcksLate() | CallbackEnded() | JobsLost():
                self._jobs.listen(event)
            case RoundTripEnded() | StoreFailed() | ClockJumped() | StoreReset():
                self._store.listen(event)
            case DegradedBegan() | DegradedEnded() | OverAdmitted():
                self._store.listen(event)
            case CallRetried():
                self._retries.listen(event)
            case CircuitMoved() | CircuitSeen() | LoneReplica() | SlowedDown():
                self._circuits.listen(event)
            case ReplicasSeen() | StewardChanged():
                self._replicas.listen(event)
            case LeasesLost():
                self._series.get(event.operation, self._unknown).leases_lost(event.count)
            case LetterEnded():
                self.alerts.listen(event)
            case ConfigLoaded():
                self._reload_ok.set(event.ok)
            case CallEnded() | StoreRecovered() | TenantsExceeded() | OverrideChanged() | AlertMoved():
                # Counted above; the exchange that recovered says so itself; callers are no labels; looks tell of limits,
                # and the evaluator of what fires.
                pass

    def configured(self, version: str, operations: Mapping[str, Operation]) -> None:
        """A configuration is in force: its operations have series from now on, removed ones have none."""
        self._config.clear()
        self._config.labels(version).set(1)
        self._reload_ok.set(1)
        self._set_operations(operations)

    def observe(self, operation: str, look: Look, demand: Demand | None) -> None:
        """What the store says of an operation; `demand` None when there is nothing to compare with yet."""
        self._replicas.read()
        self._circuits.states.heard(operation, look.circuit.state)
        if operation in self._series:
            self._capacities.observe(operation, look, demand)

    def observe_queue(
        self,
        operation: str,
        look: QueueLook,
        etas: Mapping[Band, float],
        expected: Expected,
        *,
        pause_until_us: int = 0,
    ) -> None:
        """
        What the store says of its jobs; goes by the circuit that was observed last.

        Args:
            etas: Seconds; empty while they are not known.
            expected: What it will make of its promise.
            pause_until_us: Until when the downstream asked for time, store time.

        """
        queue = self.queues.get(operation)
        if queue:
            is_barred = pause_until_us > look.now_us or self._circuits.states.holds(operation)
            self._queues.observe(operation, queue, look, etas, expected, is_barred=is_barred)

    def observe_removed(self, jobs: Mapping[str, int]) -> None:
        """Jobs of operations that no file names any more."""
        self._queues.observe_removed(jobs)

    def observe_memory(self, ratio: float) -> None:
        """The store's memory in use / maxmemory; 0 without maxmemory."""
        self._replicas.read()
        self._capacities.observe_memory(ratio)

    def observe_lag(self, seconds: float) -> None:
        """How much later than planned the event loop ran a timer."""
        self._loop_lag(seconds)

    def page(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """Content type and page, in pieces between which calls may go first."""
        return pages_of(self.registry, accept)

    # The path of a call.

    def _count_call(self, event: CallEnded) -> None:
        series = self._series.get(event.operation)
        if series is None:
            series = self._unknown
        outcome = event.outcome
        count = series.calls.get((outcome, event.reason))
        if count is None:
            count = self._unforeseen(series, event)
        count(1)
        trace_id = event.trace_id
        observe = series.duration[outcome]
        if trace_id and len(trace_id) <= TRACE_ID_MAX:
            observe(event.duration_s, {"trace_id": trace_id})
        else:
            observe(event.duration_s)
        series.admission(event.admission_s)
        if event.result is not None:
            series.downstream[event.result](1)
            series.downstream_duration(event.downstream_s)
        if event.action is not None:
            series.over[event.action](1)
        if event.shadow is not None:
            series.shadow[event.shadow](1)

    def _count_attempt(self, event: JobAttempted) -> None:
        """An attempt is a downstream call like any other, unless it could not even be sent."""
        if event.result is None or event.reason == Reason.UNDECRYPTABLE:
            return
        series = self._series.get(event.operation, self._unknown)
        series.downstream[event.result](1)
        series.downstream_duration(event.duration_s)

    def _unforeseen(self, series: Series, event: CallEnded) -> Add:
        """A pair that is not in the table, or a reason outside the closed set; bounded all the same."""
        reason = event.reason if event.reason in self._reasons else OTHER
        known = series.calls.get((event.outcome, reason))
        return known or self._families.add_pair(series, event.outcome, reason)

    # Making and removing.

    def _make_process_metrics(self) -> None:
        registry = self.registry
        self._loop_lag: Observe = Histogram(
            "breaker_loop_lag_seconds", "How much later than planned the event loop ran a timer.",
            buckets=LAG_BUCKETS, registry=registry,
        ).observe  # fmt: skip
        self._config = Gauge(
            "breaker_config_info", "The configuration in force.", ["version"], registry=registry
        )
        self._reload_ok = Gauge(
            "breaker_config_reload_ok", "Whether the last configuration that was read is in force.",
            registry=registry,
        )  # fmt: skip
        self._reload_ok.set(1)

    def _set_operations(self, operations: Mapping[str, Operation]) -> None:
        self.operations = tuple(operations)
        self.queues = {name: operation.queue for name, operation in operations.items() if operation.queue}
        for name, series in list(self._series.items()):
            # One that gained or lost its queue ends in other ways: its counters begin anew.
            is_same = name in operations and series.has_queue == (name in self.queues)
            if not is_same and name != UNKNOWN:
                self._families.remove(self._series.pop(name))
        for name in self.operations:
            if name not in self._series:
                self._series[name] = self._families.make(name, has_queue=name in self.queues)
        self._capacities.keep(self.operations)
        self._queues.keep(self.queues)
        self._jobs.keep(self.queues)
        for metrics in (self._retries, self._circuits, self._store):
            metrics.configured(operations)
