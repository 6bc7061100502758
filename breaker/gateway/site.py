"""
Site: a configuration in force: its operations, their downstreams, and who may call.

One value, made once and swapped atomically on reload; calls under way keep the one they began with.
"""

import asyncio
from dataclasses import dataclass

from breaker.core.config import Config
from breaker.core.model import Downstream
from breaker.gateway.downstream import Pool
from breaker.gateway.router import Router
from breaker.gateway.work import Work, work_of
from breaker.store.capacity import CapacityStore

POLL_S = 0.05


@dataclass(slots=True, kw_only=True)
class Site:
    """Everything that serves the operations of one configuration."""

    config: Config
    works: dict[str, Work]
    router: Router
    pools: dict[Downstream, Pool]
    calls: int = 0

    async def retire(self) -> None:
        """Let calls under way finish, also those that have not reached a downstream yet; then hang up."""
        while self.calls:  # noqa: ASYNC110 - rare, so that no call pays for an event
            await asyncio.sleep(POLL_S)
        await asyncio.gather(*(pool.drain() for pool in self.pools.values()))
        for pool in self.pools.values():
            await pool.close()


def build_site(config: Config, store: CapacityStore) -> Site:
    """
    Prepare a configuration; operations with the same downstream share its connections.

    Raises:
        OSError: A file that a downstream's `tls` names cannot be used.

    """
    pools: dict[Downstream, Pool] = {}
    works: dict[str, Work] = {}
    for operation in config.operations.values():
        pool = pools.get(operation.downstream)
        if pool is None:
            pool = pools[operation.downstream] = Pool(operation.downstream)
        works[operation.name] = work_of(
            operation, pool, store.lane(operation.name), cookies=config.gateway.cookies
        )
    return Site(config=config, works=works, router=Router(works.values()), pools=pools)
