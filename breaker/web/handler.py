"""
Handler: from a request on the wire to a call on its path, and the listener's own pages.

Parse, identify the caller and the tenant, find the operation. Nothing is decided here.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp.http_parser import RawRequestMessage

from breaker.core.events import CallEnded, Listener, Outcome
from breaker.core.ids import Ids
from breaker.core.trace import Begin, trace_id_of
from breaker.gateway.call import NO_WISHES, Call, Kind, Refusal
from breaker.gateway.headers import peer_lines
from breaker.gateway.path import Path
from breaker.gateway.router import Route
from breaker.gateway.site import Site
from breaker.gateway.target import target_of
from breaker.gateway.work import cost_of
from breaker.web.body import CallerBody
from breaker.web.connection import Request
from breaker.web.identity import Callers, Identity
from breaker.web.job_pages import PREFIX as JOBS
from breaker.web.job_pages import JobPages, Shown
from breaker.web.problems import CLOCK, CLOSING, problem
from breaker.web.reply import REASONS, CallerReply
from breaker.web.wishes import wishes_of

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}\Z")
TIMEOUT = re.compile(r"\d{1,6}(\.\d{1,3})?\Z")
UNKNOWN = "_unknown"
BROKEN = {408: Kind.REQUEST_TIMEOUT, 503: Kind.OVER_CAPACITY}
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of the listener itself."""

    status: int
    content_type: str
    body: bytes


CATALOGUE = "/v1/operations"
REMEMBER_S = 1.0


class Remembered:
    """A page that is made at most once a second, however many ask for it at once."""

    def __init__(self, make: Callable[[], Awaitable[Page]]) -> None:
        self._make = make
        self._made: tuple[float, Page] | None = None
        self._making = asyncio.Lock()

    async def page(self) -> Page:
        async with self._making:
            if self._made is None or time.monotonic() - self._made[0] >= REMEMBER_S:
                self._made = time.monotonic(), await self._make()
            return self._made[1]


Pages = dict[str, Callable[[], Awaitable[Page]]]


NO_KEY = Refusal(
    kind=Kind.UNAUTHENTICATED,
    detail="send a known key in the header Breaker-Key",
    headers=b"WWW-Authenticate: Breaker-Key\r\n",
)


