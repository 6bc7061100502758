"""
The downstream client: one pool of connections per downstream, and how a request looks on the wire.

It exists because a general client costs more per call than the rest of the gateway together. What the bytes
of one connection mean is in `http1.py`; here is which connection a call gets, and what it may send.

1. A request that could be read as two is not sent: `ValueError`, before anything is on the wire.
2. `Host`, `Content-Length`, `Transfer-Encoding` and `Connection` are written here, never by the caller.
3. A call is sent once. The exception: an idle connection that dies before its first byte of answer was most
   likely closed before it heard us (RFC 9112, section 9.3.1), so that an idempotent call whose body is still
   at hand goes out once more, on a new connection.
4. At `connections_max` calls wait in order, until their deadline.
"""

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from breaker.core.model import Downstream
from breaker.gateway.http1 import Connection
from breaker.gateway.response import (
    BodyStream,
    ConnectFailed,
    Disconnected,
    DownstreamError,
    Malformed,
    Response,
    TimedOut,
    TooLarge,
)

__all__ = [
    "BodyStream",
    "ConnectFailed",
    "Disconnected",
    "DownstreamError",
    "Malformed",
    "Pool",
    "Response",
    "TimedOut",
    "TooLarge",
]

CONNECTIONS_MAX = 1024
IDLE_S = 15.0

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[^\x00-\x20\x7f]*+")
_HEADERS = re.compile(
    rb"(?:(?!(?i:host|content-length|transfer-encoding|connection):)"
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00\r\n]*+\r\n)*+"
)
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"})  # RFC 9110, section 9.2.2
_EXPECTS_BODY = frozenset({b"POST", b"PUT", b"PATCH"})  # say so when there is none (RFC 9110, section 8.6)


