"""
Channels over HTTP: one POST to a receiver, and what its answer means for whoever sends.

1. 2xx: taken, also when the rest of the answer never comes. The receiver has said that it has it.
2. 429, 408, 5xx, a redirect, no answer: later. `Retry-After` of 429 and 503 is heeded, within bounds.
3. Another 4xx: never. It will be refused as it is, however often.
4. What is said of a failure names the host at most: in the URL of a channel there may be a secret.
5. Redirects are not followed and proxies of the environment not used: an alert goes where the file says, or is said
   not to have arrived.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus

import aiohttp
import orjson

from breaker.signals.alert_text import plain
from breaker.signals.channels import ANSWER_MAX, SEND_S, Answer, Later, Never, Taken

RETRY_AFTER_MAX_S = 3_600.0  # a receiver may slow us down, not keep an alert from people for a day
DETAIL_MAX = 300  # characters
CONNECTIONS_MAX = 8
IDLE_S = 4.0  # many servers close after 5 s; a message that meets that moment is sent twice

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASKS_FOR_TIME = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    What a receiver answered.

    Attributes:
        body: As much of it as came, at most `ANSWER_MAX` bytes.
        after_s: Not again before so many seconds, as it asked; 0: it did not.

    """

    status: int
    body: bytes = b""
    after_s: float = 0.0

    @property
    def is_ok(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def judged(self, said: str = "") -> Answer:
        """
        Rules 1 to 3.

        Args:
            said: What it said of a failure, without secrets.

        """
        if self.is_ok:
            return Taken()
        detail = plain(f"answered {self.status}" + (f": {said}" if said else ""), DETAIL_MAX)
        if HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST:
            return Later(f"{detail}; redirects are not followed")
        if HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Later(detail, self.after_s) if self.status in _PASSING else Never(detail)
        return Later(detail, self.after_s)


class Poster:
    """
    Posts to one URL. Made anywhere, used inside a running loop, and ended with `close`.

    Args:
        send_s: Seconds that one attempt may take, from looking up the name to the last byte.
        now: Unix time, for a `Retry-After` that is a date.

    """

    def __init__(self, url: str, *, send_s: float = SEND_S, now: Callable[[], float] = time.time) -> None:
        self._url, self._send_s, self.now = url, send_s, now
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections; attempts under way fail."""
        if self._session:
            await self._session.close()
            self._session = None

    def deadline(self) -> float:
        """When an attempt that begins now must have ended, by the loop's clock: it may need several posts."""
        return asyncio.get_running_loop().time() + self._send_s

    async def post(
        self, body: bytes, *, headers: Mapping[str, str] | None = None, deadline: float | None = None
    ) -> Reply | Later:
        """
        Post this JSON.

        Args:
            deadline: Of the attempt that it is part of; None: it is one by itself.

        """
        loop = asyncio.get_running_loop()
        left_s = self._send_s if deadline is None else deadline - loop.time()
        if left_s <= 0:
            return self._too_slow()
        # aiohttp rounds times above the threshold up to whole seconds.
        timeout = aiohttp.ClientTimeout(total=left_s, ceil_threshold=self._send_s + 1)
        self._session = self._session or _session()
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False, timeout=timeout
            ) as answer:
                after_s = 0.0
                if answer.status in _ASKS_FOR_TIME:
                    after_s = seconds_of(answer.headers.get("Retry-After", ""), self.now())
                return Reply(status=answer.status, body=await _read(answer), after_s=after_s)
        except aiohttp.ClientConnectorCertificateError as exc:
            return Later(plain(f"cannot connect to {exc.host}: {exc.certificate_error}", DETAIL_MAX))
        except aiohttp.ClientConnectorError as exc:
            return Later(plain(f"cannot connect to {exc.host}: {exc.strerror or exc.os_error}", DETAIL_MAX))
        except TimeoutError:
            return self._too_slow()
        except (aiohttp.ClientError, OSError) as exc:
            # Their words may quote the URL.
            return Later(f"no answer that could be read ({type(exc).__name__})")

    def _too_slow(self) -> Later:
        return Later(f"no answer within {self._send_s:g} s")


def json_of(document: object) -> bytes:
    """As bytes. Words of the alert table are keys of labels, and orjson takes an enum for a string only when told to."""
    return orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)


def rfc3339(at_us: int) -> str:
    """Unix time in microseconds as text, UTC, to the millisecond."""
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(retry_after: str, now_s: float) -> float:
    """Of a `Retry-After`: seconds or a date (RFC 9110, section 10.2.3); 0 if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # Digits beyond any sense are not worth an integer of their own.
        return min(float(text[:12]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    left = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s
    return min(max(left, 0.0), RETRY_AFTER_MAX_S)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            ssl=_trust(),
            # The machine's own, as for downstreams, also where another one is installed.
            resolver=aiohttp.ThreadedResolver(),
            limit=CONNECTIONS_MAX,
            keepalive_timeout=IDLE_S,
        ),
        headers={"Content-Type": "application/json", "User-Agent": "Breaker", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        # An answer that is packed all the same is for nobody to read, and cannot be a bomb.
        auto_decompress=False,
    )


@cache
def _trust() -> ssl.SSLContext:
    # One for all channels: reading the machine's authorities takes 30 ms.
    return ssl.create_default_context()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The beginning of the answer. What goes wrong here changes nothing: the status has been said."""
    body = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        while part := await answer.content.read(ANSWER_MAX - len(body)):
            body += part
    return bytes(body)
