"""
Call drill: gateways, a store and a judge, and callers of operations without a queue.

    read    throttled: waits for its turn, and is refused otherwise; a call that runs goes on when its caller goes
    brief   likewise, and is cancelled when its caller goes
    other   as read; what happens to another operation must not be felt here
    keyed   with a queue: its calls start at once where they can, and a key is one execution
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from redis import Redis

from tests.faults import offers
from tests.faults.calls import DirectCallers, Told, check_calls, words
from tests.faults.checker import Violation, summary
from tests.faults.fleet import Fleet, fleet
from tests.faults.judge import Settings
from tests.faults.judging import Judge, judge
from tests.gateway.gateway_process import write_config

CLUSTER = "drill"
LIMITS = {"read": 8, "brief": 8, "other": 8, "keyed": 8}
# While the store is away each replica may start its share of 80 %, beside what runs already.
DEGRADED_LIMITS = {name: limit + math.ceil(0.8 * limit) for name, limit in LIMITS.items()}
TIMEOUT_S = 1.5  # of a call downstream
ANSWER_MAX = 1_048_576


def pipeline(judge_url: str, **changes: Any) -> dict[str, Any]:
    """The pipeline of these drills; `changes` of operations by their names."""
    operations: dict[str, dict[str, Any]] = {
        name: {"match": f"POST /{name}/{{order}}", "capacity": {"concurrency": limit}, "max_wait": "300ms"}
        for name, limit in LIMITS.items()
    }
    del operations["keyed"]["max_wait"]
    operations["brief"]["on_hang_up"] = "cancel"
    operations["keyed"] |= {
        "overflow": "queue", "effects": "keyed", "idempotency": {"key": "optional"},
        "queue": {"start_within": "60s", "max_jobs": 10_000, "durability": "fsync"},
    }  # fmt: skip
    for name, change in changes.items():
        operations[name] |= change
    downstream = {"url": judge_url, "timeout": f"{TIMEOUT_S * 1_000:.0f}ms", "max_response": ANSWER_MAX}
    return {"team": "drills", "downstream": downstream, "operations": operations}


class Store(Protocol):
    """Where gateways find the store, and how a drill looks into it."""

    url: str
    client: Redis


@dataclass(slots=True, kw_only=True)
class CallDrill:
    """A drill that runs; its callers take only gateways that say that they are ready, as behind a balancer."""

    seed: int
    folder: Path
    server: Store
    judge: Judge
    fleet: Fleet
    session: aiohttp.ClientSession
    callers: DirectCallers = field(init=False)
    _ready: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._ready = self.fleet.urls
        self.callers = DirectCallers(lambda: self._ready, self.session)

    async def balance(self) -> None:
        """Look who is ready, ten times a second."""
        while True:
            states = await asyncio.gather(*(self._is_ready(each.url) for each in self.fleet.replicas))
            self._ready = [
                url for url, ready in zip(self.fleet.urls, states, strict=True) if ready
            ] or self._ready
            await asyncio.sleep(0.1)

    async def _is_ready(self, url: str) -> bool:
        try:
            async with self.session.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(total=1)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def slots(self, operation: str) -> int:
        """Leases of this operation that have not run out."""
        seconds, micros = self.server.client.time()
        key = f"brk:{CLUSTER}:{{{offers.PIPELINE}.{operation}}}:slots"
        held = self.server.client.zcount(key, f"({seconds * 1_000_000 + micros}", "+inf")
        assert isinstance(held, int)
        return held

    async def until_free(self, operation: str, *, seconds: float) -> float:
        """Until no slot is held; how many seconds that took."""
        began = time.monotonic()
        while held := self.slots(operation):
            took = time.monotonic() - began
            assert took < seconds, f"{held} slots of {operation} are held for nobody"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def verdict(
        self,
        told: list[Told] | None = None,
        *,
        limits: Mapping[str, int] = LIMITS,
        may_break: bool = False,
    ) -> list[Violation]:
        """What was not kept of all that callers were told; says in a line what was seen."""
        told = self.callers.told if told is None else told
        judged = await self.judge.report()
        most = {name: seen.in_flight_max for name, seen in judged.items()}
        slowest = max((each.took_s for each in told if each.status), default=0)
        print(f"seed {self.seed}: {dict(words(told))}; slowest answer {slowest:.3f} s; in flight {most}")
        violations = check_calls(told, judged, limits, may_break=may_break)
        print(summary(violations))
        return violations


@asynccontextmanager
async def call_drill(
    folder: Path,
    server: Store,
    *,
    seed: int,
    gateways: int = 2,
    downstream: str | None = None,
    stores: Mapping[int, str] = {},
    store_timeout: str = "2s",
    changes: Mapping[str, Mapping[str, Any]] = {},
    **settings: Any,
) -> AsyncIterator[CallDrill]:
    """
    Everything is up while the block runs, and no gateway has logged a mistake of its own when it ends.

    Args:
        downstream: Where gateways find the judge; a format, of its address. By default directly.
        stores: Where some of them find the store, by their number.
        store_timeout: Of a decision; patient where the store is well, for busy machines.
        changes: Of operations, by their names.
        settings: Of the judge, by their names in `judge.Settings`.

    """
    judged = Settings(limits=LIMITS, seed=seed, **settings)
    async with (
        judge(judged) as the_judge,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        gateway = {
            "cluster": CLUSTER, "store": {"url": server.url, "timeout": store_timeout}, "log": {"sample": 0},
            "drain": {"timeout": "10s", "delay": "1s"},
        }  # fmt: skip
        config = folder / "config"
        write_config(config, {offers.PIPELINE: pipeline(downstream or the_judge.url, **changes)}, gateway, {})
        async with fleet(config, folder, gateways, stores) as running:
            made = CallDrill(
                seed=seed, folder=folder, server=server, judge=the_judge, fleet=running, session=session
            )
            balancing = asyncio.get_running_loop().create_task(made.balance())
            try:
                yield made
            finally:
                balancing.cancel()
        assert running.bugs() == []
