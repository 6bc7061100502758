"""
SAQ on Redis, as its manual shows it; started as `saq ...:settings`.

Results are not kept (`ttl=-1`), as with all queues here: a no-op has none. `max_concurrent_ops` is raised to what is in flight.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue

from bench.job_peers.driver import read_order, started

ORDER = read_order()
queue = Queue.from_url(ORDER.redis_url, max_concurrent_ops=ORDER.in_flight)


async def job(_: dict[str, Any], *, body: str) -> None:
    started(body)


settings = {"queue": queue, "functions": [job], "concurrency": ORDER.concurrency}


@asynccontextmanager
async def session() -> AsyncIterator[None]:
    await queue.connect()
    yield
    await queue.disconnect()


async def enqueue(body: str) -> None:
    await queue.enqueue("job", body=body, ttl=-1)
