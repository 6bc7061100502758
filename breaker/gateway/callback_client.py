"""
The callback client: tells a receiver how a job ended. Read `CallbackClient.deliver` first.

Where it may go is decided in `core/callback_address.py`, when to try again by the dispatcher of callbacks;
here is one attempt.

1. The address is checked where the socket is made. aiohttp asks a resolver for names only, so that a check
   there is passed by `http://[::ffff:127.0.0.1]/`, and one before it by a name that leads elsewhere the next
   time it is asked.
2. 2xx is delivered, and everything else is not: redirects are not followed, since they lead past rule 1's
   allow-list.
3. What the receiver says is not kept, nor are its cookies; it has 15 s and 64 KiB to say it.
"""

import contextlib
import errno
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from ipaddress import ip_address

import aiohttp

from breaker.core.callback_address import allowed, entry_of, is_public, origin_of
from breaker.core.webhook import signed_headers
from breaker.gateway.cloud_event import CONTENT_TYPE

__all__ = ["CallbackClient", "Delivered", "Failed", "allowed"]

TIMEOUT_S = 15.0
RESPONSE_MAX = 65_536  # bytes
RETRY_AFTER_MAX_S = 86_400.0  # a receiver may slow us down, not make us forget
CONNECTIONS_MAX = 64
IDLE_S = 4.0  # many servers close after 5 s; a callback that meets that moment fails
DETAIL_MAX = 300  # characters

_ASKS_FOR_TIME = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The receiver has it."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """
    The receiver may not have it.

    Attributes:
        retry_after_s: Not again before so many seconds, as the receiver asked; None: it did not.
        permanent: The receiver wants no more of this (410); trying again is pointless.
        detail: What happened, in one sentence; without the path of the URL, which may carry a token.

    """

    retry_after_s: float | None = None
    permanent: bool = False
    detail: str


class CallbackClient:
    """
    Delivers callbacks of one operation. Made inside a running loop, and ended with `close`.

    Args:
        allow: The allow-list, as `core/callback_address.py` reads it.
        timeout_s: Seconds that one attempt may take, from waiting for a connection to the last byte.

    Raises:
        ValueError: An entry of the allow-list is malformed.

    """

    def __init__(self, allow: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        self._allow = tuple(allow)
        entries = [entry_of(entry) for entry in allow]
        self._named = {(entry.address, entry.port) for entry in entries if entry.address is not None}
        # Two pools, so that an address that an operator named can be reached as itself only, and not by
        # way of a name that leads to it.
        self._to_names = _session(self._open_public, timeout_s)
        self._to_addresses = _session(self._open_named, timeout_s)

    async def close(self) -> None:
        """Close all connections; attempts under way fail."""
        await self._to_names.close()
        await self._to_addresses.close()

    async def deliver(
        self,
        url: str,
        *,
        id: str,  # noqa: A002 - the word of the specification
        timestamp_s: int,
        body: bytes,
        secrets: Sequence[str],
    ) -> Delivered | Failed:
        """
        Make one attempt.

        Args:
            url: Checked again: the allow-list may have become shorter since the job was accepted.
            id, body, secrets: As for `webhook.signed_headers`.
            timestamp_s: Now, seconds since 1970.

        Raises:
            ValueError: The callback cannot be signed, see there.

        """
        headers = signed_headers(id=id, timestamp_s=timestamp_s, body=body, secrets=secrets)
        if reason := allowed(url, self._allow):
            return Failed(detail=reason)
        session = self._to_names if origin_of(url).address is None else self._to_addresses
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await _discard(answer)
                return _judge(answer, timestamp_s)
        except aiohttp.ClientConnectorError as exc:
            return Failed(detail=f"cannot connect to {exc.host}: {exc.strerror or exc}"[:DETAIL_MAX])
        except TimeoutError:
            return Failed(detail="no answer in time")
        except (aiohttp.ClientError, OSError) as exc:
            return Failed(detail=f"no answer that could be read ({type(exc).__name__})")

    def _open_public(self, address: aiohttp.AddrInfoType) -> socket.socket:
        if not is_public(str(address[4][0])):
            raise OSError(errno.EACCES, f"{address[4][0]} is not a public address")
        return socket.socket(*address[:3])

    def _open_named(self, address: aiohttp.AddrInfoType) -> socket.socket:
        if (ip_address(str(address[4][0])), address[4][1]) not in self._named:
            raise OSError(errno.EACCES, f"{address[4][0]} is not the address that the allow-list names")
        return socket.socket(*address[:3])


def _session(opener: aiohttp.SocketFactoryType, timeout_s: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            socket_factory=opener,
            ssl=_trust(),
            # The machine's own, as for downstreams, also where another one is installed.
            resolver=aiohttp.ThreadedResolver(),
            limit=CONNECTIONS_MAX,
            keepalive_timeout=IDLE_S,
        ),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers={"Content-Type": CONTENT_TYPE, "User-Agent": "Breaker", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        # A proxy would connect for us, to wherever the name leads it.
        trust_env=False,
        # What is not read need not be unpacked, and cannot be a bomb.
        auto_decompress=False,
    )


@cache
def _trust() -> ssl.SSLContext:
    # One for all clients: reading the machine's authorities takes 30 ms.
    return ssl.create_default_context()


async def _discard(answer: aiohttp.ClientResponse) -> None:
    """
    Read a short answer, so that its connection can be used again; one that is not read to its end is closed.

    What goes wrong here changes nothing: the status has been said.
    """
    left = RESPONSE_MAX
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async for chunk in answer.content.iter_any():
            left -= len(chunk)
            if left < 0:
                break


def _judge(answer: aiohttp.ClientResponse, now_s: int) -> Delivered | Failed:
    status = answer.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Delivered(status=status)
    detail = f"the receiver answered {status}"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        detail += "; redirects are not followed"
    after = answer.headers.get("Retry-After") if status in _ASKS_FOR_TIME else None
    return Failed(
        retry_after_s=_seconds(after, now_s) if after else None,
        permanent=status == HTTPStatus.GONE,
        detail=detail,
    )


def _seconds(retry_after: str, now_s: int) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3); None if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # Digits beyond any sense are not worth an integer of their own.
        return min(float(text[:12]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.fromtimestamp(now_s, tz=UTC)
    return min(max(at_s.total_seconds(), 0.0), RETRY_AFTER_MAX_S)
