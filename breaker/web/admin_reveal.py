"""
Revealing: the request that a stored job carries, and the answer that it got, opened for a person.
"""

import base64
from collections.abc import Iterable
from typing import Any

from breaker.core.jobs import JobRecord
from breaker.gateway.job_payload import JobResult, Payload
from breaker.gateway.vault import Unreadable, Vault


def reveal(vault: Vault, operation: str, record: JobRecord) -> dict[str, Any]:
    """
    What is stored of a job, ready for JSON; null for what is not kept.

    What no key opens is said in words: whoever asks is looking for why a job cannot run.
    """
    head, state = record.head, record.head.state
    request, answer = record.body, record.answer
    if state.is_ended and not state.keeps_payload:
        request, answer = b"", record.body
    found: dict[str, Any] = {"request": None, "answer": None}
    try:
        if request:
            found["request"] = request_view(vault.payload(operation, head, request))
        result = vault.result(operation, head, answer)
        if result:
            found["answer"] = answer_view(result)
    except Unreadable as exc:
        found["unreadable"] = str(exc)
    return found


def request_view(payload: Payload) -> dict[str, Any]:
    return {
        "method": payload.method,
        "target": payload.target.decode("latin-1"),
        "headers": pairs(payload.headers),
        "request_id": payload.request_id or None,
        **body_view(payload.body),
    }


def answer_view(result: JobResult) -> dict[str, Any]:
    return {
        "status": result.status or None,
        "headers": pairs(result.headers),
        "kept": str(result.kept),
        "reason": result.reason or None,
        "detail": result.detail or None,
        **body_view(result.body),
    }


def pairs(headers: Iterable[tuple[bytes, bytes]]) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def body_view(body: bytes) -> dict[str, str]:
    """A body as text, or, where it is none, in base64 under another name."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
