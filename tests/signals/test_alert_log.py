"""What fires and whether people were told, as lines."""

import pytest

from breaker.core.events import AlertMoved, LetterEnded
from breaker.core.notify import Kind
from tests.signals.scene import Lines

INCIDENT = "BreakerRefusing:critical:billing.charge"


@pytest.mark.parametrize(
    ("is_firing", "level", "event"), [(True, "warning", "alert_firing"), (False, "info", "alert_resolved")]
)
def test_what_fires_and_ends_is_a_line(lines: Lines, is_firing: bool, level: str, event: str) -> None:
    """Without any channel it is the only place where it is said."""
    found = lines(
        AlertMoved(INCIDENT, "BreakerRefusing", "critical", "billing.charge", is_firing, "the queue is full")
    )
    assert [{key: value for key, value in line.items() if key != "timestamp"} for line in found] == [
        {"level": level, "event": event, "alert": "BreakerRefusing", "severity": "critical",
         "operation": "billing.charge", "incident": INCIDENT, "detail": "the queue is full"},
    ]  # fmt: skip


def test_what_concerns_all_names_no_operation(lines: Lines) -> None:
    """Keys that would say nothing are left out."""
    (line,) = lines(AlertMoved("BreakerStoreDown:critical", "BreakerStoreDown", "critical", "", True, "down"))
    assert "operation" not in line


@pytest.mark.parametrize(
    ("result", "level", "event"),
    [
        ("ok", "info", "alert_delivered"),
        ("retry", "warning", "alert_not_delivered"),
        ("failed", "error", "alert_given_up"),
    ],
)
def test_what_came_of_a_message_is_a_line(lines: Lines, result: str, level: str, event: str) -> None:
    """Whoever was not woken asks this log why."""
    detail = "" if result == "ok" else "answered 503"
    (line,) = lines(LetterEnded("oncall", result, Kind.FIRING, INCIDENT, detail))
    assert (line["level"], line["event"], line["channel"], line["kind"], line["incident"]) == (
        level, event, "oncall", "firing", INCIDENT,
    )  # fmt: skip
    assert line.get("detail", "") == detail


def test_a_test_of_a_channel_is_of_no_incident(lines: Lines) -> None:
    """It is a line all the same."""
    (line,) = lines(LetterEnded("oncall", "ok", Kind.TEST, "", ""))
    assert line["kind"] == "test"
    assert "incident" not in line
