"""
A downstream whose every byte is written by the test: a TCP server that plays one script per connection.

It reads requests, so that what was sent can be looked at; what it answers is up to the script, right or wrong.
"""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from breaker.core.model import Downstream, Tls
from breaker.gateway.downstream import Pool, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it came: head without the empty line, body without its framing."""

    head: bytes
    body: bytes


class Peer:
    """The downstream's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # of the connection, from 1

    async def head(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n\r\n"))[:-4]

    async def request(self) -> Received:
        head = await self.head()
        body = b""
        lines = [line.lower() for line in head.split(b"\r\n")[1:]]
        if b"transfer-encoding: chunked" in lines:
            while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        for line in lines:
            if line.startswith(b"content-length: "):
                body = await self.reader.readexactly(int(line[16:]))
        return Received(head=head, body=body)

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, as far as the kernel allows."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class RawDownstream:
    """A server that plays `script` on each connection and closes when it returns."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.url = ""
        self.failures: list[Exception] = []
        self.stop: Callable[[], None] = lambda: None  # listen no more

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._script(Peer(reader, writer, self.connections))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client may go at any time
        except Exception as exc:  # noqa: BLE001 - shown by the context manager, as the test's failure
            self.failures.append(exc)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_downstream(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawDownstream]:
    """Serve `script` on a free port; a script that failed fails the test."""
    downstream = RawDownstream(script)
    tasks: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: asyncio complains of its own when it is cancelled.
        task = asyncio.get_running_loop().create_task(downstream._serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    downstream.stop = server.close
    downstream.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield downstream
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if downstream.failures:
        raise downstream.failures[0]


def answering(*pieces: bytes, keep: bool = True) -> Script:
    """A script that answers every request with the same bytes, and closes after the first unless `keep`."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)
            if not keep:
                return

    return script


@contextlib.asynccontextmanager
async def pool_to(
    url: str,
    *,
    connections_max: int = 1024,
    idle_s: float = 15.0,
    connect_timeout_ms: int = 1_000,
    response_max: int | None = None,
    tls: Tls | None = None,
) -> AsyncIterator[Pool]:
    """A pool that must be empty, and must have left nothing unawaited, when it is closed."""
    loop = asyncio.get_running_loop()
    complaints: list[str] = []
    loop.set_exception_handler(lambda _loop, context: complaints.append(str(context)))
    downstream = Downstream(
        url=url, connect_timeout_ms=connect_timeout_ms, response_max=response_max, tls=tls
    )
    gc.freeze()  # collect only what the test makes: much faster
    pool = Pool(downstream, connections_max=connections_max, idle_s=idle_s)
    try:
        yield pool
    finally:
        await pool.close()
    gc.collect()
    gc.unfreeze()
    await asyncio.sleep(0)
    assert (pool.busy, pool.idle) == (0, 0)
    assert complaints == []


async def call(
    pool: Pool,
    *,
    method: bytes = b"GET",
    target: bytes = b"/",
    headers: bytes = b"",
    body: bytes | AsyncIterator[bytes] | None = None,
    content_length: int | None = None,
    timeout_s: float = 5.0,
) -> Response:
    """Send with defaults that most tests do not care about."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    return await pool.send(
        method=method,
        target=target,
        headers=headers,
        body=body,
        content_length=content_length,
        deadline=deadline,
    )


async def whole(response: Response) -> bytes:
    """The body, however it came."""
    if response.stream is None:
        assert response.body is not None
        return response.body
    return b"".join([piece async for piece in response.stream])


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; the test's timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.001)
