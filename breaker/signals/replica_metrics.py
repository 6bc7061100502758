"""
Replica metrics: how many replicas live, whether they run the same configuration, and which is the steward.

How many live is known to the store, so every replica exports the same, to be aggregated with `max`, and exports
nothing when it has not read the store for 15 s. Whether it is the steward each replica knows by itself.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from breaker.core.events import ReplicasSeen, StewardChanged
from breaker.signals.capacity import STALE_S


class ReplicaMetrics(Collector):
    """All that is exported of replicas by one process; absent before the first beat was answered."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        """
        Make the families.

        Args:
            now: Seconds, monotonic.

        """
        self._now = now
        self._seen: ReplicasSeen | None = None
        self._read_at = 0.0
        self._steward = Gauge(
            "breaker_steward", "Whether this replica does the chores of the cluster.", registry=registry
        )
        registry.register(self)

    def listen(self, event: ReplicasSeen | StewardChanged) -> None:
        """Note what changed."""
        match event:
            case ReplicasSeen():
                self._seen = event
                self.read()
            case StewardChanged():
                self._steward.set(event.is_steward)

    def read(self) -> None:
        """The store was read, so that what was seen last is still true: a change would have been told."""
        self._read_at = self._now()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        live = GaugeMetricFamily("breaker_replicas", "Replicas that live.")
        differing = GaugeMetricFamily(
            "breaker_replicas_differing",
            "Replicas that live and run another configuration than the one that holds.",
        )
        if self._seen and self._read_at > self._now() - STALE_S:
            live.add_metric([], self._seen.live)
            differing.add_metric([], self._seen.differing)
        yield live
        yield differing
