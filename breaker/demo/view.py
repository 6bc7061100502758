"""
View: what the gateway and the downstreams say of themselves, over HTTP, as anybody could ask them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from breaker.core.alert_policy import Severity
from breaker.core.errors import StartError
from breaker.core.events import Outcome
from breaker.demo.arrivals import Arrival, arrival_of

ASK_S = 5.0
_READ = (
    "breaker_calls_total", "breaker_over_capacity_total", "breaker_admission_duration_seconds_bucket",
    "breaker_queue_eta_seconds", "breaker_batch_items_count", "breaker_batch_items_sum", "breaker_alerts_firing",
    "breaker_store_errors_total",
)  # fmt: skip
_MEDIAN = 0.5
_OK = 200


@dataclass(slots=True)
class Counted:
    """
    One operation, as the gateway's /metrics counts it.

    Attributes:
        outcomes: Calls by outcome.
        refusals: Of the refused, by reason.
        actions: Calls that found no capacity, by what was done with them.
        admission: Cumulative counts by upper bound, seconds.
        eta_s: Seconds until a job that is accepted now has probably (p90) started, by band; a band is missing
            while that is not known.
        batches, batch_items: Requests in which jobs went downstream together, and the jobs in them.

    """

    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    admission: dict[float, float] = field(default_factory=dict)
    eta_s: dict[str, float] = field(default_factory=dict)
    batches: int = 0
    batch_items: int = 0

    @property
    def added_s(self) -> float | None:
        """Median time from a call's arrival to its decision, its wait included; None without calls."""
        total = max(self.admission.values(), default=0.0)
        if not total:
            return None
        lower, below = 0.0, 0.0
        for bound, count in sorted(self.admission.items()):
            if count >= total * _MEDIAN:
                # Beyond the last bound nothing is known but that it is longer.
                return (
                    lower
                    if bound == float("inf")
                    else lower + (bound - lower) * (total * _MEDIAN - below) / (count - below)
                )
            lower, below = bound, count
        return None


@dataclass(slots=True)
class Metered:
    """
    What the gateway's /metrics says.

    Attributes:
        counted: By operation.
        firing: How many incidents fire, by alert.
        store_errors: Exchanges with the store that failed.

    """

    counted: dict[str, Counted] = field(default_factory=dict)
    firing: Counter[str] = field(default_factory=Counter)
    store_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """
    The jobs of one operation at this moment, and since its store began.

    Attributes:
        waiting, oldest_s: By band: queued jobs, and the age of the oldest in seconds (0 without any).
        unaccounted: Accepted jobs that are nowhere.
        lost: 202s that the store does not know of.

    """

    waiting: Mapping[str, int]
    oldest_s: Mapping[str, float]
    scheduled: int
    running: int
    dead: int
    unknown: int
    accepted: int
    succeeded: int
    expired: int
    cancelled: int
    discarded: int
    unaccounted: int
    lost: int

    @property
    def left(self) -> int:
        """Jobs that have not come to an end."""
        return sum(self.waiting.values()) + self.scheduled + self.running

    @property
    def ended(self) -> int:
        return self.succeeded + self.dead + self.unknown + self.expired + self.cancelled + self.discarded


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One operation at this moment; `slots` None is no limit, `queue` None is no queue."""

    in_flight: int
    slots: int | None
    waiting: int
    queue: Queue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    What a downstream saw.

    Attributes:
        starts: Seconds since 1970, the newest; only when asked for.
        request_ids: How often each came, likewise.
        effects_by_key: How often something was done under each `Idempotency-Key`, likewise.
        repeated: Of what was done, what had been done before under the same key.

    """

    in_flight_max: int
    started: int
    starts: tuple[float, ...] = ()
    request_ids: Mapping[str, int] = field(default_factory=dict)
    effects_by_key: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0


