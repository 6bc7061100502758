"""
OpenAPI of jobs: the headers that ask for one, the 202, and the paths under which a caller finds it again.

1. A 202 may also be the downstream's own; then it does not look like a job, or `Breaker-Outcome` says so.
2. A result is the downstream's own answer: any status, any media type.
3. Preferences, and a `wait` that is no number, are ignored and never refused (RFC 7240, section 2).
"""

from collections.abc import Iterable
from typing import Any

from breaker.core.job_policy import Band
from breaker.core.jobs import JobState, Reason
from breaker.core.model import Operation
from breaker.core.verdict import Policy
from breaker.gateway.call import Kind
from breaker.gateway.receipts import HELD
from breaker.web import openapi_parts as parts
from breaker.web.catalogue_queue import ETA_SCHEMA
from breaker.web.job_pages import WAIT_MAX_S
from breaker.web.problem_types import PROBLEMS
from breaker.web.schema_parts import COUNT, MOMENT, TEXT, described, or_null

TAG = "Jobs"  # with a capital, as no pipeline can be named
ID = {"type": "string", "pattern": "^[a-z0-9.-]+~[0-9A-HJKMNP-TV-Z]{26}$"}
EXAMPLE = "billing.charge-invoice~01K3D8PM7VR3P1CA00000042"
MILLISECONDS = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z$"

