"""
taskiq with taskiq-redis' stream broker: the one that acknowledges, and that its manual recommends.

Started as `taskiq worker --workers 1 --max-async-tasks 32 ...:broker`. The stream is not trimmed (`maxlen`), as by default: its
manual leaves the choice to the user, and a length that is too short loses jobs.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq_redis import RedisStreamBroker

from bench.job_peers.driver import read_order, started

broker = RedisStreamBroker(url=read_order().redis_url)


@broker.task
async def job(body: str) -> None:
    started(body)


@asynccontextmanager
async def session() -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


async def enqueue(body: str) -> None:
    await job.kiq(body)
