"""
BullMQ for Python, as its manual shows it: a worker is a class, in a program of one's own.

Ended jobs are removed, as with all queues here. `python -m ...peer` is the worker.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from bullmq import Queue, Worker

from bench.job_peers.driver import read_order, started

ORDER = read_order()
OPTIONS = {"removeOnComplete": True}
queues: list[Queue] = []


@asynccontextmanager
async def session() -> AsyncIterator[None]:
    queues.append(Queue("jobs", {"connection": ORDER.redis_url}))
    yield
    await queues.pop().close()


async def enqueue(body: str) -> None:
    await queues[0].add("job", body, OPTIONS)


async def enqueue_many(bodies: list[str]) -> None:
    await queues[0].addBulk([{"name": "job", "data": body, "opts": OPTIONS} for body in bodies])


async def job(job: Any, _token: str) -> None:
    started(job.data)


async def work() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    worker = Worker("jobs", job, {"connection": ORDER.redis_url, "concurrency": ORDER.concurrency})
    await stopped.wait()
    await worker.close()


if __name__ == "__main__":
    uvloop.run(work())
