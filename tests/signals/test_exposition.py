"""The page in pieces is the page."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from breaker.signals.exposition import PIECE_MAX, pages_of
from breaker.signals.metrics import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.mark.parametrize("accept", ["", "text/plain", OPENMETRICS])
@pytest.mark.parametrize("count", [0, 1, PIECE_MAX - 1, PIECE_MAX, PIECE_MAX + 1, 3 * PIECE_MAX])
def test_the_pieces_are_what_the_library_would_write_at_once(accept: str, count: int) -> None:
    """Prometheus must not notice; an exemplar, and the end that OpenMetrics asks for, included."""
    disable_created_metrics()  # type: ignore[no-untyped-call] # as ours are
    registry = CollectorRegistry()
    calls = Counter("calls_total", "Calls, with a\nline.", ["operation"], registry=registry)
    waits = Histogram("wait_seconds", "Waits.", ["operation"], buckets=(1,), registry=registry)
    for number in range(count):
        calls.labels(f"o{number}").inc()
        waits.labels(f"o{number}").observe(0.5, {"trace_id": "t"})
    encoder, expected_type = choose_encoder(accept)
    content_type, pieces = pages_of(registry, accept)
    assert content_type == expected_type
    assert b"".join(pieces) == encoder(registry)


def test_no_piece_is_long(make_metrics: Callable[..., Metrics]) -> None:
    """Calls wait for the longest one."""
    metrics = make_metrics(*(f"o.p{number}" for number in range(30)))
    pieces = list(metrics.page(OPENMETRICS)[1])
    assert sum(piece.count(b"\n") for piece in pieces) > 30 * PIECE_MAX
    assert max(piece.count(b"\n") for piece in pieces) <= PIECE_MAX + 3
