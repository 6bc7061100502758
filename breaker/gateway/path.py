"""
The path of a call, top to bottom. Read `Path.take` first.

    1 inspect   the contract, before any capacity is spent                 422
    2 admit     one atomic step in the store: every limit, and whose turn
                  queued  -> a job: acceptance.py, then dispatcher.py      202
                  waiting -> in arrival order over all replicas, at most max_wait
                  refused -> a problem that names the limit, with a ticket 429, 503
    3 forward   to the downstream, with what is left of the deadline       502, 504
                  forwarding.py; where the operation says `retry`, 2 to 4 again: direct_retries.py
    4 settle    the slot goes back, off the caller's way; on every exit
    5 emit      one event, from which metrics, log line and trace are made

Each accepted call ends in exactly one outcome, counted once.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

from breaker.core.events import Action, CallEnded, Listener, Outcome, Result
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, TooCostly
from breaker.gateway.acceptance import Acceptance, Answer, Replay
from breaker.gateway.call import Call, CallerError, Kind, Receipt, Refusal
from breaker.gateway.direct_retries import DirectRetries
from breaker.gateway.downstream import Response
from breaker.gateway.endings import CAPACITY_REASONS, outcome_of, problem_of, result_of, result_of_failure
from breaker.gateway.forwarding import Attempt, Forwarding, answer_lines
from breaker.gateway.gate import Gate
from breaker.gateway.headers import replay_lines
from breaker.gateway.inspection import inspect
from breaker.gateway.refusals import refused, too_costly


class Path:
    """What the gateway does with calls; one for all operations."""

    def __init__(self, gate: Gate, acceptance: Acceptance, emit: Listener, now: Callable[[], float]) -> None:
        self._gate, self._acceptance, self._emit, self._now = gate, acceptance, emit, now
        self._forwarding = Forwarding(gate, acceptance, now)
        self._retries = DirectRetries(self._forwarding, self._decide, emit, now)

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
        verdict = await self._decide(call, call.id, call.asked, call.deadline)
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

    async def _decide(
        self, call: Call, id_: str, now: float, until: float
    ) -> Admitted | Refused | TooCostly | Refusal:
        """May it start? Of each attempt, which has an id of its own, and must not wait beyond `until`."""
        work, lane = call.work, call.work.lane
        if until <= now:
            return Refusal(kind=Kind.DEADLINE, detail="the deadline came before the call could be decided")
        # A turn that comes when the caller has no time left for the work itself is worse than a refusal.
        wait_s = min(work.wait_s, until - now - lane.service_us / 1e6)
        ask = call.ask = Ask(
            id=id_,
            tenant=call.tenant if work.knows_tenants else "",
            cost=call.cost,
            wait_us=int(wait_s * 1e6) if wait_s > 0 else 0,
        )
        if self._gate.is_free(work):
            return Admitted(generation=lane.generation)
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
        policy = call.work.operation.direct_retry
        if policy is None:
            deadline = min(call.admitted + call.work.timeout_s, call.deadline)
            attempt = Attempt(call.ask, verdict, call.admitted, deadline)
            await self._forwarding.forward(call, attempt)
        else:
            attempt = await self._retries.forward(call, verdict, policy)
        if attempt.response is None or attempt.failure is not None:
            self._failed(call, attempt)
        else:
            self._forwarded(call, attempt.response)

    # 5. How it ended.

    def _queued(self, call: Call, receipt: Receipt) -> None:
        call.reply.accepted(call, receipt)
        reason = receipt.why or ("known" if receipt.is_known else "asked")
        self._ended(
            call, Outcome.QUEUED, reason, action=Action.QUEUED if receipt.why in CAPACITY_REASONS else None
        )

    def _replayed(self, call: Call, replay: Replay) -> None:
        """Its own job's answer, for which it waited; or one that was kept for its key."""
        outcome = Outcome.DELAYED if replay.is_first else Outcome.REPLAYED
        call.reply.kept(call, replay.result, outcome, replay_lines(replay))
        self._ended(call, outcome, "", action=Action.QUEUED if replay.is_first else None)

    def _forwarded(self, call: Call, response: Response) -> None:
        verdict = call.verdict
        if response.body is not None:
            call.reply.whole(response.status, response.reason, answer_lines(call, response), response.body)
        if call.reply.is_gone:
            self._ended(call, Outcome.ABANDONED, "hang_up", result_of(response))
        else:
            reason = (verdict and verdict.over) or ""
            self._ended(call, outcome_of(verdict), reason, result_of(response))

    def _failed(self, call: Call, attempt: Attempt) -> None:
        failure = attempt.failure
        if attempt.response is not None:
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
                downstream_s=now - call.admitted - call.paused if verdict else 0.0,
                result=result, action=action, shadow=verdict.shadow if verdict else None, span=call.span,
            )
        )  # fmt: skip
