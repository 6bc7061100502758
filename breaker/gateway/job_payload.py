"""
Job payloads: what is stored of a call that became a job, and of the answer that it got.

A stored value is one line of JSON, a line break, and the body as it is: small, readable in the store, and
no byte of a body is ever re-encoded. Header bytes stand in the JSON as Latin-1, which loses none.
Also here: the digests by which the store compares requests and batch keys without seeing them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import orjson

from breaker.gateway.passage import OURS_DOWN, OURS_UP, Headers

FORMAT = 1  # of both lines; the first field
HEADERS_MAX = 8_192  # bytes of an answer's header names and values that are kept
BEGINNING = 4_096  # bytes kept of an answer that is too long, for a person to read
DETAIL_MAX = 500  # characters

# What a downstream needs to understand the body and to answer in kind, and the trace that it belongs to.
_USUAL = frozenset(
    {b"content-type", b"content-encoding", b"accept", b"accept-language", b"traceparent", b"tracestate"}
)
_NEVER = OURS_DOWN | {b"idempotency-key"}  # ours to say: written anew on every attempt
_OUR_OWN = b"breaker-"
_NOT_KEPT = OURS_UP | {b"set-cookie"}


class BrokenPayloadError(ValueError):
    """What is stored cannot be read: it was damaged, or a newer version wrote it."""


class Kept(StrEnum):
    """How much of an answer's body is kept."""

    WHOLE = "whole"
    CUT = "cut"  # the beginning, since it is larger than may be kept
    DROPPED = "dropped"  # nothing, since the store is short of memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """
    A call as it will be sent.

    Attributes:
        target: Path and query for the downstream.
        headers: As sent, in their order; only those that a job keeps.
        body: As sent.

    """

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    request_id: str = ""

    def encode(self) -> bytes:
        line = [FORMAT, self.method, self.target.decode("latin-1"), self.request_id, _flat(self.headers)]
        return orjson.dumps(line) + b"\n" + self.body

    @staticmethod
    def decode(stored: bytes) -> "Payload":
        """
        Read it back.

        Raises:
            BrokenPayloadError: It cannot be read.

        """
        (method, target, request_id, headers), body = _read(stored, 4)
        return Payload(
            method=method,
            target=target.encode("latin-1"),
            headers=_pairs(headers),
            body=body,
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """
    How a job ended, as its caller may fetch it.

    Attributes:
        status: Of the downstream's answer; 0 when there was none.
        headers: Those that are kept, in their order.
        reason: Why it did not succeed, a word of `Reason`; empty when it did.
        detail: The same for a person, one sentence.

    """

    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    kept: Kept = Kept.WHOLE
    reason: str = ""
    detail: str = ""

    def encode(self) -> bytes:
        line = [FORMAT, self.status, _flat(self.headers), self.kept, self.reason, self.detail]
        return orjson.dumps(line) + b"\n" + self.body

    @staticmethod
    def decode(stored: bytes) -> "JobResult":
        """
        Read it back.

        Raises:
            BrokenPayloadError: It cannot be read.

        """
        (status, headers, kept, reason, detail), body = _read(stored, 5)
        return JobResult(
            status=status, headers=_pairs(headers), body=body, kept=Kept(kept), reason=reason, detail=detail
        )

    def without_body(self) -> "JobResult":
        """The same when the store is short of memory."""
        return replace(self, body=b"", kept=Kept.DROPPED)


def job_result(
    *,
    status: int | None,
    headers: Headers = (),
    body: bytes = b"",
    is_cut: bool = False,
    most: int,
    reason: str = "",
    detail: str = "",
) -> JobResult:
    """
    What is kept of an answer.

    Args:
        status: None when there was no answer.
        is_cut: The answer went on behind `body`.
        most: Bytes of body that may be kept.

    """
    is_whole = not is_cut and len(body) <= most
    return JobResult(
        status=status or 0,
        headers=_kept_of_answer(headers),
        body=body if is_whole else body[: min(most, BEGINNING)],
        kept=Kept.WHOLE if is_whole else Kept.CUT,
        reason=reason,
        # What a message quotes may be no text: it must not keep a job from its end.
        detail=detail[:DETAIL_MAX].encode("utf-8", "backslashreplace").decode(),
    )


def kept_headers(headers: Headers, store_headers: Iterable[str]) -> tuple[tuple[bytes, bytes], ...]:
    """
    The request headers that a job keeps: the usual ones, and those that the operation names.

    Never what belongs to one hop, to us, or to the caller's standing with us.
    """
    wanted = _USUAL | {name.lower().encode() for name in store_headers}
    listed = list(headers)
    never = _NEVER | _named_by_connection(listed)
    kept = []
    for name, value in listed:
        lowered = name.lower()
        if lowered in wanted and lowered not in never and not lowered.startswith(_OUR_OWN):
            kept.append((name, value))
    return tuple(kept)


def fingerprint(method: str, target: bytes, body: bytes) -> str:
    """What a request is, for telling whether a key is used for another one: 32 hex digits."""
    digest = blake2b(digest_size=16)
    for part in (method.encode(), target, body):
        # With its length, so that no part can pass for a piece of the next.
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()


def batch_line(tenant: str, value: Any) -> str:
    """
    The line of a tenant's jobs that may share a batch: `tenant~digest`.

    Args:
        value: What stands at the batch key's pointer; None when there is nothing. What is nested too deep
            to be written counts as nothing.

    """
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        text = b"null"
    return f"{tenant}~{blake2b(text, digest_size=6).hexdigest()}"


def _kept_of_answer(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """Those that say something about the answer, as far as there is room."""
    listed = list(headers)
    not_kept = _NOT_KEPT | _named_by_connection(listed)
    kept, size = [], 0
    for name, value in listed:
        if name.lower() in not_kept or size + len(name) + len(value) > HEADERS_MAX:
            continue
        size += len(name) + len(value)
        kept.append((name, value))
    return tuple(kept)


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Names that belong to this hop because the message says so (RFC 9110, section 7.6.1)."""
    named: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            named.update(part.strip().lower() for part in value.split(b","))
    return frozenset(named)


def _flat(headers: Headers) -> list[str]:
    return [part.decode("latin-1") for pair in headers for part in pair]


def _pairs(flat: list[str]) -> tuple[tuple[bytes, bytes], ...]:
    parts = [part.encode("latin-1") for part in flat]
    return tuple(zip(parts[::2], parts[1::2], strict=True))


def _read(stored: bytes, count: int) -> tuple[list[Any], bytes]:
    """The fields of the line behind its format, and the body."""
    line, found, body = stored.partition(b"\n")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise BrokenPayloadError(f"a stored value does not begin with a line of JSON: {exc}") from exc
    if not found or not isinstance(fields, list) or fields[:1] != [FORMAT] or len(fields) != count + 1:
        raise BrokenPayloadError(f"a stored value is not of format {FORMAT}: {line[:60]!r}")
    return fields[1:], body
