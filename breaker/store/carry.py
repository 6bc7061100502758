"""
Carrying back: what a replica did without its store is told to it, once.

1. Leases of calls that run are taken (again), above the limit if need be.
2. What was started is counted once per replica and episode, however often it is told.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from breaker.core.model import LEASE_US
from breaker.store.coalescer import Coalescer
from breaker.store.lane import Lane, SettleItem

PROBE = "_store"  # no operation is called so: names have a dot
LEASES_MAX = 500
TENANTS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """
    What a replica did by itself in one operation, between two uses of the store.

    Attributes:
        number: Counts up, per replica.
        from_us: Since when, in the store's time as it was estimated.
        started, wanted: Cost that started, and that asked.
        peak: The most calls in flight, those included that the store had admitted before.
        looked_us, counted: The last look before, and what the store had counted as started then; 0: none.
        tenants: Cost that started, of those with limits of their own.

    """

    number: int
    from_us: int
    started: int
    wanted: int
    peak: int
    looked_us: int
    counted: int
    tenants: tuple[tuple[str, int], ...]


async def probe(coalescer: Coalescer, operation: str = PROBE) -> None:
    """
    A small write, by the way that decisions go: to where this operation's keys are.

    Raises:
        StoreError: It was not taken.

    """
    await coalescer.run(coalescer.lane(operation), "probe", b"")


async def carry(coalescer: Coalescer, lane: Lane, replica: str, episode: Episode) -> int:
    """
    Count an episode; by how much more than it was told before all replicas went over the limit.

    Raises:
        StoreError: Not known to be counted: tell it again.

    """
    arguments: list[str | bytes | int] = [
        b"", replica, episode.number, episode.from_us, episode.started, episode.wanted, episode.peak,
        episode.looked_us, episode.counted,
    ]  # fmt: skip
    for tenant, started in episode.tenants[:TENANTS_MAX]:
        arguments += (tenant, started)
    reply = await coalescer.run(lane, "carry", *arguments)
    return int(reply[2])


async def register(coalescer: Coalescer, lane: Lane, leases: Iterable[tuple[str, str]]) -> None:
    """
    These leases (id, tenant) are held, whatever the store remembers.

    Raises:
        StoreError: Not all are known to be.

    """
    due = list(leases)
    for at in range(0, len(due), LEASES_MAX):
        some = due[at : at + LEASES_MAX]
        arguments: list[str | bytes | int] = [b"", LEASE_US]
        for lease in some:
            arguments += lease
        await coalescer.run(lane, "renew", *arguments)
        now = asyncio.get_running_loop().time()
        for id_, tenant in some:
            if id_ in lane.held:
                lane.held[id_] = (tenant, now)
            else:
                coalescer.settle(lane, SettleItem(id_, tenant, "", 0))  # it ended meanwhile
