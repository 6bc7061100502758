"""What stands on the page after which events."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from breaker.core.circuit_policy import DirectRetry
from breaker.core.events import (
    Action,
    ClockJumped,
    ConfigLoaded,
    LeasesLost,
    Outcome,
    ReplicasSeen,
    Result,
    RoundTripEnded,
    StoreFailed,
)
from breaker.core.job_policy import BANDS
from breaker.core.verdict import Policy
from breaker.gateway.call import Kind
from breaker.signals.capacity import Demand
from breaker.signals.expected import Expected
from breaker.signals.metrics import Metrics
from breaker.signals.outcomes import PAIRS, QUEUE_PAIRS, UNKNOWN_PAIRS
from tests.signals.scene import TRACE_ID, Clock, ended, look, named, numbers, queue_look

SERIES_MAX = 240  # per operation; docs/metrics.md states it
SERIES_MAX_QUEUE = 370  # per operation with a queue
SERIES_MAX_PROCESS = 190
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CHARGE = "operation=billing.charge"


def test_a_call_is_counted_exactly_once(metrics: Metrics) -> None:
    """SREs add up outcomes to get all calls; a call in two of them would be two calls."""
    metrics.listen(ended(Outcome.OVER_CAPACITY, Policy.RATE, action=Action.LET_THROUGH))
    found = numbers(metrics)
    assert found["breaker_calls_total{" + CHARGE + ",outcome=over_capacity,reason=rate}"] == 1
    assert sum(value for name, value in found.items() if name.startswith("breaker_calls_total")) == 1
    assert found["breaker_over_capacity_total{action=let_through," + CHARGE + "}"] == 1
    assert found["breaker_downstream_calls_total{" + CHARGE + ",result=ok}"] == 1
    assert found["breaker_downstream_duration_seconds_sum{" + CHARGE + "}"] == pytest.approx(0.0196)
    assert found["breaker_call_duration_seconds_sum{" + CHARGE + ",outcome=over_capacity}"] == 0.02
    assert found["breaker_admission_duration_seconds_bucket{le=0.0005," + CHARGE + "}"] == 1
    assert found["breaker_admission_duration_seconds_bucket{le=0.00025," + CHARGE + "}"] == 0


def test_a_refused_call_is_no_downstream_call(metrics: Metrics) -> None:
    """The downstream's owner would be asked about calls that never reached it."""
    metrics.listen(ended(Outcome.REFUSED, Policy.SLOTS, status=503, result=None, action=Action.REFUSED))
    found = numbers(metrics)
    assert found["breaker_over_capacity_total{action=refused," + CHARGE + "}"] == 1
    assert found["breaker_downstream_duration_seconds_count{" + CHARGE + "}"] == 0
    assert not any(value for name, value in found.items() if name.startswith("breaker_downstream_calls"))


def test_a_refusal_in_shadow_is_counted_beside_the_outcome(metrics: Metrics) -> None:
    """A limit that is rehearsed is judged by this number before it is enforced."""
    metrics.listen(ended(shadow=Policy.TENANT_RATE))
    found = numbers(metrics)
    assert found["breaker_shadow_refusals_total{limit=tenant," + CHARGE + "}"] == 1
    assert found["breaker_calls_total{" + CHARGE + ",outcome=forwarded,reason=}"] == 1


def test_no_caller_can_make_series(metrics: Metrics) -> None:
    """Labels that callers choose are how a metrics server dies."""
    for number in range(50):
        metrics.listen(ended(Outcome.REFUSED, f"reason-{number}", operation=f"made.up-{number}", result=None))
    before = len(numbers(metrics))
    for number in range(50, 200):
        metrics.listen(ended(Outcome.REFUSED, f"reason-{number}", operation=f"made.up-{number}", result=None))
    found = numbers(metrics)
    assert len(found) == before
    assert found["breaker_calls_total{operation=_unknown,outcome=refused,reason=other}"] == 200


@pytest.mark.parametrize("policy", [Policy.CIRCUIT, Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN])
def test_an_ill_downstream_is_no_want_of_capacity(metrics: Metrics, policy: Policy) -> None:
    """`overflow: alert` lets nothing through to it, and a limit raised would not help: no series may say so."""
    metrics.configured("v2", named("support.create", queues=("billing.charge",)))
    found = numbers(metrics)
    pair = "{operation=%s,outcome=%s,reason=" + policy + "}"
    shown = {
        (name, outcome): "breaker_calls_total" + pair % (name, outcome) in found
        for name in ("support.create", "billing.charge")
        for outcome in ("refused", "queued", "over_capacity")
    }
    assert [key for key, is_shown in shown.items() if is_shown] == [
        ("support.create", "refused"), ("billing.charge", "refused"), ("billing.charge", "queued"),
    ]  # fmt: skip


