"""
Watch: looks at the store and at this process from time to time, and tells the metrics.

1. Every 5 s one look at each operation, and one at its queue; those of 64 operations share a round trip.
2. Rates are differences of what the store counted between two looks, over all replicas. The first
   look has none, and neither has one after which the store counts less (it was flushed).
3. Every 0.5 s a timer asks how late it is: what blocks the loop delays every call.
4. A store that does not answer is told by its own events; here the gauges just age out.
5. What was seen in one pass goes on to whoever judges it, before the next pass.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from breaker.core.errors import StoreError
from breaker.signals.capacity import Demand
from breaker.signals.expected import Forecast, Spent, expected_of
from breaker.signals.metrics import Metrics
from breaker.signals.queues import etas_of
from breaker.signals.sights import Sight, Sights
from breaker.store.capacity import Look
from breaker.store.ending import end
from breaker.store.job_desk import QueueLook

LOOK_S = 5.0
LOOKS_MAX = 64
LAG_S = 0.5
REMOVED_EVERY_S = 30.0


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
    What a watch asks; `forecast` and `spent` reckon, all others raise StoreError when it cannot be had.

    Attributes:
        look, look_queue: `CapacityStore.look` and `JobDesk.look_queue`.
        memory: What the store says of its memory.
        removed: Jobs by operation that no file names any more.
        forecast: The ETA that a caller would be told.
        spent: How much of an operation's promise passes between two moments.

    """

    look: Callable[[str], Awaitable[Look]]
    look_queue: Callable[[str], Awaitable[QueueLook]]
    memory: Callable[[], Awaitable[Memory]]
    removed: Callable[[], Awaitable[Mapping[str, int]]]
    forecast: Forecast
    spent: Spent


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
        on_pass: Callable[[Sights], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.monotonic,
        look_s: float = LOOK_S,
        lag_s: float = LAG_S,
    ) -> None:
        """
        Wire it; nothing runs before `start`.

        Args:
            metrics: Which operations there are, and who is told.
            on_pass: Judges what was seen.
            now: Seconds, monotonic.
            look_s, lag_s: Seconds between looks, and between questions to the loop.

        """
        self.memory_ratio = 0.0
        self._sources, self._metrics, self._now = sources, metrics, now
        self._on_pass, self._removed_at = on_pass, -REMOVED_EVERY_S
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
        seen: dict[str, Sight] = {}
        for at in range(0, len(operations), LOOKS_MAX):
            some = operations[at : at + LOOKS_MAX]
            sights = await asyncio.gather(*(self._look_at(name) for name in some))
            seen |= {name: sight for name, sight in zip(some, sights, strict=True) if sight}
        ratio = await self._look_at_memory()
        removed = await self._look_for_removed()
        if self._on_pass:
            await self._on_pass(Sights(operations=seen, removed=removed, memory_ratio=ratio))

    async def _look_at_memory(self) -> float | None:
        try:
            memory = await self._sources.memory()
        except StoreError:
            return None
        self.memory_ratio = memory.used / memory.most if memory.most else 0.0
        self._metrics.observe_memory(self.memory_ratio)
        return self.memory_ratio

    async def _look_for_removed(self) -> Mapping[str, int] | None:
        """They are rare, and it takes several exchanges: not at each pass."""
        now = self._now()
        if now - self._removed_at < REMOVED_EVERY_S:
            return None
        try:
            removed = await self._sources.removed()
        except StoreError:
            return None
        self._removed_at = now
        self._metrics.observe_removed(removed)
        return removed

    async def _look_at(self, operation: str) -> Sight | None:
        queue = None
        try:
            if operation in self._metrics.queues:
                look, queue = await asyncio.gather(
                    self._sources.look(operation), self._sources.look_queue(operation)
                )
            else:
                look = await self._sources.look(operation)
        except StoreError:
            return None
        after = Counted(self._now(), look.started, look.wanted)
        before = self._before.get(operation)
        self._before[operation] = after
        demand = demand_between(before, after) if before else None
        self._metrics.observe(operation, look, demand)
        terms = self._metrics.queues.get(operation)
        if queue is None or terms is None:
            return Sight(look=look, demand=demand)
        # After its operation, whose circuit says whether the jobs are held.
        forecast, spent = self._sources.forecast, self._sources.spent
        expected = expected_of(operation, terms, queue, demand, forecast, spent)
        etas = etas_of(operation, look, queue, forecast)
        self._metrics.observe_queue(
            operation, queue, etas, expected, pause_until_us=look.circuit.pause_until_us
        )
        return Sight(look=look, demand=demand, queue=queue, expected=expected)

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
