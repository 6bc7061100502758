"""
Served: a demo downstream as a process, as its callers and its operator see it.
"""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

import breaker

ROOT = Path(breaker.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    content: dict[str, Any]
    headers: dict[str, str]


class Downstream:
    """A running process as its callers and its operator see it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def call(self, method: str, path: str, content: object = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.url + path, json=content, headers=named) as response:
            return Answer(
                status=response.status, content=await response.json(), headers=dict(response.headers)
            )

    async def stats(self, query: str = "") -> dict[str, Any]:
        return (await self.call("GET", f"/_control/stats{query}")).content

    async def fault(self, mode: str, **settings: float | str) -> None:
        answer = await self.call("POST", "/_control/faults", {"mode": mode, **settings})
        assert answer.status == 200, answer.content

    async def until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the statistics until they say so; the test's own timeout ends it otherwise."""
        while not is_so(stats := await self.stats()):
            await asyncio.sleep(0.01)
        return stats

    async def charge(self, number: int, customer: str = "", **headers: str) -> Answer:
        return await self.call(
            "POST", f"/invoices/inv-{number}/charge", {"customerId": customer or f"c{number}"}, **headers
        )


def spawn(name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "breaker.demo.downstream", name, "--port", "0"]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_url(process: "subprocess.Popen[str]", name: str) -> str:
    assert process.stdout is not None
    ready, said, url = process.stdout.readline().split()
    assert (ready, said) == ("ready", name)
    return url


@asynccontextmanager
async def called(url: str) -> AsyncIterator[Downstream]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        downstream = Downstream(url, session)
        yield downstream
        await downstream.fault("none")
        await downstream.until(lambda stats: stats["in_flight"] + stats["in_flight_beside"] == 0)
        await downstream.call("POST", "/_control/reset")


async def statuses(calls: list[Awaitable[Answer]]) -> Counter[int]:
    return Counter(answer.status for answer in await asyncio.gather(*calls))
