"""
Wakes: how a replica hears that another one granted its waiting calls their turn.

A message that gets lost costs nothing but time: the waiting call's own timer asks the store, and
learns that it was granted.
"""

import asyncio
import contextlib

from redis.exceptions import RedisError

from breaker.core.model import StoreSettings
from breaker.store.connection import open_client
from breaker.store.keys import wake_prefix
from breaker.store.parts import Lane, wake

RETRY_S = 0.5


class WakeListener:
    """Listens on this replica's channel for as long as the process runs."""

    def __init__(
        self, settings: StoreSettings, *, cluster: str, replica: str, lanes: dict[str, Lane]
    ) -> None:
        self._settings, self._lanes = settings, lanes
        self._channel = wake_prefix(cluster) + replica

    async def run(self) -> None:
        while True:
            # The store's own failures are told where decisions fail; here we only come back.
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self._listen()
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        client = open_client(self._settings)
        try:
            async with client.pubsub() as channel:
                await channel.subscribe(self._channel)
                async for message in channel.listen():
                    if message["type"] == "message":
                        operation, *ids = message["data"].decode().split(" ")
                        lane = self._lanes.get(operation)
                        if lane:
                            wake(lane, ids)
        finally:
            await client.aclose()
