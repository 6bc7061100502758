"""
The admin listener: metrics and health for machines, status for people. Never the callers' port.

What a person does by hand stands under `/admin/v1`, see the other `admin_*.py`; who may, in `operators.py`.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aiohttp import web

from breaker.core.config import Operator
from breaker.core.errors import ConfigError, StoreError
from breaker.core.model import Operation
from breaker.store.capacity import Look
from breaker.store.job_desk import QueueLook
from breaker.web.admin_alerts import Alerts
from breaker.web.admin_circuit import Circuits
from breaker.web.admin_controls import Controls
from breaker.web.admin_dead import DeadLetters
from breaker.web.admin_jobs import Jobs
from breaker.web.admin_operations import Operations
from breaker.web.admin_override import Overrides
from breaker.web.admin_pass_on import pass_on
from breaker.web.admin_problems import problems
from breaker.web.admin_replicas import replicas_page
from breaker.web.admin_reply import as_json
from breaker.web.admin_stream import STOPPING
from breaker.web.admin_views import circuit_view, queue_view
from breaker.web.operators import LOOPBACK, only_operators

__all__ = ["LOOPBACK", "AdminListener", "Process", "admin_app", "looks", "status_of"]

T = TypeVar("T")

STOP_S = 5.0  # how long an answer may go on when the listener stops


class Process(Protocol):
    """What the admin listener tells of: one gateway process, or a parent of several workers."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type."""

    async def is_ready(self) -> tuple[bool, str]:
        """Whether callers should be sent here, and why not."""

    async def is_started(self) -> bool: ...

    async def status(self) -> dict[str, Any]:
        """Everything that a person asks first, without secrets."""

    async def reload(self) -> str:
        """Read the files again; the version in force. Raises ConfigError and keeps the old one."""


def admin_app(
    process: Process,
    *,
    is_loopback: bool,
    operators: Callable[[], tuple[Operator, ...]] = lambda: (),
    controls: Controls | None = None,
    workers: Callable[[], Iterable[Path]] | None = None,
) -> web.Application:
    """
    The routes of the admin listener.

    Args:
        is_loopback: Only this machine can reach it.
        operators: Who may use `/admin/v1`; none: everybody on loopback.
        controls: What can be moved by hand; None without a store.
        workers: Admin sockets of workers that answer instead of `controls`.

    """

    async def metrics(request: web.Request) -> web.Response:
        page, content_type = await process.metrics(request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def livez(request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        del request
        is_ready, why = await process.is_ready()
        return web.Response(text=f"{why}\n", status=200 if is_ready else 503)

    async def startupz(request: web.Request) -> web.Response:
        del request
        is_started = await process.is_started()
        return web.Response(
            text="started\n" if is_started else "starting\n", status=200 if is_started else 503
        )

    async def status(request: web.Request) -> web.Response:
        del request
        return as_json(await process.status())

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/startupz", startupz)
    app.router.add_get("/status", status)
    by_hand = web.Application(
        middlewares=[problems, only_operators(operators, is_loopback=is_loopback)], client_max_size=65_536
    )
    by_hand.router.add_post("/reload", reloading(process))
    if controls:
        by_hand.add_routes(
            [
                *Operations(controls).routes(),
                *Circuits(controls).routes(),
                *Overrides(controls).routes(),
                *Alerts(controls=controls).routes(),
                *Jobs(controls).routes(),
                *DeadLetters(controls).routes(),
                web.get("/replicas", replicas_page(controls)),
            ]
        )
    elif workers:
        by_hand.router.add_route("*", "/{rest:.*}", pass_on(workers))
    stopping = by_hand[STOPPING] = asyncio.Event()

    async def stop(_: web.Application) -> None:
        stopping.set()

    by_hand.on_shutdown.append(stop)
    app.add_subapp("/admin/v1", by_hand)
    return app


def reloading(process: Process) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The route that reads the files again."""

    async def reload(request: web.Request) -> web.Response:
        del request
        try:
            return as_json({"version": await process.reload()})
        except ConfigError as exc:
            found = [asdict(problem) for problem in exc.problems]
            return as_json({"detail": "the old configuration stays in force", "problems": found}, status=422)
        except StoreError as exc:
            return as_json({"detail": f"the limits could not be published: {exc}"}, status=503)

    return reload


def status_of(
    operation: Operation, look: Look | None, queue: QueueLook | None, now_us: int
) -> dict[str, Any] | None:
    """An operation's numbers as JSON, `queue` null when it has none; None when the store cannot be read."""
    if look is None:
        return None
    circuit = circuit_view(look.circuit, operation.circuit.mode, now_us)
    return {**asdict(look), "circuit": circuit, "queue": queue_view(queue) if queue else None}


class AdminListener:
    """Serves the admin routes on one socket."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)

    async def start(self, sock: socket.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        await self._runner.cleanup()


async def looks(names: list[str], look: Callable[[str], Awaitable[T]]) -> dict[str, T | None]:
    """The numbers of these operations; None where the store cannot be read."""

    async def one(name: str) -> T | None:
        try:
            return await look(name)
        except StoreError:
            return None

    found = await asyncio.gather(*(one(name) for name in names))
    return dict(zip(names, found, strict=True))