class Pool:
    """
    The connections to one downstream. Made inside a running loop, and ended with `close`.

    Args:
        downstream: Its `url`, `connect_timeout_ms`, `tls` and `response_max` are used here.
        connections_max: How many may be open or opening.
        idle_s: Seconds after which a connection that nobody used is closed.

    Raises:
        OSError: A file that `tls` names cannot be used.

    """

    def __init__(
        self, downstream: Downstream, *, connections_max: int = CONNECTIONS_MAX, idle_s: float = IDLE_S
    ) -> None:
        url = urlsplit(downstream.url)
        self._url = downstream.url
        self._address = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        self._prefix = url.path.rstrip("/").encode()
        self._host_line = b" HTTP/1.1\r\nHost: %b\r\n" % url.netloc.rpartition("@")[2].encode("idna")
        self._ssl = _trust(downstream) if url.scheme == "https" else None
        self._server_name = (
            (downstream.tls and downstream.tls.server_name) or url.hostname if self._ssl else None
        )
        self._connect_s = downstream.connect_timeout_ms / 1000
        self._response_max = downstream.response_max
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Connection, None] = {}  # the longest idle first; the last is used next
        self._open: set[Connection] = set()
        self._places = 0  # taken: open or opening connections
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()  # None: a place to connect in
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._emptied: asyncio.Future[None] | None = None
        self.opened = 0  # connections ever made

    @property
    def idle(self) -> int:
        """Connections that wait for a call."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections that serve a call, or are being made for one."""
        return self._places - len(self._idle)

    async def send(
        self,
        *,
        method: bytes,
        target: bytes,
        headers: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        content_length: int | None,
        deadline: float,
    ) -> Response:
        """
        Send one request and wait for its response, or for the head of a long one.

        Args:
            target: Path and query, as they go on the wire behind the path of the url.
            headers: `Name: value` lines, each ended by CR LF, without those of rule 2.
            body: An iterator stays the caller's, who closes it; its pieces are sent as they come.
            content_length: Of an iterator, bytes; None sends it in chunks.
            deadline: Loop time, seconds; also bounds `Response.stream`.

        Raises:
            DownstreamError: No answer; `sent` tells whether the request may have had its effect.
            ValueError: The request could be misread, or the body is not `content_length` bytes long.

        """
        stream = None if body is None or isinstance(body, bytes) else body
        content = body if isinstance(body, bytes) else b""
        head = self._head(method, target, headers, None if stream else len(content), content_length)
        request = head if not content else head + content
        if deadline <= self._loop.time():
            raise TimedOut("the deadline came before the call", phase="connect")
        connection = self._idle.popitem()[0] if self._idle else await self._take(deadline)
        retry = connection.is_reused and stream is None and method in _IDEMPOTENT
        while True:
            answer = connection.ask(
                request,
                is_head=method == b"HEAD",
                is_whole=stream is None,
                response_max=self._response_max,
                deadline=deadline,
            )
            if stream is not None:
                connection.start_pump(
                    self._loop.create_task(_pump(connection, answer, stream, content_length))
                )
            try:
                return await answer
            except Disconnected:
                if not retry or connection.was_heard:
                    raise
            except BaseException:
                # Also when cancelled: a caller that hangs up must not keep a connection.
                connection.forsake(answer)
                raise
            retry = False
            try:
                connection = await self._take_fresh(deadline)
            except DownstreamError as error:
                error.sent = True  # by the first try
                raise

    def _head(
        self, method: bytes, target: bytes, headers: bytes, size: int | None, content_length: int | None
    ) -> bytes:
        """Everything up to the body; `size` is None for a body that comes from an iterator."""
        if not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target) and _HEADERS.fullmatch(headers)):
            raise ValueError(f"not sent, because it could be misread: {method!r} {target!r} {headers!r}")
        if size is None:
            size = content_length
            framing = (
                b"Transfer-Encoding: chunked\r\n\r\n"
                if size is None
                else b"Content-Length: %d\r\n\r\n" % size
            )
        elif content_length is not None and content_length != size:
            raise ValueError(f"the request body has {size} bytes, not {content_length}")
        elif size or method in _EXPECTS_BODY:
            framing = b"Content-Length: %d\r\n\r\n" % size
        else:
            framing = b"\r\n"
        return b"".join((method, b" ", self._prefix, target, self._host_line, headers, framing))

    async def drain(self) -> None:
        """Take no new calls, and return when those under way have ended; their deadlines bound that."""
        self._is_closed = True
        for connection in list(self._idle):
            connection.close()
        if self._places:
            if self._emptied is None:
                self._emptied = self._loop.create_future()
            await asyncio.shield(self._emptied)

    async def close(self) -> None:
        """End everything at once: calls under way and waiting get a `DownstreamError`."""
        self._is_closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectFailed(f"{self._url}: the pool is closed"))
        for connection in list(self._open):
            connection.fail(Disconnected("the pool was closed"))
        await asyncio.sleep(0)  # the transports close their sockets in the next turn of the loop

    # Places.

    async def _take(self, deadline: float) -> Connection:
        """A connection, when none is idle: a new one, or the next one that is free."""
        while True:
            if self._is_closed:
                raise ConnectFailed(f"{self._url}: the pool is closed")
            if self._places < self._connections_max:
                self._places += 1
                return await self._connect(deadline)
            connection = await self._wait_for_place(deadline)
            if connection is None:
                return await self._connect(deadline)
            if connection.is_open:  # it may have been closed since it was handed over
                return connection

    async def _take_fresh(self, deadline: float) -> Connection:
        """A connection that was not used before, in the place of an idle one if need be."""
        if self._idle:
            oldest = next(iter(self._idle))
            self._give_up(oldest)
            return await self._connect(deadline)
        connection = await self._take(deadline)
        if not connection.is_reused:
            return connection
        self._give_up(connection)
        return await self._connect(deadline)

    def _give_up(self, connection: Connection) -> None:
        """Close it, and keep its place for a new one."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        connection.retire()

    async def _wait_for_place(self, deadline: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException as exc:
            if not waiter.done() or waiter.cancelled():
                with contextlib.suppress(ValueError):  # it may have been passed over since it was cancelled
                    self._waiting.remove(waiter)
            elif waiter.exception() is None:
                # Handed over in the same moment: it is the next one's turn.
                connection = waiter.result()
                if connection is None:
                    self._free_place()
                elif connection.is_open:
                    self._on_idle(connection)
            if isinstance(exc, TimeoutError):
                raise TimedOut(f"{self._url}: all connections are in use", phase="connect") from None
            raise

    async def _connect(self, deadline: float) -> Connection:
        """Connect in a place that is already taken, and give it back on failure."""
        connection = Connection(self._loop, self._on_idle, self._on_gone)
        host, port = self._address
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + self._connect_s)):
                await self._loop.create_connection(
                    lambda: connection, host, port, ssl=self._ssl, server_hostname=self._server_name
                )
        except TimeoutError as exc:
            self._free_place()
            raise TimedOut(f"{self._url}: no connection in time", phase="connect") from exc
        except OSError as exc:
            self._free_place()
            raise ConnectFailed(f"{self._url}: {exc}") from exc
        except BaseException:
            self._free_place()
            raise
        if self._is_closed or not connection.adopt():
            connection.retire()
            self._free_place()
            raise ConnectFailed(f"{self._url}: closed as soon as it was connected")
        self._open.add(connection)
        self.opened += 1
        return connection

    def _on_idle(self, connection: Connection) -> None:
        if self._is_closed:
            connection.close()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = self._loop.time()
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_at(connection.idle_since + self._idle_s, self._sweep)

    def _on_gone(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._open.discard(connection)
        self._free_place()

    def _free_place(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._places -= 1
        if not self._places:
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweeper = None
            if self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)

    def _sweep(self) -> None:
        """One timer for the pool: close what was idle too long, and come again for the next."""
        self._sweeper = None
        now = self._loop.time()
        for connection in list(self._idle):
            due = connection.idle_since + self._idle_s
            if due > now:
                self._sweeper = self._loop.call_at(due, self._sweep)
                return
            connection.close()


def _trust(downstream: Downstream) -> ssl.SSLContext:
    """Verify always: against the named authority, else the system's; show our certificate if there is one."""
    tls = downstream.tls
    context = ssl.create_default_context(cafile=tls.ca_file if tls else None)
    context.set_alpn_protocols(["http/1.1"])
    if tls and tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


async def _pump(
    connection: Connection,
    answer: asyncio.Future[Response],
    body: AsyncIterator[bytes],
    content_length: int | None,
) -> None:
    """Send a body that comes in pieces; a task of its own, because the downstream may answer before its end."""
    sent = 0
    try:
        async for piece in body:
            sent += len(piece)
            if content_length is None:
                if piece:  # an empty chunk would end the body
                    await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                continue
            if sent > content_length:
                raise ValueError(f"the request body has more than {content_length} bytes")  # noqa: TRY301
            await connection.write(piece)
        if content_length is None:
            await connection.write(b"0\r\n\r\n")
        elif sent < content_length:
            raise ValueError(f"the request body has {sent} bytes, not {content_length}")  # noqa: TRY301
        connection.on_request_sent()
    except asyncio.CancelledError:
        connection.forsake(answer, Disconnected("the request body was given up"))
        raise
    except Exception as exc:  # noqa: BLE001 - whatever the caller's iterator raises is the call's result
        connection.forsake(answer, exc)
