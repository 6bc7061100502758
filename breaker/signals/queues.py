"""
Queues: what the store said of each operation's jobs, as metrics that do not outlive their truth.

As in `capacity.py` every replica exports the same cluster-wide numbers, to be aggregated with `max`, and
exports nothing when it has not read the store for 15 s.

1. Counters are the store's own, so that they survive restarts of every replica. They count what happened:
   a job that died, was requeued and succeeded is finished twice.
2. No counter falls here, because a fall looks like a restart, and a rate would show the whole count at
   once. A store that went back a little (a failover) is waited for; one that was emptied counts from 0.
3. The ETA is that of a job accepted now, in nine of ten cases. While it is not known it is not there.
4. Jobs are held while a person has paused the operation, while its circuit holds them, and while the downstream
   wants time.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from breaker.core.job_policy import BANDS, Band, Queue
from breaker.core.rate import is_closed
from breaker.signals.capacity import STALE_S
from breaker.signals.expected import Expected, Forecast
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook

REMOVED_STALE_S = 90.0  # they are looked for every half a minute
Key = tuple[str, ...]  # a metric and the value of its second label, if it has one

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "breaker_queue_jobs": ("Jobs over all replicas, by where they are.", ("state",)),
    "breaker_queue_oldest_seconds": (
        "Since the acceptance of the oldest job that is queued; 0 when none is.",
        ("band",),
    ),
    "breaker_queue_eta_seconds": (
        "Until a job accepted now starts, in nine of ten cases; absent while that is not known.",
        ("band",),
    ),
    "breaker_queue_expected_seconds": (
        "How long a job will have waited when it starts, in nine of ten cases, by the promise's clock; 0 when none waits.",
        ("band",),
    ),
    "breaker_queue_needed_rate": (
        "Starts per second that would keep the promise for all who wait and arrive; 0 when none waits.",
        (),
    ),
    "breaker_queue_promise_seconds": ("How long a job may wait before it starts: `start_within`.", ()),
    "breaker_queue_limit_jobs": ("How many jobs may wait: `max_jobs`.", ()),
    "breaker_queue_bytes": ("What the store keeps for jobs, results and dead ones included.", ()),
    "breaker_held_since_timestamp_seconds": (
        "Unix time since when a person pauses or drains the operation; 0 when nobody does.",
        (),
    ),
    "breaker_jobs_unaccounted": ("Accepted jobs that are nowhere; anything but 0 is a bug.", ()),
}
COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "breaker_jobs_accepted_total": ("Calls that became jobs, over all replicas since the store began.", ()),
    "breaker_jobs_finished_total": (
        "Jobs that came to an end, over all replicas since the store began.",
        ("result",),
    ),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """Values by (metric, second label), and when they were true; seconds of the collector's clock."""

    at: float
    gauges: Mapping[Key, float]
    counters: Mapping[Key, float]


class QueueCollector(Collector):
    """The last look at each queue, as long as it is fresh."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: dict[str, Seen] = {}
        self._removed: tuple[float, Mapping[str, int]] = (0.0, {})

    def observe(
        self,
        operation: str,
        queue: Queue,
        look: QueueLook,
        etas: Mapping[Band, float],
        expected: Expected,
        *,
        is_barred: bool,
    ) -> None:
        """What the store says; `is_barred`: an ill downstream holds the jobs (rule 4)."""
        before = self._seen.get(operation)
        counters = counters_of(look)
        if before:
            counters = {key: risen(before.counters[key], value) for key, value in counters.items()}
        gauges = gauges_of(queue, look, {} if is_barred else etas, expected, is_barred=is_barred)
        self._seen[operation] = Seen(self._now(), gauges, counters)

    def observe_removed(self, jobs: Mapping[str, int]) -> None:
        """Jobs of operations that no file names any more; none when there are no such."""
        self._removed = (self._now(), jobs)

    def keep(self, operations: Collection[str]) -> None:
        """Forget all others."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in operations}

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        fresh_since = self._now() - STALE_S
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            name: GaugeMetricFamily(name, text, labels=["operation", *labels])
            for name, (text, labels) in GAUGES.items()
        }
        for name, (text, labels) in COUNTERS.items():
            families[name] = CounterMetricFamily(name, text, labels=["operation", *labels])
        for operation, seen in self._seen.items():
            if seen.at > fresh_since:
                for (name, *values), value in (*seen.gauges.items(), *seen.counters.items()):
                    families[name].add_metric([operation, *values], value)
        yield from families.values()
        removed = GaugeMetricFamily(
            "breaker_removed_jobs", "Jobs of an operation that no file names any more.", labels=["operation"]
        )
        read_at, jobs = self._removed
        if read_at > self._now() - REMOVED_STALE_S:
            for operation, count in jobs.items():
                removed.add_metric([operation], count)
        yield removed


def gauges_of(
    queue: Queue, look: QueueLook, etas: Mapping[Band, float], expected: Expected, *, is_barred: bool
) -> dict[Key, float]:
    is_held = is_barred or look.held == "paused"
    states = {
        "queued": 0 if is_held else look.queued,
        "held": look.queued if is_held else 0,
        "scheduled": look.scheduled,
        "running": look.running,
        "dead": look.dead,
        "unknown": look.unknown,
    }
    return {
        **{("breaker_queue_jobs", state): count for state, count in states.items()},
        **{("breaker_queue_oldest_seconds", band): look.oldest_us[band] / 1e6 for band in BANDS},
        **{("breaker_queue_eta_seconds", band): seconds for band, seconds in etas.items()},
        **{("breaker_queue_expected_seconds", band): seconds for band, seconds in expected.seconds.items()},
        ("breaker_queue_needed_rate",): expected.needed,
        ("breaker_queue_promise_seconds",): queue.start_within_ms / 1e3,
        ("breaker_queue_limit_jobs",): queue.jobs_max,
        ("breaker_queue_bytes",): look.bytes_used,
        ("breaker_held_since_timestamp_seconds",): look.held_since_us / 1e6 if look.held else 0,
        ("breaker_jobs_unaccounted",): look.unaccounted,
    }


def counters_of(look: QueueLook) -> dict[Key, float]:
    results = {
        "succeeded": look.succeeded,
        "dead": look.dead_total,
        "unknown": look.unknown_total,
        "expired": look.expired,
        "cancelled": look.cancelled,
        "discarded": look.discarded,
        "withdrawn": look.withdrawn,
    }
    return {
        ("breaker_jobs_accepted_total",): look.accepted + look.withdrawn,
        **{("breaker_jobs_finished_total", result): count for result, count in results.items()},
    }


def risen(before: float, now: float) -> float:
    """Rule 2: what went back to less than half began anew."""
    return now if now < before / 2 else max(before, now)


def etas_of(operation: str, look: Look, queue: QueueLook, forecast: Forecast) -> dict[Band, float]:
    """
    Seconds until a job accepted now would start, by band; empty while that is not known.

    It would start at once while nothing waits and there is room: what was measured when the queue last
    moved, or the stated interval, would be a wait that nobody has.
    """
    has_quota = look.quota_limit is None or look.quota_used < look.quota_limit
    if queue.held == "paused" or not has_quota:
        return {}
    slots = look.limits.concurrency
    if queue.queued == 0 and not is_closed(look.limits) and (slots is None or look.in_use < slots):
        return dict.fromkeys(BANDS, 0.0)
    found, ahead = {}, 0
    for band in BANDS:
        ahead += queue.waiting[band]  # those of higher bands go first
        eta = forecast(operation, ahead, queue.pace)
        if eta:
            found[band] = eta.p90_us / 1e6
    return found
