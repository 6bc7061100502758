"""
Direct retries: the further attempts of a call that waits for its answer, where its operation says `retry`.

How long to pause, and how many may do so at once, is in `core/retry_budget.py`; one attempt, in `forwarding.py`.
Jobs are repeated by `runner.py`.

1. Only what does no harm twice: methods that are idempotent (RFC 9110, section 9.2.2), and calls whose caller sent
   an `Idempotency-Key`, because then the downstream can tell.
2. Only ends that may be others next time: no connection, one that broke, a timeout, a 5xx but 501; and 429 when it
   says how long it asks for. Never when `Breaker-Retry: never` says so, nor once any of an answer was passed on.
3. Each attempt is a start like any other. The slot of the one before goes back first, circuit and limits are asked
   again, and what they refuse does not become the caller's answer: it gets what the last attempt came to.
4. The call's deadline, and `for` after the first attempt began, end it all; `downstream.timeout` ends each attempt.
5. It stays one call, with one outcome. Once any attempt may have had an effect, the whole call may have had it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus

from breaker.core.circuit_policy import DirectRetry
from breaker.core.events import CallRetried, Listener, Result
from breaker.core.retry_budget import RetryBudget, pause_us
from breaker.core.verdict import Admitted
from breaker.gateway.call import Call
from breaker.gateway.downstream import ConnectFailed, Disconnected, DownstreamError, TimedOut
from breaker.gateway.endings import FOREVER
from breaker.gateway.forwarding import Attempt, Forwarding

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})

Decide = Callable[[Call, str, float, float], Awaitable[object]]


class DirectRetries:
    """
    What is done with a call that may start, and that may be tried again; one for all operations.

    Args:
        decide: Step 2 of the path for one attempt: the call, its id, now, and until when it may wait, loop seconds.
            Anything but `Admitted` ends the call.
        now: Loop seconds.

    """

    def __init__(
        self, forwarding: Forwarding, decide: Decide, emit: Listener, now: Callable[[], float]
    ) -> None:
        self._forwarding, self._decide, self._emit, self._now = forwarding, decide, emit, now
        self._budgets: dict[str, RetryBudget] = {}  # by operation; a reload keeps them, because calls go on

    async def forward(self, call: Call, verdict: Admitted, policy: DirectRetry) -> Attempt:
        """
        Send it until it succeeds, or there is no use, no time or no room; returns the last attempt.

        Raises:
            CancelledError: The caller hung up: in a pause always, otherwise if the operation ends with it.

        """
        budget = self._budgets.setdefault(call.work.operation.name, RetryBudget())
        # The first attempt has all of its time, as it has where nothing is repeated.
        deadline = min(call.admitted + call.work.timeout_s, call.deadline)
        attempt = Attempt(call.ask, verdict, call.admitted, deadline)
        attempt.is_repeatable = policy.attempts > 1 and does_no_harm_twice(call)
        until = call.deadline
        if policy.for_ms is not None:
            until = min(until, call.admitted + policy.for_ms / 1_000)
        may_have_run = False
        budget.calls += 1
        try:
            await self._forwarding.forward(call, attempt)
            while (pause_s := self._pause_s(call, attempt, policy, until)) is not None and budget.begin():
                try:
                    following = await self._start(call, attempt, pause_s, until)
                    if following is None:
                        break
                    following.is_repeatable = following.number < policy.attempts
                    await self._forwarding.forward(call, following)
                    may_have_run = may_have_run or had_perhaps_an_effect(attempt)
                    attempt = following
                finally:
                    budget.end()
        finally:
            budget.calls -= 1
        if may_have_run and isinstance(attempt.failure, DownstreamError):
            attempt.failure.sent = True  # perhaps not by the last attempt, but by one before
        return attempt

    def _pause_s(self, call: Call, attempt: Attempt, policy: DirectRetry, until: float) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        if not attempt.is_repeatable or call.reply.status or call.reply.is_gone or not is_worth_it(attempt):
            return None
        pause = pause_us(
            policy,
            attempts=attempt.number,
            left_us=None if until == FOREVER else int((until - self._now()) * 1e6),
            draw=random.random(),  # noqa: S311 - jitter is no secret
            retry_after_us=attempt.ended.retry_after_us,
        )
        return None if pause is None else pause / 1e6

    async def _start(self, call: Call, last: Attempt, pause_s: float, until: float) -> Attempt | None:
        """Pause, and ask for a start of its own; None when that is refused or comes too late."""
        number = last.number + 1
        call.ends_on_hang_up = True  # nothing is under way that a caller's hanging up could cut
        ended = self._now()
        try:
            await asyncio.sleep(pause_s)
            # Sorts behind the call's own id, and before that of the next call.
            verdict = await self._decide(call, f"{call.id}-{number}", self._now(), until)
        finally:
            started = self._now()
            call.paused += started - ended
        if not isinstance(verdict, Admitted):
            return None
        before = call.verdict or verdict
        call.verdict = replace(
            verdict,
            over=before.over or verdict.over,
            shadow=before.shadow or verdict.shadow,
            delayed=before.delayed or verdict.delayed,
        )
        self._emit(CallRetried(call.work.operation.name, last.ended.result))
        deadline = min(started + call.work.timeout_s, until)
        return Attempt(call.ask, verdict, started, deadline, number)


def does_no_harm_twice(call: Call) -> bool:
    """Rule 1."""
    return call.method in IDEMPOTENT or any(
        name.lower() == b"idempotency-key" and value.strip() for name, value in call.headers
    )


def is_worth_it(attempt: Attempt) -> bool:
    """Rule 2, of an attempt of which nothing was passed on."""
    response = attempt.response
    if response is None or attempt.failure is not None:
        return isinstance(attempt.failure, ConnectFailed | Disconnected | TimedOut)
    if any(
        name.lower() == b"breaker-retry" and value.strip().lower() == b"never"
        for name, value in response.headers
    ):
        return False
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        return attempt.ended.retry_after_us is not None
    return (
        response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and response.status != HTTPStatus.NOT_IMPLEMENTED
    )


def had_perhaps_an_effect(attempt: Attempt) -> bool:
    """Rule 5, of an attempt that failed; a downstream that asked for time did not try."""
    failure = attempt.failure
    return (
        failure.sent if isinstance(failure, DownstreamError) else attempt.ended.result is Result.SERVER_ERROR
    )
