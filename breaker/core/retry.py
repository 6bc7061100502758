"""
Retry: what the end of an attempt means, and what becomes of its job.

Pure: the moment and the chance are arguments. Both a single call and an item of a batch are judged here.

1. The caller's mistake (4xx) is final. So is a redirect: it is an answer, nobody follows it with a job's
   body and credential, and asking again brings the same one.
2. A downstream that failed (no connection, a complete 5xx) is asked again, with full jitter over
   `min(cap, base * 2^n)` (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
   Bounded by time since the first attempt, and by a number if one is stated. A pause that would end
   after the budget is not begun: the job is dead now, not later.
3. A downstream that asks for time (429; 503, or 409, with Retry-After) gets it, and no attempt is used: it
   did not try. A 409 so says that it still works on the same key (draft-ietf-httpapi-idempotency-key-header-07,
   section 2.6): final would be a success that is told as dead. Jobs told the same moment come back spread
   over one `base` behind it. The bound is a day, or the retry budget if that is longer: quotas that are
   renewed daily pass, a downstream that never takes the job does not keep it for ever. What was waited so is
   no failure: a job that had none before has its whole budget ahead.
4. An outcome that is not known (timeout, cut, 502, 504, 408) is a failure like any other when the
   downstream deduplicates by key; otherwise a machine must not repeat it. Nor what a downstream failed at
   after it was sent: a 500 does not say how far it came.
5. A job that only tried whether the downstream is well again does not die of it: it was our choice, not its.
6. `Breaker-Retry: never` makes each of these final. It says "do not repeat", not "nothing happened": with
   `effects: once` what is not known stays unknown.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from breaker.core.job_policy import Effects, Retry
from breaker.core.jobs import Fate, Reason

RETRY_AFTER_MAX_US = 300_000_000  # no downstream stops a job for more than 5 min at a time
SLOW_DOWN_US = 86_400_000_000  # a day of being asked to come back later is enough
_DOUBLINGS_MAX = 40  # far above any cap; keeps 2^n small

_OK = range(200, 300)
_CALLER = range(300, 500)
_DOWNSTREAM = range(500, 600)
_TOO_EARLY = 425  # not tried, lest it be a replay (RFC 8470, section 5.2)
_TOO_MANY = 429
_LATER = frozenset({409, 503})  # with Retry-After: busy with this very key; with everything
_AMBIGUOUS = frozenset({408, 502, 504})  # said by, or about, somebody in between: who knows how far it came


class Failed(StrEnum):
    """Why an attempt has no answer that can be used."""

    UNSENDABLE = "unsendable"  # it cannot be put into a request
    CONNECT = "connect"  # no connection
    TIMEOUT = "timeout"  # the deadline came
    BROKEN = "broken"  # cut, reset, or not what was agreed on
    TOO_LARGE = "too_large"  # more than the operation takes


class FailureClass(StrEnum):
    """Whose failure it is; decides what follows."""

    CALLER = "caller"
    DOWNSTREAM = "downstream"
    SLOW_DOWN = "slow_down"
    AMBIGUOUS = "ambiguous"
    UNREADABLE = "unreadable"  # ambiguous, and would be so again


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """
    What becomes of a job after an attempt, as an `Ack` says it.

    Attributes:
        reason: Empty when it succeeded.
        delay_us: Of `RETRY` and `LATER`.

    """

    fate: Fate
    reason: Reason | None = None
    delay_us: int = 0


def classify(
    *,
    status: int | None,
    retry_after_us: int | None = None,
    was_sent: bool = True,
    failed: Failed | None = None,
) -> FailureClass | None:
    """
    Whose failure is this end of an attempt?

    Args:
        status: Of a complete answer; None when there was none.
        retry_after_us: What the answer asked for; None when it did not.
        was_sent: The request may have reached the downstream.
        failed: Why the answer cannot be used, whatever its status is.

    Returns:
        None when it succeeded.

    """
    match failed:
        case Failed.UNSENDABLE:
            return FailureClass.CALLER
        case Failed.CONNECT | Failed.TIMEOUT | Failed.BROKEN:
            return FailureClass.AMBIGUOUS if was_sent else FailureClass.DOWNSTREAM
        case Failed.TOO_LARGE:
            return FailureClass.UNREADABLE
        case None:
            return _of_status(status, retry_after_us)
        case _:
            assert_never(failed)


def _of_status(status: int | None, retry_after_us: int | None) -> FailureClass | None:
    if status is None or status in _AMBIGUOUS:
        return FailureClass.AMBIGUOUS
    if status in _OK:
        return None
    if status == _TOO_MANY or (status in _LATER and retry_after_us is not None):
        return FailureClass.SLOW_DOWN
    if status in _DOWNSTREAM or status == _TOO_EARLY:
        return FailureClass.DOWNSTREAM
    # 1xx is no end, and beyond 599 there is nothing: an answer that says neither yes nor no.
    return FailureClass.CALLER if status in _CALLER else FailureClass.AMBIGUOUS


def after(
    policy: Retry,
    effects: Effects,
    failure: FailureClass | None,
    *,
    failures: int,
    first_us: int,
    now_us: int,
    draw: float,
    was_sent: bool = True,
    retry_after_us: int | None = None,
    says_never: bool = False,
    is_probe: bool = False,
) -> Next:
    """
    What becomes of the job.

    Args:
        failure: None: the attempt succeeded.
        failures: Attempts that failed before this one.
        first_us: When the first attempt started.
        draw: Chance, at least 0 and below 1.
        was_sent: The request may have reached the downstream.
        retry_after_us: What the answer asked for; None when it did not.
        says_never: The answer said `Breaker-Retry: never`.
        is_probe: It was leased to try whether the downstream is well again.

    """
    if failure is None:
        return Next(fate=Fate.SUCCEEDED)
    if failure is FailureClass.CALLER:
        return Next(fate=Fate.DEAD, reason=Reason.CALLER)
    may_have_run = failure is FailureClass.AMBIGUOUS or (failure is FailureClass.DOWNSTREAM and was_sent)
    is_unknown = may_have_run and effects is Effects.ONCE
    if is_unknown or failure is FailureClass.UNREADABLE:
        return Next(fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS)
    if says_never:
        return Next(fate=Fate.DEAD, reason=Reason.TOLD)
    if failure is FailureClass.SLOW_DOWN:
        delay_us = _slow_down_us(policy, failures, draw, retry_after_us)
        until_us = first_us + max(policy.for_ms * 1_000, SLOW_DOWN_US)
        if now_us + delay_us > until_us:
            return Next(fate=Fate.DEAD, reason=Reason.BUDGET)
        return Next(fate=Fate.LATER, reason=Reason.SLOW_DOWN, delay_us=delay_us)
    delay_us = int(draw * _pause_us(policy, failures))
    until_us = (first_us if failures else now_us) + policy.for_ms * 1_000
    is_last = policy.attempts is not None and failures + 1 >= policy.attempts
    if not is_probe and (is_last or now_us + delay_us > until_us):
        return Next(fate=Fate.DEAD, reason=Reason.BUDGET)
    reason = Reason.AMBIGUOUS if failure is FailureClass.AMBIGUOUS else Reason.DOWNSTREAM
    return Next(fate=Fate.RETRY, reason=reason, delay_us=delay_us)


def _pause_us(policy: Retry, failures: int) -> int:
    """The longest pause after so many failures."""
    return int(min(policy.cap_ms, policy.base_ms * 2 ** min(failures, _DOUBLINGS_MAX))) * 1_000


def _slow_down_us(policy: Retry, failures: int, draw: float, retry_after_us: int | None) -> int:
    """Not before the moment it named, or one pause when it named none; never all at once."""
    asked_us = _pause_us(policy, failures) if retry_after_us is None else retry_after_us
    return min(asked_us, RETRY_AFTER_MAX_US) + int(draw * policy.base_ms * 1_000)
