"""
The gateway keeps to its own OpenAPI document: requests made from it, right ones and wrong ones, get answers
that it names.

The operations are those of the shipped configuration, before the three demo downstreams as processes. Waits are
cut short, so that examples are not spent on waiting.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from redis import Redis
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.gateway_process import ROOT, Served, serving_child

CHECKS = [
    content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance,
]  # fmt: skip
EXAMPLES = 8
DOWNSTREAMS = {"support": 9101, "billing": 9102, "onboarding": 9103}


@contextlib.asynccontextmanager
async def demo_downstreams() -> AsyncIterator[dict[str, int]]:
    """The three of them on free ports."""
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "breaker.demo.downstream", name, "--port", "0", stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        for name in DOWNSTREAMS
    ]  # fmt: skip
    try:
        ports = {}
        for name, child in zip(DOWNSTREAMS, children, strict=True):
            assert child.stdout
            line = await asyncio.wait_for(child.stdout.readline(), 15)
            assert line.startswith(b"ready")
            ports[name] = int(line.rpartition(b":")[2])
        yield ports
    finally:
        for child in children:
            child.terminate()
        await asyncio.gather(*(child.wait() for child in children))


def shipped(folder: Path, ports: dict[str, int]) -> None:
    """The shipped files, with downstreams where they are and with short waits."""
    for file in (ROOT / "config").rglob("*.*"):
        text = file.read_text()
        for name, port in DOWNSTREAMS.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ports[name]}")
        target = folder / file.relative_to(ROOT / "config")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(re.sub(r"max_wait: \d+m?s", "max_wait: 50ms", text))


def explore(served: Served, mode: GenerationMode) -> dict[str, set[int]]:
    """Call every operation of the document; the statuses that each gave."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    statuses: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), f"the document cannot be read: {found}"
        operation = found.ok()
        statuses[operation.label] = explore_one(served, operation, mode)
    return statuses


def explore_one(served: Served, operation: Any, mode: GenerationMode) -> set[int]:
    """Call one operation; the statuses that it gave, none if there is no wrong way to call it."""
    seen: set[int] = set()

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        response = case.call(base_url=served.url, timeout=10)
        seen.add(response.status_code)
        assert response.status_code != 500
        case.validate_response(response, checks=CHECKS)

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):
        check()
    return seen


async def explored(
    folder: Path, redis: Redis, store_url: str, cluster: str, mode: GenerationMode
) -> dict[str, set[int]]:
    async with demo_downstreams() as ports:
        shipped(folder, ports)
        async with serving_child(folder, redis, store_url, cluster) as served:
            return await asyncio.to_thread(explore, served, mode)


async def test_what_the_document_allows_is_answered_as_it_says(
    tmp_path: Path, redis: Redis, store_url: str, cluster: str
) -> None:
    """Clients are generated from it, and fail on answers that it does not name."""
    statuses = await explored(tmp_path, redis, store_url, cluster, GenerationMode.POSITIVE)
    assert statuses["GET /v1/operations"] == {200}
    assert 201 in statuses["POST /support/tickets"]


async def test_what_the_document_forbids_is_refused_as_it_says(
    tmp_path: Path, redis: Redis, store_url: str, cluster: str
) -> None:
    """Wrong requests are the daily bread of whoever begins to integrate."""
    statuses = await explored(tmp_path, redis, store_url, cluster, GenerationMode.NEGATIVE)
    assert 422 in statuses["POST /support/tickets"] <= {400, 413, 422, 503}
