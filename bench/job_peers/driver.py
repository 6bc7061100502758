"""
The driver of part 3: puts jobs into a queue, and counts what its worker starts.

Shared by all queues in Python, ours and the peers'; it needs only the standard library and uvloop, because it is also
imported in the peers' environments. `bullmq/peer.mjs` is the same in JavaScript.

1. A producer is a process of its own: `python -m bench.job_peers.driver MODULE`. The module has `enqueue(body)`, plain or a
   coroutine function; `enqueue_many(bodies)` where the queue knows such a thing; and, where coroutines need it,
   `session()`, an async context manager around them.
2. A worker is a process of its own, started as the queue's manual says. Its only job calls `started(body)`.
3. What to do stands in the environment variable BENCH_JOBS, an `Order` as JSON: workers have command lines of their own.

The load of the pick-up measurement is an open loop: each job has a moment at which it is due, which stands in its
body, and the next does not wait for it. So a slow queue cannot slow its own load down.
"""

import asyncio
import concurrent.futures
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BODY_BYTES = 200
BULK = 1_000  # jobs in one call of `enqueue_many`
PROBE = 0  # number of the job that shows that the worker is up; jobs are numbered from 1
SPIN_S = 0.002  # before a moment that must be met more exactly than an event loop's timers do


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    What a process of this part is to do.

    Attributes:
        task: `enqueue`, `bulk` or `pace` for a producer; `work` for a worker.
        redis_url: Of the store that is empty but for this queue.
        jobs: How many are put in, or expected.
        concurrency: Jobs that the worker may run at the same time.
        in_flight: Jobs that the producer may be putting in at the same time.
        per_second: Of the constant rate.
        folder: Where the worker writes `ready` and `result.json`.
        variant: Which way of several, for a queue that has them; else empty.
    """

    task: str
    redis_url: str
    jobs: int
    concurrency: int
    in_flight: int
    per_second: float
    folder: str
    variant: str = ""


def read_order() -> Order:
    return Order(**json.loads(os.environ["BENCH_JOBS"]))


def body_of(number: int, due: float = 0.0) -> str:
    """200 bytes that no serializer has to escape: the number, the Unix time at which it is due, and filling."""
    return f"{number:08d} {due:017.6f} ".ljust(BODY_BYTES, "x")


@dataclass(slots=True)
class Tally:
    """
    What a worker saw.

    Attributes:
        seen: Numbers of the jobs that have started.
        starts: Unix time of each first start.
        pickups: Seconds from due to start.
    """

    order: Order
    seen: set[int] = field(default_factory=set)
    starts: list[float] = field(default_factory=list)
    pickups: list[float] = field(default_factory=list)
    duplicates: int = 0

    def start(self, body: str) -> None:
        """Called by the job, first thing."""
        now = time.time()
        number = int(body[:8])
        if number == PROBE:
            (Path(self.order.folder) / "ready").touch()
            return
        if number in self.seen:
            self.duplicates += 1
            return
        self.seen.add(number)
        self.starts.append(now)
        self.pickups.append(now - float(body[9:26]))
        if len(self.seen) == self.order.jobs:
            self.write()

    def write(self) -> None:
        first, last = min(self.starts), max(self.starts)
        ordered = sorted(self.pickups)
        result = {
            "per_second": (len(self.starts) - 1) / (last - first),
            "p50_ms": ordered[len(ordered) // 2] * 1e3,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
            "duplicates": self.duplicates,
        }
        path = Path(self.order.folder) / "result.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.rename(path)  # the harness must never read half of it


_tally: Tally | None = None


def started(body: str) -> None:
    """What the job of every Python worker does, and all that it does."""
    global _tally  # noqa: PLW0603  one worker process, one tally; made in the process that runs the jobs
    if _tally is None:
        _tally = Tally(order=read_order())
    _tally.start(body)


async def enqueue(queue: Any, order: Order) -> float:
    """Puts the jobs in one by one, as many at a time as `in_flight` says; returns jobs per second."""
    bodies = iter([body_of(number) for number in range(1, order.jobs + 1)])
    if inspect.iscoroutinefunction(queue.enqueue):

        async def lane() -> None:
            for body in bodies:
                await queue.enqueue(body)

        begin = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(order.in_flight)))
        return order.jobs / (time.perf_counter() - begin)

    # A client that blocks has threads.

    def blocking_lane() -> None:
        while (body := next(bodies, None)) is not None:
            queue.enqueue(body)

    with concurrent.futures.ThreadPoolExecutor(order.in_flight) as pool:
        begin = time.perf_counter()
        lanes = [pool.submit(blocking_lane) for _ in range(order.in_flight)]
        for future in lanes:
            future.result()
        return order.jobs / (time.perf_counter() - begin)


async def enqueue_bulk(queue: Any, order: Order) -> float:
    """Puts the jobs in by the queue's own bulk call; returns jobs per second."""
    bodies = [body_of(number) for number in range(1, order.jobs + 1)]
    begin = time.perf_counter()
    for at in range(0, order.jobs, BULK):
        await settle(queue.enqueue_many(bodies[at : at + BULK]))
    return order.jobs / (time.perf_counter() - begin)


async def pace(queue: Any, order: Order) -> float:
    """Waits until the worker is up, then puts the jobs in at a constant rate, without waiting for any; see the head."""
    await settle(queue.enqueue(body_of(PROBE)))
    ready = Path(order.folder) / "ready"
    while not ready.exists():
        await asyncio.sleep(0.01)
    begin = time.time() + 0.2
    under_way = []
    for number in range(1, order.jobs + 1):
        due = begin + (number - 1) / order.per_second
        await asyncio.sleep(due - time.time() - SPIN_S)
        while time.time() < due:
            await asyncio.sleep(0)
        answer = queue.enqueue(body_of(number, due))
        if inspect.isawaitable(answer):
            under_way.append(asyncio.ensure_future(answer))
    await asyncio.gather(*under_way)
    return order.per_second


async def settle(answer: Any) -> None:
    """Awaits what can be awaited: a queue's calls block, or are coroutines."""
    if inspect.isawaitable(answer):
        await answer


async def produce(queue: Any, order: Order) -> None:
    session: Callable[[], AbstractAsyncContextManager[Any]] = getattr(queue, "session", nullcontext)
    tasks = {"enqueue": enqueue, "bulk": enqueue_bulk, "pace": pace}
    async with session():
        print(json.dumps({"per_second": await tasks[order.task](queue, order)}))


def run(main: Any) -> None:
    """On uvloop where the queue's environment has it; the clients that block have no use for it."""
    try:
        import uvloop  # noqa: PLC0415  absent in the environments of the clients that block
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


if __name__ == "__main__":
    run(produce(importlib.import_module(sys.argv[1]), read_order()))
