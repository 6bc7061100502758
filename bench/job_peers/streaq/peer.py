"""streaQ as its manual shows it, on uvloop; started as `streaq run ...:worker`. Results are not kept, and jobs not logged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streaq import Worker

from bench.job_peers.driver import read_order, started

ORDER = read_order()
worker = Worker(
    redis_url=ORDER.redis_url,
    concurrency=ORDER.concurrency,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=0, silent=True)
async def job(body: str) -> None:
    started(body)


@asynccontextmanager
async def session() -> AsyncIterator[None]:
    async with worker:
        yield


async def enqueue(body: str) -> None:
    await job.enqueue(body)


async def enqueue_many(bodies: list[str]) -> None:
    await worker.enqueue_many([job.enqueue(body) for body in bodies])
