"""
Stand-in: the smallest thing that offers what `offers.py` asks for. It proves the tools, not the gateway.

It keeps its jobs in memory and sends each to the downstream until it is done. A lie can be told to it: the
drill that is run against a liar must notice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp
from aiohttp import web

from tests.faults import offers


class Lie(StrEnum):
    """What the stand-in does wrong."""

    NONE = "none"
    FORGETS = "every tenth job is forgotten"
    NEW_KEY = "each attempt has a key of its own"
    AGAIN = "every job is sent twice, also one that must not be"
    CROWDS = "no limit is held"
    UNBALANCED = "the ledger says 1"


@dataclass(slots=True)
class _Job:
    id: str
    operation: str
    order: str
    key: str
    state: str = "queued"
    attempts: int = 0
    reason: str = ""


@dataclass(slots=True)
class StandIn:
    """The jobs, and how they are sent. Refuses every fifth call at first, as a gateway under load does."""

    judge_url: str
    limits: dict[str, int]
    lie: Lie
    session: aiohttp.ClientSession
    url: str = ""
    jobs: dict[str, _Job] = field(default_factory=dict)
    by_key: dict[tuple[str, str], str] = field(default_factory=dict)
    slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    calls: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        path = offers.path_of("{operation}", "{order}")
        app.add_routes(
            [
                web.post(path, self._accept),
                web.get("/v1/jobs/{id}", self._show),
                web.get("/metrics", self._ledger),
            ]
        )
        return app

    async def _accept(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = await request.json()
        if self.calls % 5 == 1:
            return web.json_response({}, status=503)
        operation, key = request.match_info["operation"], request.headers["Idempotency-Key"]
        assert request.headers["Prefer"] == "respond-async"
        known = self.by_key.get((operation, key))
        job = self.jobs[known] if known else self._new(operation, body, key)
        told = {
            "id": job.id, "state": job.state, "position": 1, "eta": {"p50_ms": 1, "p90_ms": 1},
            "deadline": "2026-01-01T00:00:00Z", "durability": "memory", "links": {},
        }  # fmt: skip
        return web.json_response(told, status=202)

    def _new(self, operation: str, body: dict[str, str], key: str) -> _Job:
        job = _Job(f"drill.{operation}~{len(self.jobs)}", operation, body["order"], key)
        self.jobs[job.id] = job
        self.by_key[operation, key] = job.id
        if self.lie == Lie.FORGETS and len(self.jobs) % 10 == 0:
            self.jobs[job.id].state = "lost"
            return job
        task = asyncio.get_running_loop().create_task(self._run(job, body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return job

    async def _run(self, job: _Job, body: dict[str, str]) -> None:
        crowded = 1_000 if self.lie == Lie.CROWDS else self.limits[job.operation]
        async with self.slots.setdefault(job.operation, asyncio.Semaphore(crowded)):
            while job.state not in offers.ENDED:
                status = await self._send(job, body)
                if self.lie == Lie.AGAIN:
                    status = await self._send(job, body)
                if status == 200:
                    job.state = "succeeded"
                elif status == 422:
                    job.state, job.reason = "dead", "caller"
                elif status == 0 and job.operation == "once":
                    job.state = "unknown"

    async def _send(self, job: _Job, body: dict[str, str]) -> int:
        job.attempts += 1
        key = f"{job.key}-{job.attempts}" if self.lie == Lie.NEW_KEY else job.key
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with self.session.post(
                f"{self.judge_url}/{job.operation}/{job.order}",
                json=body,
                headers={"Idempotency-Key": key},
                timeout=aiohttp.ClientTimeout(total=1),
            ) as answer:
                await answer.read()
                return answer.status
        return 0

    async def _show(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.state == "lost":
            return web.json_response({}, status=404)
        told = {"id": job.id, "operation": f"drill.{job.operation}", "state": job.state,
                "attempts": job.attempts, "reason": job.reason}  # fmt: skip
        return web.json_response(told)

    async def _ledger(self, _request: web.Request) -> web.Response:
        value = 1 if self.lie == Lie.UNBALANCED else 0
        lines = []
        for metric in offers.LEDGER:
            lines.append(f"# TYPE {metric} gauge")
            lines += [f'{metric}{{operation="drill.{name}"}} {value}' for name in self.limits]
        return web.Response(text="\n".join(lines) + "\n")


@asynccontextmanager
async def stand_in(judge_url: str, limits: dict[str, int], lie: Lie) -> AsyncIterator[StandIn]:
    """Serves on one port for callers and operators, until the block ends."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        made = StandIn(judge_url, limits, lie, session)
        runner = web.AppRunner(made.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield made
        finally:
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            await runner.cleanup()
