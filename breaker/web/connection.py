"""
Connections of callers: aiohttp's protocol, with our deadlines and our answers to what is no request.

What aiohttp does not do: end a head that drips, tell a call that its caller hung up, and answer a broken request with a problem and a closed connection.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from breaker.gateway.call import Call, Kind
from breaker.web.problems import bare_answer

IDLE_S = 75.0  # between two requests of one connection
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]*)(:[0-9]{0,5})?")


class Request:
    """What the handler needs of a request; aiohttp's own costs several times as much to make."""

    __slots__ = ("_connection", "_task", "connection", "message", "payload", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: "CallerConnection",
        writer: AbstractStreamWriter,
    ) -> None:
        self.message, self.payload, self.connection, self.writer = message, payload, connection, writer
        self._task: asyncio.Task[None] | None = None

    def _finish(self) -> None:
        """Aiohttp calls this when the answer is out."""

    def _cancel(self, exc: BaseException) -> None:
        """Aiohttp calls this when the connection is lost: whoever reads the body learns of it."""
        if not self.payload.is_eof():
            self.payload.set_exception(exc)


Handler = Callable[[Request], Awaitable[Any]]


class CallerConnection(web.RequestHandler):
    """
    One connection.

    Attributes:
        call: Under way now.
        known_host: The last `Host` that was found to be one. It goes into `Forwarded`, where a quote
            would let a caller write the rest of the line.

    """

    __slots__ = ("_head_timer", "_peer_cache", "_server", "call", "known_host", "peer")

    def __init__(self, server: "CallerServer", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=IDLE_S,
            access_log=None,  # type: ignore[arg-type]  # None switches it off
            auto_decompress=False,
            lingering_time=2.0,
        )
        self._server = (
            server  # aiohttp forgets it when the connection is lost, and a mistake may come after that
        )
        self.call: Call | None = None
        self.known_host = ""
        self.peer = ""
        self._head_timer: asyncio.TimerHandle | None = None
        self._peer_cache: tuple[str, bytes] = ("", b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server = self._server
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._expect_head()
        if len(server.connections) > server.connections_max:
            self._hang_up(503, Kind.OVER_CAPACITY, "this gateway has no room for another connection")

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            if self._head_timer:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None and self._current_request is None and not self._messages:
            # The first bytes of a head, and no more: it has to be complete in time.
            self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None
        call = self.call
        super().connection_lost(exc)
        if call and call.task and call.ends_on_hang_up:
            call.task.cancel()

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """Whatever was no proper request, and our own mistakes, end in a problem and a closed connection."""
        del request
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and exc is not None:
            self._server.on_bug(exc)
            return Broken(
                self, bare_answer(500, None, "the gateway made a mistake; it was logged", close=True)
            )
        self._server.on_broken(status)
        detail = " ".join((message or str(exc) or "not a proper HTTP request").split())
        return Broken(self, bare_answer(status, Kind.BAD_REQUEST, detail[:300], close=True))

    async def refuse(self, detail: str) -> "Broken":
        """The request was parsed, but is none that can be taken (RFC 9112 section 3.2)."""
        self._server.on_broken(HTTPStatus.BAD_REQUEST)
        return Broken(self, bare_answer(400, Kind.BAD_REQUEST, detail, close=True))

    def send_continue(self) -> None:
        """The caller waits for leave to send its body; it gets it only when the body is wanted."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def is_stalled(self) -> bool:
        """The caller reads slower than we write."""
        return self._paused

    @property
    def is_idle(self) -> bool:
        """No request is under way."""
        return self._current_request is None and not self._messages

    def lines_of_peer(self, host: str, make: Callable[[str, str], bytes]) -> bytes:
        """`Forwarded` lines, which stay the same for most of a connection's calls."""
        known, lines = self._peer_cache
        if known != host or not lines:
            lines = make(self.peer, host)
            self._peer_cache = (host, lines)
        return lines

    def _expect_head(self) -> None:
        self._head_timer = self._loop.call_later(self._server.head_timeout_s, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        self._hang_up(408, Kind.REQUEST_TIMEOUT, "no complete request head arrived in time")

    def _hang_up(self, status: int, kind: Kind, detail: str) -> None:
        if self.transport is not None:
            self._server.on_broken(status)
            self.transport.write(bare_answer(status, kind, detail, close=True))
        self.force_close()


class Broken:
    """The answer to what was no request; aiohttp takes it for a response."""

    keep_alive = False

    def __init__(self, connection: CallerConnection, data: bytes) -> None:
        self._connection, self._data = connection, data

    async def prepare(self, request: object) -> None:
        del request
        if self._connection.transport is not None:
            self._connection.transport.write(self._data)

    async def write_eof(self) -> None:
        return


class CallerServer(web.Server):
    """
    Makes the connections of one listener.

    Args:
        head_timeout_s: Seconds for a request head.
        connections_max: Open at once.
        on_bug: Told of exceptions that nobody expected.
        on_broken: Told the status of answers to what was no request.

    """

    def __init__(
        self,
        handler: Handler,
        *,
        head_timeout_s: float,
        connections_max: int,
        on_bug: Callable[[BaseException], None],
        on_broken: Callable[[int], None],
    ) -> None:
        super().__init__(self._take, request_factory=self._request, access_log=None)  # type: ignore[arg-type]
        self._handler = handler
        self.head_timeout_s, self.connections_max = head_timeout_s, connections_max
        self.on_bug, self.on_broken = on_bug, on_broken

    @property
    def callers(self) -> list[CallerConnection]:
        """The connections that are open."""
        return [connection for connection in self.connections if isinstance(connection, CallerConnection)]

    def __call__(self) -> CallerConnection:
        return CallerConnection(self, self._loop)

    def _take(self, request: Request) -> Awaitable[Any]:
        """A proper request goes on; no coroutine of its own, because every call passes here."""
        connection, message = request.connection, request.message
        host = message.headers.get("Host", "")
        if message.version.major != 1:
            return connection.refuse("HTTP/1.1 and HTTP/1.0 are spoken here")
        if host != connection.known_host:
            if HOST.fullmatch(host) is None:
                return connection.refuse("Host must be a name or an address, with or without a port")
            connection.known_host = host
        return self._handler(request)

    @staticmethod
    def _request(
        message: RawRequestMessage,
        payload: StreamReader,
        connection: CallerConnection,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Request:
        del task
        return Request(message, payload, connection, writer)
