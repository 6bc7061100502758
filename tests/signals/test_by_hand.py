"""What a person set or held, as gauges and as lines: until when, since when, by whom."""

from dataclasses import replace

from breaker.core.events import OverrideChanged
from breaker.signals.expected import Expected
from breaker.signals.metrics import Metrics
from tests.signals.scene import Lines, look, named, numbers, queue_look

CHARGE = "{operation=billing.charge}"


def test_when_limits_of_a_person_end_is_on_the_page(metrics: Metrics) -> None:
    """On-call is told before the evening's backlog meets the old limit again."""
    ends = "breaker_override_expires_timestamp_seconds" + CHARGE
    metrics.observe("billing.charge", replace(look(), override_until_us=1_800_000_000_500_000), None)
    assert numbers(metrics)[ends] == 1_800_000_000.5
    metrics.observe("billing.charge", look(), None)
    assert numbers(metrics)[ends] == 0


def test_since_when_an_operation_is_held_is_on_the_page(metrics: Metrics) -> None:
    """A pause that somebody forgot is found by its age."""
    metrics.configured("v1", named(queues=("billing.charge",)))
    since = "breaker_held_since_timestamp_seconds" + CHARGE
    for held, expected in (("paused", 1_800_000_000.5), ("draining", 1_800_000_000.5), ("", 0)):
        seen = queue_look(held=held, held_since_us=1_800_000_000_500_000)
        metrics.observe_queue("billing.charge", seen, {}, Expected(seconds={}, needed=0.0))
        assert numbers(metrics)[since] == expected


def test_a_change_of_limits_is_one_line_with_its_author(lines: Lines) -> None:
    """'Who raised that?' is asked a day later, in the logs."""
    found = lines(
        OverrideChanged("billing.charge", "ann", "month end", 1_800_000_000_000_000, "40/s, burst 80"),
        OverrideChanged("billing.charge", "bob", "over", 0, "20/s, burst 40"),
    )
    assert [{name: value for name, value in line.items() if name != "timestamp"} for line in found] == [
        {
            "level": "info", "event": "override_set", "operation": "billing.charge", "author": "ann",
            "reason": "month end", "until": "2027-01-15T08:00:00Z", "limits": "40/s, burst 80",
        },
        {
            "level": "info", "event": "override_ended", "operation": "billing.charge", "author": "bob",
            "reason": "over", "limits": "20/s, burst 40",
        },
    ]  # fmt: skip
