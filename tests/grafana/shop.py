"""
A shop: who calls the gateways of the scene, and the downstream behind them.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.e2e.scene import Gateway

PLANS = ("enterprise", "business", "starter", "free")


@dataclass(slots=True)
class Shop:
    """
    The downstream of all three pipelines, and the one who is told of alerts.

    Attributes:
        ill: Whether it fails tickets, and reads of invoices.
        tried: Keys of calls that failed once, and will not again.

    """

    url: str = ""
    ill: bool = False
    tried: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        found = json.loads(body) if body else {}
        slow = {"tickets": 0.12, "accounts": 0.3, "invoices": 0.08, "oncall": 0.05}[
            request.path.split("/")[1]
        ]
        await asyncio.sleep(slow if request.method == "POST" else 0.02)
        if self.ill and request.path.startswith(("/tickets", "/invoices")) and "charge" not in request.path:
            return web.Response(status=503)
        if found.get("bad"):
            return web.Response(status=422)
        key = request.headers.get("Idempotency-Key", "")
        if found.get("unlucky") and key not in self.tried:
            self.tried.add(key)
            return web.Response(status=500)
        return web.json_response({})


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    made = Shop()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert isinstance(site._server, asyncio.Server)
    made.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


class Callers:
    """Even arrivals that wait for no answer, at both gateways in turn."""

    def __init__(self, session: aiohttp.ClientSession, gateways: list[Gateway]) -> None:
        self._session = session
        self._urls = itertools.cycle("http://{}:{}".format(*gateway.address) for gateway in gateways)
        self._numbers = itertools.count()
        self._run = secrets.token_hex(4)
        self._calls: set[asyncio.Task[None]] = set()

    async def arrive(self, method: str, path: str, per_second: float) -> None:
        """Until cancelled; `{}` in the path is the number of the call."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            at += 1 / per_second
            await asyncio.sleep(at - loop.time())
            call = loop.create_task(self._call(method, path))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, method: str, path: str) -> None:
        number = next(self._numbers)
        body = {
            "customerId": f"c{number % 7}", "plan": PLANS[number % 4],
            "bad": number % 41 == 0, "unlucky": number % 29 == 0,
        }  # fmt: skip
        headers = {
            "Idempotency-Key": f"{self._run}-{number}",
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
        }
        with contextlib.suppress(aiohttp.ClientError):
            async with self._session.request(
                method, next(self._urls) + path.format(number), json=body if method == "POST" else None, headers=headers
            ) as answer:  # fmt: skip
                await answer.read()

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
