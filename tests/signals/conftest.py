"""Metrics on a clock that a test moves."""

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from breaker.signals.metrics import Metrics
from tests.signals.scene import REASONS, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_metrics(clock: Clock) -> Callable[..., Metrics]:
    def make(*operations: str) -> Metrics:
        return Metrics(
            operations, replica="REPLICA1", cluster="test", version="1.2.3", reasons=REASONS, now=clock
        )

    return make


@pytest.fixture
def metrics(make_metrics: Callable[..., Metrics]) -> Metrics:
    return make_metrics("billing.charge", "support.create")


@pytest.fixture
def restored() -> Iterator[None]:
    """structlog and `logging` are global: what a test sets up must not stay."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
