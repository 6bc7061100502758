"""
What a step costs with few and with many jobs waiting: accept, lease, acknowledge, position, depth and oldest age.

One process with a replica in each of two stores of its own, one with few jobs and one with many; it measures both in turn, so
that a moment in which the machine is busy falls on both. A step's cost is told in two ways: `p50_us`, the round trip as the
process sees it, one step at a time; and `store_us`, the mean time in the script by the store's own count.

The jobs are loaded by the accept script itself, many to a call.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from bench.job_peers.driver import body_of, run
from bench.subjects.job_replica import NAME, Replica, join
from breaker.core.config import StoreSettings
from breaker.core.jobs import Ack, Fate, LeasedJob
from breaker.store.connection import Line
from breaker.store.job_parts import AcceptPart
from breaker.store.keys import wake_prefix
from breaker.store.lane import AcceptItem
from breaker.store.scripts import load_scripts

LOAD_ITEMS = 128  # jobs in one call of the script
LOAD_CALLS = 8  # calls in one exchange
LOAD_TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthOrder:
    """
    Attributes:
        redis_urls: Of two empty stores.
        depths: Jobs to wait in each.
        rounds, steps: Of each step, so many in turn, so many times.
    """

    redis_urls: list[str]
    depths: list[int]
    rounds: int
    steps: int


@dataclass(slots=True, kw_only=True)
class Side:
    """
    One of the two stores.

    Attributes:
        waiting: Ids of jobs that were put in last.
        leased: Jobs that are to be acknowledged.
        round_trips: Seconds, by step.
        script_us, scripts: Time in scripts and calls of them, by step.
    """

    replica: Replica
    client: redis.Redis
    waiting: list[str] = field(default_factory=list)
    leased: list[LeasedJob] = field(default_factory=list)
    round_trips: dict[str, list[float]] = field(default_factory=dict)
    script_us: dict[str, int] = field(default_factory=dict)
    scripts: dict[str, int] = field(default_factory=dict)

    async def accept(self) -> None:
        self.waiting.append(await self.replica.accept(body_of(1)))

    async def lease(self) -> None:
        leases = await self.replica.jobs.lease(self.replica.lane, 1, is_idle=False)
        self.leased += leases.jobs

    async def position(self) -> None:
        record = await self.replica.desk.show(NAME, self.waiting.pop())
        if record is None or record.place is None:
            raise LookupError("a job that waits has no position")

    async def depth(self) -> None:
        await self.replica.desk.look_queue(NAME)

    async def acknowledge(self) -> None:
        job = self.leased.pop()
        head = job.head
        ack = Ack(job=head.id, attempt=head.attempt, tenant=head.tenant, slot=job.slot, fate=Fate.SUCCEEDED)
        self.replica.jobs.ack(self.replica.lane, ack)
        while self.replica.lane.acks:
            await asyncio.sleep(0)
        # It is on its way: whatever comes next stands behind it.
        await self.replica.desk.look_queue(NAME)

    def count(self) -> tuple[int, int]:
        """Scripts called so far, and microseconds in them."""
        seen: dict[str, Any] = self.client.info("commandstats").get("cmdstat_evalsha", {})
        return seen.get("calls", 0), seen.get("usec", 0)

    async def measure(self, name: str, step: Callable[[], Awaitable[None]], steps: int) -> None:
        calls, us = self.count()
        trips = self.round_trips.setdefault(name, [])
        for _ in range(steps):
            begin = time.perf_counter()
            await step()
            trips.append(time.perf_counter() - begin)
        calls_after, us_after = self.count()
        self.scripts[name] = self.scripts.get(name, 0) + calls_after - calls
        self.script_us[name] = self.script_us.get(name, 0) + us_after - us

    async def measure_all(self, steps: int) -> None:
        """The same number of jobs waits afterwards."""
        for step in (self.accept, self.position, self.depth, self.lease, self.acknowledge):
            await self.measure(step.__name__, step, steps)

    def result(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "p50_us": statistics.median(trips) * 1e6,
                "store_us": self.script_us[name] / self.scripts[name],
            }
            for name, trips in self.round_trips.items()
        }


async def load(replica: Replica, redis_url: str, count: int) -> None:
    """Puts so many jobs in through the accept script, on a connection of its own."""
    scripts = load_scripts()
    line = Line(StoreSettings(url=redis_url, timeout_ms=LOAD_TIMEOUT_MS), scripts)
    await line.open()
    answer = asyncio.get_running_loop().create_future()
    left = count
    while left > 0:
        commands = []
        for _ in range(LOAD_CALLS):
            offers = [replica.offer(body_of(left)) for _ in range(min(LOAD_ITEMS, left))]
            left -= len(offers)
            if offers:
                items = [AcceptItem(offer, answer) for offer in offers]
                part = AcceptPart(
                    replica.lane, scripts["accept"], replica.ids.replica, wake_prefix("bench"), items
                )
                now_us = replica.jobs.capacity.clock.now_us()
                commands.append(part.command(now_us, now_us + LOAD_TIMEOUT_MS * 1_000))
        for reply in await line.exchange(commands):
            if isinstance(reply, BaseException):
                raise reply
            if reply[0] != 0:
                raise LookupError(f"the accept script refused: {reply[:2]}")
    await line.close()
    waiting = (await replica.desk.look_queue(NAME)).queued
    if waiting != count:
        raise LookupError(f"{waiting} jobs wait after {count} were loaded")


async def measure(order: DepthOrder) -> None:
    few, many = order.redis_urls
    async with join(few) as replica_few, join(many) as replica_many:
        sides = [
            Side(replica=replica, client=redis.Redis.from_url(url))
            for replica, url in ((replica_few, few), (replica_many, many))
        ]
        loaded_s = []
        for side, url, depth in zip(sides, order.redis_urls, order.depths, strict=True):
            begin = time.perf_counter()
            await load(side.replica, url, depth)
            loaded_s.append(time.perf_counter() - begin)
        for _ in range(order.rounds):
            for side in sides:
                await side.measure_all(order.steps)
        print(
            json.dumps(
                {
                    "depths": order.depths,
                    "steps": order.steps * order.rounds,
                    "loaded_per_second": order.depths[1] / loaded_s[1],
                    "sides": [side.result() for side in sides],
                }
            )
        )


if __name__ == "__main__":
    run(measure(DepthOrder(**json.loads(sys.argv[1]))))
