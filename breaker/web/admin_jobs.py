"""
Jobs by hand: list, show, cancel, move, resolve; one by its id, or many by a filter.
"""

from enum import StrEnum

from aiohttp import web

from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, JobHead, JobRecord, JobState
from breaker.web.admin_audit import Change
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields, body_of, job_named
from breaker.web.admin_listing import FILTER, LISTED, WAITING, filter_of, page
from breaker.web.admin_many import many
from breaker.web.admin_operations import queue_of
from breaker.web.admin_problems import AdminProblem
from breaker.web.admin_reply import as_json
from breaker.web.admin_reveal import reveal
from breaker.web.admin_scope import scope_of
from breaker.web.admin_stream import each
from breaker.web.admin_views import head_view, job_view
from breaker.web.operators import PERSON

PAGE, PAGE_MAX = 100, 1_000


class Listed(StrEnum):
    """States by which jobs can be listed: those that have not ended, or wait for a person."""

    RUNNING = "running"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    UNKNOWN = "unknown"
    DEAD = "dead"


class Waits(StrEnum):
    """States in which a job can be cancelled or moved."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"


class How(StrEnum):
    """What a person found out about an unknown job, and wants done."""

    HAPPENED = "happened"
    DID_NOT = "did-not"
    AGAIN = "again"
    GIVE_UP = "give-up"


class Jobs:
    """The routes below `jobs`."""

    def __init__(self, controls: Controls) -> None:
        self._controls, self._desk = controls, controls.desk

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/jobs", self.listed),
            web.post("/jobs/cancel", self.cancel_many),
            web.post("/jobs/move", self.move_many),
            web.get("/jobs/{job}", self.shown),
            web.post("/jobs/{job}/cancel", self.cancel),
            web.post("/jobs/{job}/move", self.move),
            web.post("/jobs/{job}/resolve", self.resolve),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        fields = Fields(request.query, "state", "operation", "after", "limit", *FILTER)
        state = fields.word("state", Listed)
        return await listing(self._controls, request, (JobState(state),) if state else LISTED)

    async def shown(self, request: web.Request) -> web.Response:
        id_ = request.match_info["job"]
        return await showing(self._controls, request, await record_of(self._controls, id_))

    async def _named(self, id_: str) -> tuple[str, str]:
        operation, job = job_named(id_)
        await queue_of(self._controls, operation)
        return operation, job

    async def cancel(self, request: web.Request) -> web.Response:
        id_ = request.match_info["job"]
        operation, job = await self._named(id_)
        reason = Fields(await body_of(request), "reason").reason()
        async with Change(
            self._controls, request[PERSON], "jobs.cancel", operation=operation, job=id_, reason=reason
        ) as change:
            state = await self._desk.cancel(operation, job)
            if state is not JobState.CANCELLED:
                raise not_so(id_, state, "only a job that waits can be cancelled")
            change.outcome = str(state)
        return as_json({"id": id_, "state": str(state)})

    async def move(self, request: web.Request) -> web.Response:
        id_ = request.match_info["job"]
        operation, job = await self._named(id_)
        fields = Fields(await body_of(request), "reason", "band")
        reason, band = fields.reason(), band_of(fields)
        async with Change(
            self._controls, request[PERSON], "jobs.move", operation=operation, job=id_, reason=reason,
            asked={"band": band},
        ) as change:  # fmt: skip
            state = await self._desk.move(operation, job, band)
            if state not in WAITING:
                raise not_so(id_, state, "only a job that waits can be moved")
            change.outcome = f"moved to {band}"
        return as_json({"id": id_, "state": str(state), "band": str(band)})

    async def resolve(self, request: web.Request) -> web.Response:
        id_ = request.match_info["job"]
        operation, job = await self._named(id_)
        fields = Fields(await body_of(request), "reason", "how")
        reason, how = fields.reason(), fields.word("how", How)
        if how is None:
            raise AdminProblem(422, f"'how' is missing: it is one of {', '.join(How)}")
        async with Change(
            self._controls, request[PERSON], "jobs.resolve", operation=operation, job=id_, reason=reason,
            asked={"how": how},
        ) as change:  # fmt: skip
            record = await self._desk.show(operation, job)
            state = record.head.state if record else None
            # The store checks as well; but it would queue a dead job, too, and that is a redrive.
            if state is not JobState.UNKNOWN or not await self._resolved(operation, job, how):
                raise not_so(id_, state, "only an unknown job can be resolved")
            new = {How.HAPPENED: JobState.SUCCEEDED, How.GIVE_UP: JobState.DEAD}.get(how, JobState.QUEUED)
            change.outcome = f"{how}: {new}"
        return as_json({"id": id_, "state": str(new)})

    async def _resolved(self, operation: str, job: str, how: How) -> bool:
        if how in (How.DID_NOT, How.AGAIN):
            return await self._desk.requeue(operation, job)
        if how is How.HAPPENED:
            return await self._desk.resolve(operation, job, Fate.SUCCEEDED)
        return await self._desk.resolve(operation, job, Fate.DEAD)

    async def cancel_many(self, request: web.Request) -> web.StreamResponse:
        fields = Fields(await body_of(request), "operation", "state", "filter", "reason", "dry_run")
        scope = await scope_of(self._controls, fields)

        async def cancel(head: JobHead) -> bool:
            return await self._desk.cancel(scope.operation, head.id) is JobState.CANCELLED

        lines = each(self._desk, scope, waiting(fields), stage="cancelling", act=cancel)
        return await many(self._controls, request, "jobs.cancel", scope, lines)

    async def move_many(self, request: web.Request) -> web.StreamResponse:
        fields = Fields(await body_of(request), "operation", "state", "filter", "band", "reason", "dry_run")
        band = band_of(fields)
        # One that was moved comes by again, in its new band.
        scope = await scope_of(self._controls, fields, not_in=band, asked={"band": band})

        async def move(head: JobHead) -> bool:
            return await self._desk.move(scope.operation, head.id, band) in WAITING

        lines = each(self._desk, scope, waiting(fields), stage="moving", act=move)
        return await many(self._controls, request, "jobs.move", scope, lines)


def waiting(fields: Fields) -> tuple[JobState, ...]:
    """The states of jobs that wait, or the one of them that was named."""
    state = fields.word("state", Waits)
    return (JobState(state),) if state else WAITING


def band_of(fields: Fields) -> Band:
    band = fields.word("band", Band)
    if band is None:
        raise AdminProblem(422, f"'band' is missing: it is one of {', '.join(Band)}")
    return band


def not_so(id_: str, state: JobState | None, rule: str) -> AdminProblem:
    """Why a job was left as it is."""
    if state is None:
        return AdminProblem(404, f"there is no job '{id_}', or its record has expired")
    return AdminProblem(409, f"'{id_}' is {state}: {rule}")


async def listing(controls: Controls, request: web.Request, states: tuple[JobState, ...]) -> web.Response:
    """A page of jobs in these states, of one operation or of all that the files name."""
    query = request.query
    fields = Fields(query, "state", "operation", "after", "limit", *FILTER)
    only = filter_of({name: query[name] for name in FILTER if name in query}, controls.now_us())
    limit = fields.count("limit", PAGE, PAGE_MAX)
    if fields.has("operation"):
        names = [fields.operation()]
        await queue_of(controls, names[0])
    else:
        names = [name for name, operation in controls.operations().items() if operation.queue]
    places = [(name, state) for name in names for state in states]
    found = await page(controls.desk, places, only, after=fields.text("after"), limit=limit)
    rows = [head_view(operation, head) for operation, head in found.rows]
    return as_json({"jobs": rows, "looked_at": found.looked, "next": found.next or None})


async def record_of(controls: Controls, id_: str) -> JobRecord:
    """
    A job by its id.

    Raises:
        AdminProblem: There is none.

    """
    operation, job = job_named(id_)
    await queue_of(controls, operation)
    record = await controls.desk.show(operation, job)
    if record is None:
        raise not_so(id_, None, "")
    return record


async def showing(controls: Controls, request: web.Request, record: JobRecord) -> web.Response:
    """One job; its payload only when asked for, which is written down like a change."""
    fields = Fields(request.query, "payload", "reason")
    operation, _ = job_named(request.match_info["job"])
    view = job_view(operation, record)
    if fields.flag("payload"):
        async with Change(
            controls, request[PERSON], "jobs.payload", operation=operation, job=view["id"],
            reason=fields.text("reason"),
        ) as change:  # fmt: skip
            view["payload"] = reveal(controls.vault(), operation, record)
            change.outcome = "shown"
    return as_json(view)
