"""Counting the cheap way is counting."""

import time
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.exposition import choose_encoder

from breaker.signals.bound import bound_add, bound_observe
from breaker.signals.series import ADMISSION_BUCKETS, CALL_BUCKETS

EDGES = sorted(
    {edge * by for edge in (*CALL_BUCKETS, *ADMISSION_BUCKETS) for by in (1, 0.999_999, 1.000_001)}
)
AMOUNTS = st.lists(st.sampled_from([0.0, *EDGES, 1e9]) | st.floats(0, 100), max_size=20)


def page(amounts: list[float], *, is_bound: bool, trace_id: str = "") -> str:
    """What is shown of these, one way or the other."""
    registry = CollectorRegistry()
    counter = Counter("c", "c", ["op"], registry=registry).labels("a")
    histogram = Histogram("h", "h", ["op"], buckets=CALL_BUCKETS, registry=registry).labels("a")
    add: Any = bound_add(counter) if is_bound else counter.inc
    observe: Any = bound_observe(histogram) if is_bound else histogram.observe
    for amount in amounts:
        add(amount)
        if trace_id:
            observe(amount, {"trace_id": trace_id})
        else:
            observe(amount)
    encode, kind = choose_encoder("application/openmetrics-text")
    assert "openmetrics" in kind
    return encode(registry).decode()


@pytest.fixture(autouse=True)
def no_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment of an exemplar, and of a family's making, is the only thing that may differ."""
    monkeypatch.setattr(time, "time", lambda: 7.0)


@given(AMOUNTS)
def test_the_page_is_the_clients_own(amounts: list[float]) -> None:
    """SREs: a bucket that is off by one turns a kept promise into a broken one."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    assert page(amounts, is_bound=True) == page(amounts, is_bound=False)


def test_an_exemplar_is_where_the_client_would_put_it() -> None:
    """A click on a slow bucket leads to a trace that was slow."""
    shown = page([0.005, 0.3, 90.0], is_bound=True, trace_id="4bf92f3577b34da6")
    assert shown == page([0.005, 0.3, 90.0], is_bound=False, trace_id="4bf92f3577b34da6")
    assert shown.count('# {trace_id="4bf92f3577b34da6"}') == 3


def test_numbers_that_are_kept_in_another_way_are_left_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets PROMETHEUS_MULTIPROC_DIR for all programs of a machine keeps right numbers here, too."""

    class Elsewhere(values.MutexValue):
        pass

    monkeypatch.setattr(prometheus_client.values, "ValueClass", Elsewhere)
    registry = CollectorRegistry()
    counter, histogram = Counter("c", "c", registry=registry), Histogram("h", "h", registry=registry)
    assert bound_add(counter) == counter.inc
    assert bound_observe(histogram) == histogram.observe
