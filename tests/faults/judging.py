"""
Judging: the judge as a test starts it, sets it and asks it.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from tests.e2e.scene import ROOT
from tests.faults.ills import Ill
from tests.faults.judge import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSeen:
    """What came of one order, see `judge.Order`."""

    requests: int = 0
    effects: int = 0
    failures: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSeen:
    """
    What came for one operation.

    Attributes:
        over: Starts above the limit: monotonic seconds, calls in flight, and of these without a caller.
        starts: When calls came, monotonic seconds of this machine, in order.

    """

    in_flight: int = 0
    in_flight_max: int = 0
    batches: int = 0
    over: tuple[tuple[float, int, int], ...] = ()
    starts: tuple[float, ...] = ()
    orders: Mapping[str, OrderSeen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An order that wants to be heard, and the port from which its gateway called."""

    order: str
    port: int


class Judge:
    """A judge that runs."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session
        self._ills: dict[str, Ill] = {}

    async def report(self) -> dict[str, OperationSeen]:
        """By operation."""
        async with self._session.get(f"{self.url}/_judge/report") as answer:
            told = await answer.json()
        return {
            name: OperationSeen(
                in_flight=seen["in_flight"],
                in_flight_max=seen["in_flight_max"],
                batches=seen["batches"],
                over=tuple((at, in_flight, abandoned) for at, in_flight, abandoned in seen["over"]),
                starts=tuple(seen["starts"]),
                orders={
                    order: OrderSeen(**note | {"keys": tuple(note["keys"])})
                    for order, note in seen["orders"].items()
                },
            )
            for name, seen in told.items()
        }

    async def change(self, **settings: Any) -> None:
        """Other settings from now on, by their names in `judge.Settings`."""
        async with self._session.post(f"{self.url}/_judge/settings", json=settings) as answer:
            assert answer.status == 200, settings

    async def ill(self, operation: str, ill: Ill, **more: Any) -> None:
        """This operation is so ill from now on, or well; the others stay as they are."""
        self._ills[operation] = ill
        await self.change(ills=self._ills, **more)

    async def alarms(self, after: int) -> list[Alarm]:
        """Wait for an alarm beyond the first so many; empty when none came for a while."""
        async with self._session.get(f"{self.url}/_judge/alarms", params={"after": str(after)}) as answer:
            told = await answer.json()
        return [Alarm(**alarm) for alarm in told["alarms"]]


@asynccontextmanager
async def judge(settings: Settings) -> AsyncIterator[Judge]:
    """A judge on a port of its own, until the block ends."""
    command = [sys.executable, "-m", "tests.faults.judge", json.dumps(asdict(settings))]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready, url = (await asyncio.to_thread(process.stdout.readline)).split()
        assert ready == "ready"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Judge(url, session)
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
