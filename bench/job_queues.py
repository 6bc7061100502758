"""
Job queues: the subjects of part 3, and how producer and worker of each are started.

Every worker is one process, started as its own documentation says, and may run 32 jobs at a time (RQ: one, it knows no more).
"""

import sys
from dataclasses import dataclass

from bench.install import INSTALLED

CONCURRENCY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueue:
    """
    A subject of part 3.

    Attributes:
        producer, worker: The programs; both read their order from BENCH_JOBS.
        needs: The peer's folder in `job_peers`.
        has_bulk: Whether the queue has a call for many jobs.
        is_quick: Whether it is part of a quick run.
        variant: Which way of several.
        has_worker: The producer runs the jobs itself, at the constant rate.
    """

    name: str
    title: str
    producer: tuple[str, ...]
    worker: tuple[str, ...]
    needs: str | None = None
    has_bulk: bool = False
    is_quick: bool = False
    variant: str = ""
    has_worker: bool = False


def _python_peer(
    name: str, title: str, worker: str, *, has_bulk: bool = False, is_quick: bool = False
) -> JobQueue:
    """
    Args:
        worker: The command line of its worker, with `{peer}` for the module; the program is that of its environment.
    """
    programs = INSTALLED / f"jobs_{name}" / "bin"
    peer = f"bench.job_peers.{name}.peer"
    program, *rest = worker.format(peer=peer, concurrency=CONCURRENCY).split()
    return JobQueue(
        name=name.replace("_", "-"),
        title=title,
        producer=(str(programs / "python"), "-m", "bench.job_peers.driver", peer),
        worker=(str(programs / program), *rest),
        needs=name,
        has_bulk=has_bulk,
        is_quick=is_quick,
    )


_BULLMQ = ("node", str(INSTALLED / "jobs_bullmq" / "peer.mjs"))

_OURS = "bench.subjects.jobs_breaker"


def _breaker(name: str, title: str, variant: str) -> JobQueue:
    return JobQueue(
        name=name,
        title=title,
        producer=(sys.executable, "-m", "bench.job_peers.driver", _OURS),
        worker=(sys.executable, "-m", _OURS),
        variant=variant,
        has_worker=True,
        is_quick=True,
    )


JOB_QUEUES = (
    _breaker("breaker", "**Breaker**, bare jobs", "bare"),
    _breaker("breaker-all", "**Breaker**, with key, encryption, expiry, tenant limits", "all"),
    JobQueue(
        name="bullmq",
        title="BullMQ (Node)",
        producer=_BULLMQ,
        worker=_BULLMQ,
        needs="bullmq",
        has_bulk=True,
        is_quick=True,
    ),
    _python_peer(
        "taskiq",
        "taskiq, Redis stream",
        "taskiq worker --workers 1 --max-async-tasks {concurrency} --log-level WARNING {peer}:broker",
        is_quick=True,
    ),
    _python_peer("saq", "SAQ", "saq {peer}.settings", is_quick=True),
    _python_peer("bullmq_python", "BullMQ (Python)", "python -m {peer}", has_bulk=True),
    _python_peer("dramatiq", "dramatiq, threads", "dramatiq {peer} --processes 1 --threads {concurrency}"),
    _python_peer("streaq", "streaQ", "streaq run {peer}:worker", has_bulk=True),
    _python_peer(
        "celery",
        "Celery, threads, late acks",
        "celery -A {peer} worker --pool threads --concurrency {concurrency} --loglevel WARNING",
    ),
    _python_peer(
        "rq",
        "RQ, SimpleWorker (one job at a time)",
        "rq worker jobs --url {{redis_url}} --worker-class rq.SimpleWorker --quiet",
        has_bulk=True,
    ),
    _python_peer("arq", "arq", "arq {peer}.WorkerSettings"),
)
