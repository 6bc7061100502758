"""
Cluster client: redis-py's plain client, with each command sent to the node that has its key.

For rare commands. redis-py's RedisCluster has other methods than Redis (no `pubsub` of the same kind,
`info` by node) and repeats commands whose reply got lost; here only what was refused is sent again.
"""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, RedisError

from breaker.core.config import StoreSettings
from breaker.store.address import Address, Node
from breaker.store.pools import found_pool, one_server
from breaker.store.slots import SlotTable, find_table, key_of, slot_of


class ClusterClient(Redis):
    """A client for all nodes; commands without a key, and subscriptions, go to any one that answers."""

    def __init__(self, settings: StoreSettings, address: Address, timeout_s: float) -> None:
        self._settings, self._address, self._timeout_s = settings, address, timeout_s
        self._table: SlotTable | None = None
        self._clients: dict[Node, Redis] = {}
        pool = found_pool(settings, address, self._any_node, must_be_primary=False, timeout_s=timeout_s)
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True

    async def primaries(self) -> dict[Node, Redis]:
        """
        A client for each node that has slots; they end with this one.

        Raises:
            redis.exceptions.RedisError: No node says who has which slot.

        """
        table = await self._fresh_table()
        return {node: self._client_of(node) for node in table.nodes}

    async def missing(self) -> int:
        """
        Slots that nobody serves.

        Raises:
            redis.exceptions.RedisError: No node says who has which slot.

        """
        return (await self._fresh_table()).missing

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        if key is None:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        owner = (self._table or await self._fresh_table()).owners[slot_of(key)]
        if owner is None:
            self._table = None
            raise RedisError(f"no node of the Cluster serves the slot of {args[0]!r} now")
        try:
            return await self._client_of(owner).execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except MovedError as exc:
            self._table = None
            return await self._client_of(target_of(exc, owner)).execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except AskError as exc:
            return await self._asking(target_of(exc, owner), *args, **options)
        except (RedisError, OSError, TimeoutError):
            self._table = None  # another node may have its slots by the next command
            raise

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()
        await super().aclose(close_connection_pool)

    async def _asking(self, node: Node, *args: Any, **options: Any) -> Any:
        pipeline = self._client_of(node).pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*args, **options)
        return (await pipeline.execute())[1]

    async def _fresh_table(self) -> SlotTable:
        known = self._table.nodes if self._table else []
        self._table = await find_table(self._settings, self._address, [*known, *self._clients])
        return self._table

    async def _any_node(self) -> Node:
        return (await self._fresh_table()).told_by

    def _client_of(self, node: Node) -> Redis:
        client = self._clients.get(node)
        if client is None:
            settings = self._address.of_server(self._settings, node)
            client = self._clients[node] = one_server(settings, self._timeout_s)
        return client


def target_of(exc: AskError, asked: Node) -> Node:
    """Where a redirection leads; one without a host means the host that was asked."""
    return Node(exc.host or asked.host, exc.port)
