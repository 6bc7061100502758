"""
Asked time: for how long a downstream wants nothing, as the head of its answer says.

1. `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3). A date is held against the answer's own `Date`,
   so that the two clocks need not agree.
2. Else the rate limit fields of a quota that is used up: `RateLimit: "default";r=0;t=30`
   (draft-ietf-httpapi-ratelimit-headers-11), or `RateLimit-Remaining: 0` with `RateLimit-Reset: 30` of its older
   versions. Of several the longest counts: all of them must have room.
3. What cannot be read asks for nothing.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from breaker.core.retry import RETRY_AFTER_MAX_US
from breaker.gateway.passage import Headers

_SECONDS = re.compile(rb"[0-9]+")
_SECONDS_DIGITS = 9  # more than anybody waits
_USED_UP = re.compile(rb"(?:^|;)\s*r=0+\s*(?:;|$)")
_RESET = re.compile(rb"(?:^|;)\s*t=([0-9]+)\s*(?:;|$)")


def retry_after_us(headers: Headers, now_us: int) -> int | None:
    """
    Microseconds that the downstream asks for; None when it does not, or not so that it can be read.

    Args:
        now_us: Our time, for a date in an answer without `Date`.

    """
    value = value_of(headers, b"retry-after")
    asked = None if value is None else _retry_after_us(value.strip(), headers, now_us)
    return _quota_us(headers) if asked is None else asked


def is_slow_down(status: int, headers: Headers) -> bool:
    """429; and 503 that says for how long, which is no failure but a request for time."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    if status != HTTPStatus.SERVICE_UNAVAILABLE:
        return False
    return value_of(headers, b"retry-after") is not None or _quota_us(headers) is not None


def value_of(headers: Headers, wanted: bytes) -> bytes | None:
    """Of the first header of that name, in lower case."""
    return next((value for name, value in headers if name.lower() == wanted), None)


def _retry_after_us(value: bytes, headers: Headers, now_us: int) -> int | None:
    """Rule 1."""
    if _SECONDS.fullmatch(value):
        return _of_seconds(value)
    moment_us = _date_us(value)
    if moment_us is None:
        return None
    said_us = _date_us(value_of(headers, b"date") or b"")
    return max(0, moment_us - (now_us if said_us is None else said_us))


def _quota_us(headers: Headers) -> int | None:
    """Rule 2."""
    found = [
        _of_seconds(reset[1])
        for name, value in headers
        if name.lower() == b"ratelimit"
        for item in value.split(b",")
        if _USED_UP.search(item) and (reset := _RESET.search(item))
    ]
    if found:
        return max(found)
    left, reset_value = value_of(headers, b"ratelimit-remaining"), value_of(headers, b"ratelimit-reset")
    if left is None or reset_value is None or left.strip() != b"0":
        return None
    return _of_seconds(reset_value.strip()) if _SECONDS.fullmatch(reset_value.strip()) else None


def _of_seconds(digits: bytes) -> int:
    return int(digits) * 1_000_000 if len(digits) <= _SECONDS_DIGITS else RETRY_AFTER_MAX_US


def _date_us(value: bytes) -> int | None:
    """An HTTP date in microseconds since 1970."""
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:  # `-0000`: what HTTP calls GMT
        moment = moment.replace(tzinfo=UTC)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000
