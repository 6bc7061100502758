"""
A caller whose every byte is written by the test, and who reads answers strictly: a body that breaks off is
an error, and so is silence.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 5.0  # for anything that must come


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer as it came; `headers` in order, names as sent."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for given, value in self.headers if given.lower() == name.lower()]

    def one(self, name: str) -> str:
        """The value of a header that must be there once."""
        (value,) = self.all(name)
        return value

    def has(self, name: str) -> bool:
        return bool(self.all(name))

    @property
    def problem(self) -> dict[str, Any]:
        """The members of a refusal; it must be one."""
        assert self.one("Content-Type") == "application/problem+json", self
        members = json.loads(self.body)
        assert isinstance(members, dict)
        assert members["status"] == self.status
        return members

    @property
    def kind(self) -> str:
        """Which problem: the last part of its type."""
        return str(self.problem["type"]).rpartition("#")[2]


class RawCaller:
    """One connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, as far as the kernel allows."""
        for piece in pieces:
            self.writer.write(piece)
            async with asyncio.timeout(PATIENCE_S):
                await self.writer.drain()
            await asyncio.sleep(0)

    async def head(self) -> Answer:
        """The next head, with no body."""
        async with asyncio.timeout(PATIENCE_S):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text[:-4].split("\r\n")
        version, status, reason = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Answer(status=int(status), reason=reason, headers=headers, body=b"")

    async def answer(self, *, is_head: bool = False) -> Answer:
        """The next answer with its whole body; raises IncompleteReadError when that breaks off."""
        head = await self.head()
        body = b"" if is_head or head.status in (204, 304) or head.status < 200 else await self.body(head)
        return Answer(status=head.status, reason=head.reason, headers=head.headers, body=body)

    async def body(self, head: Answer) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            if head.has("Transfer-Encoding"):
                assert head.one("Transfer-Encoding") == "chunked"
                assert not head.has("Content-Length")
                body = b""
                while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                assert await self.reader.readexactly(2) == b"\r\n"
                return body
            if head.has("Content-Length"):
                return await self.reader.readexactly(int(head.one("Content-Length")))
            assert head.one("Connection") == "close"
            return await self.reader.read()

    async def ask(self, request: bytes, *, is_head: bool = False) -> Answer:
        await self.send(request)
        return await self.answer(is_head=is_head)

    async def ended(self) -> bytes:
        """Whatever still comes until the gateway closes, which it must; a reset counts as an end."""
        said = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65_536):
                    said += piece
        return said

    def hang_up(self) -> None:
        """Close, as a process that ends does."""
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_caller(port: int) -> AsyncIterator[RawCaller]:
    """A connection for the length of a block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_048_576)
    try:
        yield RawCaller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(port: int, request: bytes, *, is_head: bool = False) -> Answer:
    """One request on a connection of its own."""
    async with raw_caller(port) as caller:
        return await caller.ask(request, is_head=is_head)


def get(target: str, *lines: str) -> bytes:
    return request("GET", target, *lines)


def request(method: str, target: str, *lines: str, body: bytes | None = None) -> bytes:
    """A plain request; a body gets its Content-Length."""
    head = [f"{method} {target} HTTP/1.1", "Host: gateway.test", *lines]
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")


def chunked(method: str, target: str, *pieces: bytes, lines: tuple[str, ...] = ()) -> bytes:
    """A request whose body comes in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return request(method, target, "Transfer-Encoding: chunked", *lines) + body
