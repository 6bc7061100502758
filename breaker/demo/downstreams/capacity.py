"""
Capacity: how many workers a downstream has, and what happens beyond them.

Three ways in which real systems behave, behind one shape (`Capacity`):

    Backlog      what finds no worker waits in line, up to a length          a support desk
    Strict       what finds no worker is refused                             an API with a limit
    Contention   everything is begun, and all share the workers' time        a service without a limit

Service times are drawn from a gamma distribution of shape 4, which has the mean that is stated and the
long tail that such systems have (half of the mean as standard deviation), with a seed.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

_SHAPE = 4.0
_LONGEST = 5.0  # times the mean


class ServiceTimes:
    """Draws how long a piece of work takes, in seconds."""

    def __init__(self, *, mean_s: float, seed: int) -> None:
        self.mean_s = mean_s
        self._random = random.Random(seed)  # noqa: S311  (a model of work, not a secret)

    def draw(self) -> float:
        return min(self._random.gammavariate(_SHAPE, self.mean_s / _SHAPE), _LONGEST * self.mean_s)


class Capacity(Protocol):
    """The workers of one downstream."""

    workers: int

    def is_full(self, in_flight: int) -> bool:
        """Whether one more call would be turned away."""

    def worker(self) -> AbstractAsyncContextManager[None]:
        """Wait for a worker and hold it."""

    async def spend(self, service_s: float) -> bool:
        """Do work that takes a free worker so long; False when it took too long and was given up."""


class Backlog:
    """What finds no worker waits, first come first served, up to a length."""

    def __init__(self, *, workers: int, backlog: int) -> None:
        self.workers = workers
        self._backlog = backlog
        self._free = asyncio.Semaphore(workers)

    def is_full(self, in_flight: int) -> bool:
        return in_flight >= self.workers + self._backlog

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        async with self._free:
            yield

    async def spend(self, service_s: float) -> bool:
        await asyncio.sleep(service_s)
        return True


class Strict:
    """What finds no worker is refused."""

    def __init__(self, *, workers: int) -> None:
        self.workers = workers

    def is_full(self, in_flight: int) -> bool:
        return in_flight >= self.workers

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        yield  # is_full has kept one free

    async def spend(self, service_s: float) -> bool:
        await asyncio.sleep(service_s)
        return True


class Contention:
    """
    Everything is begun; n calls share w workers, so each advances at w/n of the speed.

    Processor sharing by virtual time (Parekh and Gallager 1993): virtual time advances at
    min(1, w/n), a piece of work is done when as much of it has passed as it takes, so the order of
    ends never changes and one timer, for the next end, is enough.
    """

    def __init__(self, *, workers: int, give_up_s: float) -> None:
        self.workers = workers
        self._give_up_s = give_up_s
        self._sharing = 0
        self._virtual_s = 0.0
        self._looked_at_s = 0.0
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ties = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def is_full(self, in_flight: int) -> bool:  # noqa: ARG002  (it has no limit: that is its trouble)
        return False

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        self._change(by=1)
        try:
            yield
        finally:
            self._change(by=-1)

    async def spend(self, service_s: float) -> bool:
        self._advance()
        end = asyncio.get_running_loop().create_future()
        heapq.heappush(self._ends, (self._virtual_s + service_s, next(self._ties), end))
        self._set_timer()
        try:
            await asyncio.wait_for(end, self._give_up_s)
        except TimeoutError:
            return False
        return True

    def _change(self, *, by: int) -> None:
        self._advance()
        self._sharing += by
        self._set_timer()

    def _speed(self) -> float:
        return min(1.0, self.workers / max(1, self._sharing))

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        self._virtual_s += (now - self._looked_at_s) * self._speed()
        self._looked_at_s = now

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ends and self._ends[0][2].done():
            heapq.heappop(self._ends)  # given up
        if self._ends:
            in_s = (self._ends[0][0] - self._virtual_s) / self._speed()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, in_s), self._on_timer)

    def _on_timer(self) -> None:
        self._advance()
        # The timer may be early by its own resolution, and would then be set for "now" again and again.
        due = self._virtual_s + 1e-4
        while self._ends and self._ends[0][0] <= due:
            _, _, end = heapq.heappop(self._ends)
            if not end.done():
                end.set_result(None)
        self._set_timer()
