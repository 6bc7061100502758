"""
Problem types: what each kind of refusal is called, its status, and what a caller does about it.

The one table of them. Answers, the OpenAPI document, the page at `/docs` and `docs/problems.md`
take it from here, or are held to it by a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from breaker.gateway.call import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemType:
    """
    One kind of problem.

    Attributes:
        status: HTTP status of every answer of this kind.
        title: The same for every answer of this kind (RFC 9457 section 3.1.3).
        meaning: What happened, and whether anything was executed.
        advice: What the caller does next.

    """

    status: int
    title: str
    meaning: str
    advice: str


PROBLEMS: Mapping[Kind, ProblemType] = {
    Kind.UNKNOWN_OPERATION: ProblemType(
        status=404, title="Unknown operation",
        meaning="No operation has this path. Nothing was executed.",
        advice="Compare the path with /v1/operations: it is /pipeline, followed by the downstream's own path.",
    ),
    Kind.METHOD_NOT_ALLOWED: ProblemType(
        status=405, title="Method not allowed",
        meaning="The path belongs to an operation, but not with this method. Nothing was executed.",
        advice="Use one of the methods in Allow.",
    ),
    Kind.UNAUTHENTICATED: ProblemType(
        status=401, title="Unknown caller",
        meaning="The call carries no Breaker-Key, or one that belongs to nobody. Nothing was executed.",
        advice="Send the key that was issued to your system; after a rotation, the new one.",
    ),
    Kind.FORBIDDEN: ProblemType(
        status=403, title="Not allowed for this caller",
        meaning="Your system is known but may not make this call. Nothing was executed.",
        advice="Ask the team that runs the gateway to allow it; repeating the call does not help.",
    ),
    Kind.BAD_REQUEST: ProblemType(
        status=400, title="Request cannot be read",
        meaning="The request, one of its headers or its body cannot be read. Nothing was executed, unless a"
        " body broke off that was being passed on: then the downstream has seen a part of it.",
        advice="Mend what the detail names; repeating the same request does not help.",
    ),
    Kind.REQUEST_TIMEOUT: ProblemType(
        status=408, title="Request came too slowly",
        meaning="The request head or the body did not arrive in time. Nothing was executed, unless a body was"
        " being passed on: then the downstream has seen a part of it.",
        advice="Send the whole request without pauses; repeat it on a better connection.",
    ),
    Kind.PAYLOAD_TOO_LARGE: ProblemType(
        status=413, title="Body too large",
        meaning="The body is larger than the operation takes. Nothing was executed, unless a body without"
        " Content-Length was being passed on: then the downstream has seen a part of it.",
        advice="Send less at once; the limit stands in the detail and in /openapi.json.",
    ),
    Kind.CONTRACT: ProblemType(
        status=422, title="Contract broken",
        meaning="The body is JSON but not what the operation takes. Nothing was executed, and no capacity was spent.",
        advice="Mend each of the violations; each names its place by a JSON pointer.",
    ),
    Kind.TOO_COSTLY: ProblemType(
        status=422, title="Can never fit",
        meaning="The call costs more than the limit allows at any time, so waiting is of no use. Nothing was executed.",
        advice="Split the work into calls of a lower cost.",
    ),
    Kind.TENANT_LIMIT: ProblemType(
        status=429, title="Tenant is at its own limit",
        meaning="This tenant uses all that one tenant may use; others are still served. Nothing was executed.",
        advice="Come back after Retry-After. Slow this tenant's work down; calls for others may go on.",
    ),
    Kind.OVER_CAPACITY: ProblemType(
        status=503, title="Over capacity",
        meaning="The capacity that all callers share is used up or closed now, or this gateway has no room for"
        " another connection. Nothing was executed.",
        advice="Come back after Retry-After; without it, with growing pauses.",
    ),
    Kind.QUEUE_FULL: ProblemType(
        status=503, title="Queue is full",
        meaning="The call could not start, and the queue of the operation has no room for another job."
        " Nothing was executed, and nothing was queued.",
        advice="Come back after Retry-After: by then there should be room. `policy` says which bound it is.",
    ),
    Kind.PAUSED: ProblemType(
        status=503, title="Operation is paused",
        meaning="A person has paused the operation. Nothing was executed.",
        advice="Come back after Retry-After, or ask the team that owns the operation.",
    ),
    Kind.DRAINING: ProblemType(
        status=503, title="Operation takes nothing new",
        meaning="The operation finishes what it has, and takes nothing new. Nothing was executed.",
        advice="Come back after Retry-After, or ask the team that owns the operation whether it goes away.",
    ),
    Kind.CIRCUIT_OPEN: ProblemType(
        status=503, title="Circuit open",
        meaning="The downstream fails, so that nothing is sent to it for a while. Nothing was executed. With"
        " `scope: replica` only this gateway process sees failures, and others may take the call.",
        advice="Come back after Retry-After; that is when the next calls are let through to see whether it is well"
        " again.",
    ),
    Kind.IDEMPOTENCY_KEY_MISSING: ProblemType(
        status=400, title="Idempotency-Key is missing",
        meaning="The operation executes each piece of work once, and wants a key to know it by."
        " Nothing was executed.",
        advice="Send an Idempotency-Key: a value of its own for each piece of work, the same when you repeat it.",
    ),
    Kind.IDEMPOTENCY_KEY_REUSED: ProblemType(
        status=422, title="Idempotency-Key was used for another request",
        meaning="The same key came before with another method, path or body. This request was not executed.",
        advice="Use a new key for new work; to repeat work, send exactly the same request.",
    ),
    Kind.IN_PROGRESS: ProblemType(
        status=409, title="The same work is in progress",
        meaning="A call with this Idempotency-Key is being executed now. It is not executed a second time.",
        advice="Repeat the request after Retry-After: then its answer is kept for you.",
    ),
    Kind.DURABILITY_NOT_MET: ProblemType(
        status=503, title="Job could not be kept safely",
        meaning="The job would not have been as durable as the operation promises, so it was withdrawn."
        " Nothing was executed.",
        advice="Come back after Retry-After; on-call knows.",
    ),
    Kind.JOB_NOT_FOUND: ProblemType(
        status=404, title="No such job",
        meaning="There is no job with this id that is yours: it never was, or its record is not kept any longer.",
        advice="Compare the id with the Location that you were given; records are kept for `keep_result`.",
    ),
    Kind.RESULT_EXPIRED: ProblemType(
        status=410, title="No answer is kept",
        meaning="The job has ended, and there is no answer of the downstream to hand out: there was none, it was"
        " too large, or it is not kept any longer. The job itself says how it ended.",
        advice="Do not send the work again because of this; look at the job, and ask the downstream.",
    ),
    Kind.NOT_CANCELLABLE: ProblemType(
        status=409, title="Job cannot be cancelled",
        meaning="The job runs or has ended. Nothing was changed.",
        advice="Wait for its end; what was executed has to be undone where it was done.",
    ),
    Kind.DEGRADED: ProblemType(
        status=503, title="Capacity cannot be decided",
        meaning="The gateway cannot reach the store that holds the shared capacity. Nothing was executed.",
        advice="Come back after Retry-After; on-call knows.",
    ),
    Kind.DEADLINE: ProblemType(
        status=504, title="Your deadline passed",
        meaning="The Request-Timeout of the call ran out first. With the outcome refused nothing was executed;"
        " with unknown it may have been.",
        advice="See Breaker-Outcome. If it is unknown, look before you repeat.",
    ),
    Kind.OUTCOME_UNKNOWN: ProblemType(
        status=504, title="Outcome unknown",
        meaning="The call was sent to the downstream and the connection broke before a usable answer came: it may"
        " have been executed, or not.",
        advice="Find out at the downstream before you repeat it, or repeat it with the same Idempotency-Key if"
        " the downstream honours one.",
    ),
    Kind.DOWNSTREAM_UNREACHABLE: ProblemType(
        status=502, title="Downstream gave no usable answer",
        meaning="The downstream could not be reached, or its answer could not be used. The call was not executed,"
        " or it is safe to repeat.",
        advice="Repeat it with growing pauses.",
    ),
    Kind.DOWNSTREAM_TIMEOUT: ProblemType(
        status=504, title="Downstream did not answer in time",
        meaning="The operation's own timeout ran out. With the outcome unknown the call may have been executed;"
        " with failed it was not, or it is safe to repeat.",
        advice="See Breaker-Outcome. If it is unknown, look before you repeat.",
    ),
}  # fmt: skip


def type_uri(kind: Kind) -> str:
    """
    The `type` of a problem: a section of the page that this very gateway serves.

    A relative reference (RFC 9457 section 3.1.1), because each company runs its own gateway under
    its own name. It starts with `/`, so it means the same from whichever path it is resolved.
    """
    return f"/docs#{kind}"