def test_a_call_that_a_circuit_in_shadow_would_have_refused_is_counted(metrics: Metrics) -> None:
    """A circuit is rehearsed like a limit."""
    metrics.listen(ended(shadow=Policy.CIRCUIT))
    assert numbers(metrics)["breaker_shadow_refusals_total{limit=circuit," + CHARGE + "}"] == 1


def test_a_call_of_a_removed_operation_is_still_counted(metrics: Metrics) -> None:
    """A long call may end after the reload that removed its operation; counting must not fail it."""
    metrics.configured("v2", named("support.create"))
    for outcome in Outcome:
        metrics.listen(ended(outcome, "hang_up", result=Result.TIMEOUT, action=Action.DELAYED,
                             shadow=Policy.RATE))  # fmt: skip
    found = numbers(metrics)
    assert not any("billing.charge" in name for name in found)
    assert found["breaker_calls_total{operation=_unknown,outcome=abandoned,reason=hang_up}"] == 1
    assert found["breaker_downstream_calls_total{operation=_unknown,result=timeout}"] == len(Outcome)


def test_a_reload_brings_series_and_takes_them_away(metrics: Metrics) -> None:
    """Dashboards list the operations that exist, and rates of new ones begin at 0."""
    metrics.listen(ended(Outcome.FORWARDED, "degraded"))  # a pair that nobody foresaw goes too
    metrics.observe("billing.charge", look(), None)
    metrics.configured("v2", named("support.create", "support.close"))
    found = numbers(metrics)
    assert not any("billing.charge" in name for name in found)
    assert found["breaker_calls_total{operation=support.close,outcome=forwarded,reason=}"] == 0
    assert found["breaker_config_info{version=v2}"] == 1
    metrics.configured("v3", named("support.create"))
    assert "breaker_config_info{version=v2}" not in numbers(metrics)


def test_every_pair_that_can_occur_exists_from_the_start(metrics: Metrics) -> None:
    """A counter that appears at 1 has no increase: the first refusal would go unseen."""
    metrics.configured("v2", named("support.create", queues=("billing.charge",)))
    found = numbers(metrics)
    for name, pairs in (
        ("support.create", PAIRS),
        ("billing.charge", QUEUE_PAIRS),
        ("_unknown", UNKNOWN_PAIRS),
    ):
        exported = {
            tuple(part.partition("=")[2] for part in sample[:-1].split(",")[1:])
            for sample in found
            if sample.startswith(f"breaker_calls_total{{operation={name},")
        }
        assert exported == {(outcome, reason) for outcome, reasons in pairs.items() for reason in reasons}


def test_the_table_of_outcomes_knows_every_problem_type() -> None:
    """A new problem type must get its series at the start, too."""
    words = set().union(*PAIRS.values(), *QUEUE_PAIRS.values(), *UNKNOWN_PAIRS.values())
    told_by_its_policy = {Kind.TENANT_LIMIT, Kind.QUEUE_FULL, Kind.CIRCUIT_OPEN}
    of_job_pages = {Kind.JOB_NOT_FOUND, Kind.NOT_CANCELLABLE}  # looking at a job is no call
    ends = {"", "hang_up", "cut", "bug", "asked", "known"}
    assert words == set(Kind) - told_by_its_policy - of_job_pages | set(Policy) | ends
    assert set(PAIRS) | set(QUEUE_PAIRS) == set(Outcome)


@pytest.mark.parametrize(("kind", "most"), [("plain", SERIES_MAX), ("queues", SERIES_MAX_QUEUE)])
def test_the_series_budget_holds(make_metrics: Callable[..., Metrics], kind: str, most: int) -> None:
    """A hundred operations in ten replicas must not be a million series."""
    sizes = []
    for count in (10, 20):
        names = tuple(f"billing.operation-{number}" for number in range(count))
        operations = named(*names) if kind == "plain" else named(queues=names)
        if kind == "plain":
            operations = {
                name: replace(each, direct_retry=DirectRetry()) for name, each in operations.items()
            }
        metrics = make_metrics()
        metrics.configured("v1", operations)
        for name in names:
            metrics.observe(name, look(), Demand(started=1, wanted=1))
            metrics.observe_queue(
                name, queue_look(), dict.fromkeys(BANDS, 1.0), Expected(seconds=dict.fromkeys(BANDS, 1.0))
            )
        metrics.alerts.configured([f"channel-{number}" for number in range(4)])
        metrics.observe_memory(0.5)
        metrics.listen(ReplicasSeen(live=3, differing=0, version="v1"))
        found = numbers(metrics)
        sizes.append(len(found))
        assert not any("_created" in name for name in found)
    each = (sizes[1] - sizes[0]) / 10
    assert most - 20 < each <= most
    assert sizes[0] - 10 * each <= SERIES_MAX_PROCESS


