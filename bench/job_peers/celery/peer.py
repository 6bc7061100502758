"""
Celery on Redis; started as `celery -A ...peer worker --pool threads`.

As its chapter on optimizing says for many short jobs: a large prefetch, no results. Acknowledged after the job, like the other
queues here: the default acknowledges before, and loses what a dead worker had.
"""

from celery import Celery

from bench.job_peers.driver import read_order, started

app = Celery("jobs", broker=read_order().redis_url)
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=64)


@app.task
def job(body: str) -> None:
    started(body)


def enqueue(body: str) -> None:
    job.delay(body)
