"""
Removed operations: those that no file of any living replica names any more.

Their jobs stay where they are, held, for people to look at, cancel or redrive; nobody runs them. An
operation of which nothing is needed any more is let go after a while, by the steward.
"""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from breaker.store.capacity import CapacityStore
from breaker.store.connection import as_ours
from breaker.store.keys import cluster_key, wake_prefix
from breaker.store.published import is_published
from breaker.store.steward import Stewardship

UNNAMED_US = 30_000_000  # not named for so long: living replicas name what they have every 10 s
LET_GO_US = 300_000_000  # and for so long: let go, once nothing of it is needed
LET_GO_EVERY_S = 60.0
LISTED_MAX = 1_000
GONE, REMOVED = 0, 1  # what remove.lua did


@dataclass(frozen=True, slots=True)
class RemovedOperations:
    """What the store knows, and the files do not."""

    capacity: CapacityStore
    client: Redis
    cluster: str

    async def names(self) -> list[str]:
        """
        Operations that no living replica names.

        Raises:
            StoreError: They cannot be had now.

        """
        found = await self._unnamed_since(self.capacity.clock.now_us() - UNNAMED_US)
        # Asked by a plain command: to the scripts an operation that is not published means an emptied store.
        return [name for name in found if await is_published(self.client, self.cluster, name)]

    async def let_go(self, stewardship: Stewardship, now_us: int | None = None) -> None:
        """
        A chore of the steward: let go of those that have not been named for 5 minutes.

        Args:
            now_us: Instead of the store's clock.

        Raises:
            StoreError: Not all of it could be done.

        """
        now = self.capacity.clock.now_us() if now_us is None else now_us
        if now - stewardship.since_us < LET_GO_US:
            return  # nobody else may have had the time to name its own; the store may have been away
        for name in await self._unnamed_since(now - LET_GO_US):
            what, _ = await self._remove(name, stewardship.term, now_us)
            if what in (GONE, REMOVED):
                await self._forget(name)

    async def _remove(self, name: str, term: int, now_us: int | None) -> tuple[int, int]:
        given = b"" if now_us is None else now_us
        reply = await self.capacity.coalescer.run(
            self.capacity.lane(name), "remove", given, term, LET_GO_US, wake_prefix(self.cluster)
        )
        return reply[2], reply[3]

    async def _unnamed_since(self, before_us: int) -> list[str]:
        key = cluster_key(self.cluster, "named")
        try:
            found: Any = await self.client.zrange(
                key, "-inf", f"({before_us}", byscore=True, offset=0, num=LISTED_MAX
            )
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc
        return sorted(name.decode() for name in found)

    async def _forget(self, name: str) -> None:
        try:
            await self.client.zrem(cluster_key(self.cluster, "named"), name)
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc
