"""
The admin listener: metrics and health for machines, status for people. Never the callers' port.

What changes something (`/admin/v1/...`) exists on loopback only, until credentials for it exist.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Protocol

import orjson
from aiohttp import web

from breaker.core.errors import ConfigError, StoreError
from breaker.store.capacity import Look

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


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


def admin_app(process: Process, *, is_loopback: bool) -> web.Application:
    """The routes of the admin listener."""

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

    async def reload(request: web.Request) -> web.Response:
        del request
        try:
            return as_json({"version": await process.reload()})
        except ConfigError as exc:
            problems = [asdict(problem) for problem in exc.problems]
            return as_json(
                {"detail": "the old configuration stays in force", "problems": problems}, status=422
            )
        except StoreError as exc:
            return as_json({"detail": f"the limits could not be published: {exc}"}, status=503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/startupz", startupz)
    app.router.add_get("/status", status)
    if is_loopback:
        app.router.add_post("/admin/v1/reload", reload)
    return app


def as_json(value: dict[str, Any], status: int = 200) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=status, content_type="application/json")


def status_of(look: Look | None) -> dict[str, Any] | None:
    """An operation's numbers as JSON; None when the store cannot be read."""
    return asdict(look) if look else None


class AdminListener:
    """Serves the admin routes on one socket."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    async def start(self, sock: socket.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        await self._runner.cleanup()


async def looks(names: list[str], look: Callable[[str], Awaitable[Look]]) -> dict[str, Look | None]:
    """The numbers of these operations; None where the store cannot be read."""

    async def one(name: str) -> Look | None:
        try:
            return await look(name)
        except StoreError:
            return None

    found = await asyncio.gather(*(one(name) for name in names))
    return dict(zip(names, found, strict=True))
