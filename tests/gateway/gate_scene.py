"""A gate with all that is behind it: one replica of a real store, without its listeners."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from breaker.core.config import StoreSettings
from breaker.core.events import Event
from breaker.core.ids import base32
from breaker.core.model import Operation
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, TooCostly
from breaker.gateway.call import Refusal
from breaker.gateway.degraded import Degraded
from breaker.gateway.downstream import Pool
from breaker.gateway.gate import Ended, Gate
from breaker.gateway.local import LocalCapacity
from breaker.gateway.work import Work, work_of
from breaker.store.capacity import CapacityStore
from breaker.store.health import Health, StoreKeeper
from breaker.store.members import Members

_replicas = count(10_000)
Answer = Admitted | Refused | TooCostly | Refusal


class GateReplica:
    """
    A replica as the path of a call sees it.

    Attributes:
        bugs: Mistakes of ours that were told.
        has_met: It is known to the store as a replica, and knows the store by its epoch.
        work: Of the operation that is meant where none is named.

    """

    def __init__(
        self, url: str, cluster: str, operation: Operation, *others: Operation, timeout_ms: int, live: int
    ) -> None:
        self.events: list[Event] = []
        self.bugs: list[BaseException] = []
        self.name = base32(next(_replicas), 8)
        self.operations = {one.name: one for one in (operation, *others)}
        self.keeper = StoreKeeper(Health(timeout_ms * 1_000), self.events.append, self.bugs.append)
        settings = StoreSettings(url=url, timeout_ms=timeout_ms)
        self.store = CapacityStore(settings, cluster=cluster, replica=self.name, emit=self._hear)
        self.local = LocalCapacity(
            replica=self.name, now_us=self._now_us, live_replicas=lambda: live, expected=1
        )
        self.members = Members(
            settings, cluster=cluster, replica=self.name, emit=self._hear, on_bug=self.bugs.append
        )
        self.members.says("v1", self.operations)
        self.degraded = Degraded(self.store, self.local, self.events.append, self._bring_back)
        self.gate = Gate(self.store, self.keeper, self.local, timeout_ms=timeout_ms)
        self.works: dict[str, Work] = {
            name: work_of(one, Pool(one.downstream), self.store.lane(name), cookies=False)
            for name, one in self.operations.items()
        }
        self.work = self.works[operation.name]
        self.has_met = False
        self._numbers = count()

    async def meet(self) -> None:
        """Be one of the living, once."""
        await self.members.beat()
        self.has_met = True

    def _now_us(self) -> int:
        return self.store.clock.now_us() if self.store.clock.is_set else int(time.time() * 1e6)

    async def _bring_back(self) -> None:
        """As a gateway process does; a replica that never met the others does not find out that they were forgotten."""
        if self.has_met:
            await self.members.beat()
        await self.store.republish()

    def _hear(self, event: Event) -> None:
        self.keeper.listen(event)
        self.events.append(event)

    def an_ask(self, tenant: str = "", *, wait_s: float = 0) -> Ask:
        id_ = f"{self.name}.{next(self._numbers):08}"
        return Ask(id=id_, tenant=tenant, wait_us=int(wait_s * 1e6))

    def _work(self, operation: str) -> Work:
        return self.works[operation] if operation else self.work

    async def ask(self, tenant: str = "", *, wait_s: float = 0, of: str = "") -> Answer:
        """One call that ends as soon as it has started."""
        ask, work = self.an_ask(tenant, wait_s=wait_s), self._work(of)
        verdict = await self.gate.admit(work, ask)
        if isinstance(verdict, Admitted):
            self.gate.began(work, ask, verdict)
            self.gate.ended(work, ask, verdict, Ended(service_us=1_000))
        return verdict

    async def hold(self, *, wait_s: float = 0, of: str = "") -> tuple[Ask, Admitted]:
        """A call that goes on until `end`."""
        ask, work = self.an_ask(wait_s=wait_s), self._work(of)
        verdict = await self.gate.admit(work, ask)
        assert isinstance(verdict, Admitted), verdict
        self.gate.began(work, ask, verdict)
        return ask, verdict

    def end(self, held: tuple[Ask, Admitted], of: str = "") -> None:
        self.gate.ended(self._work(of), *held, Ended())

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[Any], number: int = 1, seconds: float = 8.0) -> None:
        """Wait until so many events of this kind were emitted."""
        await until(lambda: len(self.told(kind)) >= number, seconds)


async def until(is_so: Callable[[], bool], seconds: float = 8.0) -> float:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, "it did not come true"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def until_it(is_so: Callable[[], Awaitable[bool]], seconds: float = 8.0) -> None:
    began = time.monotonic()
    while not await is_so():
        assert time.monotonic() - began < seconds, "it did not come true"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def gate_replica(
    url: str,
    cluster: str,
    operation: Operation,
    *others: Operation,
    timeout_ms: int = 100,
    live: int = 1,
    is_needed: bool = True,
) -> AsyncIterator[GateReplica]:
    """
    Decides, renews and listens until the block ends.

    Args:
        live: Replicas that it believes to live.
        is_needed: Else it starts without its store.

    """
    made = GateReplica(url, cluster, operation, *others, timeout_ms=timeout_ms, live=live)
    await made.store.start(made.operations, "v1", is_needed=is_needed)
    made.keeper.start(made.degraded.returning())
    if not is_needed:
        made.keeper.absent("not there yet")
    try:
        yield made
    finally:
        await made.keeper.close()
        await made.degraded.close()
        await made.members.close()
        await made.store.close()
        for work in made.works.values():
            await work.pool.close()
    assert made.bugs == []
