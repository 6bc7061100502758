"""
Evidence: what the steward judges by, gathered for one round.

What the watch saw, what all replicas counted and noted, and how numbers went. What cannot be read is left out, and nothing
is judged of it; so one node of a Cluster that is away silences no alert of the others.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from breaker.core.alert_policy import Alerting
from breaker.core.alerts import Incident, Level, Reading
from breaker.core.errors import StoreError
from breaker.core.model import Operation
from breaker.signals import cluster_conditions, conditions
from breaker.signals.sights import Sights
from breaker.signals.trend import Trend
from breaker.store.alert_book import AlertBook
from breaker.store.steward import Stewardship
from breaker.store.tallies import Tallied, Tallies

LONG_EVERY_S = 30.0  # windows of hours are not read more often
AT_ONCE = 64  # operations that share a round trip
OF_QUEUES = frozenset((
    "BreakerPromiseAtRisk", "BreakerQueueWillFill", "BreakerDeadLetters", "BreakerJobsUnaccounted", "BreakerJobsLost",
    "BreakerPausedLong",
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """
    What the evaluator asks of its process.

    Attributes:
        now_us: By the store's clock.
        stewardship: Ours; None when another replica is the steward.
        differing: Replicas that run another configuration.

    """

    operations: Callable[[], Mapping[str, Operation]]
    alerting: Callable[[], Alerting]
    now_us: Callable[[], int]
    stewardship: Callable[[], Stewardship | None]
    differing: Callable[[], int]


class Evidence:
    """What is read for a round, and the trends that are kept from one to the next."""

    def __init__(
        self,
        *,
        book: AlertBook,
        tallies: Tallies,
        known: Known,
        now_s: Callable[[], float],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self._book, self._tallies, self._known, self._now_s = book, tallies, known, now_s
        self._on_bug = on_bug
        self._long_at = now_s() - LONG_EVERY_S
        self.forget()

    def forget(self) -> None:
        """Trends have a gap while another replica judges: they begin anew."""
        self._trends: dict[str, conditions.Trends] = {}
        self._memory = Trend()

    async def readings(
        self,
        living: Mapping[str, Incident],
        sights: Sights,
        waiting: Mapping[str, tuple[int, int]],
        now_us: int,
    ) -> list[Reading]:
        """
        All that can be said now, and the end of what is not there any more.

        Args:
            waiting: What does not reach its channel, see `Outbox.waiting`.

        Raises:
            StoreError: What concerns all cannot be read.

        """
        found = [*await self._of_operations(sights, now_us), *await self._of_cluster(sights, waiting, now_us)]
        return [*found, *self._of_nobody(living, sights)]

    async def _of_operations(self, sights: Sights, now_us: int) -> list[Reading]:
        operations, now_s = self._known.operations(), self._now_s()
        self._trends = {name: trends for name, trends in self._trends.items() if name in operations}
        is_long = now_s - self._long_at >= LONG_EVERY_S
        names = [name for name in sights.operations if name in operations]
        found: list[Reading] = []
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            tallied = await asyncio.gather(*(self._tallied(name, is_long=is_long) for name in some))
            for name, counts in zip(some, tallied, strict=True):
                if counts:
                    found += self._of_one(operations[name], sights, counts, now_us)
        if is_long:
            self._long_at = now_s
        return found

    def _of_one(self, operation: Operation, sights: Sights, tallied: Tallied, now_us: int) -> list[Reading]:
        try:
            return list(conditions.readings_of(self._seen(operation, sights, tallied, now_us)))
        except Exception as exc:  # noqa: BLE001 - a mistake of ours about one must not silence all others
            self._on_bug(exc)
            return []

    async def _tallied(self, operation: str, *, is_long: bool) -> Tallied | None:
        try:
            return await self._tallies.read(operation, is_long=is_long)
        except StoreError:
            return None  # its node is away, or the store is: then what comes next says so

    def _seen(self, operation: Operation, sights: Sights, tallied: Tallied, now_us: int) -> conditions.Seen:
        sight, now_s = sights.operations[operation.name], self._now_s()
        trends = self._trends.setdefault(operation.name, conditions.Trends())
        if sight.queue:
            trends.note(now_s, sight.queue)
        return conditions.Seen(
            operation=operation, sight=sight, tallied=tallied, trends=trends, now_us=now_us, now_s=now_s
        )

    async def _of_cluster(
        self, sights: Sights, waiting: Mapping[str, tuple[int, int]], now_us: int
    ) -> Iterator[Reading]:
        now_s = self._now_s()
        if sights.memory_ratio is not None:
            self._memory.note(now_s, sights.memory_ratio)
        return cluster_conditions.readings_of(
            cluster_conditions.Cluster(
                operations=self._known.operations(), notes=await self._book.notes(now_us),
                differing=self._known.differing(), removed=sights.removed, memory_ratio=sights.memory_ratio,
                memory=self._memory, now_us=now_us, now_s=now_s, waiting=waiting,
            )
        )  # fmt: skip

    def _of_nobody(self, living: Mapping[str, Incident], sights: Sights) -> Iterator[Reading]:
        """Incidents of what is not there any more: nothing is read of them, and they end."""
        for incident in living.values():
            if self._is_gone(incident, sights):
                yield Reading(
                    alert=incident.alert, level=Level.LOW, operation=incident.operation, about=incident.about
                )

    def _is_gone(self, incident: Incident, sights: Sights) -> bool:
        name, operation = incident.row.name, self._known.operations().get(incident.operation)
        match name:
            case "BreakerOperationRemoved":
                return sights.removed is not None and incident.operation not in sights.removed
            case "BreakerDeliveryFailing":
                return incident.about not in self._known.alerting().channels
            case _ if operation is None:
                return bool(incident.operation)
            case _:
                return name in OF_QUEUES and operation.queue is None
