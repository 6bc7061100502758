"""Pages of several workers as one."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from breaker.core.job_policy import Band
from breaker.signals.expected import Expected
from breaker.signals.merge import merge
from breaker.signals.metrics import Metrics
from tests.signals.scene import ended, queue_look

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def pages(make_metrics: Callable[..., Metrics], accept: str) -> dict[str, str]:
    """Worker 0 took one call, worker 1 two; both have seen the same queue."""
    found = {}
    for worker in range(2):
        metrics = make_metrics("billing.charge", queues=("support.create",))
        metrics.observe_queue("support.create", queue_look(accepted=7), {Band.LOW: 2.5}, Expected())
        for _ in range(worker + 1):
            metrics.listen(ended())
        found[str(worker)] = b"".join(metrics.page(accept)[1]).decode()
    return found


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_every_sample_survives_with_its_worker(
    make_metrics: Callable[..., Metrics], accept: str, parse: Callable[..., object]
) -> None:
    """What one worker exports must be on the merged page unchanged, or the sums are wrong."""
    given = pages(make_metrics, accept)
    merged = sorted(
        (sample.name, sorted(sample.labels.items()), sample.value)
        for family in parse(merge(given))  # type: ignore[attr-defined]
        for sample in family.samples
    )
    expected = sorted(
        (sample.name, sorted({**sample.labels, "worker": worker}.items()), sample.value)
        for worker, page in given.items()
        for family in parse(page)  # type: ignore[attr-defined]
        for sample in family.samples
    )
    assert merged == expected


def test_families_stay_together_and_are_described_once(make_metrics: Callable[..., Metrics]) -> None:
    """Prometheus refuses a page that describes a metric twice or comes back to it later."""
    lines = merge(pages(make_metrics, OPENMETRICS)).splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert sum(line.startswith("# HELP") for line in lines) == len(types)
    assert lines.count("# EOF") == 1
    assert lines[-1] == "# EOF"


def test_exemplars_are_kept(make_metrics: Callable[..., Metrics]) -> None:
    """They are why this is not the multiprocess mode."""
    found = [
        sample.labels["worker"]
        for family in parse_openmetrics(merge(pages(make_metrics, OPENMETRICS)))  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    ]
    assert found == ["0", "1"]


def test_a_family_that_only_one_worker_has_is_described(make_metrics: Callable[..., Metrics]) -> None:
    """During a rolling change workers differ."""
    registry = CollectorRegistry()
    Counter("late_total", "Only here.", registry=registry).inc()
    merged = merge(
        {"0": b"".join(make_metrics().page("")[1]).decode(), "1": generate_latest(registry).decode()}
    )
    assert '# TYPE late_total counter\nlate_total{worker="1"} 1.0\n' in merged


def test_odd_labels_are_passed_on() -> None:
    """Braces, spaces and quotes in a value are the value's own business."""
    page = '# TYPE a gauge\na{b="} {\\" x"} 1\na{} 2\na 3\nundescribed{c="d"} 4 1700000000\n'
    assert merge({'w"\\': page}) == (
        '# TYPE a gauge\na{worker="w\\"\\\\",b="} {\\" x"} 1\na{worker="w\\"\\\\"} 2\na{worker="w\\"\\\\"} 3\n'
        'undescribed{worker="w\\"\\\\",c="d"} 4 1700000000\n'
    )


def test_a_page_that_was_cut_off_is_no_page() -> None:
    """Half a page would look like counters that were reset."""
    with pytest.raises(ValueError, match="different formats"):
        merge({"0": "a 1\n# EOF\n", "1": "a 1\n"})


def test_no_workers_make_an_empty_page() -> None:
    assert merge({}) == ""
