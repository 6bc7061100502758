"""A clock that a test moves, events with the boring fields filled in, and pages read as numbers."""

import os
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from breaker.core.events import Action, CallEnded, Outcome, Result
from breaker.core.model import Limits, Rate
from breaker.core.verdict import Policy
from breaker.gateway.call import Kind
from breaker.signals.metrics import Metrics
from breaker.store.capacity import Look

REASONS = frozenset(Kind) | frozenset(Policy) | {"hang_up", "cut", ""}
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


def look(*, in_use: int = 3, waiting: int = 1, started: int = 0, wanted: int = 0) -> Look:
    """Of an operation whose rate a person has doubled for a while."""
    return Look(
        limits=Limits(rate=Rate(limit=40, period_us=1_000_000, burst=40), concurrency=8),
        configured=Limits(rate=Rate(limit=1_200, period_us=60_000_000, burst=40), concurrency=8),
        source="override", version="abc", in_use=in_use, waiting=waiting, started=started, wanted=wanted,
        service_us=500_000, quota_limit=1_000, quota_used=250,
    )  # fmt: skip


def numbers(metrics: Metrics) -> dict[str, float]:
    """Each sample as it stands on the page: `name{label="value"}` -> value."""
    found = {}
    for family in text_string_to_metric_families(metrics.page("")[1].decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
