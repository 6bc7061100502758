"""
Redrive: dead jobs run again, one at first.

Jobs that died of one cause die of it again while it lasts. Whether it is gone is found out with one
job (the canary), then with 2, 4, 8, ..., each wave after the one before has ended.

1. At most `rate` jobs a second are queued; their operation's own limits hold besides.
2. It stops at the first job that ends as a failure of a class (`Reason`) that is being redriven. A failure
   of another class is counted, and goes on: it is another cause.
3. Stopping undoes nothing and loses nothing: what was queued runs on, what was not stays dead.
4. What died after the redrive began is not taken: a job is run again once, not in a circle.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from breaker.core.jobs import JobHead, JobState
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore

RATE = 10.0  # jobs per second, unless the person says otherwise
WAVE_MAX = 256  # what is run again before anybody has looked how it goes
WAVE_WAIT_S = 900.0
BEAT_S = 1.0  # something is said at least this often, so that one who has left is noticed
POLL_MIN_S, POLL_MAX_S = 1.0, 30.0

FAILED = frozenset({JobState.DEAD, JobState.UNKNOWN})


class Stage(StrEnum):
    """What a redrive is doing."""

    REDRIVING = "redriving"
    WAITING = "waiting"  # for the jobs of the wave to end
    DONE = "done"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    How far a redrive has come.

    Attributes:
        done: Jobs that were queued again.
        skipped: Jobs that were not dead any more when their turn came.
        wave: Size of the present wave.
        succeeded, failed: How those that have ended did; `otherwise`: expired, cancelled, or without a record.
        detail: Why it stopped.

    """

    stage: Stage
    done: int
    skipped: int
    wave: int
    succeeded: int
    failed: int
    otherwise: int
    detail: str = ""


class Redrive:
    """
    One redrive of one operation's dead jobs; `run` it once.

    Args:
        rate: Jobs per second, above 0.
        wait_s: How long a wave may take to end, seconds; then it stops, because a cause that lasts may
            show only as retries.

    """

    def __init__(
        self,
        desk: JobDesk,
        jobs: JobStore,
        operation: str,
        *,
        rate: float = RATE,
        wait_s: float = WAVE_WAIT_S,
    ) -> None:
        self._desk, self._jobs, self._operation = desk, jobs, operation
        self._every_s, self._wait_s = 1 / rate, wait_s
        self._next_s = 0.0
        self._watched: dict[asyncio.Task[JobHead | None], JobHead] = {}
        self._classes: set[str] = set()
        self._done = self._skipped = self._wave = 0
        self._succeeded = self._failed = self._otherwise = 0
        self._why = ""

    async def run(self, heads: AsyncIterator[JobHead]) -> AsyncGenerator[Progress, None]:
        """
        Run these dead jobs again, in this order; the last thing said is `done` or `stopped`.

        Raises:
            StoreError: The store was lost; what was queued by then runs.

        """
        try:
            while not self._why:
                self._wave = min(2 * self._wave, WAVE_MAX) or 1
                wave = await take(heads, self._wave)
                if not wave:
                    yield self._progress(Stage.DONE)
                    return
                async for progress in self._queue(wave):
                    yield progress
                async for progress in self._until_ended():
                    yield progress
            yield self._progress(Stage.STOPPED)
        finally:
            for task in self._watched:
                task.cancel()
            await asyncio.gather(*self._watched, return_exceptions=True)

    async def _queue(self, wave: list[JobHead]) -> AsyncGenerator[Progress, None]:
        """Queue the jobs of a wave at the rate, with an eye on those that run already."""
        loop = asyncio.get_running_loop()
        for head in wave:
            while (left_s := self._next_s - loop.time()) > 0:
                await asyncio.sleep(min(left_s, BEAT_S))
                yield self._progress(Stage.REDRIVING)
            self._next_s = max(self._next_s, loop.time()) + self._every_s
            self._count({task for task in self._watched if task.done()})
            if self._why:
                return
            if await self._desk.requeue(self._operation, head.id):
                self._done += 1
                self._classes.add(head.reason)
                self._watched[loop.create_task(self._end_of(head.id))] = head
            else:
                self._skipped += 1
            yield self._progress(Stage.REDRIVING)

    async def _until_ended(self) -> AsyncGenerator[Progress, None]:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self._wait_s
        while self._watched and not self._why:
            ended, _ = await asyncio.wait(self._watched, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            self._count(ended)
            if self._watched and not self._why and loop.time() >= give_up_s:
                first = next(iter(self._watched.values()))
                self._why = (
                    f"{len(self._watched)} jobs of this wave have not ended within {self._wait_s:g} s,"
                    f" such as {self._operation}~{first.id}"
                )
            yield self._progress(Stage.WAITING)

    async def _end_of(self, job: str) -> JobHead | None:
        """The job's head when it has ended; None when it left no record."""
        pause_s = POLL_MIN_S
        while True:
            self._jobs.expect_end(job)
            record = await self._desk.show(self._operation, job, watch=True)
            if record is None or record.head.state.is_ended:
                self._jobs.forget_end(job)
                return record.head if record else None
            # It is told when a job ends; looking again is for the message that was lost.
            await self._jobs.wait_ended(job, pause_s)
            pause_s = min(2 * pause_s, POLL_MAX_S)

    def _count(self, ended: set[asyncio.Task[JobHead | None]]) -> None:
        for task in ended:
            old = self._watched.pop(task)
            new = task.result()
            if new is not None and new.state in FAILED:
                self._failed += 1
                if new.reason in self._classes and not self._why:
                    self._why = (
                        f"{self._operation}~{old.id} ended as {new.state} ({new.reason}),"
                        " which is what is being redriven"
                    )
            elif new is not None and new.state is JobState.SUCCEEDED:
                self._succeeded += 1
            else:
                self._otherwise += 1

    def _progress(self, stage: Stage) -> Progress:
        return Progress(
            stage=stage,
            done=self._done,
            skipped=self._skipped,
            wave=self._wave,
            succeeded=self._succeeded,
            failed=self._failed,
            otherwise=self._otherwise,
            detail=self._why,
        )


async def take(heads: AsyncIterator[JobHead], count: int) -> list[JobHead]:
    """The next so many; fewer at the end."""
    taken: list[JobHead] = []
    while len(taken) < count:
        try:
            taken.append(await anext(heads))
        except StopAsyncIteration:
            break
    return taken
