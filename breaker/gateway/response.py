"""
What a downstream answers: a response, its body as it comes, or why there is none.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

BUFFER_HIGH = 262_144  # bytes that a reader may lag behind before the downstream is not read any more ...
BUFFER_LOW = 65_536  # ... until it is down to this

Phase = Literal["connect", "response", "body"]


class DownstreamError(Exception):
    """
    The downstream gave no answer that could be passed on.

    Attributes:
        sent: The request may have reached the downstream, and may have had its effect.

    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class ConnectFailed(DownstreamError):  # noqa: N818 - these names say what happened
    """No connection: refused, no such name, not trusted, or the pool is closed. Nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class TimedOut(DownstreamError):  # noqa: N818
    """The deadline came while connecting (or waiting to), for the response head, or in its body."""

    def __init__(self, message: str, *, phase: Phase) -> None:
        super().__init__(message, sent=phase != "connect")
        self.phase: Phase = phase


class Disconnected(DownstreamError):  # noqa: N818
    """The connection ended before the response did."""


class Malformed(DownstreamError):  # noqa: N818
    """What came back is not HTTP/1.1, or could be read in two ways."""


class TooLarge(DownstreamError):  # noqa: N818
    """The response is larger than `response_max`."""


@dataclass(slots=True, kw_only=True)
class Response:
    """
    What the downstream said.

    Attributes:
        headers: As sent: order, case and repetitions kept; trailers are dropped.
        body: All of it, when it is small or came in one piece; else None.
        stream: The body as it comes, when it was not whole; else None.

    """

    status: int
    reason: str
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    stream: "BodyStream | None"


class Source(Protocol):
    """The connection that a body comes from."""

    def fail(self, error: BaseException) -> None:
        """End the call under way, and the connection."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BodyStream:
    """
    A response body as it comes, for one reader.

    Iterating raises `DownstreamError` as soon as the body cannot be completed; what was buffered then is dropped,
    because a body that ends early must not look like one that ended. Whoever stops before the end calls `close`.
    """

    __slots__ = ("_arrival", "_connection", "_error", "_loop", "_paused", "_pieces", "buffered")

    def __init__(self, connection: Source, loop: asyncio.AbstractEventLoop) -> None:
        self._connection: Source | None = connection  # None once the last byte is here, or never will be
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._error: DownstreamError | None = None
        self._paused = False
        self.buffered = 0  # bytes

    def __aiter__(self) -> "BodyStream":
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                raise StopAsyncIteration
            self._arrival = self._loop.create_future()
            try:
                await self._arrival
            except asyncio.CancelledError:
                self.close()
                raise
        piece = self._pieces.popleft()
        self.buffered -= len(piece)
        if self._paused and self.buffered < BUFFER_LOW and self._connection is not None:
            self._paused = False
            self._connection.resume_reading()
        return piece

    def close(self) -> None:
        """Give the rest up: the connection is closed, unless the body had already arrived."""
        connection = self._connection
        if connection is not None:
            connection.fail(Disconnected("the body was not read to its end"))

    def on_piece(self, piece: bytes) -> None:
        """More of the body has come."""
        self._pieces.append(piece)
        self.buffered += len(piece)
        if self.buffered >= BUFFER_HIGH and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.pause_reading()
        self._wake()

    def on_end(self, error: DownstreamError | None) -> None:
        """There will be no more; None says that the body is complete."""
        if self._paused and self._connection is not None:
            self._connection.resume_reading()  # its next call must not wait for this reader
        self._connection = None
        self._error = error
        if error is not None:
            self._pieces.clear()
            self.buffered = 0
        self._wake()

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():
            arrival.set_result(None)
