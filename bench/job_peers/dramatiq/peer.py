"""dramatiq on Redis, as its manual shows it; started as `dramatiq ...peer --processes 1`. It acknowledges after the job."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.job_peers.driver import read_order, started

dramatiq.set_broker(RedisBroker(url=read_order().redis_url))


@dramatiq.actor
def job(body: str) -> None:
    started(body)


def enqueue(body: str) -> None:
    job.send(body)
