"""
Degraded: from the loss of the store until all that was done without it is known there.

    lost      calls that wait for the store go on here
    register  limits are published again if it forgot them, and the leases of calls that run are taken again
    reopen    it decides again; leases that were given here meanwhile, and what was started, are told ahead of that

What could not be told is told the next time; each episode counts once. When one node of a Cluster is lost, all of
this happens to each of its operations by itself.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from breaker.core.errors import StoreError, StoreResetError
from breaker.core.events import Listener, OverAdmitted
from breaker.gateway.local import LocalCapacity, Which, everything
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
        publish: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._store, self._local, self._emit, self._publish = store, local, emit, publish
        self._untold: dict[str, deque[Untold]] = defaultdict(lambda: deque(maxlen=UNTOLD_MAX))
        self._one_teller = asyncio.Lock()  # episodes of an operation are told in their order
        self._tasks: set[asyncio.Task[None]] = set()
        self._publishing: asyncio.Task[None] | None = None

    def returning(self) -> Returning:
        """What the keeper of the store does with us."""
        return Returning(
            write=self._write, register=self._register, reopen=self._reopen, lost=self._lost, part=self._part
        )

    def _part(self, operation: str) -> Returning:
        """The same for one operation."""
        lane = self._store.lane(operation)
        return Returning(
            write=partial(probe, self._store.coalescer, operation),
            register=partial(self._register_part, lane),
            reopen=lambda _: self._reopen_those(operation.__eq__),
            lost=partial(lose, [lane], is_partial=True),
        )

    async def close(self) -> None:
        """Tell what is left to tell, as far as the store takes it."""
        await end([*self._tasks, *([self._publishing] if self._publishing else [])])
        self._note_episodes(everything)
        await self._tell({})

    async def _write(self) -> None:
        with but_partial():
            await probe(self._store.coalescer)

    def _lost(self) -> None:
        lose(self._store.coalescer.lanes.values(), is_partial=False)

    async def _register(self) -> None:
        with but_partial():
            await self._publish()
        self._hold(everything)
        coalescer = self._store.coalescer
        await asyncio.gather(
            *(self._register_leases(lane) for lane in list(coalescer.lanes.values()) if lane.held)
        )

    async def _register_leases(self, lane: Lane) -> None:
        with but_partial():
            await register(self._store.coalescer, lane, leases_of(lane))

    async def _register_part(self, lane: Lane) -> None:
        self._hold(lane.operation.__eq__)
        try:
            await self._store.look(lane.operation)  # does its node have the limits?
        except StoreResetError:
            await self._publish_once()
        await register(self._store.coalescer, lane, leases_of(lane))

    async def _publish_once(self) -> None:
        """All operations of a node come back at the same time, and one publication is for all."""
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.get_running_loop().create_task(self._publish())
        with but_partial():
            await asyncio.shield(self._publishing)

    def _reopen(self, apart: Collection[str]) -> None:
        self._reopen_those(lambda name: name not in apart)

    def _reopen_those(self, is_meant: Which) -> None:
        leases = self._hold(is_meant)
        self._note_episodes(is_meant)
        task = asyncio.get_running_loop().create_task(self._tell(leases))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hold(self, is_meant: Which) -> dict[str, list[tuple[str, str]]]:
        """From now on leases that were given here are renewed in the store."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for lane, own in self._local.leases(is_meant):
            self._store.hold(lane, own)
            found[lane.operation].append((own.id, own.tenant))
        return found

    def _note_episodes(self, is_meant: Which) -> None:
        for lane, episode in self._local.reopen(is_meant):
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
            except StoreError as exc:
                # Only a store that does not know the operation (any more) will never take it.
                first.tells += isinstance(exc, StoreResetError)
                if first.tells >= TELLS_MAX and untold and untold[0] is first:
                    untold.popleft()
                return
            if untold and untold[0] is first:  # else there were so many that it was dropped meanwhile
                untold.popleft()
            self._emit(OverAdmitted(first.lane.operation, first.episode.started, over))


def lose(lanes: Iterable[Lane], *, is_partial: bool) -> None:
    """Whoever waits for these goes on here."""
    error = StoreError("the store was lost while the call waited")
    error.is_partial = is_partial
    for lane in lanes:
        for waiter in lane.waiters.values():
            if not waiter.done():
                waiter.set_exception(error)


@contextmanager
def but_partial() -> Iterator[None]:
    """What only one node of a Cluster fails keeps nobody else from coming back: that is found out per operation."""
    try:
        yield
    except StoreError as exc:
        if not exc.is_partial:
            raise


def leases_of(lane: Lane) -> list[tuple[str, str]]:
    """Every lease (id, tenant) that this replica holds of an operation."""
    return [(id_, tenant) for id_, (tenant, _) in lane.held.items()]
