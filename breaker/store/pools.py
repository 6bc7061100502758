"""
Pools: factories of connections to the store, with redis-py's retries off.

redis-py's defaults retry ten times, also after a timeout, so that a command can run twice and a
call can hang for a minute. Here nothing is retried: whoever sends decides.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError
from breaker.store.address import Address, Node

OPEN_S = 2.0  # to connect, authenticate and load the scripts

Find = Callable[[], Awaitable[Node]]


class TellsOfReset(AbstractConnection):
    """
    A connection that was reset is a lost connection.

    uvloop raises a RuntimeError where asyncio has an OSError, when one writes to a TCP connection that was
    reset; redis-py lets it pass, and to everybody here it would be a mistake of ours.
    """

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as exc:
            if "closed" not in str(exc):
                raise
            raise RedisConnectionError(f"the connection was reset: {exc}") from exc


class FoundConnection(Connection):
    """
    Asks where to connect to, each time anew.

    redis-py's own SentinelConnectionPool asks the sentinels one after the other, and makes a lost
    connection out of a refusal (READONLY), so that commands which did not run look as if they might have.
    """

    def __init__(self, *, find: Find, must_be_primary: bool, **options: Any) -> None:
        super().__init__(**options)
        self._find, self._must_be_primary = find, must_be_primary

    async def _connect(self) -> None:
        self.host, self.port = await self._find()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        if not self._must_be_primary:
            return
        # A sentinel may name one that has just been replaced; it says itself what it is.
        await self.send_command("ROLE", check_health=False)
        role = await self.read_response()
        if role[0] != b"master":
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica: a failover is under way")


class FoundSSLConnection(FoundConnection, SSLConnection):
    """The same over TLS."""


def open_pool(settings: StoreSettings, *, timeout_s: float | None = None) -> ConnectionPool:
    """
    A factory of connections to one server.

    Args:
        timeout_s: Of each read and write; None where the caller has a deadline of its own.

    Raises:
        StartError: The address cannot be understood.

    """
    try:
        options: dict[str, Any] = dict(parse_url(settings.url))
    except ValueError as exc:
        raise StartError(f"store url {settings.url!r}: {exc}") from exc
    connection_class: type[AbstractConnection] | None = options.get("connection_class")
    if settings.username:
        options["username"] = settings.username
    if settings.password:
        options["password"] = settings.password
    if connection_class and issubclass(connection_class, SSLConnection) and settings.ca_file:
        options["ssl_ca_certs"] = settings.ca_file
    return _pool(options, timeout_s)


def found_pool(
    settings: StoreSettings,
    address: Address,
    find: Find,
    *,
    must_be_primary: bool,
    timeout_s: float | None = None,
) -> ConnectionPool:
    """A factory of connections to whichever server `find` names when they are made."""
    options: dict[str, Any] = {
        "connection_class": FoundSSLConnection if address.is_tls else FoundConnection,
        "find": find,
        "must_be_primary": must_be_primary,
        "db": address.database,
        "username": address.username,
        "password": address.password,
    }
    if address.is_tls and settings.ca_file:
        options["ssl_ca_certs"] = settings.ca_file
    return _pool(options, timeout_s)


def one_server(settings: StoreSettings, timeout_s: float) -> Redis:
    """A plain client of one server."""
    return Redis.from_pool(
        open_pool(settings, timeout_s=timeout_s)
    )  # it owns the pool: closing one closes both


async def ask_once(settings: StoreSettings, timeout_s: float, *command: str) -> Any:
    """
    One question to one server, on a connection of its own that does not outlive it, however it ends.

    Raises:
        redis.exceptions.RedisError, OSError, TimeoutError: There is no answer.

    """
    connection: AbstractConnection = open_pool(settings).make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*command, check_health=False)
            return await connection.read_response()
    finally:
        with suppress(RedisError, OSError):
            await connection.disconnect(nowait=True)


def _pool(options: dict[str, Any], timeout_s: float | None) -> ConnectionPool:
    kind = options.pop("connection_class", Connection)
    options["connection_class"] = type(kind.__name__, (TellsOfReset, kind), {})
    return ConnectionPool(
        **options,
        protocol=2,
        socket_connect_timeout=OPEN_S,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        health_check_interval=0,
    )
