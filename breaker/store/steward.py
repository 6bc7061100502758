"""
The steward: one replica of the cluster does what must be done once, for as long as it is elected.

Who is elected is decided by `lua/beat.lua`. A chore runs when its replica is elected and then at its
interval; it passes its term to whatever it writes, so that the store can refuse one that was deposed
meanwhile and does not know it yet.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from breaker.core.errors import StoreError
from breaker.store.ending import end

AGAIN_S = 5.0  # a chore that failed is tried again after this


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """
    Whether the configuration of our replica is the one that holds.

    Attributes:
        version: The one that holds; empty as long as that is not known.
        edition: Grows whenever another version comes to hold; guards what is published.
        is_in_force: Ours is that version.

    """

    version: str = ""
    edition: int = 0
    is_in_force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stewardship:
    """
    One replica's time as the steward.

    Attributes:
        term: Grows with each election; guards what a chore writes.
        since_us: When it began, by the store's clock.

    """

    term: int
    since_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """
    Something that one replica does for all.

    Attributes:
        every_s: Seconds between two runs.
        run: Does it once; raises StoreError when it is to be tried again soon.

    """

    name: str
    every_s: float
    run: Callable[[Stewardship], Awaitable[None]]


class Steward:
    """Runs the chores while our replica is elected."""

    def __init__(self, on_bug: Callable[[BaseException], None]) -> None:
        self._on_bug = on_bug
        self._chores: list[Chore] = []
        self._task: asyncio.Task[None] | None = None
        self.stewardship: Stewardship | None = None

    def add(self, chore: Chore) -> None:
        """One more chore, from the next election on."""
        self._chores.append(chore)

    def elected(self, stewardship: Stewardship) -> None:
        """Our replica is the steward from now on."""
        self.deposed()
        self.stewardship = stewardship
        self._task = asyncio.get_running_loop().create_task(self._serve(stewardship))

    def deposed(self) -> None:
        """It is so no more: what is under way stops where it is."""
        self.stewardship = None
        if self._task:
            self._task.cancel()

    async def close(self) -> None:
        self.stewardship = None
        if self._task:
            await end([self._task])

    async def _serve(self, stewardship: Stewardship) -> None:
        loop = asyncio.get_running_loop()
        due = {chore.name: loop.time() for chore in self._chores}
        while due and self.stewardship is stewardship:  # a cancellation may be swallowed while it connects
            for chore in self._chores:
                if due[chore.name] <= loop.time():
                    is_done = await self._is_done(chore, stewardship)
                    due[chore.name] = loop.time() + (
                        chore.every_s if is_done else min(AGAIN_S, chore.every_s)
                    )
            await asyncio.sleep(max(0.0, min(due.values()) - loop.time()))

    async def _is_done(self, chore: Chore, stewardship: Stewardship) -> bool:
        try:
            await chore.run(stewardship)
        except StoreError:
            return False  # told by the event of its exchange
        except Exception as exc:  # noqa: BLE001 - one chore's mistake must not end the others
            self._on_bug(exc)
            return False
        return True
