"""
Fairness: does a tenant with thousands of jobs make the others wait?

Ten light tenants with ten jobs each, alone, and behind a tenant that has put in thousands before them and has had all of the slots
for a while. Jobs take between half and one and a half of the service time, evenly spread, since equal ones would all end at
the same moment. A job's wait is the time from its acceptance to its start.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field

from bench.job_peers.driver import run
from bench.subjects.job_replica import NAME, Replica, join
from breaker.core.jobs import LeasedJob

LIGHT_TENANTS, LIGHT_JOBS = 10, 10
IN_FLIGHT = 50
HEAD_START = 3  # service times that the heavy tenant is alone


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessOrder:
    """
    Attributes:
        heavy_jobs: Of the heavy tenant.
        service_ms: How long a job takes in the mean.
        concurrency: Jobs that run at the same time.
    """

    redis_url: str
    heavy_jobs: int
    service_ms: float
    concurrency: int


@dataclass(slots=True, kw_only=True)
class Case:
    """
    Attributes:
        accepted, started: Moments of the light tenants' jobs, seconds on the monotonic clock.
        all_started: The last of them has started.
        draws: The same service times in each run.
    """

    order: FairnessOrder
    accepted: dict[str, float] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    all_started: asyncio.Event = field(default_factory=asyncio.Event)
    draws: random.Random = field(default_factory=lambda: random.Random(1))

    async def act(self, job: LeasedJob, body: str) -> None:
        if body == "light":
            self.started[job.head.id] = time.perf_counter()
            if len(self.started) == LIGHT_TENANTS * LIGHT_JOBS:
                self.all_started.set()
        await asyncio.sleep(self.order.service_ms / 1e3 * self.draws.uniform(0.5, 1.5))

    async def put_heavy(self, replica: Replica) -> None:
        left = iter(range(self.order.heavy_jobs))

        async def lane() -> None:
            for _ in left:
                await replica.accept("heavy", "heavy")

        await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))

    async def put_light(self, replica: Replica, tenant: str) -> None:
        for _ in range(LIGHT_JOBS):
            begin = time.perf_counter()
            self.accepted[await replica.accept("light", tenant)] = begin

    async def waits(self, *, has_heavy: bool) -> list[float]:
        """Seconds that each job of the light tenants waited, sorted."""
        async with join(self.order.redis_url) as replica:
            if has_heavy:
                await self.put_heavy(replica)
            async with replica.dispatching(self.act, self.order.concurrency) as dispatcher:
                if has_heavy:
                    await asyncio.sleep(HEAD_START * self.order.service_ms / 1e3)
                async with asyncio.TaskGroup() as group:
                    for number in range(LIGHT_TENANTS):
                        group.create_task(self.put_light(replica, f"light-{number}"))
                        dispatcher.kick(NAME)
                dispatcher.kick(NAME)
                await self.all_started.wait()
        return sorted(self.started[job] - at for job, at in self.accepted.items())


async def measure(order: FairnessOrder, *, has_heavy: bool) -> None:
    waits = await Case(order=order).waits(has_heavy=has_heavy)
    print(json.dumps({"p50_ms": waits[len(waits) // 2] * 1e3, "p99_ms": waits[len(waits) * 99 // 100] * 1e3}))


if __name__ == "__main__":
    run(measure(FairnessOrder(**json.loads(sys.argv[1])), has_heavy=sys.argv[2] == "beside"))
