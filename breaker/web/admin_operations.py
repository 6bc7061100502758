"""
Operations by hand: how each stands, and pause, drain and resume.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from breaker.core.errors import StoreError
from breaker.core.job_policy import BANDS, Band
from breaker.core.model import Operation
from breaker.policy.words import did_you_mean
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook, Word
from breaker.web.admin_audit import Change, audit_view
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields, body_of, operation_named
from breaker.web.admin_problems import AdminProblem
from breaker.web.admin_reply import as_json
from breaker.web.admin_views import moment, operation_view
from breaker.web.catalogue_circuit import is_barred
from breaker.web.catalogue_queue import Forecast, eta_of
from breaker.web.operators import PERSON

AUDIT_MAX = 1_000


async def queue_of(controls: Controls, name: str) -> QueueLook:
    """
    The queue of an operation that the files name, or that has jobs in the store.

    Raises:
        AdminProblem: There is no such operation, or it has no queue.
        StoreError: It cannot be had now.

    """
    known = controls.operations()
    operation = known.get(name)
    if operation or await controls.is_published(name):
        look = await controls.desk.look_queue(name)
        if (operation and operation.queue) or look.accepted:
            return look
    if operation:
        raise AdminProblem(
            409, f"'{name}' has no queue: its configuration says `overflow: {operation.overflow}`"
        )
    raise AdminProblem(404, f"unknown operation '{name}'{did_you_mean(name, list(known))}")


def etas_of(
    operation: Operation, look: Look, queue: QueueLook, forecast: Forecast, now_us: int
) -> dict[Band, int]:
    """Microseconds until a job accepted now starts, in nine of ten cases, by band; those that are not known are left out."""
    if is_barred(operation, look, now_us) or queue.held == "paused":
        return {}
    found = {band: eta_of(operation.name, band, look, queue, forecast) for band in BANDS}
    return {band: eta.p90_us for band, eta in found.items() if eta}


class Operations:
    """The routes below `operations`, and the audit stream."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/operations", self.listed),
            web.get("/operations/{operation}", self.shown),
            web.post("/operations/{operation}/pause", self._held("paused")),
            web.post("/operations/{operation}/drain", self._held("draining")),
            web.post("/operations/{operation}/resume", self._held("")),
            web.get("/audit", self.audit),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        Fields(request.query)
        operations = self._controls.operations()
        looks = await asyncio.gather(
            *(self._looks(name, operation) for name, operation in operations.items())
        )
        rows = [
            self._view(name, operation, *found) | {"removed": False}
            for (name, operation), found in zip(operations.items(), looks, strict=True)
        ]
        return as_json({"operations": [*rows, *await self._removed()]})

    async def _removed(self) -> list[dict[str, Any]]:
        """Operations that no file names any more, with their jobs; none when the store does not say."""
        controls, known = self._controls, self._controls.operations()
        rows = []
        try:
            for name in await controls.removed():
                if name not in known:
                    queue = await controls.desk.look_queue(name)
                    rows.append(self._view(name, None, None, queue) | {"removed": True})
        except StoreError:
            return rows
        return rows

    async def shown(self, request: web.Request) -> web.Response:
        Fields(request.query)
        name = operation_named(request.match_info["operation"])
        operation = self._controls.operations().get(name)
        if operation is None:
            return as_json(self._view(name, None, None, await queue_of(self._controls, name)))
        return as_json(self._view(name, operation, *await self._looks(name, operation)))

    async def _looks(self, name: str, operation: Operation) -> tuple[Look | None, QueueLook | None]:
        """What the store says of it; None for what it does not say now, because the rest is of use without."""
        try:
            look = await self._controls.look(name)
            queue = await self._controls.desk.look_queue(name)
        except StoreError:
            return None, None
        return look, queue if operation.queue or queue.accepted else None

    def _view(
        self, name: str, operation: Operation | None, look: Look | None, queue: QueueLook | None
    ) -> dict[str, Any]:
        now_us = self._controls.now_us()
        etas = (
            etas_of(operation, look, queue, self._controls.forecast, now_us)
            if operation and look and queue
            else {}
        )
        return operation_view(name, operation, look, queue, now_us, etas)

    def _held(self, word: Word) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def hold(request: web.Request) -> web.Response:
            name = operation_named(request.match_info["operation"])
            known = ("reason", "expires_in") if word else ("reason",)
            fields = Fields(await body_of(request), *known)
            reason, expires_us = fields.reason(), fields.duration_us("expires_in")
            await queue_of(self._controls, name)
            until_us = self._controls.now_us() + expires_us if expires_us else 0
            person = request[PERSON]
            action = {"paused": "operations.pause", "draining": "operations.drain", "": "operations.resume"}[
                word
            ]
            asked = {"until": moment(until_us)} if word else {}
            async with Change(
                self._controls, person, action, operation=name, reason=reason, asked=asked
            ) as change:
                await self._controls.desk.hold(name, word, until_us, person.id, reason)
                change.outcome = word or "resumed"
            queue = await self._controls.desk.look_queue(name)
            return as_json(self._view(name, self._controls.operations().get(name), None, queue))

        return hold

    async def audit(self, request: web.Request) -> web.Response:
        fields = Fields(request.query, "limit")
        limit = fields.count("limit", 100, AUDIT_MAX)
        # A change is two entries, at most.
        entries = await self._controls.audit.last(2 * limit)
        return as_json({"audit": audit_view(entries, limit)})
