"""
Views: jobs and operations as the admin API shows them. Values go in, JSON comes out.

Moments are RFC 3339 in UTC, lengths of time are milliseconds, and what is not there is null.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import JobHead, JobRecord, JobState
from breaker.core.model import Limits, Operation
from breaker.policy.units import format_rate
from breaker.policy.values import limits_in_words
from breaker.store.capacity import CircuitLook, Look
from breaker.store.job_desk import QueueLook

HELD, OVERRIDE = "held", "override"


def moment(us: int) -> str | None:
    """Microseconds since 1970 in words; None for 0."""
    if not us:
        return None
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def head_view(operation: str, head: JobHead) -> dict[str, Any]:
    """A job as one row of a list."""
    return {
        "id": f"{operation}~{head.id}",
        "operation": operation,
        "state": str(head.state),
        "reason": str(head.reason) or None,
        "band": str(head.band),
        "tenant": head.tenant,
        "caller": head.caller,
        "attempts": head.attempt,
        "failures": head.failures,
        "accepted": moment(head.accepted_us),
        "since": moment(head.since_us),
        "deadline": moment(head.deadline_us),
    }


def job_view(operation: str, record: JobRecord) -> dict[str, Any]:
    """All that is known of a job but its payload."""
    head, place = record.head, record.place
    held = place.held if place and head.state is JobState.QUEUED else None
    return {
        **head_view(operation, head),
        "state": HELD if held else str(head.state),
        "held": str(held) if held else None,
        "first_attempt": moment(head.first_us),
        "expires": moment(head.expiry_us),
        "due": moment(record.due_us),
        "ahead": place.ahead if place else None,
        "depth": place.depth if place else None,
        "idempotency_key": head.key or None,
        "line": head.line,
        "cost": head.cost,
        "bytes": head.size,
        "leases_lost_alone": head.lost,
        "suspect": head.is_suspect,
        "callback": head.callback or None,
        "timeline": [note_view(note) for note in record.notes],
    }


def note_view(note: bytes) -> Any:
    """A line of a job's history; what is no JSON is shown as it is, because it is still history."""
    try:
        return orjson.loads(note)
    except orjson.JSONDecodeError:
        return note.decode("utf-8", "replace")


def limits_view(limits: Limits) -> dict[str, Any]:
    return {
        "words": limits_in_words(limits),
        "rate": format_rate(limits.rate) if limits.rate else None,
        "per_second": limits.rate.limit * 1e6 / limits.rate.period_us if limits.rate else None,
        "burst": limits.rate.burst if limits.rate else None,
        "concurrency": limits.concurrency,
    }


def circuit_view(look: CircuitLook, mode: CircuitMode, now_us: int) -> dict[str, Any]:
    """A circuit; what a person once said of it is shown while it holds, and no longer."""
    is_off = mode is CircuitMode.OFF
    is_by_hand = look.state in (CircuitState.FORCED_OPEN, CircuitState.DISABLED) and not is_off
    # What ended by time was ended by nobody: the store still has what was before it.
    has_ended = look.state in (CircuitState.HALF_OPEN, CircuitState.CLOSED) and 0 < look.until_us <= now_us
    return {
        "mode": str(mode),
        "state": str(look.state),
        "since": None if is_off else moment(look.until_us if has_ended else look.since_us),
        "until": moment(look.until_us) if is_by_hand or look.state is CircuitState.OPEN else None,
        "author": look.author if is_by_hand else None,
        "reason": look.reason if is_by_hand else None,
        "pause_until": moment(look.pause_until_us) if look.pause_until_us > now_us else None,
    }


def queue_view(look: QueueLook) -> dict[str, Any]:
    """The queue of one operation."""
    held = {
        "state": look.held,
        "since": moment(look.held_since_us),
        "until": moment(look.held_until_us),
        "author": look.held_author,
        "reason": look.held_reason,
    }
    return {
        "held": held if look.held else None,
        "waiting": {str(band): count for band, count in look.waiting.items()},
        "oldest_ms": {str(band): age_us // 1_000 for band, age_us in look.oldest_us.items()},
        "scheduled": look.scheduled,
        "running": look.running,
        "dead": look.dead,
        "unknown": look.unknown,
        "suspects": look.suspects,
        "callbacks": look.callbacks,
        "results": look.results,
        "bytes": look.bytes_used,
        "ms_per_job": look.pace.mean_us / 1_000 or None,
        "ledger": {
            "accepted": look.accepted,
            "succeeded": look.succeeded,
            "expired": look.expired,
            "cancelled": look.cancelled,
            "discarded": look.discarded,
            "unaccounted": look.unaccounted,
            "lost": look.lost,
        },
    }


def operation_limits_view(look: Look) -> dict[str, Any]:
    """`in_force` is `stated` as it has adapted, and while it rises after an outage; `override`: who set it, or null."""
    return {
        "in_force": limits_view(look.limits),
        "stated": limits_view(look.stated),
        "source": look.source,
        "file": limits_view(look.configured),
        "version": look.version,
        "override": {
            "author": look.override_author,
            "reason": look.override_reason,
            "since": moment(look.override_since_us),
            "until": moment(look.override_until_us),
        }
        if look.source == OVERRIDE
        else None,
    }


def operation_view(
    name: str,
    operation: Operation | None,
    look: Look | None,
    queue: QueueLook | None,
    now_us: int,
    etas: Mapping[Band, int] | None = None,
) -> dict[str, Any]:
    """
    One operation; what cannot be had now is null.

    Args:
        operation: None when no file names it any more.
        now_us: By the store's clock.
        etas: Microseconds until a job accepted now starts, in nine of ten cases; of a band that is left out nobody knows.

    """
    return {
        "operation": name,
        "pipeline": name.partition(".")[0],
        "team": operation.team if operation else None,
        "overflow": str(operation.overflow) if operation else None,
        "configured": operation is not None,
        "limits": operation_limits_view(look) if look else None,
        "circuit": circuit_view(look.circuit, operation.circuit.mode, now_us) if look and operation else None,
        "use": {
            "in_flight": look.in_use,
            "waiting": look.waiting,
            "started": look.started,
            "wanted": look.wanted,
            "service_ms": look.service_us / 1_000 or None,
            "quota": {"limit": look.quota_limit, "used": look.quota_used}
            if look.quota_limit is not None
            else None,
        }
        if look
        else None,
        "queue": {**queue_view(queue), **promise_view(operation, etas or {})} if queue else None,
    }


def promise_view(operation: Operation | None, etas: Mapping[Band, int]) -> dict[str, Any]:
    """How long a job may wait before it starts, and how long one that comes now will."""
    queue = operation.queue if operation else None
    return {
        "promise_ms": queue.start_within_ms if queue else None,
        "eta_ms": {str(band): etas[band] // 1_000 if band in etas else None for band in BANDS},
    }
