"""
Ills: what a downstream does wrong when it is told to. The judge counts; this answers.

    fails       a complete 500, at once                       nothing took effect, and the caller knows
    hangs       no answer, until the caller goes              nothing took effect, and the caller cannot know
    drips       a head, and then a byte now and then          likewise; it never ends by itself
    cut         a head, half a body, and a TCP reset          it took effect
    huge        an answer of 2 GiB, as fast as it is taken    it took effect
    busy        429 or 503, with Retry-After                  nothing took effect, and the caller knows

`busy` says its Retry-After in seconds, or as a date (RFC 9110, section 10.2.3).
"""

import asyncio
import contextlib
import socket
import struct
import time
from email.utils import formatdate
from enum import StrEnum

from aiohttp import web

HUGE_BYTES = 2 * 1_073_741_824
DRIP_S = 0.05
_PIECE = bytes(262_144)


class Ill(StrEnum):
    """What is wrong with the answers of an operation."""

    NONE = "none"
    FAILS = "fails"
    HANGS = "hangs"
    DRIPS = "drips"
    CUT = "cut"
    HUGE = "huge"
    BUSY = "busy"

    @property
    def has_effect(self) -> bool:
        """Whether the order was done all the same."""
        return self in (Ill.NONE, Ill.CUT, Ill.HUGE)

    @property
    def is_known(self) -> bool:
        """Whether the caller hears in full that it was not done."""
        return self in (Ill.FAILS, Ill.BUSY)


async def answer_ill(request: web.Request, ill: Ill, busy: "Busy") -> web.StreamResponse:
    """The answer of a downstream that is so ill."""
    match ill:
        case Ill.FAILS:
            return web.json_response({}, status=500)
        case Ill.BUSY:
            return web.json_response({}, status=busy.status, headers={"Retry-After": busy.retry_after()})
        case Ill.HANGS:
            await asyncio.Event().wait()
        case Ill.DRIPS:
            return await _drip(request)
        case Ill.CUT:
            return await _cut(request)
        case Ill.HUGE:
            return await _huge(request)
        case Ill.NONE:
            pass
    return web.json_response({})


class Busy:
    """What a busy downstream says, and for how long it is so."""

    def __init__(self, status: int = 503, seconds: int = 1, *, is_date: bool = False) -> None:
        self.status, self._seconds, self._is_date = status, seconds, is_date

    def retry_after(self) -> str:
        """A date has no fractions of a second, so that it is rounded up."""
        if self._is_date:
            return formatdate(int(time.time()) + 1 + self._seconds, usegmt=True)
        return str(self._seconds)


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000000"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the caller has had enough
        while True:
            await response.write(b"x")
            await asyncio.sleep(DRIP_S)
    return response


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 500)
    if request.transport:
        sock = request.transport.get_extra_info("socket")
        # SO_LINGER of no time: close(2) sends a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return response


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(HUGE_BYTES)})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the caller has had enough
        for _ in range(HUGE_BYTES // len(_PIECE)):
            await response.write(_PIECE)
    return response