class View:
    """Asks the gateway's admin listener, the downstreams by pipeline, and the receiver of alerts."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        admin_url: str,
        downstreams: Mapping[str, str],
        receiver_url: str,
    ) -> None:
        self._session, self._admin, self._downstreams = session, admin_url, downstreams
        self._receiver = receiver_url

    async def metrics(self) -> Metered:
        """All of it that is shown or compared."""
        said = Metered()
        found = said.counted
        text = (await self._get(f"{self._admin}/metrics")).decode()
        # All of it takes four times as long to read, in the process that also makes the calls.
        wanted = "\n".join(line for line in text.splitlines() if line.startswith(_READ))
        for family in text_string_to_metric_families(wanted):
            for sample in family.samples:
                operation = sample.labels.get("operation", "")
                counted = found.setdefault(operation, Counted())
                match sample.name:
                    case "breaker_calls_total":
                        outcome, count = sample.labels["outcome"], int(sample.value)
                        counted.outcomes[outcome] += count
                        if outcome == Outcome.REFUSED:
                            counted.refusals[sample.labels["reason"]] += count
                    case "breaker_over_capacity_total":
                        counted.actions[sample.labels["action"]] += int(sample.value)
                    case "breaker_admission_duration_seconds_bucket":
                        counted.admission[float(sample.labels["le"])] = sample.value
                    case "breaker_queue_eta_seconds":
                        counted.eta_s[sample.labels["band"]] = sample.value
                    case "breaker_batch_items_count":
                        counted.batches = int(sample.value)
                    case "breaker_batch_items_sum":
                        counted.batch_items = int(sample.value)
                    case "breaker_alerts_firing" if sample.labels["severity"] != Severity.NONE:
                        said.firing[sample.labels["alert"]] += int(sample.value)
                    case "breaker_store_errors_total":
                        said.store_errors += int(sample.value)
                    case _:
                        pass  # told of on the dashboards
        said.firing = +said.firing  # without those of which there is none
        return said

    async def now(self) -> dict[str, Now]:
        """By operation; those that the store cannot tell of are missing."""
        operations = (await self._json(f"{self._admin}/status"))["operations"]
        return {
            name: Now(
                in_flight=look["in_use"], slots=look["limits"]["concurrency"], waiting=look["waiting"],
                queue=_queue(look["queue"]) if look["queue"] else None,
            )
            for name, look in operations.items()
            if look
        }  # fmt: skip

    async def arrived(self, *, after: int) -> list[Arrival]:
        """Messages about alerts with a higher number, as far as they are remembered."""
        shown = await self._json(f"{self._receiver}/received?after={after}")
        return [arrival_of(each) for each in shown["messages"]]

    async def seen(self, *, lists: bool = False) -> dict[str, Seen]:
        """
        By pipeline.

        Args:
            lists: With the times of the starts, the request ids, and the keys.

        """
        query = "?starts=1&ids=1&keys=1" if lists else ""
        urls = [f"{url}/_control/stats{query}" for url in self._downstreams.values()]
        answers = await asyncio.gather(*(self._json(url) for url in urls))
        return {
            pipeline: Seen(
                in_flight_max=stats["in_flight_max"],
                started=stats["started"],
                starts=tuple(stats.get("starts", ())),
                request_ids=stats.get("request_ids", {}),
                effects_by_key=stats.get("effects_by_key", {}),
                repeated=stats["effects_repeated"],
            )
            for pipeline, stats in zip(self._downstreams, answers, strict=True)
        }

    async def reset(self) -> dict[str, int]:
        """
        The downstreams begin to count anew.

        Returns:
            By pipeline the calls that were in flight then: they have started, and have no times and no ids.

        """
        for url in self._downstreams.values():
            async with self._session.post(f"{url}/_control/reset"):
                pass
        seen = await self.seen(lists=True)
        return {pipeline: each.started - sum(each.request_ids.values()) for pipeline, each in seen.items()}

    async def _json(self, url: str) -> Any:
        async with self._ask(url) as answer:
            return await answer.json(content_type=None)

    async def _get(self, url: str) -> bytes:
        async with self._ask(url) as answer:
            if answer.status != _OK:
                raise StartError(f"{url} answers {answer.status}")
            body: bytes = await answer.read()
            return body

    def _ask(self, url: str) -> Any:
        return self._session.get(url, timeout=aiohttp.ClientTimeout(total=ASK_S))


def _queue(shown: Mapping[str, Any]) -> Queue:
    ledger = shown["ledger"]
    return Queue(
        waiting=shown["waiting"], oldest_s={band: ms / 1_000 for band, ms in shown["oldest_ms"].items()},
        scheduled=shown["scheduled"], running=shown["running"], dead=shown["dead"], unknown=shown["unknown"],
        accepted=ledger["accepted"], succeeded=ledger["succeeded"], expired=ledger["expired"],
        cancelled=ledger["cancelled"], discarded=ledger["discarded"], unaccounted=ledger["unaccounted"],
        lost=ledger["lost"],
    )  # fmt: skip
