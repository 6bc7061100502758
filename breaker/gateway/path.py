"""
The path of a call, top to bottom. Read `Path.take` first.

    1 inspect   the contract, before any capacity is spent                 422
    2 admit     one atomic step in the store: every limit, and whose turn
                  queued  -> a job: acceptance.py, then dispatcher.py      202
                  waiting -> in arrival order over all replicas, at most max_wait
                  refused -> a problem that names the limit, with a ticket 429, 503
    3 forward   to the downstream, with what is left of the deadline       502, 504
    4 settle    the slot goes back, off the caller's way; on every exit
    5 emit      one event, from which metrics, log line and trace are made

Each accepted call ends in exactly one outcome, counted once.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import assert_never

from breaker.core.events import Action, CallEnded, Listener, Outcome, Result
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, TooCostly
from breaker.gateway.acceptance import Acceptance, Answer, Replay
from breaker.gateway.attempt import retry_after_us
from breaker.gateway.call import Call, CallerError, Kind, Receipt, Refusal
from breaker.gateway.downstream import DownstreamError, Response, TimedOut
from breaker.gateway.endings import (
    CAPACITY_REASONS,
    FOREVER,
    outcome_of,
    problem_of,
    result_of,
    result_of_failure,
)
from breaker.gateway.gate import Ended, Gate
from breaker.gateway.headers import our_lines, own_key, replay_lines
from breaker.gateway.inspection import inspect
from breaker.gateway.refusals import refused, too_costly


class Path:
    """What the gateway does with calls; one for all operations."""

    def __init__(self, gate: Gate, acceptance: Acceptance, emit: Listener, now: Callable[[], float]) -> None:
        self._gate, self._acceptance, self._emit, self._now = gate, acceptance, emit, now

    async def take(self, call: Call) -> None:
        """
        Take a call to its end.

        Raises:
            CancelledError: Its caller hung up. The call was counted all the same.
            Exception: A mistake of ours; likewise.
        """
        try:
            refusal = await inspect(call)
            decide = self._accept if call.work.operation.queue else self._admit
            verdict = refusal or await decide(call)
            match verdict:
                case Refusal():
                    self._refuse(call, verdict)
                case Receipt():
                    self._queued(call, verdict)
                case Replay():
                    self._replayed(call, verdict)
                case Admitted():
                    call.verdict = verdict
                    await self._forward(call, verdict)
                case _:
                    assert_never(verdict)
        except asyncio.CancelledError:
            self._ended(call, Outcome.ABANDONED, "hang_up")
            raise
        except Exception:
            self._ended(call, Outcome.UNKNOWN if call.verdict else Outcome.FAILED, "bug")
            raise
        await call.reply.drain()

    # 2. Admission.

    async def _admit(self, call: Call) -> Admitted | Refusal:
        call.asked = self._now()
        verdict = await self._decide(call)
        call.admitted = self._now()
        match verdict:
            case Admitted() | Refusal():
                return verdict
            case Refused():
                if call.deadline <= call.admitted:
                    return Refusal(
                        kind=Kind.DEADLINE, detail="the deadline came while the call waited for its turn"
                    )
                return refused(call, verdict)
            case TooCostly():
                return too_costly(call, verdict)
            case _:
                assert_never(verdict)

    async def _decide(self, call: Call) -> Admitted | Refused | TooCostly | Refusal:
        work, lane = call.work, call.work.lane
        if call.deadline <= call.asked:
            return Refusal(kind=Kind.DEADLINE, detail="the deadline came before the call could be decided")
        if not work.is_limited:
            return Admitted()
        # A turn that comes when the caller has no time left for the work itself is worse than a refusal.
        wait_s = min(work.wait_s, call.deadline - call.asked - lane.service_us / 1e6)
        ask = call.ask = Ask(
            id=call.id,
            tenant=call.tenant if work.knows_tenants else "",
            cost=call.cost,
            wait_us=int(wait_s * 1e6) if wait_s > 0 else 0,
        )
        return await self._gate.admit(work, ask)

    async def _accept(self, call: Call) -> Answer:
        """The same for an operation with a queue: what cannot start now is a job."""
        call.asked = self._now()
        if call.deadline <= call.asked:
            call.admitted = call.asked
            return Refusal(kind=Kind.DEADLINE, detail="the deadline came before the call could be decided")
        tenant = call.tenant if call.work.knows_tenants else ""
        call.ask = Ask(id=call.id, tenant=tenant, cost=call.cost)
        answer = await self._acceptance.decide(call, call.asked)
        call.admitted = self._now()
        return answer

    # 3 and 4. Forward, and give the slot back.

    async def _forward(self, call: Call, verdict: Admitted) -> None:
        work = call.work
        self._gate.began(work, call.ask, verdict)
        ended = Ended()
        response: Response | None = None
        failure: DownstreamError | CallerError | None = None
        try:
            call.ends_on_hang_up = work.ends_on_hang_up
            response = await self._send(call)
            if response.stream is not None:
                await self._relay(call, response)
            ended.result, ended.service_us = result_of(response), int((self._now() - call.admitted) * 1e6)
            if ended.result is Result.SLOW_DOWN:
                ended.retry_after_us = retry_after_us(response.headers, int(time.time() * 1e6))
        except ValueError as exc:
            failure = CallerError(Kind.BAD_REQUEST, f"the call cannot be passed on: {exc}")
        except (DownstreamError, CallerError) as exc:
            failure = exc
            ended.result = result_of_failure(exc)
            if response or (isinstance(exc, TimedOut) and exc.sent):
                ended.linger = work.linger  # the downstream still works on it
        except asyncio.CancelledError:
            ended.linger = work.linger
            raise
        finally:
            # On every exit, also when cancelled: the lease is the last resort, not the plan.
            self._gate.ended(work, call.ask, verdict, ended)
            if call.offer:
                self._acceptance.direct_ended(call, response, failure)
        if response is None or failure is not None:
            self._failed(call, failure, response)
        else:
            self._forwarded(call, verdict, response)

    async def _send(self, call: Call) -> Response:
        work = call.work
        operation = work.operation
        now = call.admitted
        deadline = min(now + work.timeout_s, call.deadline)
        body, length = call.sent_body, None
        stream = None
        if body is None:
            body = call.body.whole(operation.body_max)
        if body is None:
            length = call.body.length
            stream = call.body.pieces(operation.body_max, operation.body_timeout_ms / 1_000)
        left = b"" if call.deadline == FOREVER else b"Request-Timeout: %d\r\n" % max(1, int(deadline - now))
        return await work.pool.send(
            method=call.method.encode(),
            target=call.target,
            headers=work.down.lines(call.headers)
            + call.peer_lines
            + b"X-Request-Id: "
            + call.request_id.encode()
            + b"\r\n"
            + left
            + (own_key(call) if call.offer else b""),
            body=body if stream is None else stream,
            content_length=length,
            deadline=deadline,
        )

    async def _relay(self, call: Call, response: Response) -> None:
        """Pass a long body on, as fast as the caller takes it and no longer than the deadline."""
        stream, reply = response.stream, call.reply
        if stream is None:
            return
        try:
            length = next(
                (int(value) for name, value in response.headers if name.lower() == b"content-length"), None
            )
            reply.start(response.status, response.reason, self._lines(call, response), length)
            async for piece in stream:
                await reply.piece(piece, call.admitted + call.work.timeout_s)
            reply.end()
        except TimeoutError as exc:
            # The caller's doing, not the downstream's, which must not be blamed for it.
            raise CallerError(Kind.REQUEST_TIMEOUT, "the caller did not take the answer in time") from exc
        finally:
            stream.close()

    def _lines(self, call: Call, response: Response) -> bytes:
        """All header lines of an answer of the downstream, but those of framing."""
        is_bodiless = call.method == "HEAD" or response.status == HTTPStatus.NOT_MODIFIED
        passed = (call.work.up_bodiless if is_bodiless else call.work.up).lines(response.headers)
        return passed + our_lines(call, outcome_of(call.verdict))

    # 5. How it ended.

    def _queued(self, call: Call, receipt: Receipt) -> None:
        call.reply.accepted(call, receipt)
        reason = receipt.why or ("known" if receipt.is_known else "asked")
        self._ended(call, Outcome.QUEUED, reason, action=Action.QUEUED if receipt.why else None)

    def _replayed(self, call: Call, replay: Replay) -> None:
        """Its own job's answer, for which it waited; or one that was kept for its key."""
        outcome = Outcome.DELAYED if replay.is_first else Outcome.REPLAYED
        call.reply.kept(call, replay.result, outcome, replay_lines(replay))
        self._ended(call, outcome, "", action=Action.QUEUED if replay.is_first else None)

    def _forwarded(self, call: Call, verdict: Admitted, response: Response) -> None:
        if response.body is not None:
            call.reply.whole(response.status, response.reason, self._lines(call, response), response.body)
        if call.reply.is_gone:
            self._ended(call, Outcome.ABANDONED, "hang_up", result_of(response))
        else:
            self._ended(call, outcome_of(verdict), verdict.over or "", result_of(response))

    def _failed(
        self, call: Call, failure: DownstreamError | CallerError | None, response: Response | None
    ) -> None:
        if response is not None:
            # The head is out already, so the only honest end is a visible break.
            call.reply.abort()
            outcome = Outcome.ABANDONED if isinstance(failure, CallerError) else Outcome.FAILED
            self._ended(call, outcome, "cut", result_of_failure(failure))
            return
        if isinstance(failure, CallerError) and call.reply.is_gone:
            self._ended(call, Outcome.ABANDONED, "hang_up", Result.ABANDONED)
            return
        refusal = problem_of(call, failure, self._now())
        call.reply.refuse(call, refusal)
        self._ended(call, refusal.outcome, refusal.kind, result_of_failure(failure))

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        call.reply.refuse(call, refusal)
        is_capacity = refusal.policy is not None and refusal.kind is not Kind.TOO_COSTLY
        outcome = Outcome.UNKNOWN if refusal.outcome is Outcome.UNKNOWN else Outcome.REFUSED
        self._ended(call, outcome, (is_capacity and refusal.policy) or refusal.kind)

    def _ended(
        self,
        call: Call,
        outcome: Outcome,
        reason: str,
        result: Result | None = None,
        action: Action | None = None,
    ) -> None:
        if call.is_ended:
            return
        call.is_ended = True
        now, verdict = self._now(), call.verdict
        if outcome is Outcome.ABANDONED and result is None and verdict:
            result = Result.ABANDONED
        if verdict is None:
            action = Action.REFUSED if outcome is Outcome.REFUSED and reason in CAPACITY_REASONS else action
        elif verdict.over:
            action = Action.LET_THROUGH
        elif verdict.delayed:
            action = Action.DELAYED
        self._emit(
            CallEnded(
                operation=call.work.operation.name, outcome=outcome, reason=reason, status=call.reply.status,
                caller=call.caller, tenant=call.tenant, decision=call.decision, request_id=call.request_id,
                trace_id=call.trace_id, duration_s=now - call.started,
                admission_s=(call.admitted or now) - call.started,
                downstream_s=now - call.admitted if verdict else 0.0,
                result=result, action=action, shadow=verdict.shadow if verdict else None,
            )
        )  # fmt: skip
