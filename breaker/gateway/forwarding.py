"""
Forwarding: one attempt of a call, from its start at the downstream until its slot is given back.

What is sent, how a long answer is passed on, and what capacity and circuit learn of the end. Whether another
attempt follows is decided in `direct_retries.py`; what the caller is told, in `path.py`.

1. What has been passed on cannot be taken back. So while another attempt may follow, the answer of a downstream
   that failed is read to its end first; one that is longer than `HELD_MAX` is passed on as it comes.
2. Only a body that is here can be sent again. It is waited for when it is stated to be short.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from breaker.core.events import Result
from breaker.core.state import Ask
from breaker.core.verdict import Admitted
from breaker.gateway.acceptance import Acceptance
from breaker.gateway.asked_time import retry_after_us
from breaker.gateway.call import Call, CallerError, Kind
from breaker.gateway.downstream import DownstreamError, Response, TimedOut
from breaker.gateway.endings import FOREVER, outcome_of, result_of, result_of_failure
from breaker.gateway.gate import Ended, Gate
from breaker.gateway.headers import our_lines, own_key
from breaker.gateway.passage import traced

HELD_MAX = 65_536  # bytes of a failing answer
DEADLINE_SLACK_S = 0.01  # timers may fire so much early
REPEATED_MAX = 1_048_576  # bytes of a request that is read in order to have it a second time


@dataclass(slots=True)
class Attempt:
    """
    One request of a call, and how it ended.

    Attributes:
        ask, verdict: By which it started, and by which its slot is given back.
        started, deadline: Loop seconds.
        number: From 1.
        is_repeatable: Another attempt may follow; it cannot when the body is not here to be sent again.
        begun: What was read of an answer that is passed on as it comes.
        response: None when there was none, or when it broke off before any of it was passed on.
        ended: The same end as capacity and circuit see it.

    """

    ask: Ask
    verdict: Admitted
    started: float
    deadline: float
    number: int = 1
    is_repeatable: bool = False
    begun: tuple[bytes, ...] = ()
    response: Response | None = None
    failure: DownstreamError | CallerError | None = None
    ended: Ended = field(default_factory=Ended)


class Forwarding:
    """What is done with a call that may start; one for all operations."""

    def __init__(self, gate: Gate, acceptance: Acceptance, now: Callable[[], float]) -> None:
        self._gate, self._acceptance, self._now = gate, acceptance, now

    async def forward(self, call: Call, attempt: Attempt) -> None:
        """
        Send it once, and give the slot back; how it ended stands in the attempt.

        Raises:
            CancelledError: The caller hung up, and the operation ends with it.

        """
        work, ended = call.work, attempt.ended
        self._gate.began(work, attempt.ask, attempt.verdict)
        try:
            call.ends_on_hang_up = work.ends_on_hang_up
            if attempt.is_repeatable and call.sent_body is None:
                await self._have_body(call, attempt)
            sent = self._now()
            response = await self._send(call, attempt)
            ended.took_us = int((self._now() - sent) * 1e6)
            if response.stream is not None and attempt.is_repeatable:
                response = await held_back(attempt, response)
            attempt.response = response
            if response.stream is not None:
                await self._relay(call, attempt, response)
            ended.result = result_of(response)
            ended.service_us = int((self._now() - attempt.started) * 1e6)
            if ended.result is Result.SLOW_DOWN:
                ended.retry_after_us = retry_after_us(response.headers, int(time.time() * 1e6))
        except ValueError as exc:
            attempt.failure = CallerError(Kind.BAD_REQUEST, f"the call cannot be passed on: {exc}")
        except (DownstreamError, CallerError) as exc:
            attempt.failure = exc
            ended.result = result_of_failure(exc)
            if isinstance(exc, TimedOut) and self._is_callers(call, attempt):
                ended.result = Result.ABANDONED  # the caller's haste says nothing of the downstream
            if attempt.response or (isinstance(exc, TimedOut) and exc.sent):
                ended.linger = work.linger  # the downstream still works on it
        except asyncio.CancelledError:
            ended.linger = work.linger
            raise
        finally:
            # On every exit, also when cancelled: the lease is the last resort, not the plan.
            self._gate.ended(work, attempt.ask, attempt.verdict, ended)
            if call.offer:
                self._acceptance.direct_ended(call, attempt.response, attempt.failure)

    def _is_callers(self, call: Call, attempt: Attempt) -> bool:
        """Whether the deadline that has come is not the operation's own."""
        own = attempt.started + call.work.timeout_s
        return attempt.deadline < own and self._now() >= attempt.deadline - DEADLINE_SLACK_S

    async def _have_body(self, call: Call, attempt: Attempt) -> None:
        """Rule 2; a caller that is slow with it must not be taken for a slow downstream."""
        body, operation = call.body, call.work.operation
        if body.length is not None and body.length <= REPEATED_MAX:
            seconds = min(operation.body_timeout_ms / 1_000, attempt.deadline - attempt.started)
            call.sent_body = await body.read(operation.body_max, seconds)

    def _send(self, call: Call, attempt: Attempt) -> Awaitable[Response]:
        work = call.work
        operation = work.operation
        body, length = call.sent_body, None
        stream = None
        if body is None:
            body = call.body.whole(operation.body_max)
        if body is None:
            attempt.is_repeatable = False
            length = call.body.length
            stream = call.body.pieces(operation.body_max, operation.body_timeout_ms / 1_000)
        if attempt.is_repeatable:
            call.sent_body = body  # it can be had only once
        left = attempt.deadline - attempt.started
        return work.pool.send(
            method=call.method.encode(),
            target=call.target,
            headers=passed_lines(call, attempt.number)
            + call.peer_lines
            + b"X-Request-Id: "
            + call.request_id.encode()
            + b"\r\n"
            + (b"" if call.deadline == FOREVER else b"Request-Timeout: %d\r\n" % max(1, int(left)))
            + (own_key(call) if call.offer else b""),
            body=body if stream is None else stream,
            content_length=length,
            deadline=attempt.deadline,
        )

    async def _relay(self, call: Call, attempt: Attempt, response: Response) -> None:
        """Pass a long body on, as fast as the caller takes it and no longer than the deadline."""
        stream, reply = response.stream, call.reply
        if stream is None:
            return
        deadline = attempt.started + call.work.timeout_s
        try:
            length = next(
                (int(value) for name, value in response.headers if name.lower() == b"content-length"), None
            )
            reply.start(response.status, response.reason, answer_lines(call, response), length)
            for piece in attempt.begun:
                await reply.piece(piece, deadline)
            async for piece in stream:
                await reply.piece(piece, deadline)
            reply.end()
        except TimeoutError as exc:
            # The caller's doing, not the downstream's, which must not be blamed for it.
            raise CallerError(Kind.REQUEST_TIMEOUT, "the caller did not take the answer in time") from exc
        finally:
            stream.close()


