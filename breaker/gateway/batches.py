"""
Batches: several jobs in one request, and an end for each.

Sent is `{"items": [{"idempotency_key", "params", "body"}]}`, with each body as its caller sent it; answered is
`{"results": [{"status", "body"}]}`, in the same order. So one bad item fails alone.

1. A body is spliced in unchanged, so it must be JSON: anything else could pass for items of its own.
2. A batch that is refused as a whole by a complete 4xx is sent again in halves, the first half first, until
   the item that it is about stands alone. That takes at most twice as many requests as there are items,
   and halves down to one in log2 steps.
3. Any other end of a whole request is the end of each of its items. When the downstream asks for time,
   those that were not sent yet wait as well.
4. Each request has the downstream's whole timeout, since one that is cut short by our own haste would have
   an outcome that nobody knows. After `PATIENCE` timeouts no further request begins; what is left was
   not executed, and goes back. Unless nothing came of all this: then it is a failure of each, so that
   the same jobs do not come round for ever.
5. An answer that was not agreed on may stand for anything: every item is ambiguous.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson

from breaker.core.events import Result
from breaker.core.job_policy import Batch
from breaker.core.jobs import LeasedJob
from breaker.core.model import Operation
from breaker.core.retry import Failed, FailureClass
from breaker.gateway.attempt import Attempted, downstream_key, exchange
from breaker.gateway.contract import NotJsonError, parse
from breaker.gateway.downstream import Response
from breaker.gateway.endings import result_of
from breaker.gateway.job_payload import Payload
from breaker.gateway.work import Work

PATIENCE = 4  # timeouts of the downstream in which requests of one batch may begin
ENVELOPE = 4_096  # bytes of an answer beside its bodies, for each item
_JSON = ((b"Content-Type", b"application/json"),)
_ENDS = range(200, 600)  # statuses that an item can end with
_UNDIVIDED = Attempted(
    failed=Failed.TIMEOUT, was_sent=False, result=Result.TIMEOUT,
    detail="the batch was refused as a whole, and there was no time to find out which item it was about",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One job of a batch: its place among them, and what is sent for it."""

    index: int
    text: bytes


async def send_batch(
    work: Work, batch: Batch, jobs: Sequence[tuple[LeasedJob, Payload]], *, now_us: int, most: int
) -> list[Attempted | None]:
    """
    Send the jobs of a batch, and say how each ended, in their order.

    Args:
        now_us: The store's time.
        most: Bytes of each item's answer that may be kept.

    Returns:
        None for a job that was not executed: it goes back.

    Raises:
        CancelledError: The batch was given up; what took effect is not known.

    """
    clock = asyncio.get_running_loop().time
    ends: list[Attempted | None] = [None] * len(jobs)
    items = []
    for index, (job, payload) in enumerate(jobs):
        try:
            items.append(_Item(index=index, text=_text(work.operation, job, payload)))
        except ValueError as exc:
            ends[index] = _unsendable(str(exc))
    started = clock()
    todo = [items] if items else []
    is_settled = False
    while todo and clock() < started + PATIENCE * work.timeout_s:
        part = todo.pop()
        answer = await _post(
            work, batch, jobs, part, now_us=now_us + int((clock() - started) * 1e6), most=most
        )
        if len(part) > 1 and _is_refused(answer):
            half = len(part) // 2
            todo += [part[half:], part[:half]]
            continue
        is_settled = True
        for item, end in zip(part, _ends(answer, len(part)), strict=True):
            ends[item.index] = end
        if answer.failure is FailureClass.SLOW_DOWN:
            _end_all(ends, todo, answer)
            return ends
    if not is_settled:
        _end_all(ends, todo, _UNDIVIDED)
    return ends


def _end_all(ends: list[Attempted | None], parts: list[list[_Item]], end: Attempted) -> None:
    for part in parts:
        for item in part:
            ends[item.index] = replace(end, service_us=0)


