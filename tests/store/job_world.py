"""
The world of the job tests: replicas that share one operation's queue, and a time that tests set.

Everything goes through JobStore and JobDesk to a real server. With `Moment`, the scripts are told the
time on the wire, so that hours pass without waiting; nothing else is different.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any

import pytest
from redis import Redis

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreTimeoutError
from breaker.core.events import Event
from breaker.core.ids import base32
from breaker.core.job_policy import Band, Batch, Effects, Idempotency, Queue
from breaker.core.jobs import Accepted, Ack, Fate, JobRecord, LeasedJob, Leases, Offer, Queued
from breaker.core.model import Capacity, Downstream, Match, Operation, Overflow
from breaker.core.verdict import Admitted
from breaker.store.capacity import CapacityStore
from breaker.store.checks import StoreFacts
from breaker.store.connection import Command, Line
from breaker.store.job_desk import JobDesk, QueueLook
from breaker.store.jobs import JobStore
from breaker.store.keys import OPERATION_KEYS, Keys
from breaker.store.scripts import Script

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_800_000_000 * SECOND
NOW_AT = 3 + len(OPERATION_KEYS)  # behind EVALSHA, its name, the count of keys and the keys
TIMELESS = ("publish", "listed")  # verbs that are not told the time
CHECKED = ("accept", "lease", "admit", "grant")  # verbs that are told until when they may be done
ENDED = (b"s", b"e", b"k", b"p", b"c")  # states whose record is a result, see core/jobs.py
FACTS = StoreFacts(name="any", warnings=(), fsync="always")
_numbers = count()


@dataclass(slots=True)
class Moment:
    """The store's time as the scripts are told it; all replicas of a test share one."""

    now_us: int = START


class Loss(StrEnum):
    """What gets lost on the way."""

    QUESTION = "question"  # the store never hears of it
    ANSWER = "answer"  # the store did it, and nobody knows


class TimedLine(Line):
    """A connection on which each script is told the test's time, and which loses what a test wants lost."""

    def __init__(self, settings: StoreSettings, scripts: dict[str, Script], moment: Moment) -> None:
        super().__init__(settings, scripts)
        self._verbs: dict[Any, str] = {script.sha: verb for verb, script in scripts.items()}
        self._moment = moment
        self.loses: Loss | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        replies = []
        if self.loses is not Loss.QUESTION:
            replies = await super().exchange([self._told(command) for command in commands])
        if self.loses:
            await self.close()
            raise StoreTimeoutError("lost")
        return replies

    def _told(self, command: Command) -> Command:
        verb = self._verbs[command[1]]
        if verb in TIMELESS:
            return command
        told = [*command]
        told[NOW_AT] = self._moment.now_us
        if verb in CHECKED:
            told[NOW_AT + 1] = told[NOW_AT + 2] = b""
        return tuple(told)


def a_queue(
    name: str = "billing.charge",
    *,
    capacity: Capacity = Capacity(),
    effects: Effects = Effects.KEYED,
    probe: bool = False,
    window_ms: int = 86_400_000,
    batch: Batch | None = None,
    **queue: Any,
) -> Operation:
    """An operation with `overflow: queue`; no limits, and nothing kept, unless said."""
    said: dict[str, Any] = {"start_within_ms": 60_000, "jobs_max": 1_000_000, "keep_result_ms": 0} | queue
    return Operation(
        name=name, pipeline="billing", team="finance", match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:9"), overflow=Overflow.QUEUE, capacity=capacity,
        queue=Queue(**said), effects=effects, idempotency=Idempotency(window_ms=window_ms), batch=batch,
        probe=Match(method="GET", template="/charges/{idempotency_key}") if probe else None,
    )  # fmt: skip


