"""arq as its manual shows it; started as `arq ...WorkerSettings`. Results are not kept; `poll_delay` is the default, 0.5 s."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from bench.job_peers.driver import read_order, started

ORDER = read_order()
SETTINGS = RedisSettings.from_dsn(ORDER.redis_url)
pools: list[ArqRedis] = []


async def job(_: dict[str, Any], body: str) -> None:
    started(body)


class WorkerSettings:
    functions = (job,)
    redis_settings = SETTINGS
    max_jobs = ORDER.concurrency
    keep_result = 0
    log_results = False


@asynccontextmanager
async def session() -> AsyncIterator[None]:
    pools.append(await create_pool(SETTINGS))
    yield
    await pools.pop().aclose()


async def enqueue(body: str) -> None:
    await pools[0].enqueue_job("job", body)
