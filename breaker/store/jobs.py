"""
Jobs: the durable queue as the path of a call and the dispatcher see it.

`accept` takes a call in, `lease` gives jobs out to run, `ack` says how an attempt ended. Leases that
are held are renewed by one timer per replica. Rare and administrative steps are in `job_desk.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError
from breaker.core.events import JobsReclaimed, LeasesLost, Listener
from breaker.core.job_policy import Durability
from breaker.core.jobs import Accepted, Ack, DurabilityNotMet, LeasedJob, Leases, Offer, Queued
from breaker.core.model import LEASE_US, RENEW_US, Operation
from breaker.core.verdict import Admitted
from breaker.store.capacity import CapacityStore
from breaker.store.checks import StoreFacts
from breaker.store.coalescer import Coalescer
from breaker.store.connection import Command
from breaker.store.ending import end
from breaker.store.job_parts import back
from breaker.store.lane import CIRCUIT_STATES, KeepItem, Lane
from breaker.store.scripts import load_scripts
from breaker.store.topology import make_line

EXTEND_BATCH = 500
REACH_MS = 500  # how long a write may take to reach disks and replicas before it is short
Kept = Literal["kept", "released", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """
    What an operation's 202 promises, and how that is seen.

    Attributes:
        must_check: Each accept asks how far it got, on a connection of its own.
        needs_fsync, replicas: What must have been reached then.
        words: What the store gives without asking.

    """

    must_check: bool
    needs_fsync: bool
    replicas: int
    words: str


def reach_of(operation: Operation, facts: StoreFacts) -> Reach:
    """With `appendfsync always` the reply follows the fsync; else WAITAOF is asked, where there is one."""
    queue = operation.queue
    always = facts.fsync == "always"
    words = "fsync" if always else "memory"
    if queue is None or queue.durability is Durability.MEMORY:
        return Reach(must_check=False, needs_fsync=False, replicas=0, words=words)
    asks = not always and facts.can_wait_aof
    if queue.durability is Durability.FSYNC:
        return Reach(must_check=asks, needs_fsync=True, replicas=0, words=words)
    return Reach(must_check=True, needs_fsync=asks, replicas=queue.replicas, words=words)


@dataclass(slots=True)
class Watch:
    """
    The end of one job, for which somebody waits here.

    Attributes:
        expected: So many have said that they will wait; each then waits, or says that it will not.
        waiting: So many do.

    """

    ended: asyncio.Event
    expected: int = 0
    waiting: int = 0


class JobStore:
    """
    All operations' jobs, for one replica.

    Attributes:
        given: Jobs that this replica accepted and told so, by operation: the store must not know of fewer.
        on_work: Told when jobs of an operation could start (None: of any), from whichever replica.

    """

    def __init__(
        self, capacity: CapacityStore, settings: StoreSettings, *, cluster: str, emit: Listener
    ) -> None:
        self.capacity, self.replica = capacity, capacity.replica
        self.given: dict[str, int] = {}
        self.on_work: Callable[[str | None], None] | None = None
        self._settings, self._cluster, self._emit = settings, cluster, emit
        self._steps = capacity.coalescer
        self._checked: Coalescer | None = None
        self._reach: dict[str, Reach] = {}
        self._ended: dict[str, Watch] = {}
        self._lost: set[tuple[str, int]] = set()  # attempts that run here without a lease, told once
        self._is_leaving = False
        self._tasks: list[asyncio.Task[None]] = []
        capacity.wakes.on_ended = self._on_ended
        capacity.wakes.on_work = self._on_work

    def start(self) -> None:
        """Begin to renew leases."""
        self._tasks = [asyncio.get_running_loop().create_task(self._keep_extended())]

    def configure(self, operations: Mapping[str, Operation], facts: StoreFacts) -> None:
        """These operations are in force, on this store."""
        self._reach = {
            name: reach_of(operation, facts) for name, operation in operations.items() if operation.queue
        }
        checked = [reach for reach in self._reach.values() if reach.must_check]
        if not checked:
            return
        after: list[Command] = []
        if any(reach.needs_fsync for reach in checked):
            after.append(("WAITAOF", 1, 0, REACH_MS))
        replicas = max(reach.replicas for reach in checked)
        if replicas:
            after.append(("WAIT", replicas, REACH_MS))
        if self._checked:
            self._checked.after = tuple(after)
            return
        scripts = load_scripts()
        patient = replace(self._settings, timeout_ms=self._settings.timeout_ms + 2 * REACH_MS + 100)
        self._checked = Coalescer(
            make_line(patient, scripts), self.capacity.clock, scripts, cluster=self._cluster,
            replica=self.replica, timeout_ms=self._settings.timeout_ms, emit=self._emit, after=tuple(after),
        )  # fmt: skip

    async def accept(self, lane: Lane, offer: Offer) -> Accepted | None:
        """
        May this call start, and if not, is it a job from now on? None when it had been withdrawn.

        Raises:
            StoreError: The store did not decide; nothing will run.

        """
        reach = self._reach[lane.operation]
        steps, own = self._steps, lane
        if reach.must_check and self._checked:
            steps = self._checked
            own = steps.lane(lane.operation)
            if own.on_circuit is None:
                own.on_circuit = lambda _, moved: lane.heard_circuit(
                    own.generation, CIRCUIT_STATES.index(own.circuit), moved=moved
                )
        answer = steps.accept(own, offer)
        try:
            verdict = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.exception():
                self._give_back(own, offer, answer.result(), steps)
            raise
        if own is not lane:
            lane.limits_text, lane.queued, lane.service_us = own.limits_text, own.queued, own.service_us
        if isinstance(verdict, Queued):
            return await self._accepted(steps, own, offer, verdict, reach)
        return verdict

    def _give_back(self, lane: Lane, offer: Offer, verdict: Accepted | None, steps: Coalescer) -> None:
        """Answered in the moment in which the caller hung up: it never heard of the job."""
        if isinstance(verdict, Admitted) or (isinstance(verdict, Queued) and not verdict.is_known):
            steps.revoke(lane, offer).add_done_callback(heard)

    async def _accepted(
        self, steps: Coalescer, lane: Lane, offer: Offer, verdict: Queued, reach: Reach
    ) -> Queued | DurabilityNotMet:
        """What the write reached; one that falls short is taken back, unless it runs already."""
        words, is_short = reach.words, False
        if reach.must_check:
            has_fsync, replicas = verdict.reach or (False, 0)
            is_fsynced = has_fsync or reach.words == "fsync"
            words = f"replicated: {replicas}" if replicas else "fsync" if is_fsynced else "memory"
            is_short = replicas < reach.replicas or (reach.needs_fsync and not has_fsync)
        if is_short and not verdict.is_known:
            try:
                if await steps.revoke(lane, offer):
                    return DurabilityNotMet(durability=words)
            except StoreError:
                return DurabilityNotMet(durability=words)  # a tombstone or a revoke is on its way
        if not verdict.is_known:
            self.given[lane.operation] = self.given.get(lane.operation, 0) + 1
        return replace(verdict, durability=words)

    async def lease(self, lane: Lane, want: int, *, is_idle: bool) -> Leases:
        """
        Jobs to run now, at most so many; or one batch.

        Raises:
            StoreError: The store did not answer; what it may have leased comes back by itself.

        """
        answer = self._steps.lease(lane, want, is_idle=is_idle)
        try:
            leases = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.exception():
                # Answered in the moment in which the dispatcher stopped: nobody runs them.
                for job in answer.result().jobs:
                    self.ack(lane, back(job))
            raise
        if leases.lost or leases.expired:
            self._emit(JobsReclaimed(lane.operation, leases.lost, leases.expired))
        return leases

    def ack(self, lane: Lane, ack: Ack) -> None:
        """How an attempt ended; travels with the next round trip, never fails."""
        held = lane.running.get(ack.job)
        if held is None:
            return
        if held[0] == ack.attempt:
            del lane.running[ack.job]
        self._lost.discard((ack.job, ack.attempt))
        # Of an attempt that was lost, while the next one runs here: what that one holds stays.
        self._steps.ack(lane, ack)

    def let_lapse(self, lane: Lane, job: LeasedJob) -> None:
        """
        Nobody runs this attempt any more; if nobody said how it ended, its lease is not renewed.

        It is then as if the replica had died: tried again alone, or `unknown` where it must not be repeated.
        """
        held = lane.running.get(job.head.id)
        if held is not None and held[0] == job.head.attempt:
            del lane.running[job.head.id]
            self._lost.discard((job.head.id, job.head.attempt))

    def keep(self, lane: Lane, offer: Offer, outcome: Kept, result: bytes = b"") -> None:
        """How a direct call with an idempotency key ended; never fails."""
        self._steps.keep(
            lane,
            KeepItem(
                job=offer.job, lease_id=offer.lease_id, caller=offer.caller, tenant=offer.tenant, key=offer.key,
                outcome={"kept": "k", "released": "r", "unknown": "u"}[outcome], result=result,
            ),
        )  # fmt: skip

    async def wait_ended(self, job: str, seconds: float) -> bool:
        """
        Wait until a watched job has ended; whether it is known to have.

        A message can get lost, so that callers look at the job afterwards in any case.
        """
        watch = self._watch(job)
        watch.expected = max(0, watch.expected - 1)
        watch.waiting += 1
        try:
            async with asyncio.timeout(0 if self._is_leaving else seconds):
                await watch.ended.wait()
        except TimeoutError:
            return False
        finally:
            watch.waiting -= 1
            self._drop(job, watch)
        return not self._is_leaving

    def expect_end(self, job: str) -> None:
        """Remember the end of this job from now on, before anybody waits for it."""
        self._watch(job).expected += 1

    def forget_end(self, job: str) -> None:
        """Whoever expected it will not wait for it after all."""
        if watch := self._ended.get(job):
            watch.expected = max(0, watch.expected - 1)
            self._drop(job, watch)

    def stop_waiting(self) -> None:
        """Nobody is held any longer, since this replica leaves: they are told where their jobs stand."""
        self._is_leaving = True
        for watch in self._ended.values():
            watch.ended.set()

    def _watch(self, job: str) -> Watch:
        return self._ended.setdefault(job, Watch(asyncio.Event()))

    def _drop(self, job: str, watch: Watch) -> None:
        if not (watch.expected or watch.waiting) and self._ended.get(job) is watch:
            del self._ended[job]

    async def close(self) -> None:
        await end(self._tasks)
        if self._checked:
            await self._checked.close()

    def _on_ended(self, jobs: list[str]) -> None:
        for job in jobs:
            if watch := self._ended.get(job):
                watch.ended.set()

    def _on_work(self, operation: str | None) -> None:
        if self.on_work:
            self.on_work(operation)

    async def _keep_extended(self) -> None:
        """Every lease lives 10 s and is renewed before it is 6.6 s old."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RENEW_US / 2e6)
            for lane in list(self._steps.lanes.values()):
                older_than = loop.time() - RENEW_US / 2e6
                due = [(job, *held) for job, held in lane.running.items() if held[3] <= older_than]
                for at in range(0, len(due), EXTEND_BATCH):
                    with suppress(StoreError):  # told by its own event; the next round tries again
                        await self._extend(lane, due[at : at + EXTEND_BATCH])

    async def _extend(self, lane: Lane, held: list[tuple[str, int, str, str, float]]) -> None:
        arguments: list[str | bytes | int] = [b"", LEASE_US]
        for job, attempt, tenant, slot, _ in held:
            arguments += (job, attempt, tenant, slot)
        reply = await self._steps.run(lane, "extend", *arguments)
        now = asyncio.get_running_loop().time()
        for job, attempt, tenant, slot, _ in held:
            if job in lane.running and lane.running[job][0] == attempt:
                lane.running[job] = (attempt, tenant, slot, now)
        for job, attempt, tenant, slot, _ in held:
            if job not in lane.running:
                # Ended while we renewed, so its slots may have been taken again just now.
                self.capacity.give_back(lane, f"{job}.{attempt}", tenant)
                if not any(other[2] == slot for other in lane.running.values()):
                    self.capacity.give_back(lane, slot, "")
        gone = {id_.decode() for id_ in reply[3:]}
        lost = {
            (job, attempt) for job, attempt, *_ in held if job in gone and job in lane.running
        } - self._lost
        if lost:
            self._lost |= lost
            self._emit(LeasesLost(lane.operation, len(lost)))


def heard(answer: asyncio.Future[bool]) -> None:
    """Nobody waits for this answer; its failure was told by an event of its own."""
    if not answer.cancelled():
        answer.exception()
