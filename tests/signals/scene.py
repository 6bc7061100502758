"""A clock that a test moves, events with the boring fields filled in, and pages read as numbers."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from breaker.core.events import Action, CallEnded, JobAttempted, Outcome, Result
from breaker.core.job_policy import BANDS, Band, Queue
from breaker.core.jobs import Fate, Pace
from breaker.core.model import Capacity, Downstream, Limits, Match, Operation, Overflow, Rate
from breaker.core.verdict import Policy
from breaker.gateway.call import Kind
from breaker.signals.metrics import Metrics
from breaker.store.capacity import CircuitLook, Look
from breaker.store.job_desk import QueueLook

REASONS = frozenset(Kind) | frozenset(Policy) | {"hang_up", "cut", "asked", "known", ""}
Lines = Callable[..., list[dict[str, Any]]]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


class Pipe:
    """Standard output, and who reads it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def text(self) -> str:
        """All that was written; nobody writes any more."""
        os.close(self.writer)
        self.writer = -1
        with os.fdopen(os.dup(self.reader), encoding="utf-8") as file:
            return file.read()

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def ended(
    outcome: Outcome = Outcome.FORWARDED,
    reason: str = "",
    *,
    operation: str = "billing.charge",
    status: int = 200,
    tenant: str = "acme",
    trace_id: str = TRACE_ID,
    result: Result | None = Result.OK,
    action: Action | None = None,
    shadow: Policy | None = None,
) -> CallEnded:
    return CallEnded(
        operation=operation, outcome=outcome, reason=reason, status=status, caller="crm", tenant=tenant,
        decision=f"{operation}~01K", request_id="req-1", trace_id=trace_id, duration_s=0.02,
        admission_s=0.0004, downstream_s=0.0196 if result else 0.0, result=result, action=action, shadow=shadow,
    )  # fmt: skip


def attempted(
    fate: Fate = Fate.SUCCEEDED,
    reason: str = "",
    *,
    operation: str = "billing.charge",
    status: int = 200,
    result: Result | None = Result.OK,
    dropped: bool = False,
) -> JobAttempted:
    return JobAttempted(
        operation=operation, job="01K", attempt=2, fate=fate, reason=reason, status=status, duration_s=0.25,
        result=result, trace_id=TRACE_ID, is_ended=fate in (Fate.SUCCEEDED, Fate.DEAD, Fate.UNKNOWN),
        dropped=dropped,
    )  # fmt: skip


def operation(name: str, *, has_queue: bool = False) -> Operation:
    plain = Operation(
        name=name, pipeline=name.partition(".")[0], team="finance", match=Match(method="POST", template="/charge"),
        downstream=Downstream(url="http://127.0.0.1:9"),
        capacity=Capacity(limits=Limits(rate=Rate(limit=100, period_us=1_000_000, burst=2), concurrency=2)),
    )  # fmt: skip
    queue = Queue(start_within_ms=60_000, jobs_max=500)
    return replace(plain, overflow=Overflow.QUEUE, queue=queue) if has_queue else plain


def named(*plain: str, queues: tuple[str, ...] = ()) -> dict[str, Operation]:
    """Operations of a configuration, without and with a queue."""
    return {name: operation(name, has_queue=name in queues) for name in (*plain, *queues)}


def queue_look(*, waiting: Mapping[Band, int] | None = None, **numbers: Any) -> QueueLook:
    """An empty queue, but for what is said."""
    said: dict[str, Any] = dict.fromkeys(QueueLook.__dataclass_fields__, 0)
    said |= {
        "limits": Limits(), "waiting": dict.fromkeys(BANDS, 0) | dict(waiting or {}),
        "oldest_us": dict.fromkeys(BANDS, 0), "deadline_us": dict.fromkeys(BANDS, 0), "pace": Pace(),
        "held": "", "held_author": "", "held_reason": "",
    }  # fmt: skip
    return QueueLook(**(said | numbers))


DOUBLED = Limits(rate=Rate(limit=40, period_us=1_000_000, burst=40), concurrency=8)


def look(
    *,
    limits: Limits = DOUBLED,
    in_use: int = 3,
    waiting: int = 1,
    started: int = 0,
    wanted: int = 0,
    quota_used: int = 250,
    circuit: CircuitLook | None = None,
) -> Look:
    """Of an operation whose rate a person has doubled for a while."""
    return Look(
        limits=limits,
        configured=Limits(rate=Rate(limit=1_200, period_us=60_000_000, burst=40), concurrency=8),
        source="override", version="abc", in_use=in_use, waiting=waiting, started=started, wanted=wanted,
        service_us=500_000, quota_limit=1_000, quota_used=quota_used,
        circuit=circuit or CircuitLook(),
    )  # fmt: skip


def numbers(metrics: Metrics) -> dict[str, float]:
    """Each sample as it stands on the page: `name{label="value"}` -> value."""
    found = {}
    for family in text_string_to_metric_families(b"".join(metrics.page("")[1]).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
