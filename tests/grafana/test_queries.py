"""Every query of every dashboard has an answer under load."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from grafana.queries import Asked, Prometheus, asked_by, filled, seconds
from tests.grafana.scene import COURSES, JOB, demonstration

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
WITHIN_S = 75.0
SPANS = {"planning": "7d"}

# (dashboard, panel) -> why it may be empty here.
EMPTY: Mapping[tuple[str, str], str] = {}


@pytest.mark.timeout(150)
async def test_every_query_has_an_answer_under_load(tmp_path: Path, store_url: str) -> None:
    """An empty panel at 3 a.m. is read as 'all is well'."""
    boards = {file.stem: json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))}
    queries = {(name, asked) for name, board in boards.items() for asked in asked_by(board)}
    excepted = {(name, asked) for name, asked in queries if (name, asked.panel) in EMPTY}
    left = queries - excepted
    async with demonstration(tmp_path, store_url) as scene:
        ask = Prometheus(scene.prometheus)
        end = time.monotonic() + WITHIN_S
        while left and time.monotonic() < end:
            # What has no answer yet is asked again: the story takes its time.
            left = await asyncio.to_thread(without_answer, ask, left)
            await asyncio.sleep(0.5)
        full = excepted - await asyncio.to_thread(without_answer, ask, excepted)
        listed = await asyncio.to_thread(ask.label_values, "breaker_calls_total", "operation")
    assert {course.operation for course in COURSES} <= set(listed)
    assert not left, "\n".join(f"{name}: {asked.panel}: {asked.expr}" for name, asked in left)
    assert {(name, asked.panel) for name, asked in full} == set(), "exceptions that are none"


def without_answer(ask: Prometheus, queries: set[tuple[str, Asked]]) -> set[tuple[str, Asked]]:
    return {(name, asked) for name, asked in queries if not has_answer(ask, name, asked)}


def has_answer(ask: Prometheus, name: str, asked: Asked) -> bool:
    """On the dashboard of one operation, some operation has an answer; each must be a valid query."""
    span = SPANS.get(name, "1m")
    now = time.time()
    step = asked.step or seconds(span) / 60
    for operation in [course.operation for course in COURSES] if name == "operation" else [".+"]:
        expr = filled(asked.expr, operation=operation, job=JOB, interval="10s", span=span)
        found = ask.at(expr, now) if asked.instant else ask.over(expr, now - seconds(span), now, step)
        if asked.has_exemplars and not ask.exemplars(expr, now - seconds(span), now):
            continue
        if any(is_number(value) for series in found for value in values_of(series)):
            return True
    return False


def values_of(series: dict[str, Any]) -> list[str]:
    return [value for _, value in series.get("values", [series.get("value")])]


def is_number(value: str) -> bool:
    return not math.isnan(float(value))