async def _post(
    work: Work,
    batch: Batch,
    jobs: Sequence[tuple[LeasedJob, Payload]],
    part: Sequence[_Item],
    *,
    now_us: int,
    most: int,
) -> Attempted:
    """One request with these items."""
    # Named after the slot that the batch holds; the callers' own request ids are too many for one header.
    request_id = f"X-Request-Id: {jobs[0][0].slot}.{part[0].index}-{len(part)}\r\n"
    return await exchange(
        work,
        method="POST",
        target=batch.path.encode(),
        lines=work.down.lines(_JSON) + request_id.encode(),
        body=b'{"items":[%b]}' % b",".join(item.text for item in part),
        now_us=now_us,
        most=len(part) * (most + ENVELOPE),
    )


def _is_refused(answer: Attempted) -> bool:
    """A complete 4xx. A redirect is not about an item."""
    return answer.failure is FailureClass.CALLER and (answer.status or 0) >= HTTPStatus.BAD_REQUEST


# What is sent.


def _text(operation: Operation, job: LeasedJob, payload: Payload) -> bytes:
    """
    A job as an item.

    Raises:
        ValueError: It cannot be one; says why.

    """
    body = payload.body or b"null"
    try:
        parse(body)
    except NotJsonError as exc:
        raise ValueError(f"it cannot go into a batch: {exc}") from exc
    key = downstream_key(operation.name, job.head)
    params = params_of(operation, payload.target)
    return b'{"idempotency_key":%b,"params":%b,"body":%b}' % (orjson.dumps(key), orjson.dumps(params), body)


def params_of(operation: Operation, target: bytes) -> dict[str, str]:
    """
    The values of the template's parameters in a target, decoded.

    Raises:
        ValueError: The target is not of the template (any more).

    """
    template = operation.downstream.path or operation.match.template
    names, values = template.split("/"), target.partition(b"?")[0].split(b"/")
    is_alike = len(names) == len(values) and all(
        bool(value) if name.startswith("{") else name.encode() == value
        for name, value in zip(names, values, strict=False)
    )
    if not is_alike:
        raise ValueError(f"its target {target[:200]!r} is not one of {template}")
    return {
        name[1:-1]: _decoded(value) for name, value in zip(names, values, strict=True) if name.startswith("{")
    }


def _decoded(segment: bytes) -> str:
    """Percent-decoded, or as it was when that is no text: two values must not become one."""
    plain = unquote_to_bytes(segment)
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return quote_from_bytes(plain)


def _unsendable(detail: str) -> Attempted:
    return Attempted(failed=Failed.UNSENDABLE, was_sent=False, detail=detail, result=Result.ABANDONED)


# What is answered.


def _ends(answer: Attempted, count: int) -> list[Attempted]:
    """The end of each item of a request that was not refused."""
    share_us = -(-answer.service_us // count)
    if answer.failure is not None:
        return [replace(answer, service_us=share_us)] * count
    results = _results(answer, count)
    if results is None:
        detail = f"the batch was answered with {answer.status}, but not with {count} results"
        return [replace(answer, failed=Failed.BROKEN, detail=detail, service_us=share_us)] * count
    return [_end(result, share_us) for result in results]


def _results(answer: Attempted, count: int) -> list[Any] | None:
    """The list that was agreed on; None when it is not there."""
    try:
        value = parse(answer.body)
    except NotJsonError:
        return None
    results = value.get("results") if isinstance(value, dict) else None
    return results if isinstance(results, list) and len(results) == count else None


def _end(result: Any, share_us: int) -> Attempted:
    """The end of one item by its own result."""
    status = result.get("status") if isinstance(result, dict) else None
    if not isinstance(status, int) or status not in _ENDS:
        return Attempted(
            failed=Failed.BROKEN, service_us=share_us, result=Result.SERVER_ERROR,
            detail="its result in the batch's answer has no usable status",
        )  # fmt: skip
    body, is_cut = _body(result)
    plain = Response(status=status, reason="", headers=[], body=None, stream=None)
    return Attempted(
        status=status, headers=_JSON if body else (), body=body, is_cut=is_cut, service_us=share_us,
        result=result_of(plain),
    )  # fmt: skip


def _body(result: dict[str, Any]) -> tuple[bytes, bool]:
    if "body" not in result:
        return b"", False
    try:
        return orjson.dumps(result["body"]), False
    except orjson.JSONEncodeError:  # nested deeper than can be written: the status stands all the same
        return b"", True
