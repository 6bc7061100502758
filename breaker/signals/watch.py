"""
Watch: looks at the store and at this process from time to time, and tells the metrics.

1. Every 5 s one look at each operation, and one at its queue; those of 64 operations share a round trip.
2. Rates are differences of what the store counted between two looks, over all replicas. The first
   look has none, and neither has one after which the store counts less (it was flushed).
3. Every 0.5 s a timer asks how late it is: what blocks the loop delays every call.
4. A store that does not answer is told by its own events; here the gauges just age out.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from breaker.core.errors import StoreError
from breaker.signals.capacity import Demand
from breaker.signals.metrics import Metrics
from breaker.signals.queues import Forecast, etas_of
from breaker.store.capacity import Look
from breaker.store.ending import end
from breaker.store.job_desk import QueueLook

LOOK_S = 5.0
LOOKS_MAX = 64
LAG_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The store's memory in bytes: `used_memory`, and `maxmemory`, which is 0 without a limit."""

    used: int
    most: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What the store had counted at a moment; seconds, monotonic."""

    at: float
    started: int
    wanted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """
    What a watch asks; the first three raise StoreError when it cannot be had.

    Attributes:
        look, look_queue: `CapacityStore.look` and `JobDesk.look_queue`.
        memory: What the store says of its memory.
        forecast: The ETA that a caller would be told.

    """

    look: Callable[[str], Awaitable[Look]]
    look_queue: Callable[[str], Awaitable[QueueLook]]
    memory: Callable[[], Awaitable[Memory]]
    forecast: Forecast


class Watch:
    """
    The looks of one replica.

    Attributes:
        memory_ratio: Share of the store's maxmemory in use, as last read; 0 before that, and without maxmemory.

    """

    def __init__(
        self,
        sources: Sources,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.monotonic,
        look_s: float = LOOK_S,
        lag_s: float = LAG_S,
    ) -> None:
        """
        Wire it; nothing runs before `start`.

        Args:
            metrics: Which operations there are, and who is told.
            now: Seconds, monotonic.
            look_s, lag_s: Seconds between looks, and between questions to the loop.

        """
        self.memory_ratio = 0.0
        self._sources, self._metrics, self._now = sources, metrics, now
        self._look_s, self._lag_s = look_s, lag_s
        self._before: dict[str, Counted] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._plan_lag()

    async def close(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()
        if self._task:
            await end([self._task])

    async def look_at_all(self) -> None:
        """One look at each operation, and at the store's memory; what cannot be had is left out."""
        operations = self._metrics.operations
        self._before = {name: counted for name, counted in self._before.items() if name in operations}
        for at in range(0, len(operations), LOOKS_MAX):
            await asyncio.gather(*(self._look_at(name) for name in operations[at : at + LOOKS_MAX]))
        with suppress(StoreError):
            memory = await self._sources.memory()
            self.memory_ratio = memory.used / memory.most if memory.most else 0.0
            self._metrics.observe_memory(self.memory_ratio)

    async def _look_at(self, operation: str) -> None:
        queue = None
        try:
            if operation in self._metrics.queues:
                look, queue = await asyncio.gather(
                    self._sources.look(operation), self._sources.look_queue(operation)
                )
            else:
                look = await self._sources.look(operation)
        except StoreError:
            return
        after = Counted(self._now(), look.started, look.wanted)
        before = self._before.get(operation)
        self._before[operation] = after
        self._metrics.observe(operation, look, demand_between(before, after) if before else None)
        if queue:  # after its operation, whose circuit says whether the jobs are held
            etas, pause_us = (
                etas_of(operation, look, queue, self._sources.forecast),
                look.circuit.pause_until_us,
            )
            self._metrics.observe_queue(operation, queue, etas, pause_until_us=pause_us)

    async def _run(self) -> None:
        while True:
            try:
                await self.look_at_all()
            except Exception:  # noqa: BLE001
                # A mistake of ours: said aloud, and the next look may be better than no look ever.
                structlog.get_logger().exception("watch_failed")
            await asyncio.sleep(self._look_s)

    def _plan_lag(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._lag_s, self._note_lag, loop.time() + self._lag_s)

    def _note_lag(self, due: float) -> None:
        self._metrics.observe_lag(max(0.0, asyncio.get_running_loop().time() - due))
        self._plan_lag()


def demand_between(before: Counted, after: Counted) -> Demand | None:
    """Rule 2."""
    seconds = after.at - before.at
    started, wanted = after.started - before.started, after.wanted - before.wanted
    if seconds <= 0 or started < 0 or wanted < 0:
        return None
    return Demand(started=started / seconds, wanted=wanted / seconds)
