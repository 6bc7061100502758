"""
Degraded: from the loss of the store until all that was done without it is known there.

    lost      calls that wait for the store go on here
    register  limits are published again if it forgot them, and the leases of calls that run are taken again
    reopen    it decides again; leases that were given here meanwhile, and what was started, are told ahead of that

What could not be told is told the next time; each episode counts once.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from breaker.core.errors import StoreError
from breaker.core.events import Listener, OverAdmitted
from breaker.gateway.local import LocalCapacity
from breaker.store.capacity import CapacityStore
from breaker.store.carry import Episode, carry, probe, register
from breaker.store.ending import end
from breaker.store.health import Returning
from breaker.store.lane import Lane

UNTOLD_MAX = 100  # episodes of an operation
TELLS_MAX = 5  # attempts at telling an episode; its operation may be gone


@dataclass(slots=True)
class Untold:
    """An episode that the store may not know of yet."""

    lane: Lane
    episode: Episode
    tells: int = 0


class Degraded:
    """
    What is between this replica's own decisions and its store.

    Args:
        publish: Bring the limits of the configuration back; raises StoreError.

    """

    def __init__(
        self,
        store: CapacityStore,
        local: LocalCapacity,
        emit: Listener,
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self._store, self._local, self._emit, self._publish = store, local, emit, publish
        self._untold: dict[str, deque[Untold]] = defaultdict(lambda: deque(maxlen=UNTOLD_MAX))
        self._one_teller = asyncio.Lock()  # episodes of an operation are told in their order
        self._tasks: set[asyncio.Task[None]] = set()

    def returning(self) -> Returning:
        """What the keeper of the store does with us."""
        return Returning(
            write=lambda: probe(self._store.coalescer),
            register=self._register,
            reopen=self._reopen,
            lost=self._lost,
        )

    async def close(self) -> None:
        """Tell what is left to tell, as far as the store takes it."""
        await end(self._tasks)
        self._note_episodes()
        await self._tell({})

    def _lost(self) -> None:
        for lane in self._store.coalescer.lanes.values():
            for waiter in lane.waiters.values():
                if not waiter.done():
                    waiter.set_exception(StoreError("the store was lost while the call waited"))

    async def _register(self) -> None:
        await self._publish()
        self._hold()
        coalescer = self._store.coalescer
        lanes = [lane for lane in coalescer.lanes.values() if lane.held]
        await asyncio.gather(*(register(coalescer, lane, leases_of(lane)) for lane in lanes))

    def _reopen(self) -> None:
        leases = self._hold()
        self._note_episodes()
        task = asyncio.get_running_loop().create_task(self._tell(leases))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hold(self) -> dict[str, list[tuple[str, str]]]:
        """From now on leases that were given here are renewed in the store."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for lane, own in self._local.leases():
            self._store.hold(lane, own)
            found[lane.operation].append((own.id, own.tenant))
        return found

    def _note_episodes(self) -> None:
        for lane, episode in self._local.reopen():
            self._untold[lane.operation].append(Untold(lane, episode))

    async def _tell(self, leases: dict[str, list[tuple[str, str]]]) -> None:
        coalescer = self._store.coalescer
        with suppress(StoreError):  # the store is in doubt again; what is held is registered the next time
            await asyncio.gather(
                *(register(coalescer, coalescer.lane(name), some) for name, some in leases.items())
            )
        async with self._one_teller:
            await asyncio.gather(*(self._tell_of(untold) for untold in list(self._untold.values())))
        for name in [name for name, untold in self._untold.items() if not untold]:
            del self._untold[name]

    async def _tell_of(self, untold: deque[Untold]) -> None:
        """One operation's episodes, in their order; the first that cannot be told ends it for now."""
        while untold:
            first = untold[0]
            try:
                over = await carry(self._store.coalescer, first.lane, self._store.replica, first.episode)
            except StoreError:
                first.tells += 1
                if first.tells >= TELLS_MAX:
                    untold.popleft()
                return
            untold.popleft()
            self._emit(OverAdmitted(first.lane.operation, first.episode.started, over))


def leases_of(lane: Lane) -> list[tuple[str, str]]:
    """Every lease (id, tenant) that this replica holds of an operation."""
    return [(id_, tenant) for id_, (tenant, _) in lane.held.items()]
