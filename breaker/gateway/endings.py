"""
Endings: what became of a call, in words: its outcome, what the downstream made of it, and why not.
"""

from http import HTTPStatus

from breaker.core.events import Outcome, Result
from breaker.core.verdict import Admitted, Policy
from breaker.gateway.asked_time import is_slow_down
from breaker.gateway.call import Call, CallerError, Kind, Refusal
from breaker.gateway.downstream import ConnectFailed, DownstreamError, Response, TimedOut, TooLarge

FOREVER = float("inf")
# Not what is a person's doing, nor what an ill downstream's: more capacity would not help.
CAPACITY_REASONS = frozenset(Policy) - {
    Policy.DRAINING, Policy.PAUSED, Policy.CIRCUIT, Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN,
}  # fmt: skip
WHY = {
    Policy.RATE: "{operation} is at its rate over all replicas",
    Policy.SLOTS: "all slots of {operation} are in use",
    Policy.QUOTA: "the quota of {operation} is used up",
    Policy.TENANT_RATE: "tenant {tenant} is at its own rate for {operation}",
    Policy.TENANT_SLOTS: "tenant {tenant} has all of its own slots of {operation} in use",
    Policy.CLOSED: "{operation} is closed now",
    Policy.WAITING: "others wait for {operation} already",
    Policy.JOBS: "the queue of {operation} is full",
    Policy.BYTES: "the queue of {operation} has no room for more bytes",
    Policy.TENANT_JOBS: "tenant {tenant} has as many jobs waiting for {operation} as it may have",
    Policy.TENANT_BYTES: "the jobs of tenant {tenant} for {operation} take as many bytes as they may",
    Policy.DRAINING: "{operation} takes nothing new: it is being drained or retired",
    Policy.PAUSED: "{operation} was paused by a person",
    Policy.CIRCUIT: "the circuit of {operation} is open: its downstream fails",
    Policy.SLOW_DOWN: "the downstream of {operation} asked for time",
    Policy.TENANT_SLOW_DOWN: "the downstream of {operation} asked for time for tenant {tenant}",
}


def outcome_of(verdict: Admitted | None) -> Outcome:
    """Whose answer it is, when the downstream answered."""
    if verdict and verdict.over:
        return Outcome.OVER_CAPACITY
    return Outcome.DELAYED if verdict and verdict.delayed else Outcome.FORWARDED


def result_of(response: Response) -> Result:
    """What the downstream made of it; 429, and 503 that says for how long, ask us to slow down."""
    status = response.status
    if status < HTTPStatus.BAD_REQUEST:
        return Result.OK
    if is_slow_down(status, response.headers):
        return Result.SLOW_DOWN
    # 501 says that nobody can do this here: no sign of illness.
    is_callers = status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.NOT_IMPLEMENTED
    return Result.CLIENT_ERROR if is_callers else Result.SERVER_ERROR


def result_of_failure(failure: DownstreamError | CallerError | None) -> Result:
    match failure:
        case TimedOut(phase="connect") | ConnectFailed():
            return Result.CONNECT_ERROR
        case TimedOut():
            return Result.TIMEOUT
        case DownstreamError():
            return Result.SERVER_ERROR
        case _:
            return Result.ABANDONED


def problem_of(call: Call, failure: DownstreamError | CallerError | None, now: float) -> Refusal:
    """
    What the caller is told when the downstream gave no answer.

    An unsafe call that was sent may have had its effect: then the outcome is `unknown`, and only then.
    """
    operation = call.work.operation
    if isinstance(failure, CallerError):
        return Refusal(kind=failure.kind, detail=failure.detail, outcome=Outcome.FAILED)
    may_have_run = isinstance(failure, DownstreamError) and failure.sent and not call.work.is_safe
    outcome = Outcome.UNKNOWN if may_have_run else Outcome.FAILED
    kind = Kind.OUTCOME_UNKNOWN if may_have_run else Kind.DOWNSTREAM_UNREACHABLE
    after = "whether it was executed is not known" if may_have_run else "it may be sent again"
    what = f"gave no usable answer ({failure})"
    if isinstance(failure, TimedOut):
        kind = Kind.DEADLINE if call.deadline <= now else Kind.DOWNSTREAM_TIMEOUT
        limit = "the caller's deadline" if kind is Kind.DEADLINE else f"{operation.downstream.timeout_ms} ms"
        what = f"did not answer within {limit} ({failure})"
    elif isinstance(failure, TooLarge):
        what = f"answered more than `downstream.max_response` allows ({failure})"
    return Refusal(kind=kind, detail=f"{operation.name} {what}; {after}", outcome=outcome)
