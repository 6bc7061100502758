"""
Attempt: one request of a job, and what came back.

Belongs here: how a job looks on the wire, and reading an answer to its end. What the end means for the job is
decided in `core/retry.py`; several jobs in one request are in `batches.py`.

1. The key that the downstream deduplicates by is the caller's, or else the job's id: the same on every
   attempt. `Breaker-Job` and `Breaker-Attempt` tell attempts apart.
2. The credential is that of the configuration, as it is now.
3. With `effects: once` not even the connection pool may send twice. It would repeat a PUT or DELETE that met a
   closing connection, unless the body comes in pieces.
4. An answer counts when it is complete. One that breaks off may be the head of a success that never was.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from breaker.core.events import Result
from breaker.core.job_policy import Effects
from breaker.core.jobs import JobHead, LeasedJob
from breaker.core.retry import Failed, FailureClass, classify
from breaker.gateway.asked_time import retry_after_us, value_of
from breaker.gateway.downstream import ConnectFailed, DownstreamError, Response, TimedOut, TooLarge
from breaker.gateway.endings import result_of, result_of_failure
from breaker.gateway.job_payload import Payload
from breaker.gateway.work import Work

_POOL_MAY_REPEAT = frozenset({"PUT", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """
    How one attempt ended.

    Attributes:
        status: Of a complete answer; None when there was none.
        headers: Of the answer, as sent.
        body: As much of it as was asked for; `is_cut` when there was more.
        failed: Why the answer cannot be used; None when it can.
        was_sent: The request may have reached the downstream.
        retry_after_us: What the answer asked for; None when it did not.
        says_never: It said `Breaker-Retry: never`.
        service_us: How long the downstream took; 0 when there was no answer. Of one among several in a batch:
            its share.
        detail: One sentence for a person when there was no answer that can be used, else empty.
        result: The same end for circuits and metrics.

    """

    status: int | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    is_cut: bool = False
    failed: Failed | None = None
    was_sent: bool = True
    retry_after_us: int | None = None
    says_never: bool = False
    service_us: int = 0
    detail: str = ""
    result: Result

    @property
    def failure(self) -> FailureClass | None:
        """Whose failure it was; None when it succeeded."""
        return classify(
            status=self.status, retry_after_us=self.retry_after_us, was_sent=self.was_sent, failed=self.failed
        )


def job_id(operation: str, head: JobHead) -> str:
    """The id by which callers and downstreams know a job."""
    return f"{operation}~{head.id}"


def downstream_key(operation: str, head: JobHead) -> str:
    """The key that the downstream deduplicates by."""
    return head.key or job_id(operation, head)


async def attempt(work: Work, job: LeasedJob, payload: Payload, *, now_us: int, most: int) -> Attempted:
    """
    Send a job once, and read the whole answer.

    Args:
        now_us: The store's time.
        most: Bytes of the answer's body that are wanted; the rest is read and dropped.

    Raises:
        CancelledError: The attempt was given up; whether it took effect is not known.

    """
    name = work.operation.name
    own = (
        f"Idempotency-Key: {downstream_key(name, job.head)}\r\n"
        f"Breaker-Job: {job_id(name, job.head)}\r\nBreaker-Attempt: {job.head.attempt}\r\n"
    ) + (f"X-Request-Id: {payload.request_id}\r\n" if payload.request_id else "")
    return await exchange(
        work,
        method=payload.method,
        target=payload.target,
        lines=work.down.lines(payload.headers) + own.encode(),
        body=payload.body or None,
        now_us=now_us,
        most=most,
        is_once=work.operation.effects is Effects.ONCE and payload.method in _POOL_MAY_REPEAT,
    )


async def probe(work: Work, key: str, *, now_us: int) -> bool | None:
    """
    Ask the downstream whether the work of this key happened.

    Args:
        key: As `downstream_key` says.
        now_us: The store's time.

    Returns:
        None when it does not say, or the operation has no probe.

    """
    match = work.operation.probe
    if match is None:
        return None
    target = match.template.replace("{idempotency_key}", quote(key, safe=""))
    answer = await exchange(
        work, method=match.method, target=target.encode(), lines=work.down.lines(()), body=None,
        now_us=now_us, most=0,
    )  # fmt: skip
    if answer.failure is None:
        return True
    return False if answer.failed is None and answer.status == HTTPStatus.NOT_FOUND else None


async def exchange(
    work: Work,
    *,
    method: str,
    target: bytes,
    lines: bytes,
    body: bytes | None,
    now_us: int,
    most: int,
    is_once: bool = False,
) -> Attempted:
    """
    One request to the operation's downstream, and the whole answer, within its timeout.

    Args:
        lines: Complete header lines.
        now_us: The store's time.
        most: Bytes of the answer's body that are wanted.
        is_once: Rule 3.

    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        response = await work.pool.send(
            method=method.encode(), target=target, headers=lines,
            body=_in_pieces(body or b"") if is_once else body,
            content_length=len(body or b"") if is_once else None,
            deadline=started + work.timeout_s,
        )  # fmt: skip
        content, is_cut = await _read(response, most)
    except ValueError as exc:
        return Attempted(
            failed=Failed.UNSENDABLE, was_sent=False, detail=f"it cannot be sent: {exc}",
            result=result_of_failure(None),
        )  # fmt: skip
    except DownstreamError as exc:
        return Attempted(
            failed=_failed(exc), was_sent=exc.sent, detail=f"{work.operation.name} gave no usable answer: {exc}",
            result=result_of_failure(exc),
        )  # fmt: skip
    took_us = int((loop.time() - started) * 1e6)
    return Attempted(
        status=response.status,
        headers=response.headers,
        body=content,
        is_cut=is_cut,
        retry_after_us=retry_after_us(response.headers, now_us + took_us),
        says_never=(value_of(response.headers, b"breaker-retry") or b"").strip().lower() == b"never",
        service_us=max(1, took_us),
        result=result_of(response),
    )


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _read(response: Response, most: int) -> tuple[bytes, bool]:
    """The first `most` bytes of a body that is read to its end, and whether there was more."""
    if response.stream is None:
        body = response.body or b""
        return body[:most], len(body) > most
    pieces, size = [], 0
    async for piece in response.stream:
        if size < most:
            pieces.append(piece[: most - size])
        size += len(piece)
    return b"".join(pieces), size > most


def _failed(error: DownstreamError) -> Failed:
    match error:
        case ConnectFailed() | TimedOut(phase="connect"):
            return Failed.CONNECT
        case TimedOut():
            return Failed.TIMEOUT
        case TooLarge():
            return Failed.TOO_LARGE
        case _:
            return Failed.BROKEN
