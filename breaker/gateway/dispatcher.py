"""
Dispatcher: every replica leases jobs as far as there is capacity, and runs them.

1. It asks when a job was accepted, when one ended, when the store says that something is due, and when
   another replica says that it cannot take all: never by the clock alone, but for a rare look in case
   a message was lost.
2. One question of an operation at a time; what comes meanwhile asks once more.
3. A suspect (its replica died while it ran) runs alone: the replica takes nothing new, lets what runs
   end, and runs it by itself.
4. A stop takes nothing new, lets jobs finish for a while, and gives the rest back.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from breaker.core.errors import StoreError
from breaker.core.jobs import LeasedJob, Leases
from breaker.core.verdict import Policy
from breaker.gateway.runner import Runner
from breaker.gateway.work import Work
from breaker.store.ending import end
from breaker.store.jobs import JobStore
from breaker.store.lane import Lane

ASK_MAX = 64  # jobs of one operation in one round trip
LOOK_S = 15.0  # in case a message was lost
RETRY_S = 0.5  # after the store did not answer
SOON_S = 0.001
_SHARED = (Policy.RATE, Policy.SLOTS, Policy.QUOTA, Policy.CLOSED, Policy.WAITING)


@dataclass(slots=True, kw_only=True)
class Station:
    """
    One operation, as this replica dispatches it.

    Attributes:
        is_asking: A question is on its way; `asks_again` when something came meanwhile.
        knows_due: The last answer said when the next of the waiting jobs may start.
        running: Its jobs that run here.

    """

    work: Work
    is_asking: bool = False
    asks_again: bool = False
    knows_due: bool = False
    running: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def lane(self) -> Lane:
        return self.work.lane

    @property
    def name(self) -> str:
        return self.work.operation.name


class Dispatcher:
    """
    All operations with a queue, on one replica.

    Args:
        jobs_max: Jobs that may run here at a time.
        on_bug: Told of a mistake of ours in a job's task.

    """

    def __init__(
        self, jobs: JobStore, runner: Runner, *, jobs_max: int, on_bug: Callable[[BaseException], None]
    ) -> None:
        self._jobs, self._runner, self._jobs_max, self._on_bug = jobs, runner, jobs_max, on_bug
        self._circuits = jobs.capacity.circuits
        self._stations: dict[str, Station] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._running = 0
        self._quiet: Station | None = None  # nothing new is taken until its suspect can run alone
        self._is_alone = False
        self._is_stopped = False
        jobs.on_work = self.kick

    @property
    def running(self) -> int:
        return self._running

    def configure(self, works: Mapping[str, Work]) -> None:
        """These operations are in force; jobs of others stay where they are."""
        for name in list(self._stations):
            work = works.get(name)
            if work is None or work.operation.queue is None:
                gone = self._stations.pop(name)
                self._drop(gone)
                if self._quiet is gone:
                    self._quiet = None  # nobody asks for its suspect any more, and all others wait
        for name, work in works.items():
            if work.operation.queue is None:
                continue
            known = self._stations.get(name)
            if known is not None:
                known.work = work
            else:
                self._stations[name] = Station(work=work)
            work.lane.on_jobs = partial(self.kick, name)
        self.kick(None)

    def kick(self, operation: str | None) -> None:
        """Jobs of this operation may be able to start (None: of any)."""
        if operation is None:
            for station in self._stations.values():
                self._ask_soon(station)
        elif found := self._stations.get(operation):
            self._ask_soon(found)

    def accepted(self, operation: str, why: Policy | None) -> None:
        """
        A call has become a job here; `why` it did not start at once.

        Behind others that wait for the operation's own limits there is nothing to ask: when these have
        room is known, or is told by what is given back.
        """
        station = self._stations.get(operation)
        if station is not None and not (why in _SHARED and station.knows_due):
            self._ask_soon(station)

    async def stop(self, seconds: float) -> int:
        """
        Take nothing new, let jobs finish for so long, and give the rest back.

        Returns:
            How many had to be given back or are unknown.

        """
        self._is_stopped = True
        for station in self._stations.values():
            self._drop(station)
        await end(self._asking)  # what a question on its way leases goes back by itself
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = [task for task in self._tasks if not task.done()]
        await end(left)
        return len(left)

    def _drop(self, station: Station) -> None:
        if station.timer:
            station.timer.cancel()
            station.timer = None
        station.lane.on_jobs = None

    # Asking.

    def _ask_soon(self, station: Station) -> None:
        if self._is_stopped:
            return
        if station.is_asking:
            station.asks_again = True
            return
        if self._want(station) <= 0:
            alone_us = self._circuits.bars_here(station.name)
            if alone_us is not None:
                # Our own circuit is open: nothing ends here that would ask again.
                self._plan(station, min(LOOK_S, max(SOON_S, alone_us / 1e6)))
            return  # whatever ends asks again
        station.is_asking = True
        self._spawn(self._asking, self._ask(station))

    def _want(self, station: Station) -> int:
        """How many more jobs of this operation may start here now."""
        quiet = self._quiet
        if quiet and self._circuits.bars_here(quiet.name) is not None:
            quiet = None  # its suspect cannot start here now, and others need not wait for that
        if self._is_alone or (quiet and (quiet is not station or self._running)):
            return 0
        room = min(ASK_MAX, self._jobs_max - self._running)
        return self._circuits.room_here(station.name, room)

    async def _ask(self, station: Station) -> None:
        delay_s = RETRY_S
        try:
            while (want := self._want(station)) > 0:
                station.asks_again = False
                leases = await self._jobs.lease(station.lane, want, is_idle=self._running == 0)
                station.knows_due = leases.waiting > 0 and leases.next_us >= 0
                self._took(station, leases)
                delay_s = LOOK_S if leases.next_us < 0 else min(LOOK_S, max(SOON_S, leases.next_us / 1e6))
                if not (station.asks_again or leases.has_more):
                    break
        except StoreError:
            station.knows_due = False
            delay_s = RETRY_S * (1 + random.random())  # noqa: S311 - spreading replicas is no secret
        finally:
            station.is_asking = False
            self._plan(station, delay_s)

    def _plan(self, station: Station, delay_s: float) -> None:
        if station.timer:
            station.timer.cancel()
        station.timer = None
        if not self._is_stopped and self._stations.get(station.name) is station:
            station.timer = asyncio.get_running_loop().call_later(delay_s, self._ask_soon, station)

    def _took(self, station: Station, leases: Leases) -> None:
        if leases.is_alone:
            self._is_alone = True
        elif leases.wants_alone and self._stations.get(station.name) is station:
            self._quiet = station
            # What ran when we asked may have ended meanwhile: then nothing else would ask again.
            station.asks_again = station.asks_again or (self._running == 0 and not leases.jobs)
        elif self._quiet is station:
            self._quiet = None  # its suspects are gone, or must wait themselves
            self.kick(None)
        for slot in {job.slot for job in leases.jobs}:
            self._circuits.began(station.name, slot)
        work = station.work
        if work.operation.batch is not None and leases.jobs:
            self._run(station, leases.jobs, self._runner.run_batch(work, leases.jobs))
            return
        for job in leases.jobs:
            self._run(station, (job,), self._runner.run(work, job))

    # Running.

    def _run(self, station: Station, jobs: tuple[LeasedJob, ...], job: Coroutine[Any, Any, None]) -> None:
        self._running += len(jobs)
        station.running += len(jobs)
        self._spawn(self._tasks, self._until_ended(station, jobs, job))

    async def _until_ended(
        self, station: Station, jobs: tuple[LeasedJob, ...], job: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await job
        except Exception as exc:  # noqa: BLE001 - others must not suffer
            self._on_bug(exc)
        finally:
            for leased in jobs:
                self._jobs.let_lapse(station.lane, leased)  # one that a mistake of ours left without an ack
            self._running -= len(jobs)
            station.running -= len(jobs)
            was_held_up = self._is_alone or (self._quiet is not None and self._running == 0)
            if self._running == 0:
                self._is_alone = False
            if was_held_up:
                self.kick(None)
            elif station.lane.queued > 0:
                self._ask_soon(station)

    def _spawn(self, tasks: set[asyncio.Task[None]], coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
