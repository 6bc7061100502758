"""
RQ as its manual shows it; started as `rq worker --worker-class rq.SimpleWorker`.

Its manual allows SimpleWorker for jobs of a few milliseconds; the default forks for each job. One job at a time: RQ knows no
concurrency within a process. Results are not kept.
"""

from redis import Redis
from rq import Queue

from bench.job_peers.driver import read_order, started

connection = Redis.from_url(read_order().redis_url)
queue = Queue("jobs", connection=connection)


def job(body: str) -> None:
    started(body)


def enqueue(body: str) -> None:
    queue.enqueue(job, body, result_ttl=0)


def enqueue_many(bodies: list[str]) -> None:
    prepared = [Queue.prepare_data(job, (body,), result_ttl=0) for body in bodies]
    with connection.pipeline() as pipe:
        queue.enqueue_many(prepared, pipeline=pipe)
        pipe.execute()
