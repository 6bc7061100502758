"""
Support: a desk of three people.

It takes more tickets than it can work on, up to four times as many as it has people, and gets slower;
beyond that it fails, and does not say when to come back. A repeat with the same `Idempotency-Key` gets the
first answer.
"""

import itertools
from typing import Any

from aiohttp import web

from breaker.demo.downstreams.capacity import Backlog
from breaker.demo.downstreams.control import add_control
from breaker.demo.downstreams.keyed import KeyedAnswers, fingerprint
from breaker.demo.downstreams.reply import Reply, read_object
from breaker.demo.downstreams.serving import Serving

WORKERS = 3
SERVICE_S = 0.4
BACKLOG = 4 * WORKERS
_READ_SHARE = 0.25
TICKETS_MAX = 100_000  # the oldest are forgotten
_PRIORITY_BY_PLAN = {"enterprise": "high", "business": "normal", "free": "low"}
_FULL = Reply(status=503, content={"error": "the desk is overloaded"})


class SupportDesk:
    """Opens tickets. A `reference` that the caller gives opens one ticket only."""

    def __init__(self, *, seed: int) -> None:
        capacity = Backlog(workers=WORKERS, backlog=BACKLOG)
        self._serving = Serving(name="support", capacity=capacity, mean_s=SERVICE_S, full=_FULL, seed=seed)
        self._forget()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/tickets", self._create), web.get("/tickets/{id}", self._read)])
        add_control(app, self._serving, forget=self._forget)
        return app

    def _forget(self) -> None:
        self._tickets: dict[str, dict[str, Any]] = {}
        self._references: dict[str, str] = {}
        self._answers = KeyedAnswers()
        self._numbers = itertools.count(1001)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        content = await read_object(request)
        if isinstance(content, Reply):
            return await self._serving.answer(request, content)
        key, called = request.headers.get("Idempotency-Key"), fingerprint(content)
        known = self._answers.earlier(key, called)
        if known is not None:
            return await self._serving.answer(request, known)

        def open_once() -> Reply:
            reply = self._open(content, key)
            self._answers.keep(key, called, reply)
            return reply

        return await self._serving.serve(request, open_once, held=self._answers.working(key, called))

    def _open(self, content: dict[str, Any], key: str | None) -> Reply:
        reference = content.get("reference")
        if isinstance(reference, str) and reference in self._references:
            other = self._references[reference]
            return Reply(status=409, content={"error": "this reference has a ticket", "ticketId": other})
        ticket_id = f"T-{next(self._numbers)}"
        priority = content.get("priority") or _PRIORITY_BY_PLAN.get(str(content.get("plan")), "normal")
        queue = content.get("category") or "general"
        ticket = {"ticketId": ticket_id, "priority": priority, "queue": queue}
        if len(self._tickets) >= TICKETS_MAX:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[ticket_id] = {**ticket, "status": "open", "subject": content.get("subject", "")}
        if isinstance(reference, str):
            if len(self._references) >= TICKETS_MAX:
                del self._references[next(iter(self._references))]
            self._references[reference] = ticket_id
        self._serving.record.on_effect(key)
        return Reply(status=201, content=ticket, headers={"Location": f"/tickets/{ticket_id}"})

    async def _read(self, request: web.Request) -> web.StreamResponse:
        return await self._serving.serve(request, lambda: self._find(request), share=_READ_SHARE, beside=True)

    def _find(self, request: web.Request) -> Reply:
        ticket_id = request.match_info["id"]
        if ticket_id not in self._tickets:
            return Reply(status=404, content={"error": f"no ticket {ticket_id}"})
        return Reply(status=200, content=self._tickets[ticket_id])
