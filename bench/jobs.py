"""
Part 3: jobs. What does a durable queue cost, and how quickly is a job picked up?

Each queue in turn, in each round, in two modes of the append-only file, with jobs of 200 bytes:

1. Put in, with 50 in flight: jobs per second, and what one costs the store in bytes and commands.
2. Drained by one worker process that may run 32 at a time, of jobs that do nothing: jobs per second from the first start to the last.
   What is left in the store after that.
3. Put in again by the queue's own bulk call, where it has one.
4. Picked up at 100 jobs per second, in an open loop: from the moment when a job is due to its start.

All of them deliver at least once, keep no results and write no log line per job. `job_peers/driver.py` is the producer and the
counter of starts; what is particular to a peer stands in its `peer.py` or `peer.mjs`.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.install import HERE
from bench.job_peers.driver import Order
from bench.job_queues import CONCURRENCY, JOB_QUEUES, JobQueue
from bench.processes import Process, Processes, SubjectError
from bench.store import Store
from bench.store_cost import forbid_rewrites, read_cost, read_left

IN_FLIGHT = 50
PER_SECOND = 100.0
WARM_UP_JOBS = 200
SETTLE_S = 0.5  # after the last start, for its end to be written
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """
    How much is measured.

    Attributes:
        paced_s: Seconds of the constant rate.
        only_quick: Leaves the slower peers out.
    """

    rounds: int
    fsyncs: tuple[str, ...]
    jobs: int
    paced_s: float
    only_quick: bool = False


FULL = Effort(rounds=3, fsyncs=("everysec", "always"), jobs=5_000, paced_s=5.0)
QUICK = Effort(rounds=1, fsyncs=("everysec",), jobs=2_000, paced_s=2.0, only_quick=True)


def queues_of(effort: Effort) -> list[JobQueue]:
    """The queues that a run with this effort measures."""
    return [queue for queue in JOB_QUEUES if queue.is_quick or not effort.only_quick]


def peers_of(effort: Effort) -> list[str]:
    """The folders of `job_peers` that must be installed for it."""
    return [queue.needs for queue in queues_of(effort) if queue.needs is not None]


@dataclass(slots=True)
class Jobs:
    """Runs queues on the stores, which differ in their append-only file."""

    processes: Processes
    folder: Path
    stores: Mapping[str, Store]
    turn: int = 0

    def measure(self, queue: JobQueue, store: Store, effort: Effort) -> dict[str, Any]:
        """
        One round of one queue: the four cases of the module's head.

        Raises:
            SubjectError: It failed, or did not run all of its jobs.
        """
        result = self._measure_drain(queue, store, effort.jobs)
        if queue.has_bulk:
            store.flush()
            order = self._order(queue, store, "bulk", effort.jobs)
            result["bulk_per_second"] = self._produce(queue, order)["per_second"]
        return result | self._measure_pickup(queue, store, effort.paced_s)

    def _measure_drain(self, queue: JobQueue, store: Store, jobs: int) -> dict[str, Any]:
        # A server keeps memory for the first connections that it sees: without this, the first queue would pay for it.
        self._produce(queue, self._order(queue, store, "enqueue", WARM_UP_JOBS))
        store.flush()
        empty = read_cost(store)
        order = self._order(queue, store, "enqueue", jobs)
        enqueued = self._produce(queue, order)["per_second"]
        full = read_cost(store)
        seen = self._finish(queue, order, self._work(queue, order))
        put, run = full.per_job(empty, jobs), read_cost(store).per_job(full, jobs)
        return {
            "enqueued_per_second": enqueued,
            "drained_per_second": seen["per_second"],
            "bytes_per_job": put["bytes"],
            **read_left(store),
            "commands_per_job": put["commands"] + run["commands"],
            "store_us_per_job": put["cpu_us"] + run["cpu_us"],
            "store_us_to_put": put["cpu_us"],
            "store_us_to_run": run["cpu_us"],
            "duplicates": seen["duplicates"],
        }

    def _measure_pickup(self, queue: JobQueue, store: Store, seconds: float) -> dict[str, float]:
        store.flush()
        order = self._order(queue, store, "pace", round(PER_SECOND * seconds))
        if queue.has_worker:
            self._produce(queue, order)
            seen = read_result(order)
        else:
            worker = self._work(queue, order)
            try:
                self._produce(queue, order)
            except SubjectError:
                self.processes.stop(worker)
                raise
            seen = self._finish(queue, order, worker)
        return {"pickup_p50_ms": seen["p50_ms"], "pickup_p99_ms": seen["p99_ms"]}

    def _order(self, queue: JobQueue, store: Store, task: str, jobs: int) -> Order:
        self.turn += 1
        folder = self.folder / f"jobs-{self.turn:04}"
        folder.mkdir()
        return Order(
            task=task,
            redis_url=store.url,
            jobs=jobs,
            concurrency=CONCURRENCY,
            in_flight=IN_FLIGHT,
            per_second=PER_SECOND,
            folder=str(folder),
            variant=queue.variant,
        )

    def _produce(self, queue: JobQueue, order: Order) -> dict[str, Any]:
        output = self.processes.run(
            f"{queue.name}, {order.task}",
            queue.producer,
            log=Path(order.folder) / "producer.log",
            timeout_s=TIMEOUT_S,
            env=environment(order),
        )
        try:
            seen: dict[str, Any] = json.loads(output)
        except ValueError as error:
            raise SubjectError(f"{queue.name} printed no result but {output[:200]!r}") from error
        return seen

    def _work(self, queue: JobQueue, order: Order) -> Process:
        work = Order(**(asdict(order) | {"task": "work"}))
        argv = [word.replace("{redis_url}", order.redis_url) for word in queue.worker]
        log = Path(order.folder) / "worker.log"
        return self.processes.start(f"{queue.name}, worker", argv, log=log, env=environment(work))

    def _finish(self, queue: JobQueue, order: Order, worker: Process) -> dict[str, Any]:
        """What the worker saw, when it has started all of the jobs; then it is stopped, as in an ordinary deployment."""
        end = time.monotonic() + TIMEOUT_S
        try:
            while not (Path(order.folder) / "result.json").exists():
                if worker.handle.poll() is not None:
                    raise SubjectError(worker.last_words())
                if time.monotonic() > end:
                    raise SubjectError(
                        f"{queue.name} did not run {order.jobs} jobs in {TIMEOUT_S:.0f} s\n{worker.log_tail()}"
                    )
                time.sleep(0.02)
            time.sleep(SETTLE_S)
        finally:
            self.processes.stop(worker)
        return read_result(order)


def read_result(order: Order) -> dict[str, Any]:
    """What the worker saw, when it has started all of its jobs."""
    seen: dict[str, Any] = json.loads((Path(order.folder) / "result.json").read_text())
    return seen


def environment(order: Order) -> dict[str, str]:
    # NODE_ENV as every Node manual says for production.
    return {
        "PYTHONPATH": str(HERE.parent),
        "BENCH_JOBS": json.dumps(asdict(order)),
        "NODE_ENV": "production",
    }


def measure_jobs(jobs: Jobs, effort: Effort, failed: Mapping[str, str]) -> dict[str, Any]:
    """
    Returns:
        `subjects`: per name title, `modes` (append-only file mode -> rounds and median), or `left_out`.
    """
    queues = queues_of(effort)
    left_out = {q.name: failed[q.needs] for q in queues if q.needs is not None and q.needs in failed}
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {
        queue.name: {fsync: [] for fsync in effort.fsyncs} for queue in queues
    }
    for store in jobs.stores.values():
        forbid_rewrites(store)
    for number in range(effort.rounds):
        for fsync in effort.fsyncs:
            for queue in queues:
                if queue.name in left_out:
                    continue
                print(
                    f"bench: jobs, round {number + 1} of {effort.rounds}, {fsync}: {queue.name}",
                    file=sys.stderr,
                )
                try:
                    rounds[queue.name][fsync].append(jobs.measure(queue, jobs.stores[fsync], effort))
                except SubjectError as error:
                    print(f"!!! bench: {queue.name} is not measured: {error}", file=sys.stderr)
                    left_out[queue.name] = str(error)
    subjects: dict[str, Any] = {}
    for queue in queues:
        if queue.name in left_out:
            subjects[queue.name] = {"title": queue.title, "left_out": left_out[queue.name]}
            continue
        subjects[queue.name] = {
            "title": queue.title,
            "modes": {
                fsync: {"rounds": seen, "median": {n: statistics.median(r[n] for r in seen) for n in seen[0]}}
                for fsync, seen in rounds[queue.name].items()
            },
        }
    return {"effort": asdict(effort), "fsync": "by column", "subjects": subjects}
