"""
Audit: who changed what, when and why; a stream of the cluster, bounded.
"""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from breaker.store.connection import as_ours
from breaker.store.keys import audit_key

ENTRIES_MAX = 10_000


class Audit:
    """The cluster's audit stream, through a client for rare commands."""

    def __init__(self, client: Redis, cluster: str) -> None:
        self._client, self._key = client, audit_key(cluster)

    async def write(self, entry: Mapping[str, str]) -> None:
        """
        Raises:
            StoreError: It may not have been written.
        """
        fields: dict[Any, Any] = dict(entry)
        try:
            await self._client.xadd(self._key, fields, maxlen=ENTRIES_MAX, approximate=True)
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc

    async def last(self, count: int) -> list[dict[str, str]]:
        """
        The newest first, each with `id` (milliseconds and a number).

        Raises:
            StoreError: They cannot be had now.
        """
        try:
            found: Any = await self._client.xrevrange(self._key, count=count)
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc
        return [
            {"id": id_.decode()} | {name.decode(): value.decode() for name, value in fields.items()}
            for id_, fields in found
        ]
