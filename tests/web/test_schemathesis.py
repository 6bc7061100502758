"""
The gateway keeps to its own OpenAPI document: requests made from it, right ones and wrong ones, get answers
that it names.

The operations are those of the shipped configuration, before the three demo downstreams as processes. Waits are
cut short, so that examples are not spent on waiting; jobs need not reach a disk, which the test store has none of.
"""

import asyncio
import contextlib
import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
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

from tests.gateway.gateway_process import ROOT, Served, Start, serving_child
from tests.web.job_scene import job_scene

CHECKS = [
    content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance,
]  # fmt: skip
EXAMPLES = 8
WORK = "POST /desk/tasks/{id}"
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
        text = re.sub(r"max_wait: \d+m?s", "max_wait: 50ms", text)
        text = re.sub(r"(max_items: .*\n *window:) \d+m?s", r"\1 50ms", text)  # of batches
        text = re.sub(r"^( *)durability: .*\n", "", text, flags=re.MULTILINE)
        target.write_text(
            re.sub(r"^( *)(max_jobs: \d+)", r"\1\2\n\1durability: memory", text, flags=re.MULTILINE)
        )


def explore(served: Served, mode: GenerationMode) -> dict[str, set[int]]:
    """Call every operation of the document; the statuses that each gave."""
    statuses: dict[str, set[int]] = {}
    for operation in described(served).values():
        statuses[operation.label] = explore_one(served, operation, mode)
    return statuses


def described(served: Served) -> dict[str, Any]:
    """The operations of the document, by method and path."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    found = {}
    for one in schema.get_all_operations():
        assert isinstance(one, Ok), f"the document cannot be read: {one}"
        found[one.ok().label] = one.ok()
    return found


def follow(served: Served) -> dict[str, list[int]]:
    """Make jobs, and do with them all that the document knows; the statuses, in order."""
    operations, statuses = described(served), defaultdict(list)

    def call(label: str, **fields: Any) -> Any:
        case = operations[label].Case(**fields)
        response = case.call(base_url=served.url, timeout=10)
        case.validate_response(response, checks=CHECKS)
        statuses[label].append(response.status_code)
        return response

    for number in range(3):
        # One is an hour ahead, so that it waits until it is cancelled.
        moment = f"{datetime.now(UTC) + timedelta(hours=1):%FT%TZ}"
        later = {"Breaker-Not-Before": moment} if number == 1 else {}
        asked = {"Prefer": "respond-async", "Idempotency-Key": f"key-{number}", **later}
        work = {"path_parameters": {"id": "1"}, "body": b"{}", "headers": asked, "media_type": "*/*"}
        told = call(WORK, **work)
        job = {"job": told.json()["id"]}
        assert told.headers["location"] == [f"/v1/jobs/{job['job']}"]
        if later:
            call("GET /v1/jobs/{job}/result", path_parameters=job)
            call("DELETE /v1/jobs/{job}", path_parameters=job)
            call("GET /v1/jobs/{job}/result", path_parameters=job)
            call(WORK, **work)
            continue
        shown = call("GET /v1/jobs/{job}", path_parameters=job, query={"wait": 5})
        tag = {"If-None-Match": shown.headers["etag"][0]}
        call("GET /v1/jobs/{job}", path_parameters=job, headers=tag)
        call("HEAD /v1/jobs/{job}", path_parameters=job)
        call("DELETE /v1/jobs/{job}", path_parameters=job)
        call("GET /v1/jobs/{job}/result", path_parameters=job)
        call("HEAD /v1/jobs/{job}/result", path_parameters=job)
        call(WORK, **work)
    call("GET /v1/operations")
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
    assert 400 in statuses["POST /support/tickets"] <= {400, 413, 422, 503}, (
        "most of it can be wrong in its headers"
    )
    assert 422 in statuses["POST /onboarding/accounts"] <= {400, 413, 422, 429, 503}


async def test_jobs_are_answered_as_the_document_says_from_their_202_to_their_end(
    start_gateway: Start,
) -> None:
    """A client that follows the links of the document gets to the result."""
    async with job_scene(start_gateway) as scene:
        statuses = await asyncio.to_thread(follow, scene.served)
    assert statuses == {
        WORK: [202, 201, 202, 410, 202, 201],
        "GET /v1/jobs/{job}": [200, 304, 200, 304],
        "HEAD /v1/jobs/{job}": [200, 200],
        "GET /v1/jobs/{job}/result": [201, 202, 410, 201],
        "HEAD /v1/jobs/{job}/result": [201, 201],
        "DELETE /v1/jobs/{job}": [409, 200, 409],
        "GET /v1/operations": [200],
    }
