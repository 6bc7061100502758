"""
Catalogue: one entry of `GET /v1/operations` - what an operation promises, and how it stands now.

Callers see this, so it holds no secret, no address of a downstream and no tenant's name. The
schema of an entry stands beside it; the OpenAPI document publishes it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from breaker.core.calendar import transitions
from breaker.core.config import Config
from breaker.core.model import Capacity, Limits, Mode, Operation, Overflow, Rate
from breaker.core.rate import is_closed
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook
from breaker.web.catalogue_circuit import CIRCUIT_NOW_SCHEMA, circuit_now
from breaker.web.catalogue_queue import (
    QUEUE_NOW_SCHEMA,
    QUEUE_PROMISE_SCHEMA,
    Forecast,
    queue_now,
    queue_promise,
)
from breaker.web.schema_parts import COUNT, TEXT, closed_object, or_null

AHEAD_US = 60 * 86_400_000_000  # how far ahead an opening is looked for, as far as the store knows it


def operation_entry(
    operation: Operation,
    look: Look | None,
    queue: QueueLook | None = None,
    *,
    forecast: Forecast = lambda _name, _ahead, _pace: None,
    now_us: int,
) -> dict[str, Any]:
    """
    One operation, ready for JSON.

    Args:
        operation: As the files say.
        look: Its numbers over all replicas; None when the store cannot be read.
        queue: Those of its queue; None when it has none, or likewise.
        forecast: When a job would start.
        now_us: By the store's clock, microseconds since 1970.

    """
    capacity = operation.capacity
    waits = operation.overflow is Overflow.THROTTLE and capacity.mode is Mode.ENFORCE
    return {
        "name": operation.name,
        "pipeline": operation.pipeline,
        "team": operation.team,
        "method": operation.match.method,
        "path": f"/{operation.pipeline}{operation.match.template}",
        "promise": {
            "limits": _limits(look.limits) if look else None,
            "configured": _limits(look.configured if look else capacity.limits),
            "source": look.source if look else None,
            "schedule": _schedule(capacity),
            "quota": _quota(capacity, look),
            "per_tenant": _limits(capacity.per_tenant) if capacity.per_tenant else None,
            "cost": {
                "constant": capacity.cost.constant,
                "header": capacity.cost.header,
                "max": max(capacity.cost.constant, capacity.cost.max)
                if capacity.cost.header
                else capacity.cost.constant,
            },
            "mode": str(capacity.mode),
            "overflow": str(operation.overflow),
            "max_wait_ms": operation.max_wait_ms if waits else 0,
            "queue": queue_promise(operation),
        },
        "now": {
            **_now(capacity, look, now_us),
            "circuit": circuit_now(operation, look, now_us),
            "queue": queue_now(operation, look, queue, forecast, now_us) if queue else None,
        }
        if look
        else None,
    }


def catalogue(
    config: Config,
    looks: Mapping[str, Look | None],
    queues: Mapping[str, QueueLook | None],
    *,
    forecast: Forecast,
    now_us: int,
) -> dict[str, Any]:
    """
    The answer to `GET /v1/operations`: every operation, in the order of the files.

    Args:
        config: In force.
        looks, queues: By operation; one that is missing could not be read.
        forecast: When a job would start.
        now_us: By the store's clock, microseconds since 1970.

    """
    return {
        "version": config.version,
        "operations": [
            operation_entry(operation, looks.get(name), queues.get(name), forecast=forecast, now_us=now_us)
            for name, operation in config.operations.items()
        ],
    }


def _now(capacity: Capacity, look: Look, now_us: int) -> dict[str, Any]:
    slots = look.limits.concurrency
    closed = is_closed(look.limits)
    opens_us = _opens_us(capacity, look, now_us) if closed else None
    return {
        # Without a limit on them slots are not held, so nobody counts.
        "in_flight": None if slots is None else look.in_use,
        "free": None if slots is None else max(0, slots - look.in_use),
        "waiting": look.waiting,
        "closed": closed,
        "closed_until": None if opens_us is None else _iso(opens_us),
    }


def _opens_us(capacity: Capacity, look: Look, now_us: int) -> int | None:
    """When the calendar opens next; None when a person closed it, or nothing is known to open it."""
    if look.source == "override":
        return None
    changes = transitions(capacity, now_us, now_us + AHEAD_US)
    return next((at_us for at_us, limits in changes if at_us > now_us and not is_closed(limits)), None)


def _iso(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def _limits(limits: Limits) -> dict[str, Any]:
    return {"rate": _rate(limits.rate) if limits.rate else None, "concurrency": limits.concurrency}


def _rate(rate: Rate) -> dict[str, Any]:
    return {"limit": rate.limit, "period_ms": rate.period_us // 1_000, "burst": rate.burst}


def _schedule(capacity: Capacity) -> dict[str, Any] | None:
    schedule = capacity.schedule
    if schedule is None:
        return None
    hours = [{"when": entry.text, **_limits(entry.limits)} for entry in schedule.hours]
    return {"timezone": schedule.timezone, "hours": hours, "otherwise": _limits(schedule.otherwise)}


def _quota(capacity: Capacity, look: Look | None) -> dict[str, Any] | None:
    quota = capacity.quota
    if quota is None:
        return None
    return {
        "limit": quota.limit,
        "per": str(quota.per),
        "timezone": quota.timezone,
        "used": look.quota_used if look else None,
    }


_STATED = {
    "rate": or_null(
        closed_object({"limit": COUNT, "period_ms": COUNT, "burst": {"type": "integer", "minimum": 1}})
    ),
    "concurrency": or_null(COUNT),
}
_LIMITS = closed_object(_STATED)

ENTRY_SCHEMA: dict[str, Any] = {
    "title": "An operation",
    **closed_object(
        {
            "name": {"type": "string", "examples": ["billing.charge-invoice"]},
            "pipeline": TEXT,
            "team": {"type": "string", "description": "Who answers for it."},
            "method": TEXT,
            "path": {"type": "string", "description": "Below this gateway; `{name}` is a parameter."},
            "promise": closed_object(
                {
                    "limits": {
                        **or_null(_LIMITS),
                        "description": "In force now, for all callers together; null while the store cannot be read.",
                    },
                    "configured": {**_LIMITS, "description": "As the file states them."},
                    "source": {
                        "enum": ["file", "schedule", "override", None],
                        "description": "Where the limits in force come from.",
                    },
                    "schedule": or_null(
                        closed_object(
                            {
                                "timezone": TEXT,
                                "hours": {
                                    "type": "array",
                                    "items": closed_object({"when": TEXT, **_STATED}),
                                },
                                "otherwise": _LIMITS,
                            }
                        )
                    ),
                    "quota": or_null(
                        closed_object(
                            {
                                "limit": COUNT,
                                "per": {"enum": ["day", "week", "month"]},
                                "timezone": TEXT,
                                "used": or_null(COUNT),
                            }
                        )
                    ),
                    "per_tenant": {
                        **or_null(_LIMITS),
                        "description": "What one tenant may use of it; a tenant may have been granted other limits.",
                    },
                    "cost": closed_object({"constant": COUNT, "header": or_null(TEXT), "max": COUNT}),
                    "mode": {"enum": ["enforce", "shadow"]},
                    "overflow": {"enum": ["queue", "throttle", "alert"]},
                    "max_wait_ms": {**COUNT, "description": "How long a call may wait its turn."},
                    "queue": QUEUE_PROMISE_SCHEMA,
                }
            ),
            "now": {
                **or_null(
                    closed_object(
                        {
                            "in_flight": {
                                **or_null(COUNT),
                                "description": "Over all replicas; null when `concurrency` is not limited.",
                            },
                            "free": or_null(COUNT),
                            "waiting": {
                                **COUNT,
                                "description": "Calls that wait their turn, over all replicas.",
                            },
                            "closed": {"type": "boolean"},
                            "closed_until": {
                                **or_null({"type": "string", "format": "date-time"}),
                                "description": "The next opening by the calendar; null when none is known.",
                            },
                            "circuit": CIRCUIT_NOW_SCHEMA,
                            "queue": QUEUE_NOW_SCHEMA,
                        }
                    )
                ),
                "description": "Null while the store cannot be read.",
            },
        }
    ),
}

CATALOGUE_SCHEMA: dict[str, Any] = closed_object(
    {
        "version": {"type": "string", "description": "Of the configuration in force."},
        "operations": {"type": "array", "items": ENTRY_SCHEMA},
    }
)
