"""
Job documents: how a job looks as JSON, to its caller. Times are RFC 3339, durations milliseconds.
"""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from breaker.core.jobs import JobHead, JobState
from breaker.core.promise import Eta
from breaker.gateway.call import Receipt
from breaker.gateway.receipts import HELD

POLL_MIN_S, POLL_MAX_S = 1, 60
WAITING = (JobState.SCHEDULED, JobState.QUEUED, HELD)


def moment(at_us: int) -> str | None:
    """RFC 3339 in UTC with milliseconds; None for never."""
    if not at_us:
        return None
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_us // 1_000 % 1_000:03}Z"


def eta_view(eta: Eta | None) -> dict[str, int] | None:
    """Milliseconds until the start."""
    return {"p50_ms": eta.p50_us // 1_000, "p90_ms": eta.p90_us // 1_000} if eta else None


def document(receipt: Receipt, head: JobHead | None = None, *, status: int | None = None) -> dict[str, Any]:
    """
    A job.

    Args:
        head: What is stored of it; None for one that has just been accepted.
        status: Of the answer that was kept.

    """
    path = f"/v1/jobs/{quote(receipt.job)}"
    members: dict[str, Any] = {
        "id": receipt.job,
        "operation": receipt.job.partition("~")[0],
        "state": receipt.state,
        "band": receipt.band,
        "position": receipt.position,
        "eta": eta_view(receipt.eta),
        "deadline": moment(receipt.deadline_us),
        "expires_at": moment(receipt.expiry_us),
        "due_at": moment(receipt.due_us),
    }
    if receipt.durability:
        members["durability"] = receipt.durability
    if receipt.state == HELD:
        members["held"] = receipt.held
    if head is not None:
        members |= {
            "tenant": head.tenant,
            "attempts": head.attempt,
            "accepted_at": moment(head.accepted_us),
            "since": moment(head.since_us),
            "reason": head.reason or None,
        }
        if head.state.is_ended:
            members["status"] = status
    members["links"] = {"self": path, "result": f"{path}/result"}
    return members


def accepted(receipt: Receipt) -> tuple[bytes, bytes]:
    """Header lines and body of a 202."""
    lines = (
        f"Content-Type: application/json\r\nCache-Control: no-store\r\nLocation: /v1/jobs/{quote(receipt.job)}\r\n"
        f"Breaker-Job: {receipt.job}\r\nRetry-After: {poll_s(receipt)}\r\n"
    )
    if receipt.preference:
        lines += f"Preference-Applied: {receipt.preference}\r\n"
    if receipt.is_known:
        lines += "Idempotent-Replayed: true\r\n"
    return lines.encode(), orjson.dumps(document(receipt))


def poll_s(receipt: Receipt) -> int:
    """When it makes sense to look: half of the expected wait, within bounds."""
    if receipt.eta is None:
        return POLL_MAX_S if receipt.state in WAITING else POLL_MIN_S
    return min(POLL_MAX_S, max(POLL_MIN_S, receipt.eta.p50_us // 2_000_000))
