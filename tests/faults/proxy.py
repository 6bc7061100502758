"""
Proxy: stands between two programs on TCP or unix sockets, and does what a bad network does.

The words are toxiproxy's (github.com/Shopify/toxiproxy). Each poison belongs to one direction, and is put in and
taken out while connections run:

    latency     every byte comes later, by so much and a jitter; order is kept, and so is the throughput
    bandwidth   so many bytes a second
    slicer      bytes come in small pieces, with a pause between them
    timeout     a black hole: nothing comes through. What was sent into it is held, and comes when it is taken out,
                as TCP would do it (toxiproxy drops it, so that a stream goes on with a hole in it)
    reset_peer  the connection ends with a TCP reset

and the whole proxy may be `down`: nobody listens, and what was connected is reset; or some clients may be cut off,
by the port from which they come.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random

PIECE = 65_536  # bytes read at once
HELD_MAX = 256  # pieces that one direction of one connection holds; beyond, its sender has to wait
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: close(2) sends a reset


class Way(StrEnum):
    """Which direction: towards the server, or back to the client."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """
    What is wrong with one direction; nothing, as it stands.

    Attributes:
        latency_ms, jitter_ms: Each piece comes so much later, plus or minus.
        bandwidth: Bytes a second; 0 is: as fast as it goes.
        slice_bytes, slice_ms: The size of pieces, and the pause after each; 0 is: as they come.
        is_black_hole: Nothing comes through until it is taken out (`timeout`).
        resets_after: The connection is reset when so many bytes have come through; None: never (`reset_peer`).

    """

    latency_ms: float = 0
    jitter_ms: float = 0
    bandwidth: int = 0
    slice_bytes: int = 0
    slice_ms: float = 0
    is_black_hole: bool = False
    resets_after: int | None = None


HEALTHY = Poison()


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the proxy: both its ends."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    port: int

    def reset(self) -> None:
        for writer in (self.client, self.server):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):  # it has gone already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


@dataclass(slots=True, kw_only=True)
class Proxy:
    """
    One address in front of one server.

    Attributes:
        upstream: `host:port`, or the path of a unix socket.
        accepted: Connections so far.

    """

    upstream: str
    dice: Random
    accepted: int = 0
    _is_cut_off: Callable[[int], bool] = lambda _port: False
    _address: tuple[str, int] | None = None
    _poisons: dict[Way, Poison] = field(default_factory=lambda: dict.fromkeys(Way, HEALTHY))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _links: set[_Link] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _listener: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """`host:port`, the same over its whole life."""
        assert self._address is not None, "it was never up"
        return "{}:{}".format(*self._address)

    @property
    def connections(self) -> int:
        """That are open now."""
        return len(self._links)

    def poison(self, poison: Poison, *ways: Way) -> None:
        """From now on this is wrong, in these directions (none named: in both), and nothing else."""
        for way in ways or tuple(Way):
            self._poisons[way] = poison
        self._wake()

    def heal(self) -> None:
        """Nothing is wrong any more, for anybody; what a black hole held comes out."""
        self._is_cut_off = lambda _port: False
        self.poison(HEALTHY)

    def cut_off(self, is_cut_off: Callable[[int], bool]) -> None:
        """Reset whoever comes from such a port, now and later; the others notice nothing."""
        self._is_cut_off = is_cut_off
        for link in [link for link in self._links if is_cut_off(link.port)]:
            self._links.discard(link)
            link.reset()

    async def up(self) -> None:
        """Listen; on the same port as before."""
        if self._listener is None:
            host, port = self._address or ("127.0.0.1", 0)
            self._listener = await asyncio.start_server(self._accept, host, port)
            self._address = self._listener.sockets[0].getsockname()[:2]

    async def down(self) -> None:
        """Nobody listens, and every connection is reset."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.reset()
        await asyncio.sleep(0)

    def reset(self) -> None:
        """Reset what is connected now; whoever connects afterwards is served."""
        while self._links:
            self._links.pop().reset()

    async def close(self) -> None:
        await self.down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if "/" in self.upstream:
                up_reader, up_writer = await asyncio.open_unix_connection(self.upstream)
            else:
                host, _, port = self.upstream.rpartition(":")
                up_reader, up_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()  # nobody is behind us
            return
        peer = writer.get_extra_info("peername")
        link = _Link(writer, up_writer, peer[1] if peer else 0)
        if self._is_cut_off(link.port):
            link.reset()
            return
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, up_writer, Way.UPSTREAM, link))
                group.create_task(self._pass_on(up_reader, writer, Way.DOWNSTREAM, link))
        finally:
            self._links.discard(link)
            for each in (writer, up_writer):
                each.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, link: _Link
    ) -> None:
        """One direction: read on while the pieces before are still on their way."""
        loop = asyncio.get_running_loop()
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_MAX)

        async def read() -> None:
            with contextlib.suppress(OSError):
                while piece := await reader.read(PIECE):
                    await held.put((loop.time(), piece))
            await held.put((loop.time(), b""))

        reading = loop.create_task(read())
        try:
            passed = 0
            while True:
                came, piece = await held.get()
                for part in await self._slowed(way, came, piece):
                    passed += await self._deliver(part, writer, way, link, passed)
                if not piece:
                    break
        except OSError:
            pass  # whoever should have had it has gone
        finally:
            reading.cancel()
        # The other direction may have more to say, so that only this one ends.
        with contextlib.suppress(OSError):
            if not writer.is_closing() and writer.can_write_eof():
                writer.write_eof()

    async def _slowed(self, way: Way, came: float, piece: bytes) -> "deque[bytes]":
        """Wait until this piece may come out of latency and black hole; in which parts it then comes."""
        loop = asyncio.get_running_loop()
        while (poison := self._poisons[way]).is_black_hole:
            await self._changed.wait()
        late_ms = poison.latency_ms + self.dice.uniform(-poison.jitter_ms, poison.jitter_ms)
        if (wait_s := came + late_ms / 1_000 - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        size = poison.slice_bytes or len(piece) or 1
        return deque(piece[at : at + size] for at in range(0, len(piece), size))

    async def _deliver(
        self, part: bytes, writer: asyncio.StreamWriter, way: Way, link: _Link, passed: int
    ) -> int:
        while (poison := self._poisons[way]).is_black_hole:  # it may have come while we were late
            await self._changed.wait()
        if poison.bandwidth:
            await asyncio.sleep(len(part) / poison.bandwidth)
        if poison.resets_after is not None and passed + len(part) > poison.resets_after:
            writer.write(part[: max(0, poison.resets_after - passed)])
            await writer.drain()
            link.reset()
            raise ConnectionResetError
        writer.write(part)
        await writer.drain()
        if poison.slice_ms:
            await asyncio.sleep(poison.slice_ms / 1_000)
        return len(part)


@asynccontextmanager
async def proxy(upstream: str, *, seed: int = 1) -> AsyncIterator[Proxy]:
    """A proxy in front of `host:port`, or of the unix socket at this path, until the block ends."""
    made = Proxy(upstream=upstream, dice=Random(seed))
    await made.up()
    try:
        yield made
    finally:
        await made.close()


def address_of(url: str) -> str:
    """What a proxy stands before, of a url such as `http://127.0.0.1:80` or `unix:///run/s`."""
    scheme, _, rest = url.partition("://")
    return str(Path(rest)) if scheme == "unix" else rest.partition("/")[0]
