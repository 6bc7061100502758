"""
Problems: refusals as RFC 9457 `application/problem+json`. The one place that maps them to HTTP.
"""

import random
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import orjson

from breaker.gateway.call import Call, Kind, Refusal
from breaker.gateway.headers import limit_words
from breaker.web.problem_types import PROBLEMS, type_uri

JITTER = 0.05  # of a retry ticket, so that callers with the same ticket do not come in step
# After these the rest of the request cannot be trusted, or will never come.
CLOSING = frozenset({Kind.BAD_REQUEST, Kind.PAYLOAD_TOO_LARGE, Kind.REQUEST_TIMEOUT})
CONTENT = b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n"


class Clock:
    """The `Date` line, made once a second."""

    def __init__(self) -> None:
        self._second, self._line = 0, b""

    def line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


CLOCK = Clock()


def problem(
    refusal: Refusal, call: Call | None = None, instance: str | None = None
) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of an answer of ours."""
    kind = PROBLEMS[refusal.kind]
    members: dict[str, Any] = {
        "type": type_uri(refusal.kind),
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.detail,
    }
    if call:
        members |= {
            "operation": call.work.operation.name,
            "decision": call.decision,
            "request_id": call.request_id,
        }
    if instance:
        members["instance"] = instance
    lines = CONTENT + CLOCK.line() + refusal.headers
    if refusal.policy:
        members |= {"policy": refusal.policy, "reason": refusal.policy}
        if call:
            members["limit"] = limit_words(call, refusal.policy)
    if refusal.retry_after_us is not None:
        spread = random.random() * JITTER  # noqa: S311 - spreading callers is no secret
        retry_ms = int(refusal.retry_after_us * (1 + spread)) // 1_000 + 1
        if call:
            retry_ms = min(retry_ms, call.work.operation.retry_after_max_ms)
        members["retry_after_ms"] = retry_ms
        lines += b"Retry-After: %d\r\n" % -(-retry_ms // 1_000)
    return kind.status, lines, orjson.dumps(members | dict(refusal.extra))


def bare_answer(status: int, kind: Kind | None, detail: str, *, close: bool) -> bytes:
    """A whole answer as bytes, for what never became a call."""
    phrase = HTTPStatus(status).phrase
    members = {
        "type": type_uri(kind) if kind else "about:blank",
        "title": phrase,
        "status": status,
        "detail": detail,
    }
    body = orjson.dumps(members)
    lines = CONTENT + (b"Connection: close\r\n" if close else b"")
    return b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
        status,
        phrase.encode(),
        lines,
        len(body),
        body,
    )
