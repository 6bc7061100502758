"""What the store says of jobs, as it stands on the page."""

from typing import Any

import pytest

from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import Pace
from breaker.core.model import Limits, Rate
from breaker.core.promise import Eta
from breaker.signals.expected import Expected
from breaker.signals.metrics import Metrics
from breaker.signals.queues import etas_of
from breaker.store.capacity import Look
from tests.signals.scene import Clock, look, named, numbers, queue_look

CHARGE = "operation=billing.charge"


def show(metrics: Metrics, name: str, label: str = "") -> dict[str, float]:
    """The values of a metric of `billing.charge` by its other label."""
    return {
        sample.partition(f"{label}=")[2].partition(",")[0].rstrip("}") if label else "": value
        for sample, value in numbers(metrics).items()
        if sample.startswith(name + "{") and CHARGE in sample
    }


def test_jobs_are_shown_by_where_they_are(jobs: Metrics) -> None:
    """What waits, what runs, and what waits for a person, in one stacked graph."""
    waiting = {Band.HIGH: 3, Band.LOW: 4}
    numbers_of_it: dict[str, Any] = {"scheduled": 5, "running": 2, "dead": 6, "unknown": 1}
    jobs.observe_queue("billing.charge", queue_look(waiting=waiting, **numbers_of_it), {}, Expected())
    expected = numbers_of_it | {"queued": 7, "held": 0}
    assert show(jobs, "breaker_queue_jobs", "state") == expected


@pytest.mark.parametrize(("word", "held"), [("paused", 7), ("draining", 0), ("", 0)])
def test_jobs_are_held_while_a_person_has_paused_them(jobs: Metrics, word: str, held: int) -> None:
    """A queue that grows because of a pause is no capacity problem; one that drains is still moving."""
    jobs.observe_queue("billing.charge", queue_look(waiting={Band.NORMAL: 7}, held=word), {}, Expected())
    shown = show(jobs, "breaker_queue_jobs", "state")
    assert (shown["held"], shown["queued"]) == (held, 7 - held)


def test_the_oldest_job_is_shown_beside_the_promise_and_the_depth_beside_its_limit(jobs: Metrics) -> None:
    """A number without its limit says nothing at 3 a.m."""
    seen = queue_look(oldest_us=dict.fromkeys(BANDS, 0) | {Band.HIGH: 90_500_000}, bytes_used=4_096)
    jobs.observe_queue("billing.charge", seen, {}, Expected())
    ages = show(jobs, "breaker_queue_oldest_seconds", "band")
    assert ages == {"critical": 0, "high": 90.5, "normal": 0, "low": 0}
    assert show(jobs, "breaker_queue_promise_seconds") == {"": 60}
    assert show(jobs, "breaker_queue_limit_jobs") == {"": 500}
    assert show(jobs, "breaker_queue_bytes") == {"": 4_096}


def test_an_eta_that_is_not_known_is_not_there(jobs: Metrics) -> None:
    """0 would be read as "at once", and an old one as true."""
    jobs.observe_queue("billing.charge", queue_look(), {Band.HIGH: 12.5}, Expected())
    assert show(jobs, "breaker_queue_eta_seconds", "band") == {"high": 12.5}
    jobs.observe_queue("billing.charge", queue_look(), {}, Expected())
    assert show(jobs, "breaker_queue_eta_seconds", "band") == {}


@pytest.mark.parametrize("count", [0, 3, -1])
def test_unaccounted_jobs_are_shown_also_when_there_are_none(jobs: Metrics, count: int) -> None:
    """The ledger's difference; an alert on it needs the 0, and a job that counts twice is a bug as well."""
    jobs.observe_queue("billing.charge", queue_look(unaccounted=count), {}, Expected())
    assert show(jobs, "breaker_jobs_unaccounted") == {"": count}


def test_ends_are_counted_as_the_store_counted_them(jobs: Metrics) -> None:
    """Restarts of every replica lose nothing; what is dead now is less than what ever died."""
    ends: dict[str, Any] = {"succeeded": 90, "expired": 4, "cancelled": 3, "discarded": 2, "withdrawn": 1}
    seen = queue_look(accepted=110, **ends, dead=1, dead_total=8, unknown=0, unknown_total=5)
    jobs.observe_queue("billing.charge", seen, {}, Expected())
    assert show(jobs, "breaker_jobs_finished_total", "result") == ends | {"dead": 8, "unknown": 5}
    assert show(jobs, "breaker_jobs_accepted_total") == {"": 111}, "withdrawn ones had been accepted"