class JobReplica:
    """One replica: what it asks the store, and what it emitted. Its leases are not renewed unless started."""

    def __init__(
        self, url: str, cluster: str, *operations: Operation, moment: Moment | None, timeout_ms: int
    ) -> None:
        self.events: list[Event] = []
        self.name = f"R{base32(next(_numbers), 7)}"
        self.moment = moment
        self.operations = {operation.name: operation for operation in operations}
        settings = StoreSettings(url=url, timeout_ms=timeout_ms)
        self.capacity = CapacityStore(settings, cluster=cluster, replica=self.name, emit=self.events.append)
        if moment:
            steps = self.capacity.coalescer
            self.line = steps._line = TimedLine(settings, steps._scripts, moment)
        self.jobs = JobStore(self.capacity, settings, cluster=cluster, emit=self.events.append)
        self.desk = JobDesk(self.capacity, self.jobs, cluster=cluster, emit=self.events.append)
        self.operation = operations[0].name
        self.keys = Keys(cluster, self.operation)
        self.lane = self.capacity.lane(self.operation)
        self._now_us = 0

    def now_us(self) -> int:
        """The store's time; never before what it was, so that deadlines stand in the order of offers."""
        self._now_us = self.moment.now_us if self.moment else max(self._now_us, self.capacity.clock.now_us())
        return self._now_us

    def offer(self, tenant: str = "acme", **changes: Any) -> Offer:
        number = next(_numbers)
        said: dict[str, Any] = {
            "lease_id": f"{self.name}.{number:08}", "job": f"01J{base32(number, 23)}", "tenant": tenant,
            "cost": 1, "caller": "crm", "key": "", "fingerprint": "f" * 32, "band": Band.NORMAL,
            "line": tenant, "is_async": False, "not_before_us": 0, "deadline_us": self.now_us() + MINUTE,
            "expiry_us": 0, "callback": "", "payload": b"{}",
        }  # fmt: skip
        return Offer(**(said | changes))

    async def accept(self, tenant: str = "acme", **changes: Any) -> Accepted | None:
        return await self.jobs.accept(self.lane, self.offer(tenant, **changes))

    async def queue(self, tenant: str = "acme", **changes: Any) -> str:
        """A call that becomes a job; its id."""
        answer = await self.accept(tenant, **({"is_async": True} | changes))
        assert isinstance(answer, Queued), answer
        return answer.job

    async def queue_many(self, number: int, tenant: str = "acme", **changes: Any) -> list[str]:
        """So many jobs, in this order, many of them in one step."""
        return list(await asyncio.gather(*(self.queue(tenant, **changes) for _ in range(number))))

    async def start(self, tenant: str = "acme", **changes: Any) -> Offer:
        """A call that starts at once and holds what it was given."""
        offer = self.offer(tenant, **changes)
        answer = await self.jobs.accept(self.lane, offer)
        assert isinstance(answer, Admitted), answer
        return offer

    async def give_back(self, offer: Offer) -> None:
        """That call is over."""
        self.capacity.give_back(self.lane, offer.lease_id, offer.tenant)
        await self.look()

    async def lease(self, want: int = 10, *, is_idle: bool = True) -> Leases:
        return await self.jobs.lease(self.lane, want, is_idle=is_idle)

    async def leased(self, want: int = 10, *, is_idle: bool = True) -> list[str]:
        """Ids of the jobs that start now, in order."""
        return [job.head.id for job in (await self.lease(want, is_idle=is_idle)).jobs]

    async def one(self, *, is_idle: bool = True) -> LeasedJob:
        """The one job that starts now."""
        leases = await self.lease(1, is_idle=is_idle)
        assert len(leases.jobs) == 1, leases
        return leases.jobs[0]

    async def end(self, *jobs: LeasedJob, fate: Fate = Fate.SUCCEEDED, **changes: Any) -> None:
        """These attempts ended so; the store knows it afterwards."""
        for job in jobs:
            head = job.head
            said = {"job": head.id, "attempt": head.attempt, "tenant": head.tenant, "slot": job.slot}
            self.jobs.ack(self.lane, Ack(**said, fate=fate, **changes))  # type: ignore[arg-type]
        await self.look()

    async def drain(self) -> int:
        """Run all that may start, until nothing does; how many there were."""
        ran = 0
        while jobs := (await self.lease(64)).jobs:
            await self.end(*jobs)
            ran += len(jobs)
        return ran

    @asynccontextmanager
    async def losing(self, loss: Loss) -> AsyncIterator[None]:
        """What the block asks gets lost, and fails as a timeout."""
        self.line.loses = loss
        try:
            with pytest.raises(StoreTimeoutError):
                yield
        finally:
            self.line.loses = None

    async def look(self) -> QueueLook:
        return await self.desk.look_queue(self.operation)

    async def show(self, job: str) -> JobRecord | None:
        return await self.desk.show(self.operation, job)

    async def state(self, job: str) -> str:
        record = await self.show(job)
        return str(record.head.state) if record else "gone"

    def seen(self, kind: type[Event]) -> int:
        """How many events of a kind were emitted."""
        return sum(isinstance(event, kind) for event in self.events)


@asynccontextmanager
async def job_replica(
    url: str, cluster: str, *operations: Operation, moment: Moment | None = None, timeout_ms: int = 2_000,
    facts: StoreFacts = FACTS,
) -> AsyncIterator[JobReplica]:  # fmt: skip
    """A replica whose operations are published; its ledger balances when the block ends."""
    made = JobReplica(url, cluster, *operations, moment=moment, timeout_ms=timeout_ms)
    await made.capacity.publish(made.operations, "v1")
    made.jobs.configure(made.operations, facts)
    try:
        yield made
        redis = Redis.from_url(url)
        for operation in made.operations:
            await balances(made, redis, operation)
        redis.close()
    finally:
        await made.jobs.close()
        await made.capacity.close()


async def balances(replica: JobReplica, redis: Redis, operation: str) -> None:
    """Every accepted job is somewhere, once, and what is stored is what was counted."""
    look = await replica.desk.look_queue(operation)
    assert look.unaccounted == 0, look
    q = Keys(replica.keys.cluster, operation).named("q")
    jobs = [name.decode().removeprefix(f"{q}:j:") for name in names(redis, f"{q}:j:")]
    asked = redis.pipeline(transaction=False)
    for job in jobs:
        asked.getrange(f"{q}:j:{job}", 0, 0)
        asked.strlen(f"{q}:j:{job}")
        asked.strlen(f"{q}:o:{job}")
    told = iter(asked.execute())
    found = list(zip(told, told, told, strict=True))
    assert look.bytes_used == sum(size + answer for _, size, answer in found), "what is stored was counted"
    assert look.bytes_results == sum(size for state, size, _ in found if state in ENDED)
    waiting = sum(int(number) for number in redis.hvals(f"{q}:n"))
    assert waiting == look.queued + look.scheduled, "what waits is counted for its tenants"


def names(redis: Redis, prefix: str) -> list[bytes]:
    """Keys that begin so."""
    pattern = prefix.replace("{", "?").replace("}", "?") + "*"
    return sorted(name for name in redis.scan_iter(pattern, count=10_000) if name.decode().startswith(prefix))


def leftovers(redis: Redis, replica: JobReplica) -> set[str]:
    """
    What the operation has in the store beyond its limits, its clocks and its counts.

    What ends by itself within minutes (tenants' clocks, a replica's last answer) is none of it.
    """
    prefix = replica.keys.prefix
    found = {name.decode().removeprefix(prefix) for name in names(redis, prefix)}
    found -= {name for name in found if 0 < redis.pttl(prefix + name) <= 120_000}
    return {name for name in found if name not in ("policy", "rate", "q") and not name.startswith("q:given:")}
