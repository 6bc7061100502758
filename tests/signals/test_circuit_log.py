"""Ill downstreams, and an ill store, as lines."""

from typing import Any

import pytest

from breaker.core.events import (
    CallRetried,
    CircuitMoved,
    CircuitSeen,
    DegradedBegan,
    DegradedEnded,
    Event,
    LoneReplica,
    OverAdmitted,
    ReplicasSeen,
    Result,
    SlowedDown,
    StewardChanged,
    StoreReset,
)
from tests.signals.scene import Lines

CHARGE = "billing.charge"
LINES: list[tuple[Event, dict[str, Any]]] = [
    (
        CircuitMoved(CHARGE, "closed", "open", 7, "62 % of 40 calls failed"),
        {"level": "warning", "event": "circuit_opened", "operation": CHARGE, "was": "closed", "state": "open",
         "generation": 7, "detail": "62 % of 40 calls failed"},
    ),
    (
        CircuitMoved(CHARGE, "closed", "forced-open", 8, "jo: the bank is down"),
        {"level": "warning", "event": "circuit_opened", "operation": CHARGE, "was": "closed",
         "state": "forced-open", "generation": 8, "detail": "jo: the bank is down"},
    ),
    (
        CircuitMoved(CHARGE, "half-open", "closed", 9, "all probes succeed"),
        {"level": "info", "event": "circuit_moved", "operation": CHARGE, "was": "half-open", "state": "closed",
         "generation": 9, "detail": "all probes succeed"},
    ),
    (
        LoneReplica(CHARGE, is_lone=True, detail="8 of 9 calls failed"),
        {"level": "warning", "event": "lone_replica", "operation": CHARGE, "detail": "8 of 9 calls failed"},
    ),
    (
        LoneReplica(CHARGE, is_lone=False, detail="1 of 20 calls failed"),
        {"level": "info", "event": "lone_replica_ended", "operation": CHARGE, "detail": "1 of 20 calls failed"},
    ),
    (
        DegradedBegan("timeout", "3 failures in a row"),
        {"level": "warning", "event": "degraded_began", "kind": "timeout", "detail": "3 failures in a row"},
    ),
    (
        DegradedBegan("timeout", "node h:1 is not asked", CHARGE),
        {
            "level": "warning", "event": "degraded_began", "kind": "timeout", "detail": "node h:1 is not asked",
            "operation": CHARGE,
        },
    ),
    (
        DegradedEnded(2.0, CHARGE),
        {"level": "info", "event": "degraded_ended", "seconds": 2.0, "operation": CHARGE},
    ),
    (DegradedEnded(12.34567), {"level": "info", "event": "degraded_ended", "seconds": 12.346}),
    (
        OverAdmitted(CHARGE, started=40, over=3),
        {"level": "warning", "event": "over_admitted", "operation": CHARGE, "started": 40, "over": 3},
    ),
    (
        OverAdmitted(CHARGE, started=40, over=0),
        {"level": "info", "event": "degraded_counted", "operation": CHARGE, "started": 40},
    ),
    (StewardChanged(is_steward=True, term=4), {"level": "info", "event": "steward_began", "term": 4}),
    (StewardChanged(is_steward=False, term=5), {"level": "info", "event": "steward_ended", "term": 5}),
    (
        ReplicasSeen(live=3, differing=0, version="9f86d081884c"),
        {"level": "info", "event": "replicas_seen", "live": 3, "version": "9f86d081884c"},
    ),
    (
        ReplicasSeen(live=3, differing=1, version="9f86d081884c"),
        {"level": "warning", "event": "replicas_differ", "live": 3, "differing": 1, "version": "9f86d081884c"},
    ),
    (
        StoreReset("the epoch is gone"),
        {"level": "warning", "event": "store_reset", "detail": "the epoch is gone"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "expected"), LINES)
def test_what_went_wrong_is_a_line_of_its_own(lines: Lines, event: Event, expected: dict[str, Any]) -> None:
    """On-call greps for the word; what is routine must not stand at the level that wakes people."""
    (line,) = lines(event)
    del line["timestamp"]
    assert line == expected


def test_what_a_replica_hears_of_a_circuit_is_told_once(lines: Lines) -> None:
    """It hears the state with every report; only a change is news, and closed is how it begins."""
    found = lines(
        *(
            CircuitSeen(CHARGE, state)
            for state in ("closed", "open", "open", "half-open", "closed", "closed")
        ),
        CircuitSeen("support.create", "closed"),
        CircuitSeen("support.create", "open"),
    )
    assert [(line["level"], line["event"], line["operation"], line["state"]) for line in found] == [
        ("info", "circuit_seen", CHARGE, "open"),
        ("info", "circuit_seen", CHARGE, "half-open"),
        ("info", "circuit_seen", CHARGE, "closed"),
        ("info", "circuit_seen", "support.create", "open"),
    ]


def test_a_downstream_that_asks_for_time_is_told_once_in_ten_seconds(lines: Lines) -> None:
    """Every call in flight hears the same 429; the count of those left out must be right."""
    slowed = SlowedDown(CHARGE, "acme", 30.0004)
    found = lines(slowed, slowed, 9.9, slowed, SlowedDown("support.create", "", 1.0), 0.1, slowed)
    assert [
        (line["operation"], line["seconds"], line.get("tenant"), line.get("left_out")) for line in found
    ] == [
        (CHARGE, 30.0, "acme", None),
        ("support.create", 1.0, None, None),
        (CHARGE, 30.0, "acme", 2),
    ]
    assert {(line["level"], line["event"]) for line in found} == {("info", "slowed_down")}


def test_a_call_that_is_tried_again_has_no_line_unless_asked_for(lines: Lines) -> None:
    """Its own line says how it ended, and the metric how often; at an outage these would be most of the log."""
    retried = CallRetried(CHARGE, Result.TIMEOUT)
    assert lines(retried) == []


def test_at_debug_a_call_that_is_tried_again_says_why(lines: Lines) -> None:
    """Who debugs one call wants to see each of its attempts."""
    (line,) = lines(CallRetried(CHARGE, Result.TIMEOUT), level="debug")
    assert (line["event"], line["operation"], line["reason"]) == ("call_retried", CHARGE, "timeout")
