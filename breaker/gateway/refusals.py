"""
Refusals: what the store answered, as what a caller is told.

Each says what happened, and the way out; the status of a kind stands in `web/problem_types.py`.
"""

from typing import Any

from breaker.core.events import Outcome
from breaker.core.jobs import (
    DurabilityNotMet,
    InProgress,
    JobHead,
    JobState,
    KeyReused,
    OutcomeUnknown,
)
from breaker.core.verdict import Policy, Refused, TooCostly
from breaker.gateway.call import Call, Kind, Refusal
from breaker.gateway.endings import WHY
from breaker.gateway.job_payload import JobResult, Kept
from breaker.policy.job_words import format_durability

DEGRADED_RETRY_US = 1_000_000  # the store is usually back within a second
WITHOUT_ANSWER = {
    JobState.EXPIRED: "it could not start in time, and was not executed",
    JobState.CANCELLED: "it was cancelled before it started",
    JobState.DISCARDED: "it was dead, and a person gave it up",
}


def refusal_of(
    call: Call,
    verdict: Refused | TooCostly | InProgress | KeyReused | OutcomeUnknown | DurabilityNotMet | None,
) -> Refusal:
    """Why the store did not take this call; None: it was withdrawn."""
    operation = call.work.operation
    match verdict:
        case Refused():
            return refused(call, verdict)
        case TooCostly():
            return too_costly(call, verdict)
        case InProgress(retry_after_us=retry_us):
            return Refusal(
                kind=Kind.IN_PROGRESS, retry_after_us=retry_us,
                detail="a call with this Idempotency-Key is being executed; its answer will be kept for it",
            )  # fmt: skip
        case KeyReused():
            return Refusal(
                kind=Kind.IDEMPOTENCY_KEY_REUSED,
                detail="this Idempotency-Key was used for another request (method, path or body differ): "
                "send a key of its own for each request",
            )
        case OutcomeUnknown():
            return outcome_unknown(call)
        case DurabilityNotMet(durability=reached):
            queue = operation.queue
            wanted = format_durability(queue.durability, queue.replicas) if queue else ""
            return Refusal(
                kind=Kind.DURABILITY_NOT_MET, retry_after_us=DEGRADED_RETRY_US,
                detail=f"the job would have reached `{reached}` only, not `{wanted}`: it was withdrawn",
            )  # fmt: skip
        case _:
            return degraded("withdrawn; nothing was executed")


def refused(call: Call, verdict: Refused) -> Refusal:
    policy, operation = verdict.policy, call.work.operation
    kind = Kind.OVER_CAPACITY
    if policy.is_tenants_own:
        kind = Kind.TENANT_LIMIT
    elif policy.is_full:
        kind = Kind.QUEUE_FULL
    elif policy is Policy.DRAINING:
        kind = Kind.DRAINING
    elif policy is Policy.PAUSED:
        kind = Kind.PAUSED
    elif policy is Policy.CIRCUIT:
        kind = Kind.CIRCUIT_OPEN
    return Refusal(
        kind=kind, detail=WHY[policy].format(operation=operation.name, tenant=call.tenant), policy=policy,
        retry_after_us=verdict.retry_after_us, room=verdict.room,
    )  # fmt: skip


def too_costly(call: Call, verdict: TooCostly) -> Refusal:
    policy = verdict.policy
    return Refusal(
        kind=Kind.TOO_COSTLY, policy=policy,
        detail=f"a cost of {call.cost} can never fit the limit `{policy}`; send less at once",
    )  # fmt: skip


def no_answer(job: str, head: JobHead, result: JobResult | None) -> Refusal:
    """A job that has ended, and whose answer cannot be handed out."""
    extra: dict[str, Any] = {"job": job, "state": head.state}
    if result is None or not result.status:
        why = (
            (result.detail if result else "")
            or WITHOUT_ANSWER.get(head.state)
            or head.reason
            or "there was none"
        )
        detail = f"{job} is {head.state}, without an answer of the downstream: {why}"
    else:
        extra["status_of_downstream"] = result.status
        why = (
            "larger than is kept" if result.kept is Kept.CUT else "dropped when the store was short of memory"
        )
        detail = f"{job} is {head.state}; the body of its answer was {why}"
    return Refusal(kind=Kind.RESULT_EXPIRED, detail=detail, extra=extra)


def outcome_unknown(call: Call, job: str | None = None) -> Refusal:
    """`job`: its id where there is one; a direct call leaves no record."""
    return Refusal(
        kind=Kind.OUTCOME_UNKNOWN, outcome=Outcome.UNKNOWN, extra={"job": job} if job else {},
        detail=f"{call.work.operation.name} was sent this request before, and whether it was executed is not "
        "known; it is not repeated",
    )  # fmt: skip


def degraded(detail: str) -> Refusal:
    return Refusal(kind=Kind.DEGRADED, detail=detail, retry_after_us=DEGRADED_RETRY_US)
