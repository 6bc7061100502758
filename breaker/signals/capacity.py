"""
Capacity: what the store said of each operation, as gauges that do not outlive their truth.

Every replica exports the same cluster-wide numbers, so they are aggregated with `max by (operation)`.
A replica that has not read the store for 15 s exports nothing: an old number looks like a live one.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from breaker.core.model import Limits
from breaker.store.capacity import Look

STALE_S = 15.0

HELP = {
    "breaker_capacity_limit": "Capacity in force over all replicas: starts per second, slots, or starts per period.",
    "breaker_capacity_configured": "Capacity as the file states it, beside the one in force.",
    "breaker_capacity_used": "Capacity in use over all replicas.",
    "breaker_capacity_wanted": "Capacity that demand would use over all replicas, were there enough.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """
    Cost per second over all replicas, between two looks.

    Attributes:
        started: What was let through.
        wanted: What asked, let through or not.

    """

    started: float
    wanted: float


@dataclass(frozen=True, slots=True)
class Seen:
    """
    Values by (metric, limit), and when they were true; seconds of the collector's clock.

    Attributes:
        override_ends_s: Unix time at which a person's limits end; 0 without any.

    """

    at: float
    values: dict[tuple[str, str], float]
    override_ends_s: float


class CapacityCollector(Collector):
    """The last look at each operation, as long as it is fresh."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: dict[str, Seen] = {}
        self._memory: tuple[float, float] | None = None

    def observe(self, operation: str, look: Look, demand: Demand | None) -> None:
        self._seen[operation] = Seen(self._now(), values_of(look, demand), look.override_until_us / 1e6)

    def observe_memory(self, ratio: float) -> None:
        self._memory = (self._now(), ratio)

    def keep(self, operations: Collection[str]) -> None:
        """Forget all others."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in operations}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        fresh_since = self._now() - STALE_S
        families = {
            name: GaugeMetricFamily(name, text, labels=["operation", "limit"]) for name, text in HELP.items()
        }
        ends = GaugeMetricFamily(
            "breaker_override_expires_timestamp_seconds",
            "Unix time at which limits that a person set end; 0 when nobody has set any.",
            labels=["operation"],
        )
        for operation, seen in self._seen.items():
            if seen.at > fresh_since:
                ends.add_metric([operation], seen.override_ends_s)
                for (name, limit), value in seen.values.items():
                    families[name].add_metric([operation, limit], value)
        yield from families.values()
        yield ends
        memory = GaugeMetricFamily(
            "breaker_store_memory_ratio", "Share of the store's maxmemory in use; 0 when it has none."
        )
        if self._memory and self._memory[0] > fresh_since:
            memory.add_metric([], self._memory[1])
        yield memory


def values_of(look: Look, demand: Demand | None) -> dict[tuple[str, str], float]:
    """What there is to say: a limit that the operation does not have says nothing, not 0."""
    values: dict[tuple[str, str], float] = {}
    for name, limits in (
        ("breaker_capacity_limit", look.limits),
        ("breaker_capacity_configured", look.configured),
    ):
        if (rate := rate_of(limits)) is not None:
            values[name, "rate"] = rate
        if limits.concurrency is not None:
            values[name, "concurrency"] = limits.concurrency
        if look.quota_limit is not None:
            values[name, "quota"] = look.quota_limit  # nothing but the file can change a quota
    limited = {limit for _, limit in values}
    if demand and "rate" in limited:
        values["breaker_capacity_used", "rate"] = demand.started
        values["breaker_capacity_wanted", "rate"] = demand.wanted
    if "concurrency" in limited:
        values["breaker_capacity_used", "concurrency"] = look.in_use
        values["breaker_capacity_wanted", "concurrency"] = slots_wanted(look, demand)
    if "quota" in limited:
        # How much of a quota is wanted cannot be told: refused calls come back and would count again.
        values["breaker_capacity_used", "quota"] = look.quota_used
    return values


def rate_of(limits: Limits) -> float | None:
    """Starts per second."""
    return limits.rate.limit * 1e6 / limits.rate.period_us if limits.rate else None


def slots_wanted(look: Look, demand: Demand | None) -> float:
    """By Little's law what asks per second times how long it stays; at least who is here already."""
    here = float(look.in_use + look.waiting)
    return max(here, demand.wanted * look.service_us / 1e6) if demand else here
