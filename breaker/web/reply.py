"""
Reply: how a caller is answered, as bytes on its connection.

A response object of the server costs as much as all decisions together, so the head is written
here; what may stand in it was checked when it came in (by the downstream client or by us).
"""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from aiohttp.abc import AbstractStreamWriter

from breaker.core.events import Outcome
from breaker.gateway.call import Call, Receipt, Refusal
from breaker.gateway.headers import our_lines
from breaker.gateway.job_payload import JobResult
from breaker.web.connection import CallerConnection
from breaker.web.job_documents import accepted
from breaker.web.problems import CLOCK, CLOSING, problem

DRAIN_S = 30.0  # a caller that does not read its answer for so long has gone
REASONS = {status.value: status.phrase for status in HTTPStatus}
BODILESS = frozenset({204, 304})


class CallerReply:
    """
    The answer to one request.

    Args:
        closes: The connection ends with this answer.
        is_old: HTTP/1.0: no chunks, and staying must be said.

    """

    __slots__ = ("_chunked", "_connection", "_writer", "closes", "is_head", "is_old", "status")

    def __init__(
        self,
        connection: CallerConnection,
        writer: AbstractStreamWriter,
        *,
        is_head: bool,
        closes: bool,
        is_old: bool,
    ) -> None:
        self._connection, self._writer = connection, writer
        self._chunked = False
        self.is_head, self.closes, self.is_old = is_head, closes, is_old
        self.status = 0

    @property
    def keep_alive(self) -> bool:
        """What aiohttp asks a response."""
        return not self.closes

    @property
    def is_gone(self) -> bool:
        return self._connection.transport is None

    def refuse(self, call: Call, refusal: Refusal) -> None:
        status, lines, body = problem(refusal, call)
        self.closes = self.closes or refusal.kind in CLOSING
        self.whole(status, REASONS[status], lines + our_lines(call, refusal.outcome), body)

    def accepted(self, call: Call, receipt: Receipt) -> None:
        lines, body = accepted(receipt)
        self.whole(202, REASONS[202], lines + CLOCK.line() + our_lines(call, Outcome.QUEUED), body)

    def kept(self, call: Call, result: JobResult, outcome: Outcome, lines: bytes) -> None:
        passed = call.work.up.lines(result.headers)
        reason = REASONS.get(result.status, "")
        self.whole(result.status, reason, passed + lines + our_lines(call, outcome), result.body)

    def whole(self, status: int, reason: str, lines: bytes, body: bytes) -> None:
        if status in BODILESS or (self.is_head and not body):
            self._write(self._head(status, reason, lines) + b"\r\n")
            return
        head = self._head(status, reason, lines)
        content = b"" if self.is_head else body
        self._write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), content))

    def start(self, status: int, reason: str, lines: bytes, length: int | None) -> None:
        if length is not None:
            framing = b"Content-Length: %d\r\n\r\n" % length
        elif self.is_old:
            self.closes = True  # the end of the connection is the end of the body
            framing = b"\r\n"
        else:
            self._chunked = True
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
        self._write(self._head(status, reason, lines) + framing)

    async def piece(self, data: bytes, deadline: float) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if not self.is_gone and self._connection.is_stalled:
            # A caller that leaves while it is waited for is seen by `is_gone`; the rest is dropped.
            with suppress(ConnectionError):
                async with asyncio.timeout_at(deadline):
                    await self._writer.drain()

    def end(self) -> None:
        if self._chunked:
            self._write(b"0\r\n\r\n")

    def abort(self) -> None:
        self.closes = True
        transport = self._connection.transport
        if transport is not None:
            transport.abort()

    async def drain(self) -> None:
        if self.is_gone or not self._connection.is_stalled:
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._writer.drain()
        except TimeoutError:
            self.abort()
        except ConnectionError:
            self.closes = True

    def _head(self, status: int, reason: str, lines: bytes) -> bytes:
        self.status = status
        if self.closes:
            lines += b"Connection: close\r\n"
        elif self.is_old:
            lines += b"Connection: keep-alive\r\n"
        return b"HTTP/1.1 %d %b\r\n%b" % (status, reason.encode("latin-1", "replace"), lines)

    def _write(self, data: bytes) -> None:
        transport = self._connection.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    # aiohttp takes this for a response that has been sent.

    async def prepare(self, request: object) -> None:
        del request

    async def write_eof(self) -> None:
        return
