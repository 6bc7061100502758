"""What is exported of the way to on-call."""

import time

import pytest
from prometheus_client import CollectorRegistry

from breaker.core.alert_table import ALERTS
from breaker.core.events import LetterEnded
from breaker.core.notify import Kind
from breaker.signals.alert_metrics import RESULTS, AlertMetrics
from breaker.signals.metrics import Metrics
from tests.signals.scene import numbers


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def alerts(registry: CollectorRegistry) -> AlertMetrics:
    alerts = AlertMetrics(registry)
    alerts.configured(["chat", "oncall"])
    return alerts


def shown(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"breaker_alert{name}", labels)


def test_every_alert_has_a_series_from_the_start(registry: CollectorRegistry, alerts: AlertMetrics) -> None:
    """0 says that it is judged; nothing would say that nobody knows."""
    del alerts
    for row in ALERTS:
        assert shown(registry, "s_firing", alert=row.name, severity=str(row.severity)) == 0


def test_what_fires_is_counted_and_is_0_again_when_it_does_not(
    registry: CollectorRegistry, alerts: AlertMetrics
) -> None:
    """Three operations over capacity are three incidents."""
    over = {"alert": "BreakerOverCapacity", "severity": "warning"}
    alerts.observe({("BreakerOverCapacity", "warning"): 3}, {})
    assert shown(registry, "s_firing", **over) == 3
    alerts.observe({}, {})
    assert shown(registry, "s_firing", **over) == 0


def test_deliveries_are_counted_by_what_came_of_them(
    registry: CollectorRegistry, alerts: AlertMetrics
) -> None:
    """All results exist from the start, so that the first failure has an increase."""
    for result in ("retry", "retry", "ok"):
        alerts.listen(LetterEnded("chat", result, Kind.FIRING, "x", ""))
    assert [shown(registry, "_deliveries_total", channel="chat", result=result) for result in RESULTS] == [
        1,
        2,
        0,
    ]
    assert [shown(registry, "_deliveries_total", channel="oncall", result=result) for result in RESULTS] == [
        0,
        0,
        0,
    ]


def test_the_last_delivery_is_that_of_the_last_success(
    registry: CollectorRegistry, alerts: AlertMetrics
) -> None:
    """0 before; a failure leaves it."""
    alerts.listen(LetterEnded("chat", "failed", Kind.FIRING, "x", ""))
    assert shown(registry, "_last_delivery_timestamp_seconds", channel="chat") == 0
    before = time.time()
    alerts.listen(LetterEnded("chat", "ok", Kind.FIRING, "x", ""))
    last = shown(registry, "_last_delivery_timestamp_seconds", channel="chat")
    assert last is not None
    assert before <= last <= time.time()


def test_what_waits_is_shown_of_every_channel(registry: CollectorRegistry, alerts: AlertMetrics) -> None:
    """And of no other: a letter may still wait for one that a reload took away."""
    alerts.observe({}, {"chat": 4, "gone": 2})
    assert [shown(registry, "_outbox", channel=name) for name in ("chat", "oncall", "gone")] == [4, 0, None]
    alerts.observe({}, {})
    assert shown(registry, "_outbox", channel="chat") == 0


def test_a_channel_that_a_reload_takes_away_has_no_series(
    registry: CollectorRegistry, alerts: AlertMetrics
) -> None:
    """And a late answer of it makes none; one that stays keeps its counts, one that comes back begins anew."""
    for name in ("chat", "oncall"):
        alerts.listen(LetterEnded(name, "ok", Kind.FIRING, "x", ""))
    alerts.configured(["oncall", "hook"])
    alerts.listen(LetterEnded("chat", "ok", Kind.FIRING, "x", ""))
    assert [
        shown(registry, "_deliveries_total", channel=name, result="ok") for name in ("chat", "oncall", "hook")
    ] == [None, 1, 0]
    assert shown(registry, "_outbox", channel="chat") is None
    alerts.configured(["chat"])
    assert shown(registry, "_deliveries_total", channel="chat", result="ok") == 0


def test_the_metrics_of_the_process_hear_of_letters(metrics: Metrics) -> None:
    """One registry, one page."""
    metrics.alerts.configured(["chat"])
    metrics.listen(LetterEnded("chat", "ok", Kind.FIRING, "x", ""))
    assert numbers(metrics)["breaker_alert_deliveries_total{channel=chat,result=ok}"] == 1
