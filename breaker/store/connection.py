"""
Connections to the store: whole batches of commands on one connection, and a client for rare commands.

Nothing is retried, and every exchange has one deadline. One server, a socket of this machine or the
primary that sentinels name: one `Line`. For a Cluster see `cluster_line.py`.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreRefusedError, StoreTimeoutError
from breaker.store.address import Topology, address_of
from breaker.store.clock import monotonic_us
from breaker.store.cluster_client import ClusterClient
from breaker.store.pools import OPEN_S, found_pool, open_pool
from breaker.store.scripts import Script
from breaker.store.sentinel import Sentinels

Command = tuple[str | bytes | int, ...]

LOADS_MAX = 3  # of scripts in one exchange: somebody may empty the cache again meanwhile


def open_client(settings: StoreSettings, timeout_ms: int = 2_000) -> Redis:
    """
    A plain client for start-up checks and rare commands; same rules, a longer deadline.

    In a Cluster each command goes to the node that has its key, one without a key (PING, SUBSCRIBE) to
    any node that answers, and pipelines are not for it.

    Raises:
        StartError: The address cannot be understood.

    """
    address = address_of(settings)
    if address.topology is Topology.CLUSTER:
        return ClusterClient(settings, address, timeout_ms / 1_000)
    return Redis.from_pool(
        _primary_pool(settings, timeout_ms / 1_000)
    )  # the client owns it: closing one closes both


def _primary_pool(settings: StoreSettings, timeout_s: float | None = None) -> ConnectionPool:
    """Connections to the one server that decides: the URL's own, or the one that the sentinels name."""
    address = address_of(settings)
    if address.topology is Topology.SENTINEL:
        find = Sentinels(settings, address).find_primary
        return found_pool(settings, address, find, must_be_primary=True, timeout_s=timeout_s)
    return open_pool(settings, timeout_s=timeout_s)


class Line:
    """
    One connection on which whole batches of commands go out and come back.

    Not for concurrent use: the coalescer sends one batch at a time.
    """

    def __init__(self, settings: StoreSettings, scripts: dict[str, Script]) -> None:
        self._pool = _primary_pool(settings)
        self._seconds = settings.timeout_ms / 1_000
        self._scripts = scripts
        self._connection: AbstractConnection | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def fails_in_parts(self) -> bool:
        """Whether what fails may be one part's own: there is one server, so it is not."""
        return False

    async def open(self) -> tuple[int, int, int]:
        """
        Connect, load the scripts, and ask the time.

        Returns:
            The store's clock, and our monotonic time before and after it was asked; microseconds.

        Raises:
            StoreError: The store is not there, or does not want us.

        """
        await self.close()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(OPEN_S):
                await connection.connect()  # type: ignore[no-untyped-call]
                await self._load_scripts(connection)
                sent_us = monotonic_us()
                seconds, micros = (await self._exchange(connection, [("TIME",)]))[0]
                received_us = monotonic_us()
            self._connection = connection
            return int(seconds) * 1_000_000 + int(micros), sent_us, received_us
        except BaseException as exc:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            raise translated(exc) from exc

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """
        Send all commands in one write and read all replies, within the deadline.

        Returns:
            One reply per command; a command that the store refused has its exception in its place.

        Raises:
            StoreTimeoutError: No complete answer in time; commands may have run. The line is closed.
            StoreError: The connection broke; likewise.

        """
        if self._connection is None:
            raise StoreError("there is no connection to the store")
        try:
            async with asyncio.timeout(self._seconds):
                replies = await self.answers(commands)
            if any(isinstance(reply, ReadOnlyError) for reply in replies):
                await self.close()  # a primary no more: its name may lead to the new one by now
            return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]
        except BaseException as exc:
            # Also when cancelled: replies that nobody reads would answer the next batch.
            await self.close()
            raise translated(exc) from exc

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """
        The same without a deadline, and with redis-py's exceptions, in their places and raised.

        Whoever calls bounds the time, and closes the line when this does not return.
        """
        connection = self._connection
        if connection is None:
            raise StoreError("there is no connection to the store")
        replies = await self._exchange(connection, commands)
        for _ in range(LOADS_MAX):
            again = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if not again:
                break
            # The script cache is empty (restart): what was refused so did not run.
            await self._load_scripts(connection)
            for at, reply in zip(
                again, await self._exchange(connection, [commands[at] for at in again]), strict=True
            ):
                replies[at] = reply
        return replies

    async def _exchange(self, connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
        await connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(disconnect_on_error=False))
            except ResponseError as exc:
                replies.append(exc)
        return replies

    async def _load_scripts(self, connection: AbstractConnection) -> None:
        commands: list[Command] = [("SCRIPT", "LOAD", script.text) for script in self._scripts.values()]
        for reply in await self._exchange(connection, commands):
            if isinstance(reply, Exception):
                raise reply


def translated(exc: BaseException) -> BaseException:
    """Foreign exceptions become ours, once; cancellation and bugs stay what they are."""
    match exc:
        case StoreError():
            return exc
        case TimeoutError() | RedisTimeoutError():
            return StoreTimeoutError("the store did not answer in time")
        case ssl.SSLError():
            return StoreError(f"the store's TLS failed: {exc}")
        case ResponseError():
            return StoreRefusedError(f"the store refused: {exc}")
        case RedisError() | OSError():
            return StoreError(f"the store cannot be reached: {exc}")
        case _:
            return exc


def as_ours(exc: Exception) -> StoreError:
    """What a client for rare commands raised, as a StoreError."""
    ours = translated(exc)
    return ours if isinstance(ours, StoreError) else StoreError(str(exc))
