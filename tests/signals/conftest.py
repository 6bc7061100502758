"""Metrics on a clock that a test moves, and the lines that events become."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from breaker.core.events import Event
from breaker.signals.call_log import CallLog
from breaker.signals.logs import Logs
from breaker.signals.metrics import Metrics
from tests.gateway.gateway_process import start_gateway
from tests.signals.scene import REASONS, Clock, Lines, Pipe, named

__all__ = ["start_gateway"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_metrics(clock: Clock) -> Callable[..., Metrics]:
    def make(*operations: str, queues: tuple[str, ...] = ()) -> Metrics:
        return Metrics(
            named(*operations, queues=queues),
            replica="REPLICA1", cluster="test", version="1.2.3", reasons=REASONS, now=clock,
        )  # fmt: skip

    return make


@pytest.fixture
def metrics(make_metrics: Callable[..., Metrics]) -> Metrics:
    return make_metrics("billing.charge", "support.create")


@pytest.fixture
def jobs(make_metrics: Callable[..., Metrics]) -> Metrics:
    """Metrics of an operation with a queue, beside one that has none."""
    return make_metrics("support.create", queues=("billing.charge",))


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def lines(pipe: Pipe, clock: Clock) -> Lines:
    """What is written for these events; a number among them moves the clock by so many seconds."""

    def write(*events: Event | float, sample: float = 1.0, level: str = "info") -> list[dict[str, Any]]:
        logs = Logs(pipe.writer, format="json", level=level)
        log = CallLog(logs, sample=sample, now=clock)
        for event in events:
            if isinstance(event, float):
                clock.seconds += event
            else:
                log.listen(event)
        logs.close()
        return [json.loads(line) for line in pipe.text().splitlines()]

    return write


@pytest.fixture
def restored() -> Iterator[None]:
    """structlog and `logging` are global: what a test sets up must not stay, and what another left is gone."""
    structlog.reset_defaults()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