def passed_lines(call: Call, number: int) -> bytes:
    """The caller's header lines; a further attempt says so, so that a downstream can drop it first."""
    headers, span = call.headers, call.span
    if span is not None:
        headers = traced(headers, span, span.for_downstream)
    if number == 1:
        return call.work.down.lines(headers)
    sent = [line for line in headers if line[0].lower() != b"breaker-attempt"]
    return call.work.down.lines(sent) + b"Breaker-Attempt: %d\r\n" % number


def answer_lines(call: Call, response: Response) -> bytes:
    """All header lines of an answer of the downstream, but those of framing."""
    is_bodiless = call.method == "HEAD" or response.status == HTTPStatus.NOT_MODIFIED
    passed = (call.work.up_bodiless if is_bodiless else call.work.up).lines(response.headers)
    return passed + our_lines(call, outcome_of(call.verdict))


async def held_back(attempt: Attempt, response: Response) -> Response:
    """Rule 1: the answer with its whole body, if it says that the downstream failed, and is short."""
    stream, status = response.stream, response.status
    if stream is None or (
        status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS
    ):
        return response
    pieces: list[bytes] = []
    size = 0
    async for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size > HELD_MAX:
            attempt.begun = tuple(pieces)
            return response
    return replace(response, body=b"".join(pieces), stream=None)
