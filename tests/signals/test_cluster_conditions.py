"""What of the table of alerts is true of the gateways and their store: both sides of each threshold."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from breaker.core.alerts import Level, Reading
from breaker.signals.cluster_conditions import Cluster, Outage, own_readings, readings_of
from breaker.signals.trend import Trend
from breaker.store.alert_book import Note
from tests.signals.scene import named
from tests.signals.seen_scene import NOW, SECOND, by_key, level, words

HIGH, BETWEEN, LOW = Level.HIGH, Level.BETWEEN, Level.LOW
MINUTE = 60 * SECOND
LONE, LOST, REMOVED = (
    "BreakerLoneReplicaFailing:warning",
    "BreakerJobsLost:critical",
    "BreakerOperationRemoved:warning",
)
FILL, LATE = "BreakerStoreWillFill:warning", "BreakerDeliveryFailing:warning"


def cluster(*notes: Note, memory: Trend | None = None, **more: Any) -> Cluster:
    said: dict[str, Any] = {
        "operations": named("support.create", queues=("billing.charge",)), "differing": 0, "removed": None,
        "memory_ratio": None, "now_us": NOW, "now_s": 300.0,
    }  # fmt: skip
    return Cluster(notes=notes, memory=memory or Trend(), **(said | more))


def note(replica: str = "A", **more: Any) -> Note:
    return Note(replica=replica, at_us=NOW, **more)


def of(found: Cluster) -> Mapping[str, Reading]:
    return {reading.id: reading for reading in readings_of(found)}


def test_all_is_well_but_for_the_watchdog() -> None:
    """It always fires: when it stops, nobody hears anything any more."""
    found = list(readings_of(cluster(note(), memory_ratio=0.1, waiting={"chat": (0, 0)}, removed={})))
    assert {reading.alert for reading in found if reading.level is not LOW} == {"BreakerWatchdog:none"}
    assert len({reading.id for reading in found}) == len(found) == 10


@pytest.mark.parametrize(("differing", "expected"), [(0, LOW), (1, HIGH)])
def test_replicas_that_differ_are_told(differing: int, expected: Level) -> None:
    """How many there are is in the words."""
    found = by_key(readings_of(cluster(differing=differing)))["BreakerConfigSkew:warning"]
    assert (found.level, found.values) == (expected, {"count": str(differing)})


@pytest.mark.parametrize(("oks", "expected"), [((True, True), LOW), ((True, False), HIGH)])
def test_one_replica_that_refused_its_configuration_is_told(oks: tuple[bool, ...], expected: Level) -> None:
    """Nobody looks at the log of each."""
    notes = [note(str(number), reload_ok=is_ok) for number, is_ok in enumerate(oks)]
    assert level(readings_of(cluster(*notes)), "BreakerReloadFailed:warning") is expected


@pytest.mark.parametrize(("ago", "expected"), [(0, HIGH), (10 * MINUTE - 1, HIGH), (10 * MINUTE, LOW)])
def test_a_reset_and_a_jump_are_true_for_ten_minutes(ago: int, expected: Level) -> None:
    """They are moments; a replica that never saw one says 0."""
    found = by_key(
        readings_of(
            cluster(note("A"), note("B", reset_us=NOW - ago, jump_us=NOW - ago, jumped_us=-3_600 * SECOND))
        )
    )
    assert found["BreakerStoreReset:critical"].level is expected
    assert found["BreakerClockJump:warning"].level is expected
    if expected is HIGH:
        assert (
            words(found["BreakerClockJump:warning"])["summary"] == "The store's clock has jumped by -3600 s."
        )


@pytest.mark.parametrize(
    ("ratio", "by_hour", "expected"),
    [
        (0.9, 0.0, HIGH), (0.899, 0.0, BETWEEN), (0.85, 0.0, BETWEEN), (0.849, 0.0, LOW), (0.0, 0.0, LOW),
        (0.6, 0.401, HIGH), (0.6, 0.399, LOW), (0.499, 0.9, LOW), (0.5, 0.501, HIGH), (0.86, -0.5, BETWEEN),
    ],
)  # fmt: skip
def test_a_store_that_fills_is_told_before_it_is_full(ratio: float, by_hour: float, expected: Level) -> None:
    """At nine tenths, or when an hour of the same would fill it; one that is half empty has room for more such hours."""
    memory = Trend()
    for at in range(0, 301, 15):
        memory.note(at, ratio - by_hour * (300 - at) / 3_600)
    found = by_key(readings_of(cluster(memory=memory, memory_ratio=ratio)))[FILL]
    assert found.level is expected
    assert FILL not in by_key(readings_of(cluster())), "it was not read this time"
    if ratio == 0.9:
        assert words(found)["summary"] == "The store uses 90% of its memory."


def test_who_is_alone_with_failures_is_named() -> None:
    """Its node is the one to look at."""
    found = of(cluster(note("B", lone=("support.create",)), note("A")))
    assert found[f"{LONE}:billing.charge"].level is LOW
    told = found[f"{LONE}:support.create"]
    assert (told.level, told.team) == (HIGH, "finance")
    said = words(told)
    assert said["summary"] == "support.create: 1 replica(s) see failures that the others do not."
    assert said["description"] == "It has opened only itself, the others go on. Look at its node: replica B."


def test_jobs_that_were_lost_are_summed_over_replicas() -> None:
    """Each remembers the 202s that it gave; an operation without a queue gave none."""
    found = of(
        cluster(
            note("A", lost={"billing.charge": 3}), note("B", lost={"billing.charge": 4, "support.create": 1})
        )
    )
    told = found[f"{LOST}:billing.charge"]
    assert (told.level, told.values) == (HIGH, {"count": "7"})
    assert f"{LOST}:support.create" not in found
    assert of(cluster(note("A", lost={})))[f"{LOST}:billing.charge"].level is LOW


@pytest.mark.parametrize(("count", "expected"), [(0, LOW), (1, HIGH)])
def test_jobs_that_no_file_names_are_told(count: int, expected: Level) -> None:
    """They have no team any more; and nothing is said while nobody asked."""
    found = of(cluster(removed={"billing.gone": count}))[f"{REMOVED}:billing.gone"]
    assert (found.level, found.team) == (expected, "")
    assert not any(alert.startswith("BreakerOperationRemoved") for alert in of(cluster(removed=None)))


@pytest.mark.parametrize(
    ("since", "count", "expected"),
    [(0, 0, LOW), (0, 5, LOW), (NOW - MINUTE + 1, 5, LOW), (NOW - MINUTE, 5, HIGH)],
)
def test_a_channel_that_takes_nothing_for_a_minute_is_told(since: int, count: int, expected: Level) -> None:
    """What waits and was not tried yet is no failure: Slack takes one a second."""
    found = of(cluster(waiting={"chat": (since, count)}))[f"{LATE}:chat"]
    assert found.level is expected
    said = words(found)
    assert said["summary"] == "Alerts do not reach the channel chat."
    assert said["description"] == f"{count} messages wait for it. They are kept, and tried again."


def test_a_replica_says_of_its_store_that_it_is_down_or_refuses_and_not_both() -> None:
    """Two pages for one trouble; both end when it is back."""
    down = by_key(own_readings(Outage(kind="timeout", detail="the store did not answer in time.")))
    full = by_key(own_readings(Outage(kind="refused", detail="OOM command not allowed")))
    fine = by_key(own_readings(None))
    keys = ("BreakerStoreDown:critical", "BreakerStoreRefusesWrites:critical")
    assert [tuple(found[key].level for key in keys) for found in (down, full, fine)] == [
        (HIGH, LOW),
        (LOW, HIGH),
        (LOW, LOW),
    ]
    assert {found.for_us for found in (*down.values(), *full.values())} == {5 * SECOND}
    assert words(down[keys[0]])["description"].startswith(
        "The store did not answer in time. Each operation does what"
    )
    assert words(full[keys[1]])["description"].startswith(
        "OOM command not allowed. It is out of memory or disk"
    )
    assert by_key(own_readings(Outage(kind="timeout", detail="")))[keys[0]].values == {"detail": ""}
    assert replace(down[keys[0]], level=LOW).id == keys[0]