class Handler:
    """
    Takes the requests of the callers' listener.

    Attributes:
        site, callers: In force; swapped on reload.
        is_draining: Answers end their connections, so that callers go elsewhere.
        begin_span: None when nothing is traced.

    """

    def __init__(
        self,
        site: Site,
        callers: Callers,
        path: Path,
        ids: Ids,
        pages: Pages,
        jobs: JobPages,
        emit: Listener,
    ) -> None:
        self.site, self.callers = site, callers
        self.is_draining = False
        self.begin_span: Begin | None = None
        self._jobs = jobs
        self._path, self._ids, self._pages, self._emit = path, ids, pages, emit
        self._now = time.monotonic  # the loop's own time stands still within a turn on uvloop

    async def __call__(self, request: Request) -> CallerReply:
        started = self._now()
        message = request.message
        reply = CallerReply(
            request.connection, request.writer,
            is_head=message.method == "HEAD", closes=message.should_close or self.is_draining,
            is_old=message.version.minor == 0,
        )  # fmt: skip
        path, mark, query = message.path.partition("?")
        page = self._pages.get(path)
        if page:
            if path == CATALOGUE and self.callers.of_key(message.headers.get("Breaker-Key")) is None:
                self._answer(reply, NO_KEY, path)  # it tells what others call, and how much
            else:
                await self._show(reply, message, page)
            return reply
        if path.startswith(JOBS):
            await self._job(reply, message, path, query)
            return reply
        found = self._call_of(request, reply, path, mark + query, started)
        if isinstance(found, Refusal):
            self._refuse(reply, message, found, path, started)
            return reply
        connection = request.connection
        connection.call = found
        site = self.site  # a reload may swap it; this call keeps its own up
        site.calls += 1
        try:
            await self._path.take(found)
        finally:
            site.calls -= 1
            connection.call = None
        return reply

    def _call_of(
        self, request: Request, reply: CallerReply, path: str, query: str, started: float
    ) -> Call | Refusal:
        message, headers, site = request.message, request.message.headers, self.site
        if not path.startswith("/") or path.startswith("//"):
            return Refusal(
                kind=Kind.BAD_REQUEST, detail="the request target must be a path, such as /support/tickets"
            )
        identity = self.callers.of_key(headers.get("Breaker-Key"))
        if identity is None:
            return NO_KEY
        route = site.router.find(message.method, path)
        if not isinstance(route, Route):
            return no_route(message.method, path, route)
        work = route.work
        operation = work.operation
        if not identity.may_call(operation.name):
            return Refusal(kind=Kind.FORBIDDEN, detail=f"caller {identity.id} may not call {operation.name}")
        cost_config = operation.capacity.cost
        cost = cost_of(cost_config, headers.get(cost_config.header) if cost_config.header else None)
        timeout = headers.get("Request-Timeout")
        if cost is None:
            detail = f"{cost_config.header} must be a whole number from 1 to {cost_config.max}"
            return Refusal(kind=Kind.BAD_REQUEST, detail=detail)
        if timeout is not None and not TIMEOUT.match(timeout):
            return Refusal(kind=Kind.BAD_REQUEST, detail="Request-Timeout must be seconds, such as 5 or 2.5")
        wishes = NO_WISHES
        if operation.queue:
            found = wishes_of(
                headers, operation, may_name_band=identity.may_name_band, now_us=time.time_ns() // 1_000
            )
            if isinstance(found, Refusal):
                return found
            wishes = found
        lease_id = self._ids.next()
        decision = self._ids.decision(operation.name, lease_id, time.time_ns() // 1_000_000)
        request_id = headers.get("X-Request-Id")
        parent = headers.get("traceparent")
        span = self.begin_span(parent or "") if self.begin_span else None
        return Call(
            work=work,
            id=lease_id,
            cost=cost,
            method=message.method,
            target=target_of(operation.downstream.path, path, query, route.parameters),
            headers=message.raw_headers,
            peer_lines=request.connection.lines_of_peer(headers.get("Host", ""), forwarded),
            body=body_of(request),
            reply=reply,
            caller=identity.id,
            tenants=identity.tenants,
            tenant=tenant_of(identity, operation.tenant.header if operation.tenant else None, message),
            decision=decision,
            request_id=request_id if request_id and REQUEST_ID.match(request_id) else decision[-26:],
            trace_id=span.trace_id if span else trace_id_of(parent),
            span=span,
            deadline=started + float(timeout) if timeout else FOREVER,
            started=started,
            wishes=wishes,
            task=asyncio.current_task(),
        )

    async def _job(self, reply: CallerReply, message: RawRequestMessage, path: str, query: str) -> None:
        identity = self.callers.of_key(message.headers.get("Breaker-Key"))
        found: Shown | Refusal = NO_KEY
        if identity:
            found = await self._jobs.answer(self.site, identity, message.method, path, query, message.headers)
        if isinstance(found, Refusal):
            self._answer(reply, found, path)
            return
        status, lines, body = found
        reply.whole(status, REASONS.get(status, ""), lines, body)
        await reply.drain()

    async def _show(
        self, reply: CallerReply, message: RawRequestMessage, page: Callable[[], Awaitable[Page]]
    ) -> None:
        if message.method not in ("GET", "HEAD"):
            self._answer(reply, no_route(message.method, message.path, ("GET", "HEAD")), message.path)
            return
        shown = await page()
        lines = f"Content-Type: {shown.content_type}\r\nCache-Control: no-store\r\n".encode() + CLOCK.line()
        reply.whole(shown.status, REASONS[shown.status], lines, shown.body)

    def _refuse(
        self, reply: CallerReply, message: RawRequestMessage, refusal: Refusal, path: str, started: float
    ) -> None:
        self._answer(reply, refusal, path)
        self._emit(
            CallEnded(
                operation=UNKNOWN, outcome=Outcome.REFUSED, reason=refusal.kind, status=reply.status, caller="",
                tenant="", decision="", request_id=message.headers.get("X-Request-Id", "")[:64], trace_id="",
                duration_s=self._now() - started, admission_s=0.0, downstream_s=0.0, result=None, action=None,
                shadow=None,
            )
        )  # fmt: skip

    def broken(self, status: int) -> None:
        """What was no request never becomes a call; it is counted, with an answer that was sent already."""
        kind = BROKEN.get(status, Kind.BAD_REQUEST)
        self._emit(
            CallEnded(
                operation=UNKNOWN, outcome=Outcome.REFUSED, reason=kind, status=status, caller="", tenant="",
                decision="", request_id="", trace_id="", duration_s=0.0, admission_s=0.0, downstream_s=0.0,
                result=None, action=None, shadow=None,
            )
        )  # fmt: skip

    def _answer(self, reply: CallerReply, refusal: Refusal, path: str) -> None:
        status, lines, body = problem(refusal, instance=path[:200])
        reply.closes = reply.closes or refusal.kind in CLOSING
        reply.whole(status, REASONS[status], lines + b"Breaker-Outcome: refused\r\n", body)


def no_route(method: str, path: str, methods: tuple[str, ...]) -> Refusal:
    """No operation takes this; 405 names the methods that the path does take."""
    if not methods:
        detail = f"no operation takes {method} {path[:200]}; GET /v1/operations lists them all"
        return Refusal(kind=Kind.UNKNOWN_OPERATION, detail=detail)
    allow = ", ".join(methods)
    return Refusal(
        kind=Kind.METHOD_NOT_ALLOWED,
        detail=f"{path[:200]} takes {allow}, not {method}",
        headers=f"Allow: {allow}\r\n".encode(),
    )


def tenant_of(identity: Identity, header: str | None, message: RawRequestMessage) -> str:
    """The tenant that a header names, if the caller may say so; else the caller."""
    return identity.tenants.named(message.headers.get(header)) if header else identity.tenants.own


def body_of(request: Request) -> CallerBody:
    headers: Any = request.message.headers
    length = headers.get("Content-Length")
    expects = headers.get("Expect", "").lower() == "100-continue" and request.message.version.minor > 0
    size = None if request.message.chunked else int(length) if length else 0
    return CallerBody(
        request.payload,
        size,
        headers.get("Content-Encoding"),
        request.connection.send_continue if expects else None,
    )


def forwarded(peer: str, host: str) -> bytes:
    return peer_lines(peer, host, "http")