PARAMETERS: dict[str, Any] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Names this piece of work: the same when the request is repeated, a new one for new work. 1 to"
        " 255 visible characters, no spaces, not a dash alone. It goes to the downstream, too.",
        "schema": {"type": "string", "pattern": "^([!-,.-~]|[!-~]{2,255})$"},
        "example": "invoice-4711-2026-06",
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async`: a job at once, also when the call could start now. `wait=N`: hold the answer"
        " of a job back for N seconds (300 at most), in case it ends by then. Both may be combined (RFC 7240).",
        "schema": {"type": "string"},
        "examples": {
            "asynchronous": {"value": "respond-async"},
            "patient": {"value": "wait=20"},
        },
    },
    "Breaker-Not-Before": {
        "name": "Breaker-Not-Before",
        "in": "header",
        "description": "The job starts at this moment or later; RFC 3339, within 90 days.",
        "schema": {"type": "string", "format": "date-time"},
        "example": "2026-12-24T08:00:00Z",
    },
    "Breaker-Expires-In": {
        "name": "Breaker-Expires-In",
        "in": "header",
        "description": "A job that did not start after so long ends as expired; seconds, or a duration such as `10m`"
        " (ms, s, m, h, d), 365d at most. The operation's own `expire_after` holds if it is shorter.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,8}(ms|s|m|h|d)?$"},
        "example": "10m",
    },
    "Breaker-Band": {
        "name": "Breaker-Band",
        "in": "header",
        "description": "How urgent a job is, if the caller may say so; else the operation decides.",
        "schema": {"enum": [str(band) for band in Band]},
        "example": "high",
    },
}
CALLBACK: dict[str, Any] = {
    "name": "Breaker-Callback",
    "in": "header",
    "description": "Where the end of the job is told: a URL of a host that the operation allows.",
    "schema": {"type": "string", "format": "uri", "maxLength": 2048},
    "example": "https://hooks.example.com/breaker",
}

HEADERS: dict[str, Any] = {
    "Location": parts.header("The job.", {"type": "string"}, f"/v1/jobs/{EXAMPLE}"),
    "Breaker-Job": parts.header("The job's id, when there is or was one.", ID, EXAMPLE),
    "Preference-Applied": parts.header(
        "What of `Prefer` was followed.", {"type": "string"}, "respond-async, wait=20"
    ),
    "Idempotent-Replayed": parts.header(
        "The work of this key was taken before: nothing was executed for this request.",
        {"const": "true"},
        "true",
    ),
    "Content-Location": parts.header(
        "Where a kept answer can be had again.", {"type": "string"}, f"/v1/jobs/{EXAMPLE}/result"
    ),
    "ETag": parts.header("Changes when the job does.", {"type": "string"}, '"6f1d2c3b4a596877"'),
}
ACCEPTED = ("Location", "Breaker-Job", "Preference-Applied", "Idempotent-Replayed")
REPLAYED = ("Breaker-Job", "Content-Location", "Preference-Applied", "Idempotent-Replayed")

HOLDS = [str(policy) for policy in (Policy.PAUSED, Policy.CIRCUIT, Policy.SLOW_DOWN)]
_STATES = [*(str(state) for state in JobState), HELD]
_REQUIRED = [
    "id", "operation", "state", "band", "position", "eta", "deadline", "expires_at", "due_at", "links",
]  # fmt: skip
_LINK = {"type": "string", "pattern": "^/v1/jobs/"}
_MOMENT = {**MOMENT, "pattern": MILLISECONDS}
JOB: dict[str, Any] = {
    "title": "A job",
    "type": "object",
    "required": _REQUIRED,
    "additionalProperties": False,
    "properties": {
        "id": ID,
        "operation": TEXT,
        "state": {"enum": _STATES},
        "band": {"enum": [str(band) for band in Band]},
        "position": described(
            or_null(COUNT), "Jobs that may start before it; null when it does not wait in line."
        ),
        "eta": ETA_SCHEMA,
        "deadline": described(or_null(_MOMENT), "By when it should have started: the operation's promise."),
        "expires_at": described(or_null(_MOMENT), "It ends as expired unless it has started by then."),
        "due_at": described(or_null(_MOMENT), "Of a scheduled one: when it joins the line."),
        "durability": described(TEXT, "In the 202: what had happened to the job by then."),
        "held": described(
            {"enum": HOLDS},
            "Of a held one: a person paused the operation, its circuit is open, or its downstream asked for time.",
        ),
        "tenant": described(TEXT, "On whose behalf it runs."),
        "attempts": described(COUNT, "How often it was started."),
        "accepted_at": or_null(_MOMENT),
        "since": described(or_null(_MOMENT), "When it came into its state."),
        "reason": described(
            {"enum": [*(str(reason) for reason in Reason), None]},
            "Why it is dead or unknown, or is tried again.",
        ),
        "status": described(or_null({"type": "integer"}), "Of the downstream's answer, when it has ended."),
        "links": {
            "type": "object",
            "required": ["self", "result"],
            "properties": {"self": _LINK, "result": _LINK},
        },
    },
}
SCHEMAS: dict[str, Any] = {
    "Job": JOB,
    "DownstreamAnswer": {
        "title": "The downstream's own",
        "description": "Passed on as it is.",
        "not": {"type": "object", "required": _REQUIRED},
    },
}


def parameters(operation: Operation) -> list[dict[str, Any]]:
    """What a caller may ask of an operation with a queue; none without."""
    if operation.queue is None:
        return []
    found: list[dict[str, Any]] = [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS]
    if operation.idempotency.is_required:
        found[0] = {**PARAMETERS["Idempotency-Key"], "required": True}
    return [*found, CALLBACK] if operation.callback else found


def refer(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def accepted(*, limited: bool) -> dict[str, Any]:
    """The 202 of an operation with a queue."""
    schema = {"anyOf": [_ref("Job"), _ref("DownstreamAnswer")]}
    return {
        "description": "With the outcome `queued`: a job, which will be executed. Otherwise the downstream's own answer.",
        "headers": {**parts.response_headers(limited=limited, retry=True, required=True), **refer(ACCEPTED)},
        "content": {"application/json": {"schema": schema}, "*/*": {}},
        "links": {
            name: {
                "operationId": name,
                "parameters": {"job": "$response.header.Breaker-Job"},
                "description": text,
            }
            for name, text in (
                ("getJob", "Where it stands."),
                ("getJobResult", "The downstream's answer, once it has ended."),
                ("cancelJob", "Only while it waits."),
            )
        },
    }


def job_paths(*, is_open: bool) -> dict[str, Any]:
    """What a caller does with its jobs."""
    job = {
        "name": "job",
        "in": "path",
        "required": True,
        "description": "As in Location.",
        "schema": ID,
        "example": EXAMPLE,
    }
    wait = {
        "name": "wait", "in": "query", "schema": COUNT, "example": 20,
        "description": f"Hold the answer back for so many seconds ({WAIT_MAX_S} at most), until the job has ended.",
    }  # fmt: skip
    known = {
        "name": "If-None-Match",
        "in": "header",
        "schema": TEXT,
        "description": "An ETag: 304 if it is still that.",
    }
    shown = {
        "200": {**_json("The job."), "headers": refer(["ETag"])},
        "304": {"description": "It has not changed.", "headers": refer(["ETag"])},
        **_problems(Kind.JOB_NOT_FOUND, Kind.DEGRADED, is_open=is_open),
    }
    result = {
        "2XX": {"description": "The downstream's own answer.", "headers": refer(["Breaker-Outcome"])},
        "202": {
            **_json("It has not ended."),
            "content": {"application/json": {"schema": {"anyOf": [_ref("Job"), _ref("DownstreamAnswer")]}}, "*/*": {}},
            "headers": refer(["Retry-After"]),
        },
        **_problems(
            Kind.JOB_NOT_FOUND, Kind.RESULT_EXPIRED, Kind.OUTCOME_UNKNOWN, Kind.DEGRADED,
            is_open=is_open, is_only=False,
        ),
        "default": {"description": "Any other answer of the downstream."},
    }  # fmt: skip
    cancelled = {
        "200": _json("It has been cancelled, and was not executed."),
        **_problems(Kind.JOB_NOT_FOUND, Kind.NOT_CANCELLABLE, Kind.DEGRADED, is_open=is_open),
    }
    return {
        "/v1/jobs/{job}": {
            "parameters": [job],
            **_get("getJob", "Where a job stands, to its caller.", shown, [wait, known]),
            "delete": {
                "operationId": "cancelJob", "tags": [TAG], "summary": "Cancel a job that waits.", "responses": cancelled,
            },
        },
        "/v1/jobs/{job}/result": {
            "parameters": [job],
            **_get("getJobResult", "The downstream's own answer to a job.", result, [wait]),
        },
    }  # fmt: skip


def _get(name: str, summary: str, responses: dict[str, Any], takes: list[dict[str, Any]]) -> dict[str, Any]:
    get = {
        "operationId": name,
        "tags": [TAG],
        "summary": summary,
        "parameters": takes,
        "responses": responses,
    }
    bodiless = {
        status: {member: value for member, value in answer.items() if member != "content"}
        for status, answer in responses.items()
    }
    head = {
        **get,
        "operationId": f"{name}Head",
        "summary": "As GET, without the body.",
        "responses": bodiless,
    }
    return {"get": get, "head": head}


def _problems(*kinds: Kind, is_open: bool, is_only: bool = True) -> dict[str, Any]:
    """The problems of a path of ours; `is_only`: no downstream's answer comes there."""
    listed = [*kinds, *(() if is_open else (Kind.UNAUTHENTICATED,))]
    return {
        str(PROBLEMS[kind].status): parts.problem_response(
            PROBLEMS[kind].status, [kind], limited=False, headers=("Breaker-Outcome",), is_only=is_only
        )
        for kind in sorted(listed, key=lambda kind: PROBLEMS[kind].status)
    }


def _json(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref("Job")}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
