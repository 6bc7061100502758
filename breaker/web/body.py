"""
Body: what a caller sends, read within deadlines and sizes.

aiohttp never times out a body that stalls, and answers a broken gzip with 500; here every read has
a deadline, and nothing is decoded but on purpose and within bounds.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable

from aiohttp import StreamReader
from aiohttp.http_exceptions import HttpProcessingError

from breaker.gateway.call import CallerError, Kind

DECODED_MAX = 64 * 1_048_576  # of a body that has no limit of its own
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class CallerBody:
    """
    The body of one request.

    Args:
        length: By its Content-Length; None when it is chunked; 0 when there is none.
        encoding: `Content-Encoding`, as sent.
        go_on: Called before the first read, when the caller waits for `100 Continue`.

    """

    __slots__ = ("_content", "_encoding", "_go_on", "length")

    def __init__(
        self,
        content: StreamReader,
        length: int | None,
        encoding: str | None,
        go_on: Callable[[], None] | None,
    ) -> None:
        self._content, self._encoding, self._go_on = content, encoding, go_on
        self.length = length

    def whole(self, most: int | None = None) -> bytes | None:
        if not self._content.is_eof():
            return None
        whole = self._content.read_nowait()
        if most is not None and len(whole) > most:
            raise too_large(most)
        return whole

    async def read(self, most: int | None, seconds: float) -> bytes:
        self._check_length(most)
        if (whole := self.whole(most)) is not None:
            return whole
        pieces, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                async for piece in self._pieces():
                    size += len(piece)
                    if most is not None and size > most:
                        raise too_large(most)
                    pieces.append(piece)
        except TimeoutError:
            raise too_slow(seconds) from None
        return b"".join(pieces)

    async def pieces(self, most: int | None, seconds: float) -> AsyncIterator[bytes]:
        self._check_length(most)
        size = 0
        source = self._pieces()
        while True:
            try:
                async with asyncio.timeout(seconds):
                    piece = await anext(source, b"")
            except TimeoutError:
                raise too_slow(seconds) from None
            if not piece:
                return
            size += len(piece)
            if most is not None and size > most:
                raise too_large(most)
            yield piece

    def decoded(self, raw: bytes, most: int | None) -> bytes:
        if not self._encoding or self._encoding.lower() == "identity":
            return raw
        bits = WINDOW_BITS.get(self._encoding.strip().lower())
        if bits is None:
            raise CallerError(
                Kind.BAD_REQUEST,
                f"Content-Encoding {self._encoding!r} cannot be looked into; send gzip, deflate or none",
            )
        most = DECODED_MAX if most is None else most
        decoder = zlib.decompressobj(bits)
        try:
            plain = decoder.decompress(raw, most + 1)
        except zlib.error as exc:
            raise CallerError(Kind.BAD_REQUEST, f"the body is not {self._encoding}: {exc}") from exc
        if len(plain) > most:
            raise too_large(most)
        if not decoder.eof or decoder.unused_data:
            raise CallerError(Kind.BAD_REQUEST, f"the body is not one complete {self._encoding} stream")
        return plain

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self._go_on:
            self._go_on()
            self._go_on = None
        try:
            while piece := await self._content.readany():
                yield piece
        except (HttpProcessingError, ValueError) as exc:
            raise CallerError(Kind.BAD_REQUEST, f"the body is broken: {exc}") from exc
        except (ConnectionError, asyncio.IncompleteReadError) as exc:
            raise CallerError(Kind.BAD_REQUEST, "the caller hung up before the body was complete") from exc
        except Exception as exc:
            # aiohttp has several errors of its own for a payload that breaks off.
            raise CallerError(Kind.BAD_REQUEST, f"the body could not be read: {exc}") from exc

    def _check_length(self, most: int | None) -> None:
        if most is not None and self.length is not None and self.length > most:
            raise too_large(most)


def too_large(most: int) -> CallerError:
    return CallerError(
        Kind.PAYLOAD_TOO_LARGE, f"the body is larger than the {most} bytes that this operation takes"
    )


def too_slow(seconds: float) -> CallerError:
    return CallerError(Kind.REQUEST_TIMEOUT, f"the body did not arrive within {seconds:g} s")
