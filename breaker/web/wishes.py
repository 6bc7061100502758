"""
Wishes: the headers with which a caller says how it wants its job handled.

    Idempotency-Key       1 to 255 visible characters
    Prefer                respond-async, wait=N (RFC 7240)
    Breaker-Not-Before    a moment, RFC 3339
    Breaker-Expires-In    seconds, or a duration such as 10m
    Breaker-Band          critical, high, normal, low; only from callers that may name bands
    Breaker-Callback      a URL of the operation's allow-list

Only operations with a queue read them; anywhere else they pass, or mean nothing.
"""

import re
from datetime import datetime
from typing import Any

from breaker.core.callback_address import allowed
from breaker.core.job_policy import Band
from breaker.core.model import Operation
from breaker.gateway.call import NO_WISHES, Kind, Refusal, Wishes

KEY = re.compile(r"(?!-\Z)[\x21-\x7e]{1,255}\Z")  # a dash alone stands for none in the store
WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,5})\"?\s*\Z", re.IGNORECASE)
ASYNC = re.compile(r"\s*respond-async\s*\Z", re.IGNORECASE)
LENGTH = re.compile(r"(\d{1,9})(ms|s|m|h|d)?\Z")
UNITS_MS = {"ms": 1, "s": 1_000, None: 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
AHEAD_MAX_US = 90 * 86_400_000_000  # no calendar is known further ahead
EXPIRES_IN_MAX_MS = 365 * 86_400_000
READ = (
    "Idempotency-Key",
    "Prefer",
    "Breaker-Not-Before",
    "Breaker-Expires-In",
    "Breaker-Band",
    "Breaker-Callback",
)


def wishes_of(headers: Any, operation: Operation, *, may_name_band: bool, now_us: int) -> Wishes | Refusal:
    """
    Read them, or say which one cannot be read.

    Args:
        headers: Of the request, a case-insensitive mapping.
        now_us: Microseconds since 1970.

    """
    key = headers.get("Idempotency-Key", "")
    if operation.idempotency.is_required and not key:
        return Refusal(
            kind=Kind.IDEMPOTENCY_KEY_MISSING,
            detail=f"{operation.name} wants an Idempotency-Key: a value of its own for each piece of work, "
            "the same when the request is repeated",
        )
    if not any(name in headers for name in READ):
        return NO_WISHES
    # An empty one, too: its sender believes in a protection that is not there.
    if "Idempotency-Key" in headers and not KEY.match(key):
        return bad("Idempotency-Key must be 1 to 255 visible characters without spaces, not a dash alone")
    if len(headers.getall("Idempotency-Key", ())) > 1:
        return bad("Idempotency-Key stands there more than once")
    is_async, wait_s = preferences(headers.getall("Prefer", ()))
    not_before_us = moment_us(headers.get("Breaker-Not-Before"))
    if not_before_us is None or not_before_us > now_us + AHEAD_MAX_US:
        return bad("Breaker-Not-Before must be a moment within 90 days, such as 2026-12-24T08:00:00Z")
    expires_in_ms = length_ms(headers.get("Breaker-Expires-In"))
    if expires_in_ms is not None and not 0 < expires_in_ms <= EXPIRES_IN_MAX_MS:
        return bad("Breaker-Expires-In must be seconds or a duration, 1ms to 365d, such as 600 or 10m")
    word = headers.get("Breaker-Band")
    if word is not None and word not in list(Band):
        return bad(f"Breaker-Band must be one of {', '.join(Band)}")
    callback = headers.get("Breaker-Callback", "")
    if callback and (reason := callback_problem(operation, callback)):
        return bad(f"Breaker-Callback: {reason}")
    return Wishes(
        key=key, is_async=is_async, wait_s=wait_s, not_before_us=not_before_us, expires_in_ms=expires_in_ms,
        band=Band(word) if word and may_name_band else None, callback=callback,
    )  # fmt: skip


def preferences(values: Any) -> tuple[bool, float | None]:
    """`respond-async`, and the seconds of `wait`; what is not known is ignored (RFC 7240, section 2)."""
    is_async, wait_s = False, None
    for part in ",".join(values).split(","):
        word = part.partition(";")[0]
        if found := WAIT.match(word):
            wait_s = float(found[1])
        elif ASYNC.match(word):
            is_async = True
    return is_async, wait_s


def moment_us(text: str | None) -> int | None:
    """Microseconds since 1970; 0 when nothing is said, None when it cannot be read."""
    if text is None:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0, int(moment.timestamp() * 1e6))


def length_ms(text: str | None) -> int | None:
    """Milliseconds; None when nothing is said, 0 when it cannot be read."""
    if text is None:
        return None
    found = LENGTH.match(text)
    return int(found[1]) * UNITS_MS[found[2]] if found else 0


def callback_problem(operation: Operation, url: str) -> str | None:
    if operation.callback is None:
        return f"{operation.name} calls nobody back"
    return allowed(url, operation.callback.allow)


def bad(detail: str) -> Refusal:
    return Refusal(kind=Kind.BAD_REQUEST, detail=detail)
