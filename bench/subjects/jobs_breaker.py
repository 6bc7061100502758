"""
Breaker in part 3, in process.

`python -m bench.job_peers.driver bench.subjects.jobs_breaker` puts jobs in; `python -m bench.subjects.jobs_breaker` is the
worker. A gateway runs what it accepts, and tells the others only of what it cannot run itself: so for the pick-up producer and
worker are one process.

Variant `bare` holds a rate and a concurrency, as any operation does; they are never reached. Variant `all` adds an
idempotency key, sealing, an expiry, and a rate and a concurrency of each tenant.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from bench.job_peers.driver import read_order, run, started
from bench.subjects.job_replica import NAME, Replica, join
from breaker.core.jobs import LeasedJob
from breaker.gateway.dispatcher import Dispatcher

ORDER = read_order()
joined: list[tuple[Replica, Dispatcher | None]] = []


async def act(_: LeasedJob, body: str) -> None:
    started(body)


@asynccontextmanager
async def session() -> AsyncIterator[None]:
    async with join(ORDER.redis_url, has_all=ORDER.variant == "all") as replica:
        runs = ORDER.task == "pace"
        async with replica.dispatching(act, ORDER.concurrency) if runs else nullcontext() as dispatcher:
            joined.append((replica, dispatcher))
            yield
            joined.clear()
            while runs and not (Path(ORDER.folder) / "result.json").exists():
                await asyncio.sleep(0.01)


async def enqueue(body: str) -> None:
    replica, dispatcher = joined[0]
    await replica.accept(body)
    if dispatcher is not None:
        dispatcher.kick(NAME)


async def work() -> None:
    """Leases and runs jobs until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        join(ORDER.redis_url, has_all=ORDER.variant == "all") as replica,
        replica.dispatching(act, ORDER.concurrency),
    ):
        await stop.wait()


if __name__ == "__main__":
    run(work())
