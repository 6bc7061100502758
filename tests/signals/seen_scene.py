"""What the steward saw of one operation, with the boring fields filled in, for tests of what alerts make of it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from breaker.core.alert_policy import Alerting, AlertPolicy
from breaker.core.alerts import Level, Reading, Stage, step
from breaker.core.job_policy import Band
from breaker.core.jobs import Pace
from breaker.core.model import Limits, Operation, Rate
from breaker.core.notice import notice_of
from breaker.signals.capacity import Demand
from breaker.signals.conditions import Seen, Trends
from breaker.signals.expected import Expected
from breaker.signals.sights import Sight
from breaker.store.capacity import CircuitLook, Look
from breaker.store.job_desk import QueueLook
from breaker.store.tallies import Tallied
from tests.signals.scene import operation, queue_look

SECOND = 1_000_000
HOUR = 3_600 * SECOND
NOW = 1_767_708_120 * SECOND  # 2026-01-06 14:02 UTC
NAME = "billing.charge"
TWENTY = Limits(rate=Rate(limit=20, period_us=SECOND, burst=20), concurrency=10)


def look(limits: Limits = TWENTY, **more: Any) -> Look:
    said: dict[str, Any] = {
        "limits": limits, "configured": limits, "stated": limits, "source": "file", "version": "v1", "in_use": 0, "waiting": 0,
        "started": 0, "wanted": 0, "service_us": 250_000, "quota_limit": None, "quota_used": 0, "circuit": CircuitLook(),
    }  # fmt: skip
    return Look(**(said | more))


def queue(*, waiting: Mapping[Band, int] | None = None, **numbers: Any) -> QueueLook:
    return queue_look(waiting=waiting, **({"now_us": NOW, "pace": Pace(mean_us=50_000)} | numbers))


def seen(
    *,
    look: Look = look(),  # noqa: B008 - frozen
    demand: float | None = None,
    queue: QueueLook | None = None,
    expected: Expected | None = None,
    recent: Mapping[str, int] | None = None,
    windows: Mapping[int, tuple[int, int]] | None = None,
    trends: Trends | None = None,
    has_queue: bool = True,
    alerts: AlertPolicy | None = None,
    now_s: float = 0.0,
    **changes: Any,
) -> Seen:
    of: Operation = replace(operation(NAME, has_queue=has_queue), alerts=alerts or AlertPolicy(), **changes)
    asked = None if demand is None else Demand(started=min(demand, 20.0), wanted=demand)
    return Seen(
        operation=of, sight=Sight(look=look, demand=asked, queue=queue, expected=expected),
        tallied=Tallied(recent=recent or {}, windows=windows or {}), trends=trends or Trends(), now_us=NOW, now_s=now_s,
    )  # fmt: skip


def by_key(readings: Iterable[Reading]) -> dict[str, Reading]:
    return {reading.alert: reading for reading in readings}


def level(readings: Iterable[Reading] | Reading, key: str = "") -> Level:
    return readings.level if isinstance(readings, Reading) else by_key(readings)[key].level


def words(reading: Reading) -> dict[str, str]:
    """What a person reads when it fires: the sentences by their name."""
    known = step(None, replace(reading, level=Level.HIGH, for_us=0), NOW)
    assert known
    assert known.stage is Stage.FIRING
    notice = notice_of(known, Alerting(), "production")
    assert not any("?" in text for text in notice.annotations.values()), "a value was not read"
    return dict(notice.annotations)
