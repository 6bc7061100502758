"""
The queue in the catalogue: what an operation with a queue promises, how much waits, and when a job that
was accepted now would start. As in `catalogue.py`, nothing here is a secret or names a person.
"""

from collections.abc import Callable
from typing import Any

from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import Pace
from breaker.core.model import Operation
from breaker.core.promise import Eta
from breaker.core.rate import is_closed
from breaker.policy.job_words import format_durability
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook
from breaker.web.catalogue_circuit import is_barred
from breaker.web.job_documents import eta_view, moment
from breaker.web.schema_parts import COUNT, MOMENT, TEXT, closed_object, described, or_null

Forecast = Callable[[str, int, Pace], Eta | None]  # operation, jobs ahead, pace
AT_ONCE = Eta(p50_us=0, p90_us=0)


def queue_promise(operation: Operation) -> dict[str, Any] | None:
    """What its callers can build on; None without a queue."""
    queue = operation.queue
    if queue is None:
        return None
    key = operation.idempotency
    return {
        "start_within_ms": queue.start_within_ms,
        "clock": str(queue.clock),
        "expire_after_ms": queue.expire_after_ms,
        "max_jobs": queue.jobs_max,
        "max_jobs_per_tenant": queue.tenant_jobs_max,
        "payload_max_bytes": queue.payload_max,
        "durability": format_durability(queue.durability, queue.replicas),
        "keep_result_ms": queue.keep_result_ms,
        "effects": str(operation.effects),
        "idempotency": {"key": "required" if key.is_required else "optional", "window_ms": key.window_ms},
        "callbacks": operation.callback is not None,
        "batch_max_items": operation.batch.max_items if operation.batch else None,
    }


def queue_now(
    operation: Operation, look: Look, queue: QueueLook, forecast: Forecast, now_us: int
) -> dict[str, Any]:
    """How it stands, over all replicas."""
    is_held = is_barred(operation, look, now_us) or bool(queue.held)
    return {
        "queued": queue.queued,
        "scheduled": queue.scheduled,
        "running": queue.running,
        "bands": {
            str(band): {
                "queued": queue.waiting[band],
                "oldest_ms": queue.oldest_us[band] // 1_000,
                "eta": None if is_held else eta_view(eta_of(operation.name, band, look, queue, forecast)),
            }
            for band in BANDS
        },
        "held": {
            "state": queue.held,
            "since": moment(queue.held_since_us),
            "until": moment(queue.held_until_us),
        }
        if queue.held
        else None,
    }


def eta_of(name: str, band: Band, look: Look, queue: QueueLook, forecast: Forecast) -> Eta | None:
    """When a job of this band that was accepted now would start; None while that is not known."""
    has_quota = look.quota_limit is None or look.quota_used < look.quota_limit
    if not has_quota:
        return None
    slots = look.limits.concurrency
    if queue.queued == 0 and not is_closed(look.limits) and (slots is None or look.in_use < slots):
        return AT_ONCE
    # Those of higher bands go first.
    ahead = sum(queue.waiting[higher] for higher in BANDS[: BANDS.index(band) + 1])
    return forecast(name, ahead, queue.pace)


ETA_SCHEMA: dict[str, Any] = described(
    or_null(closed_object({"p50_ms": COUNT, "p90_ms": COUNT})),
    "Milliseconds until the start: in half of the cases, and in nine of ten; null while that is not known.",
)
_LENGTH = or_null(COUNT)

QUEUE_PROMISE_SCHEMA: dict[str, Any] = described(
    or_null(
        closed_object(
            {
                "start_within_ms": described(COUNT, "How long a job may wait before it starts."),
                "clock": described({"enum": ["open", "wall"]}, "Whether that counts open hours only."),
                "expire_after_ms": described(
                    _LENGTH, "A job that did not start by then expires; null is never."
                ),
                "max_jobs": described(COUNT, "How many jobs may wait."),
                "max_jobs_per_tenant": described(
                    _LENGTH, "The same for one tenant; null is no bound of its own."
                ),
                "payload_max_bytes": described(COUNT, "The largest body that is taken."),
                "durability": described(
                    TEXT, "`fsync`, `replicated: N` or `memory`: before the 202 is given."
                ),
                "keep_result_ms": described(COUNT, "How long the answer is kept."),
                "effects": described(
                    {"enum": ["keyed", "once"]},
                    "`once`: what may have been executed is never repeated by a machine.",
                ),
                "idempotency": closed_object({"key": {"enum": ["optional", "required"]}, "window_ms": COUNT}),
                "callbacks": described({"type": "boolean"}, "Whether Breaker-Callback is taken."),
                "batch_max_items": described(_LENGTH, "Jobs go downstream together, so many at most."),
            }
        )
    ),
    "Null for an operation without a queue.",
)
QUEUE_NOW_SCHEMA: dict[str, Any] = described(
    or_null(
        closed_object(
            {
                "queued": described(COUNT, "Jobs that wait, over all replicas."),
                "scheduled": described(COUNT, "Jobs whose moment has not come, or that will be tried again."),
                "running": COUNT,
                "bands": closed_object(
                    {
                        str(band): closed_object(
                            {
                                "queued": COUNT,
                                "oldest_ms": described(COUNT, "How long the oldest waits; 0 when none does."),
                                "eta": ETA_SCHEMA,
                            }
                        )
                        for band in BANDS
                    }
                ),
                "held": described(
                    or_null(
                        closed_object(
                            {
                                "state": {"enum": ["paused", "draining"]},
                                "since": or_null(MOMENT),
                                "until": described(or_null(MOMENT), "Null: until a person resumes it."),
                            }
                        )
                    ),
                    "Whether a person holds the operation.",
                ),
            }
        )
    ),
    "Null for an operation without a queue, and while the store cannot be read.",
)
