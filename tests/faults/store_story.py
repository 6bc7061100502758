"""
A story: calls and jobs of one replica, and what its callers were told. Whatever fails, its end must be true.

Callers do what careful ones do: whoever is told that nothing is known comes back, with the same key if it had one.
Time stands still but for the delays of jobs; what the replica does by itself (withdraw, give back, say again) it
does in real time, since nobody asks for it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from breaker.core.errors import StoreError
from breaker.core.jobs import Ack, Fate, InProgress, JobState, KeptResult, LeasedJob, Queued
from breaker.core.model import LEASE_US, Capacity, Limits
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, Waiting
from breaker.store.job_desk import QueueLook
from tests.faults.broken_line import BrokenLine, Fault
from tests.store.job_world import SECOND, JobReplica, Moment, a_queue
from tests.store.replicas import an_operation

T = TypeVar("T")

SLOTS = 2
AGAIN_S = 0.02
TRIES_MAX = 300
TURN_S = 1.5  # a look at the line that got lost comes again within half a second
READ = an_operation("billing.read", limits=Limits(concurrency=SLOTS))
CHARGE = a_queue("billing.charge", capacity=Capacity(limits=Limits(concurrency=SLOTS)), keep_result_ms=60_000)
KEYS = ("plain", "retried", "dead", "back", "cancelled")


class StoreStory:
    """
    One replica's story.

    Attributes:
        ran: How often each order was executed, by its key.
        jobs: The job that its caller was told of, by its key.
        held_max: The most direct calls that ran at once.

    """

    def __init__(self, url: str, cluster: str, fault: Fault) -> None:
        self.replica = JobReplica(url, cluster, CHARGE, READ, moment=Moment(), timeout_ms=2_000)
        steps = self.replica.capacity.coalescer
        assert self.replica.moment
        self.moment = self.replica.moment
        self.line = BrokenLine(self.replica.capacity.wakes._settings, steps._scripts, self.moment, fault)
        steps._line = self.line
        self.read, self.charge = self.replica.capacity.lane(READ.name), self.replica.lane
        self.ran: Counter[str] = Counter()
        self.jobs: dict[str, str] = {}
        self.held_max = 0
        self._numbers = iter(range(1_000_000))

    async def play(self, fails_at: int) -> None:
        """All of it; the exchange of this number fails."""
        self.line.fails_at = fails_at
        await self._direct_calls()
        await self._a_call_that_waits()
        await self._calls_that_hang_up()
        await self._direct_calls_with_a_key()
        await self._calls_that_become_jobs()
        await self._jobs_that_run()
        await self.settled()
        self.line.fails_at = 0

    async def settled(self) -> None:
        """Until nothing is left that the store has to be told."""
        lanes = self.replica.capacity.coalescer.lanes.values()
        for _ in range(TRIES_MAX):
            with suppress(StoreError):
                await self.in_use()
                await self.look()
                if all(lane.is_idle for lane in lanes):
                    return
            await asyncio.sleep(AGAIN_S)
        raise AssertionError("something was never told to the store")

    async def in_use(self) -> tuple[int, int]:
        """Slots of direct calls, and calls in line."""
        look = await self.replica.capacity.look(READ.name)
        return look.in_use, look.waiting

    async def look(self) -> QueueLook:
        return await self.replica.desk.look_queue(CHARGE.name)

    async def until_told(self, ask: Callable[[], Awaitable[T]], is_final: Callable[[T], bool]) -> T:
        """Ask again, until the answer is final."""
        told: T | StoreError | None = None
        for _ in range(TRIES_MAX):
            try:
                if is_final(told := await ask()):
                    return told
            except StoreError as exc:
                told = exc
            await asyncio.sleep(AGAIN_S)
        raise AssertionError(f"no caller waits so long; the last answer was {told}")

    # Calls without a queue.

    def _an_ask(self, wait_us: int = 0) -> Ask:
        return Ask(id=f"{self.replica.name}.{next(self._numbers):08}", tenant="acme", cost=1, wait_us=wait_us)

    async def _admitted(self) -> Ask:
        """A call that starts, as the path holds it; whoever is told nothing comes back as another call."""
        asked = Ask(id="", tenant="", cost=1)

        async def admit() -> object:
            nonlocal asked
            asked = self._an_ask()
            return await self.replica.capacity.admit(self.read, asked)

        await self.until_told(admit, lambda verdict: isinstance(verdict, Admitted))
        self.replica.capacity.hold(self.read, asked)
        self.held_max = max(self.held_max, len(self.read.held))
        return asked

    async def _direct_calls(self) -> None:
        """More than there are slots, at once: each gets its turn when another has ended."""

        async def call() -> None:
            held = await self._admitted()
            await asyncio.sleep(0)
            self.replica.capacity.settle(self.read, held)

        await asyncio.gather(*(call() for _ in range(SLOTS + 1)))
        held = await self._admitted()
        with suppress(StoreError):
            await self.replica.capacity._renew(self.read, [(held.id, held.tenant)])
        self.replica.capacity.settle(self.read, held)

    async def _a_call_that_waits(self) -> None:
        running = [await self._admitted() for _ in range(SLOTS)]
        ask = self._an_ask(wait_us=60 * SECOND)
        turn: asyncio.Task[Admitted | Refused] | None = None
        with suppress(StoreError):
            if isinstance(await self.replica.capacity.admit(self.read, ask), Waiting):
                turn = asyncio.ensure_future(self.replica.capacity.wait_for_turn(self.read, ask, TURN_S))
        for held in running:
            self.replica.capacity.settle(self.read, held)
        if turn is None:
            return
        with suppress(StoreError):
            assert isinstance(await turn, Admitted), "its turn had come, and nobody told it"
            self.replica.capacity.hold(self.read, ask)
            self.replica.capacity.settle(self.read, ask)

    async def _calls_that_hang_up(self) -> None:
        """Before they were asked for, while they are, and in the moment of the answer."""
        for sleeps in range(4):
            tasks: list[asyncio.Task[object]] = [
                asyncio.ensure_future(self.replica.capacity.admit(self.read, self._an_ask())),
                asyncio.ensure_future(self.replica.accept(is_async=True)),
            ]
            for _ in range(sleeps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            for task, ended in zip(tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
                if not task.cancelled() and isinstance(ended, Admitted | Queued):
                    raise AssertionError("a task that was cancelled so early does not get an answer")

    # Calls of the queue.

    async def _direct_calls_with_a_key(self) -> None:
        """One that ended keeps its answer; one that failed frees its key."""
        for key, outcome in (("kept", "kept"), ("released", "released"), ("released", "kept")):
            offer = self.replica.offer(key=key)

            async def accept() -> object:
                nonlocal offer
                offer = self.replica.offer(key=key)  # noqa: B023 - awaited within its round
                return await self.replica.jobs.accept(self.charge, offer)

            await self.until_told(accept, lambda answer: isinstance(answer, Admitted))
            self.ran[key] += 1
            held = Ask(id=offer.lease_id, tenant=offer.tenant, cost=1)
            self.replica.capacity.hold(self.charge, held)
            self.replica.capacity.settle(self.charge, held)
            self.replica.jobs.keep(self.charge, offer, outcome, b"done")  # type: ignore[arg-type]
            if outcome == "kept":
                again = await self.until_told(accept, lambda answer: not isinstance(answer, InProgress))
                assert isinstance(again, KeptResult), again
                assert again.job

    async def _calls_that_become_jobs(self) -> None:
        async def hand_in(key: str) -> None:
            answer = await self.until_told(
                lambda: self.replica.accept(is_async=True, key=key), lambda told: isinstance(told, Queued)
            )
            assert isinstance(answer, Queued)
            self.jobs[key] = answer.job

        await asyncio.gather(*(hand_in(key) for key in KEYS))
        told = dict(self.jobs)
        await hand_in("plain")
        assert self.jobs == told, "the same key is the same job"
        gone = await self.until_told(
            lambda: self.replica.desk.cancel(CHARGE.name, self.jobs["cancelled"]),
            lambda state: state is JobState.CANCELLED,
        )
        assert gone is JobState.CANCELLED

    async def _jobs_that_run(self) -> None:
        key_of = {job: key for key, job in self.jobs.items()}
        seen: Counter[str] = Counter()
        for _ in range(TRIES_MAX):
            with suppress(StoreError):
                for job in (await self.replica.lease()).jobs:
                    key = key_of[job.head.id]
                    seen[key] += 1
                    await self._run(job, key, seen[key])
                look = await self.look()
                if not (look.queued or look.scheduled or look.running or self.charge.acks):
                    return
                if look.scheduled and not (look.queued or look.running):
                    self.moment.now_us += SECOND
                    continue
            await asyncio.sleep(AGAIN_S)
        raise AssertionError(f"jobs that never ended: {await self.look()}")

    async def _run(self, job: LeasedJob, key: str, times: int) -> None:
        head = job.head
        held = [(head.id, *self.charge.running[head.id])]
        with suppress(StoreError):  # as its timer does, which tries again
            await self.replica.jobs._extend(self.charge, held)
        fate = Fate.SUCCEEDED
        if times == 1:
            fate = {"retried": Fate.RETRY, "dead": Fate.DEAD, "back": Fate.BACK}.get(key, fate)
        self.ran[key] += fate is not Fate.BACK
        reason = {Fate.RETRY: "downstream", Fate.DEAD: "caller"}.get(fate, "")
        delay_us = SECOND if fate is Fate.RETRY else 0
        said = {"job": head.id, "attempt": head.attempt, "tenant": head.tenant, "slot": job.slot}
        self.replica.jobs.ack(
            self.charge,
            Ack(**said, fate=fate, reason=reason, delay_us=delay_us, result=b"done"),  # type: ignore[arg-type]
        )

    def pass_a_lease(self) -> None:
        """Whatever was held for nobody has lapsed."""
        self.moment.now_us += LEASE_US + 1

    async def close(self) -> None:
        await self.replica.jobs.close()
        await self.replica.capacity.close()
