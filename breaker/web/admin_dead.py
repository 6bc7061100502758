"""
Dead letters by hand: list, show, redrive, purge.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, replace

from aiohttp import web

from breaker.core.jobs import JobHead, JobState
from breaker.gateway.redrive import RATE, Redrive
from breaker.store.job_desk import QueueLook
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields, body_of
from breaker.web.admin_jobs import listing, not_so, record_of, showing
from breaker.web.admin_listing import FILTER, walk
from breaker.web.admin_many import many
from breaker.web.admin_operations import queue_of
from breaker.web.admin_problems import AdminProblem
from breaker.web.admin_scope import Scope, scope_of
from breaker.web.admin_stream import COUNTED, Line, count, each

DEAD = (JobState.DEAD,)


class DeadLetters:
    """The routes below `dead`."""

    def __init__(self, controls: Controls) -> None:
        self._controls, self._desk = controls, controls.desk

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/dead", self.listed),
            web.get("/dead/{job}", self.shown),
            web.post("/dead/redrive", self.redrive),
            web.post("/dead/purge", self.purge),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        Fields(request.query, "operation", "after", "limit", *FILTER)
        return await listing(self._controls, request, DEAD)

    async def shown(self, request: web.Request) -> web.Response:
        id_ = request.match_info["job"]
        record = await record_of(self._controls, id_)
        if record.head.state is not JobState.DEAD:
            raise not_so(id_, record.head.state, "`jobs` shows it")
        return await showing(self._controls, request, record)

    async def redrive(self, request: web.Request) -> web.StreamResponse:
        fields = Fields(await body_of(request), "operation", "filter", "rate", "reason", "dry_run")
        rate = fields.rate("rate", RATE)
        scope = await scope_of(self._controls, fields, asked={"rate": fields.text("rate") or f"{RATE:.0f}/s"})
        look = await queue_of(self._controls, scope.operation)
        if not scope.is_dry:
            self._refuse_what_would_not_run(scope.operation, look)
        # What dies from now on does not belong to it: a job is run again once, not in a circle.
        before_us = min(scope.only.before_us or look.now_us, look.now_us)
        scope = replace(scope, only=replace(scope.only, before_us=before_us))
        lines = self._redriven(scope, rate)
        return await many(self._controls, request, "dead.redrive", scope, lines)

    async def purge(self, request: web.Request) -> web.StreamResponse:
        fields = Fields(await body_of(request), "operation", "filter", "reason", "dry_run")
        scope = await scope_of(self._controls, fields)

        async def discard(head: JobHead) -> bool:
            return await self._desk.discard(scope.operation, head.id)

        lines = each(self._desk, scope, DEAD, stage="purging", act=discard)
        return await many(self._controls, request, "dead.purge", scope, lines)

    def _refuse_what_would_not_run(self, operation: str, look: QueueLook) -> None:
        """Jobs that only wait would tell nothing about their cause."""
        if operation not in self._controls.operations():
            raise AdminProblem(409, f"no file names '{operation}' any more: its jobs would not run")
        if look.held == "paused":
            raise AdminProblem(
                409, f"'{operation}' is paused by {look.held_author} ({look.held_reason}): resume it first"
            )

    async def _redriven(self, scope: Scope, rate: float) -> AsyncGenerator[Line, None]:
        total = 0
        async for line in count(self._desk, scope, DEAD):
            total = line["total"]
            if scope.is_dry or line["stage"] != COUNTED:
                yield line
        if scope.is_dry:
            return
        redrive = Redrive(self._desk, self._controls.jobs, scope.operation, rate=rate)
        async with aclosing(redrive.run(self._each(scope))) as run:
            async for progress in run:
                line = {**asdict(progress), "stage": str(progress.stage), "total": total}
                yield {name: value for name, value in line.items() if value != ""}

    async def _each(self, scope: Scope) -> AsyncIterator[JobHead]:
        async for heads in walk(self._desk, scope.operation, DEAD, scope.only):
            for head in heads:
                yield head