def test_a_counter_waits_for_a_store_that_went_back(jobs: Metrics) -> None:
    """After a failover that lost 40 jobs a rate must not show a million accepted at once."""
    shown: list[float] = []
    for accepted in (1_000_000, 999_960, 999_999, 1_000_001):
        jobs.observe_queue("billing.charge", queue_look(accepted=accepted), {}, Expected())
        shown += show(jobs, "breaker_jobs_accepted_total").values()
    assert shown == [1_000_000, 1_000_000, 1_000_000, 1_000_001]


def test_a_counter_of_a_store_that_was_emptied_begins_anew(jobs: Metrics) -> None:
    """That is a restart, and Prometheus knows what to make of one; to wait would hide all that follows."""
    shown: list[float] = []
    for accepted in (1_000, 7, 12):
        jobs.observe_queue("billing.charge", queue_look(accepted=accepted), {}, Expected())
        shown += show(jobs, "breaker_jobs_accepted_total").values()
    assert shown == [1_000, 7, 12]


def test_all_that_the_store_said_vanishes_when_it_was_not_read_for_15_s(jobs: Metrics, clock: Clock) -> None:
    """A replica that is cut off would otherwise win every `max by (operation)` with an old depth."""
    of_store = ("breaker_queue_jobs", "breaker_queue_oldest", "breaker_queue_limit", "breaker_jobs_accepted",
                "breaker_jobs_finished", "breaker_jobs_unaccounted", "breaker_queue_eta")  # fmt: skip
    jobs.observe_queue("billing.charge", queue_look(), dict.fromkeys(BANDS, 1.0), Expected())
    clock.seconds += 14.9
    assert all(any(sample.startswith(name) for sample in numbers(jobs)) for name in of_store)
    clock.seconds += 0.1
    assert not any(sample.startswith(of_store) for sample in numbers(jobs))
    assert "breaker_jobs_lost{" + CHARGE + "}" in numbers(jobs), "that is this replica's own count"


def test_a_queue_that_was_taken_away_is_not_shown(jobs: Metrics) -> None:
    """What was known of it goes with the reload, and a late look must not bring it back."""
    jobs.observe_queue("billing.charge", queue_look(), {}, Expected())
    jobs.configured("v2", named("billing.charge"))
    shown = [show(jobs, "breaker_queue_jobs", "state")]
    jobs.observe_queue("billing.charge", queue_look(), {}, Expected())
    assert [*shown, show(jobs, "breaker_queue_jobs", "state")] == [{}, {}]


def known(_operation: str, ahead: int, pace: Pace) -> Eta:
    """Nine of ten start within twice the pace of each job ahead."""
    return Eta(p50_us=ahead * pace.mean_us, p90_us=2 * ahead * pace.mean_us)


PACE = Pace(mean_us=1_000_000)
WAITING = queue_look(waiting={Band.CRITICAL: 1, Band.NORMAL: 10, Band.LOW: 100}, pace=PACE)


def test_jobs_of_higher_bands_are_ahead() -> None:
    """Per band, because a promise that holds for the critical ones may be broken for the others."""
    etas = etas_of("billing.charge", look(), WAITING, known)
    assert etas == {Band.CRITICAL: 2, Band.HIGH: 2, Band.NORMAL: 22, Band.LOW: 222}


def test_nothing_is_forecast_that_depends_on_a_person() -> None:
    """Nobody knows when a pause ends."""
    paused = queue_look(waiting={Band.NORMAL: 1}, pace=PACE, held="paused")
    assert etas_of("billing.charge", look(), paused, known) == {}


def test_nothing_is_forecast_when_nobody_can_tell() -> None:
    """There is no rate and nothing was measured yet."""
    assert etas_of("billing.charge", look(), WAITING, lambda *_: None) == {}


ROOM = Limits(concurrency=4)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (look(limits=ROOM, in_use=3), dict.fromkeys(BANDS, 0.0)),
        (look(limits=ROOM, in_use=4), dict.fromkeys(BANDS, 7.0)),
        (look(limits=Limits(), in_use=40), dict.fromkeys(BANDS, 0.0)),
        (look(limits=Limits(concurrency=0), in_use=0), dict.fromkeys(BANDS, 7.0)),
        (look(limits=Limits(rate=Rate(limit=0, period_us=1, burst=1)), in_use=0), dict.fromkeys(BANDS, 7.0)),
        (look(limits=ROOM, in_use=0, quota_used=1_000), {}),
        (look(limits=ROOM, in_use=0, quota_used=999), dict.fromkeys(BANDS, 0.0)),
    ],
)
def test_an_idle_operation_with_room_starts_at_once(seen: Look, expected: dict[Band, float]) -> None:
    """A desk of three a day would else look late while nobody waits; a closed one does not start."""
    etas = etas_of("billing.charge", seen, queue_look(), lambda *_: Eta(p50_us=1, p90_us=7_000_000))
    assert etas == expected
