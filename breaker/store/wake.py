"""
Wakes: how a replica hears that another one granted its waiting calls their turn, that there are jobs
to run, or that a job has ended for which somebody waits here.

A message that gets lost costs nothing but time: the waiting call's own timer asks the store, and
learns that it was granted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from breaker.core.config import StoreSettings
from breaker.store.connection import open_client
from breaker.store.keys import jobs_channel, wake_prefix
from breaker.store.lane import Lane
from breaker.store.parts import wake

RETRY_S = 0.5
QUIET_S = 2.0  # then the store is asked whether it is still there; a machine that vanished hangs up on nobody


class WakeListener:
    """
    Listens on this replica's channel, and on that of all, for as long as the process runs.

    Attributes:
        on_work: An operation has jobs that could start; None: messages may have been missed.
        on_ended: These jobs, for which somebody waits here, have ended.
        on_circuit: A circuit has moved: operation, generation, state.
        on_limits: A person has set limits of an operation until then, or has ended them (0).

    """

    def __init__(
        self, settings: StoreSettings, *, cluster: str, replica: str, lanes: dict[str, Lane]
    ) -> None:
        self._settings, self._lanes, self._replica = settings, lanes, replica
        self._channels = wake_prefix(cluster) + replica, jobs_channel(cluster)
        self.on_work: Callable[[str | None], None] | None = None
        self.on_ended: Callable[[list[str]], None] | None = None
        self.on_circuit: Callable[[str, int, str], None] | None = None
        self.on_limits: Callable[[str, int], None] | None = None

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
                await channel.subscribe(*self._channels)
                if self.on_work:
                    self.on_work(None)
                async for text in heard(channel):
                    self._heard(*text.split(" "))
        finally:
            await client.aclose()

    def _heard(self, subject: str, *words: str) -> None:
        """
        `operation id...` grants turns; `=work operation replica` and `=ended id...` are about jobs, `=circuit
        operation generation state` and `=limits operation until` are about what may start at all.
        """
        if subject == "=work":
            operation, sender = words
            if self.on_work and sender != self._replica:
                self.on_work(operation)
        elif subject == "=ended":
            if self.on_ended:
                self.on_ended(list(words))
        elif subject == "=circuit":
            operation, generation, state = words
            if self.on_circuit:
                self.on_circuit(operation, int(generation), state)
        elif subject == "=limits":
            operation, until_us = words
            if self.on_limits:
                self.on_limits(operation, int(until_us))
        elif lane := self._lanes.get(subject):
            wake(lane, words)


async def heard(channel: PubSub) -> AsyncIterator[str]:
    """Messages, for as long as the store is there."""
    is_asked = False
    while True:
        message = await channel.get_message(timeout=QUIET_S)
        if message and message["type"] == "message":
            yield message["data"].decode()
        elif message is None and is_asked:
            raise TimeoutError
        elif message is None:
            await channel.ping()
        is_asked = message is None
