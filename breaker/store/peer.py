"""
Peer: our line to one node of a Cluster, and whether that node is worth asking.

1. A node that failed is left alone for a second: it costs the others its timeout once, not each time.
2. Then it is connected to behind our back; until that has succeeded, what is for it fails at once.
3. A node that is new here may be waited for, as long as the exchange has time.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreRefusedError, StoreUnreachedError
from breaker.store.address import Node
from breaker.store.connection import Command, Line, as_ours
from breaker.store.ending import end
from breaker.store.scripts import Script

LEFT_ALONE_S = 1.0

Greeting = tuple[int, int, int]  # see Line.open


class Peer:
    """One node; not for concurrent use."""

    def __init__(self, node: Node, settings: StoreSettings, scripts: dict[str, Script]) -> None:
        self.node = node
        self._line = Line(settings, scripts)
        self.greeting: Greeting | None = None  # of the last time that it was connected to
        self._opening: asyncio.Task[None] | None = None
        self._failure: StoreError | None = None  # what went wrong last, until it is open again
        self._alone_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._line.is_open

    @property
    def is_ill(self) -> bool:
        """Whether it cannot be used, as far as is known."""
        return self._failure is not None and not self.is_open

    def __str__(self) -> str:
        return f"{self.node}: {self._failure or 'open'}"

    def opened(self) -> asyncio.Task[None]:
        """Connecting, which goes on behind our back; never fails, see `is_open`."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open())
        return self._opening

    async def ask(self, commands: Sequence[Command], until: float) -> list[Any]:
        """
        Send these and read their replies, with redis-py's refusals in their places.

        Args:
            until: The loop's time at which the exchange is over.

        Returns:
            One reply per command. When the node failed, a StoreError in the place of each:
            StoreRefusedError when nothing was sent.

        """
        try:
            await self._be_open(until)
        except StoreError as exc:
            return [exc] * len(commands)
        try:
            async with asyncio.timeout_at(until):
                return await self._line.answers(commands)
        except (RedisError, OSError, TimeoutError) as exc:
            await self._line.close()
            error = as_ours(exc)
            self._failed(error)
            return [error] * len(commands)
        except BaseException:
            await self._line.close()  # when cancelled: replies that nobody reads would answer the next batch
            raise

    async def close(self) -> None:
        if self._opening:
            await end([self._opening])
        await self._line.close()

    async def _open(self) -> None:
        try:
            self.greeting = await self._line.open()
            self._failure = None
        except StoreError as exc:
            self._failed(exc)

    async def _be_open(self, until: float) -> None:
        if self.is_open:
            return
        loop = asyncio.get_running_loop()
        if self._failure is None:
            done, _ = await asyncio.wait([self.opened()], timeout=max(0.0, until - loop.time()))
            if not done:
                self._failure = StoreUnreachedError("the connection is still being made")
        elif loop.time() >= self._alone_until:
            _ = self.opened()
        if not self.is_open:
            is_refused = self._failure is not None and self._failure.kind == StoreRefusedError.kind
            error = StoreRefusedError if is_refused else StoreUnreachedError
            raise error(f"the store's node {self.node} is not asked: {self._failure}")

    def _failed(self, error: StoreError) -> None:
        self._failure = error
        self._alone_until = asyncio.get_running_loop().time() + LEFT_ALONE_S
