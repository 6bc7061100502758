"""What stands on the page about a store that cannot be used, and about the replicas that share it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.events import (
    DegradedBegan,
    DegradedEnded,
    Event,
    OverAdmitted,
    ReplicasSeen,
    RoundTripEnded,
    StewardChanged,
    StoreFailed,
    StoreReset,
)
from breaker.signals.metrics import Metrics
from tests.signals.scene import Clock, look, named, numbers, operation

CHARGE = "operation=billing.charge"
BEGAN, ENDED = DegradedBegan("timeout", "3 failures in a row"), DegradedEnded(4.5)
ANSWERED, FAILED = RoundTripEnded(0.0003, 1), StoreFailed("timeout", "")


def modes(metrics: Metrics, name: str = CHARGE) -> dict[str, float]:
    return {
        sample.partition("mode=")[2].partition(",")[0]: value
        for sample, value in numbers(metrics).items()
        if sample.startswith("breaker_degraded{") and name in sample
    }


@pytest.mark.parametrize(
    ("events", "is_up"),
    [
        ((), 0),
        ((ANSWERED, BEGAN), 0),
        ((ANSWERED, BEGAN, ANSWERED), 0),
        ((ANSWERED, FAILED, BEGAN, FAILED, ANSWERED, ENDED), 1),
        ((BEGAN, FAILED, ENDED), 1),
        ((BEGAN, ENDED, ANSWERED, FAILED), 0),
    ],
)
def test_the_store_is_not_up_while_degraded(metrics: Metrics, events: tuple[Event, ...], is_up: int) -> None:
    """A slot given back to an ailing store is an exchange that succeeded, and would resolve `BreakerStoreDown`."""
    for event in events:
        metrics.listen(event)
    assert numbers(metrics)["breaker_store_up{}"] == is_up


def test_a_node_of_a_cluster_that_is_lost_degrades_its_operations_and_not_the_store(metrics: Metrics) -> None:
    """Whoever is paged for the store would look at the wrong server; the failures are counted all the same."""
    metrics.listen(ANSWERED)
    metrics.listen(StoreFailed("refused", "not asked", "billing.charge", is_partial=True))
    found = numbers(metrics)
    assert (found["breaker_store_up{}"], found["breaker_store_errors_total{kind=refused}"]) == (1, 1)
    metrics.listen(DegradedBegan("refused", "not asked", "billing.charge"))
    assert numbers(metrics)["breaker_store_up{}"] == 1
    assert sum(modes(metrics).values()) == 1
    assert sum(modes(metrics, "operation=support.create").values()) == 0
    metrics.listen(BEGAN)
    metrics.listen(ENDED)
    assert sum(modes(metrics).values()) == 1, "the store is back, and that node is not"
    metrics.listen(DegradedEnded(3.0, "billing.charge"))
    assert sum(modes(metrics).values()) == 0


@pytest.mark.parametrize("mode", WhenStoreDown)
def test_an_operation_shows_its_own_mode_while_degraded(metrics: Metrics, mode: WhenStoreDown) -> None:
    """Who is paged must see at once which operations refuse, and which go on with a share."""
    plain = operation("billing.charge")
    metrics.configured("v2", {"billing.charge": replace(plain, when_store_down=mode)})
    shown = [modes(metrics)]
    for event in (BEGAN, ENDED):
        metrics.listen(event)
        shown.append(modes(metrics))
    none = dict.fromkeys(WhenStoreDown, 0.0)
    assert shown == [none, none | {mode: 1.0}, none]


def test_an_operation_with_a_queue_refuses_while_degraded(jobs: Metrics) -> None:
    """A 202 must not live in one replica's memory, so its mode is not what the default says."""
    jobs.listen(BEGAN)
    assert modes(jobs) == {"refuse": 1, "local_share": 0, "allow": 0}
    assert modes(jobs, "operation=support.create") == {"refuse": 0, "local_share": 1, "allow": 0}


def test_a_reload_while_degraded_shows_the_new_modes(metrics: Metrics) -> None:
    """People change `when_store_down` in the middle of an outage; and what is removed is not degraded any more."""
    metrics.listen(BEGAN)
    changed = replace(operation("billing.charge"), when_store_down=WhenStoreDown.ALLOW)
    metrics.configured("v2", {"billing.charge": changed} | named("support.close"))
    assert modes(metrics) == {"allow": 1, "local_share": 0, "refuse": 0}
    assert modes(metrics, "operation=support.close") == {"allow": 0, "local_share": 1, "refuse": 0}
    assert modes(metrics, "operation=support.create") == {}


def test_what_went_over_the_limit_while_degraded_adds_up(metrics: Metrics) -> None:
    """The downstream's owner is told by how much the limits were broken, over all replicas and outages."""
    name = "breaker_over_admitted_total{" + CHARGE + "}"
    shown = [numbers(metrics)[name]]
    for over in (0, 12, 5):
        metrics.listen(OverAdmitted("billing.charge", started=40, over=over))
        shown.append(numbers(metrics)[name])
    assert shown == [0, 0, 12, 17]


def test_what_a_removed_operation_did_while_degraded_fails_nobody(metrics: Metrics) -> None:
    """The report comes when the store is back, which may be after the reload that removed it."""
    metrics.configured("v2", named("support.create"))
    metrics.listen(OverAdmitted("billing.charge", started=40, over=3))
    assert not any(CHARGE in name for name in numbers(metrics))


def test_a_store_that_forgot_is_counted_from_nought(metrics: Metrics) -> None:
    """`BreakerStoreReset` looks at the increase; a counter that appears at 1 has none."""
    shown = [numbers(metrics)["breaker_store_resets_total{}"]]
    metrics.listen(StoreReset("the epoch is gone"))
    assert [*shown, numbers(metrics)["breaker_store_resets_total{}"]] == [0, 1]


def test_replicas_are_not_told_before_they_are_known(metrics: Metrics) -> None:
    """0 replicas would be an alert about a gateway that is just starting."""
    metrics.observe("billing.charge", look(), None)
    assert not any(name.startswith("breaker_replicas") for name in numbers(metrics))
    metrics.listen(ReplicasSeen(live=3, differing=1, version="v1"))
    found = numbers(metrics)
    assert (found["breaker_replicas{}"], found["breaker_replicas_differing{}"]) == (3, 1)


@pytest.mark.parametrize("reads", ["capacity", "memory"])
def test_the_number_of_replicas_vanishes_when_the_store_was_not_read_for_15_s(
    metrics: Metrics, clock: Clock, reads: str
) -> None:
    """What was the last word before an outage must not look like a live number; one that just stays is one."""
    metrics.listen(ReplicasSeen(live=3, differing=0, version="v1"))
    clock.seconds += 10
    if reads == "capacity":
        metrics.observe("billing.charge", look(), None)
    else:
        metrics.observe_memory(0.5)
    clock.seconds += 14.9
    assert numbers(metrics)["breaker_replicas{}"] == 3
    clock.seconds += 0.1
    assert not any(name.startswith("breaker_replicas") for name in numbers(metrics))


def test_the_steward_says_that_it_is(make_metrics: Callable[..., Metrics]) -> None:
    """Exactly one of all replicas should be: none means that calendars run out."""
    metrics = make_metrics()
    shown = [numbers(metrics)["breaker_steward{}"]]
    for is_steward in (True, False):
        metrics.listen(StewardChanged(is_steward=is_steward, term=4))
        shown.append(numbers(metrics)["breaker_steward{}"])
    assert shown == [0, 1, 0]