def test_a_call_with_a_trace_leaves_its_id_in_the_histogram(metrics: Metrics) -> None:
    """From a slow bucket on the dashboard one click leads to a slow call."""
    metrics.listen(ended())
    metrics.listen(ended(operation="support.create", trace_id=""))
    metrics.listen(ended(operation="support.create", trace_id="x" * 500))
    page = b"".join(metrics.page(OPENMETRICS)[1]).decode()
    found = [
        (sample.labels["operation"], sample.exemplar.labels)
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    ]
    assert found == [("billing.charge", {"trace_id": TRACE_ID})]


def test_the_page_is_openmetrics_when_asked(metrics: Metrics) -> None:
    """Exemplars exist in this format only."""
    content_type, pieces = metrics.page(OPENMETRICS)
    page = b"".join(pieces)
    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")
    assert metrics.page("*/*")[0].startswith("text/plain")


def test_the_store_is_up_as_long_as_exchanges_succeed(metrics: Metrics) -> None:
    """`BreakerStoreDown` looks at this and at nothing else."""
    states = []
    for event in (
        RoundTripEnded(0.0003, 5), StoreFailed("timeout", ""), StoreFailed("odd", ""), RoundTripEnded(0.0003, 0),
    ):  # fmt: skip
        metrics.listen(event)
        states.append(numbers(metrics)["breaker_store_up{}"])
    found = numbers(metrics)
    assert states == [1, 0, 0, 1]
    assert found["breaker_store_errors_total{kind=timeout}"] == 1
    assert found["breaker_store_errors_total{kind=other}"] == 1
    assert found["breaker_store_round_trip_seconds_count{}"] == 2
    assert found["breaker_store_batch_size_bucket{le=0.0}"] == 1
    assert found["breaker_store_batch_size_sum{}"] == 5


def test_a_clock_jump_is_shown_for_ten_minutes(metrics: Metrics, clock: Clock) -> None:
    """An alert on it resolves by itself, and nobody has to restart a replica for that."""
    metrics.listen(ClockJumped(-3_600_000_000))
    clock.seconds += 599.9
    assert numbers(metrics)["breaker_store_clock_jump_seconds{}"] == -3_600
    clock.seconds += 0.1
    assert numbers(metrics)["breaker_store_clock_jump_seconds{}"] == 0


def test_lost_leases_are_counted_by_operation(metrics: Metrics) -> None:
    """More ran than the limit allows: on-call needs to know of what."""
    metrics.listen(LeasesLost("support.create", 3))
    assert numbers(metrics)["breaker_leases_lost_total{operation=support.create}"] == 3


def test_a_refused_configuration_shows_until_one_is_taken(metrics: Metrics) -> None:
    """The old configuration serves on; somebody must learn that the new one does not."""
    states = [numbers(metrics)["breaker_config_reload_ok{}"]]
    for is_ok in (False, True):
        metrics.listen(ConfigLoaded("v2", ok=is_ok, detail=""))
        states.append(numbers(metrics)["breaker_config_reload_ok{}"])
    assert states == [1, 0, 1]


def test_capacity_shows_what_is_in_force_beside_what_the_file_states(metrics: Metrics) -> None:
    """The picture of this product: wanted, used and limit in one graph."""
    metrics.observe("billing.charge", look(), Demand(started=20, wanted=60))
    found = numbers(metrics)
    expected = {
        "limit": (40, 8, 1_000), "configured": (20, 8, 1_000), "used": (20, 3, 250), "wanted": (60, 30, None),
    }  # fmt: skip
    for name, values in expected.items():
        for limit, value in zip(("rate", "concurrency", "quota"), values, strict=True):
            assert found.get(f"breaker_capacity_{name}{{limit={limit},{CHARGE}}}") == value, (name, limit)


def test_slots_are_wanted_by_those_who_hold_and_who_wait(metrics: Metrics) -> None:
    """A few long calls want more slots than their arrivals per second say."""
    metrics.observe("billing.charge", look(in_use=8, waiting=5), Demand(started=2, wanted=2))
    assert numbers(metrics)["breaker_capacity_wanted{limit=concurrency," + CHARGE + "}"] == 13


def test_cluster_wide_gauges_vanish_when_the_store_was_not_read_for_15_s(
    metrics: Metrics, clock: Clock
) -> None:
    """A replica that is cut off would otherwise win every `max by (operation)` with old numbers."""
    metrics.observe("billing.charge", look(), None)
    metrics.observe_memory(0.25)
    clock.seconds += 14.9
    assert "breaker_capacity_limit{limit=rate," + CHARGE + "}" in numbers(metrics)
    assert numbers(metrics)["breaker_store_memory_ratio{}"] == 0.25
    clock.seconds += 0.1
    assert not any(name.startswith(("breaker_capacity", "breaker_store_memory")) for name in numbers(metrics))


def test_the_build_says_which_replica_this_is(metrics: Metrics) -> None:
    """Decision ids and leases name the replica, Prometheus names an address."""
    assert numbers(metrics)["breaker_build_info{cluster=test,replica=REPLICA1,version=1.2.3}"] == 1
