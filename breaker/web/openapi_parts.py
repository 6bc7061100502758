"""
OpenAPI parts: what every operation's description refers to - headers, parameters, problems.

The values are those that the code takes and gives; where it takes more than one could write down,
the description says so and the schema stays open.
"""

from collections.abc import Iterable
from typing import Any

from breaker.core.events import Outcome
from breaker.core.verdict import Policy
from breaker.gateway.call import Kind
from breaker.web.problem_types import PROBLEMS, type_uri

PROBLEM_MEDIA = "application/problem+json"
SECURITY = "BreakerKey"
OUTCOMES = [
    outcome for outcome in Outcome if outcome is not Outcome.ABANDONED
]  # whoever hung up reads nothing


def header(description: str, schema: dict[str, Any], example: str | int) -> dict[str, Any]:
    """A header of an answer."""
    return {"description": description, "schema": schema, "example": example}


HEADERS: dict[str, Any] = {
    "Breaker-Outcome": header(
        "Whose answer this is: the downstream's (forwarded, delayed: after it waited, over_capacity: although there"
        " was no room, replayed: it was kept), or the gateway's (queued: a job, refused: not executed, failed,"
        " unknown: perhaps executed).",
        {"enum": [str(outcome) for outcome in OUTCOMES]},
        "forwarded",
    ),
    "Breaker-Decision": header(
        "Names this decision; quote it when you ask about the call.",
        {"type": "string"},
        "billing.charge-invoice~01K3D8PM7VR3P1CA00000042",
    ),
    "X-Request-Id": header(
        "The caller's own, or the one that was made for it.", {"type": "string"}, "01K3D8PM7VR3P1CA00000042"
    ),
    "RateLimit-Policy": header(
        "Every limit that holds for this call now (draft-ietf-httpapi-ratelimit-headers-11).",
        {"type": "string", "pattern": '^"[a-z-]+";q=[0-9]+'},
        '"rate";q=20;w=1, "slots";q=8;qu="concurrent-requests"',
    ),
    "RateLimit": header(
        "What is left of one of them: r more may start at once, in t seconds it is free again.",
        {"type": "string", "pattern": '^"[a-z-]+";r=[0-9]+;t=[0-9]+$'},
        '"rate";r=12;t=1',
    ),
    "Retry-After": header(
        "Of a refusal: seconds until this caller should come back, a ticket of its own. It spreads callers and"
        " reserves nothing. A downstream's own answer may carry a date instead.",
        {"type": ["integer", "string"]},
        3,
    ),
}

ALWAYS = ("Breaker-Outcome", "Breaker-Decision", "X-Request-Id")
LIMITED = ("RateLimit-Policy", "RateLimit")


def response_headers(*, limited: bool, retry: bool, required: bool = False) -> dict[str, Any]:
    """
    References to the headers of an answer.

    Args:
        limited: The operation has limits.
        retry: The answer may name a time to come back.
        required: It can only have come from the path of a call, which sets the first three always.

    """
    names = [*ALWAYS, *(LIMITED if limited else ()), *(("Retry-After",) if retry else ())]
    headers: dict[str, Any] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    if required:
        headers |= {name: {**HEADERS[name], "required": True} for name in ALWAYS}
    return headers


PARAMETERS: dict[str, Any] = {
    "Request-Timeout": {
        "name": "Request-Timeout",
        "in": "header",
        "description": "Seconds that the caller waits at most, with up to three decimals; bounds everything."
        " What is left of it goes to the downstream.",
        "schema": {"type": "string", "pattern": r"^[0-9]{1,6}(\.[0-9]{1,3})?$"},
        "example": "5",
    },
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Kept and passed on if it is 8 to 64 letters, digits, `_` and `-`; otherwise one is made.",
        "schema": {"type": "string"},
        "example": "crm-48211-a",
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; passed on, and its trace id stands in the gateway's logs.",
        "schema": {"type": "string"},
        "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
}

_OURS = type_uri(Kind.CONTRACT).partition("#")[0]

SCHEMAS: dict[str, Any] = {
    "Problem": {
        "title": "A refusal of the gateway",
        "description": "RFC 9457. Further members may come; those that you do not know, ignore.",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {
                "description": "Relative to this gateway: the section that explains it.",
                "enum": [type_uri(kind) for kind in Kind],
            },
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "For a person: what happened, and the way out."},
            "instance": {
                "type": "string",
                "description": "The path that was called, when it is no operation's.",
            },
            "operation": {"type": "string"},
            "decision": {"type": "string"},
            "request_id": {"type": "string"},
            "policy": {"description": "The limit that decided.", "enum": [str(policy) for policy in Policy]},
            "limit": {"type": ["string", "null"], "description": "That limit in words, as it holds now."},
            "reason": {"type": "string"},
            "retry_after_ms": {"type": "integer", "minimum": 0},
            "scope": {
                "const": "replica",
                "description": "Only this gateway process sees the downstream fail; others may take the call.",
            },
            "job": {"type": "string", "description": "The job that this is about."},
            "state": {"type": "string", "description": "Its state."},
            "status_of_downstream": {
                "type": "integer",
                "description": "Of the answer that is not kept whole.",
            },
            "violations": {
                "description": "Of a contract; the first 20.",
                "type": "array",
                "maxItems": 20,
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {
                        "pointer": {"type": "string", "description": "RFC 6901; empty is the whole body."},
                        "detail": {"type": "string"},
                    },
                },
            },
        },
    },
    "DownstreamProblem": {
        "title": "A problem of the downstream's own",
        "description": "Passed on as it is; its `type` is none of this gateway's.",
        "not": {"type": "object", "required": ["type"], "properties": {"type": {"pattern": f"^{_OURS}#"}}},
    },
}


def problem_response(
    status: int,
    kinds: Iterable[Kind],
    *,
    limited: bool,
    headers: Iterable[str] | None = None,
    is_only: bool = False,
) -> dict[str, Any]:
    """
    An answer with this status: ours of these kinds, or the downstream's, which may use any status.

    Args:
        limited: The operation has limits.
        headers: Instead of those of a call.
        is_only: No downstream's answer comes here.

    """
    kinds = list(kinds)
    ours = {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {
                "properties": {
                    "type": {"enum": [type_uri(kind) for kind in kinds]},
                    "status": {"const": status},
                }
            },
        ]
    }
    retry = status in RETRYABLE
    lines = [f"- `{kind}`: {PROBLEMS[kind].meaning}" for kind in kinds]
    theirs = {"$ref": "#/components/schemas/DownstreamProblem"}
    media = {PROBLEM_MEDIA: {"schema": ours if is_only else {"anyOf": [ours, theirs]}}}
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in headers or ()}
    if retry and headers is not None:
        named["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return {
        "description": "\n".join(
            [*lines, *([] if is_only else ["- or the downstream's own answer with this status."])]
        ),
        "headers": response_headers(limited=limited, retry=retry) if headers is None else named,
        "content": media if is_only else {**media, "*/*": {}},
    }


RETRYABLE = frozenset({409, 429, 503})
