"""
A replica without its listeners: the job store, the dispatcher and the runner of a gateway, and nothing of HTTP.

Shared by the in-process subjects of parts 3 and 4. What runs is the gateway's own code, but for the request to the
downstream, in whose place stands `act`.
"""

import itertools
import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from bench.load import TENANTS
from bench.processes import SubjectError
from breaker.core.config import StoreSettings
from breaker.core.events import Event, Result
from breaker.core.ids import Ids, base32
from breaker.core.job_policy import Band, Queue
from breaker.core.jobs import LeasedJob, Offer, Queued
from breaker.core.model import Capacity, Downstream, Limits, Match, Operation, Overflow, Rate
from breaker.gateway import runner as runner_module
from breaker.gateway.attempt import Attempted
from breaker.gateway.dispatcher import Dispatcher
from breaker.gateway.downstream import Pool
from breaker.gateway.job_payload import Payload, fingerprint
from breaker.gateway.runner import Runner
from breaker.gateway.vault import Vault
from breaker.gateway.work import Work, work_of
from breaker.store.capacity import CapacityStore
from breaker.store.checks import check_store
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore
from breaker.store.lane import Lane

NAME = "bench.jobs"
SECOND_US = 1_000_000
PROMISE_US = 900 * SECOND_US
EXPIRY_US = 86_400 * SECOND_US
UNREACHED = 1_000_000
TIMEOUT_MS = 2_000  # a busy machine is not what is measured; a gateway would say that its store is slow
KEYS = [("bench", bytes(32))]
HEADERS = ((b"content-type", b"application/json"),)

Act = Callable[[LeasedJob, str], Awaitable[None]]


def operation_of(*, has_all: bool) -> Operation:
    """
    The operation whose jobs they are; its limits are never reached, and nothing is kept of a job that has ended.

    Args:
        has_all: Payloads are sealed, and each tenant has limits of its own.
    """
    limits = Limits(rate=Rate(limit=UNREACHED, period_us=SECOND_US, burst=UNREACHED), concurrency=UNREACHED)
    return Operation(
        name=NAME,
        pipeline="bench",
        team="bench",
        match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:1"),
        capacity=Capacity(limits=limits, per_tenant=limits if has_all else None),
        overflow=Overflow.QUEUE,
        queue=Queue(
            start_within_ms=PROMISE_US // 1_000,
            jobs_max=10 * UNREACHED,
            bytes_max=1 << 40,
            keep_result_ms=0,
            encrypt=has_all,
        ),
    )


def ignore(event: Event) -> None:
    """Nobody listens: the events are made, as in the gateway, and counted nowhere."""
    del event


def attempt_by(act: Act) -> Callable[..., Awaitable[Attempted]]:
    """What stands in place of the request to the downstream; see `breaker/gateway/attempt.py`."""

    async def attempt(work: Work, job: LeasedJob, payload: Payload, *, now_us: int, most: int) -> Attempted:
        del work, now_us, most
        begin = time.perf_counter()
        await act(job, payload.body.decode())
        service_us = max(1, round((time.perf_counter() - begin) * 1e6))
        return Attempted(status=HTTPStatus.OK, service_us=service_us, result=Result.OK)

    return attempt


@dataclass(slots=True, kw_only=True)
class Replica:
    """
    One replica's place in the store.

    Attributes:
        work: The operation's, made once.
        has_all: Jobs have a key, an expiry and a sealed payload.
    """

    jobs: JobStore
    desk: JobDesk
    vault: Vault
    work: Work
    ids: Ids
    has_all: bool
    tenants: "itertools.cycle[str]" = field(
        default_factory=lambda: itertools.cycle([f"tenant-{number}" for number in range(TENANTS)])
    )

    @property
    def lane(self) -> Lane:
        return self.work.lane

    def offer(self, body: str, tenant: str = "") -> Offer:
        """What the gateway offers for a call with this body and `Prefer: respond-async`; else of a tenant in turn."""
        now_us = self.jobs.capacity.clock.now_us()
        lease_id = self.ids.next()
        job = self.ids.decision(NAME, lease_id, now_us // 1_000)[-26:]
        stored = Payload(method="POST", target=b"/", headers=HEADERS, body=body.encode()).encode()
        tenant = tenant or next(self.tenants)
        return Offer(
            lease_id=lease_id,
            job=job,
            tenant=tenant,
            cost=1,
            caller="bench",
            key=f"inv_{job}" if self.has_all else "",
            fingerprint=fingerprint("POST", b"/", body.encode()) if self.has_all else "-",
            band=Band.NORMAL,
            line=tenant,
            is_async=True,
            not_before_us=0,
            deadline_us=now_us + PROMISE_US,
            expiry_us=now_us + EXPIRY_US if self.has_all else 0,
            callback="",
            payload=self.vault.close(self.work.operation, job, stored),
        )

    async def accept(self, body: str, tenant: str = "") -> str:
        """
        Puts a job in; its id.

        Raises:
            SubjectError: It is no job.
        """
        verdict = await self.jobs.accept(self.lane, self.offer(body, tenant))
        if not isinstance(verdict, Queued):
            raise SubjectError(f"not queued but {verdict}")
        return verdict.job

    @asynccontextmanager
    async def dispatching(self, act: Act, concurrency: int) -> AsyncIterator[Dispatcher]:
        """Jobs are leased and run for as long as the block lasts."""
        runner_module.attempt = attempt_by(act)  # type: ignore[assignment, attr-defined]
        runner = Runner(self.jobs, self.vault, ignore)
        dispatcher = Dispatcher(self.jobs, runner, jobs_max=concurrency, on_bug=end_on_bug)
        dispatcher.configure({NAME: self.work})
        try:
            yield dispatcher
        finally:
            await dispatcher.stop(1.0)


def end_on_bug(error: BaseException) -> None:
    """A job whose end was not told would be measured as a quick one."""
    traceback.print_exception(error)
    os._exit(1)


@asynccontextmanager
async def join(redis_url: str, *, has_all: bool = False) -> AsyncIterator[Replica]:
    """A replica of its own in this store, with the operation published."""
    operation = operation_of(has_all=has_all)
    settings = StoreSettings(url=redis_url, timeout_ms=TIMEOUT_MS)
    ids = Ids(base32(os.getpid(), 8))
    capacity = CapacityStore(settings, cluster="bench", replica=ids.replica, emit=ignore)
    jobs = JobStore(capacity, settings, cluster="bench", emit=ignore)
    await capacity.start({NAME: operation}, "bench")
    jobs.configure({NAME: operation}, await check_store(settings))
    jobs.start()
    pool = Pool(operation.downstream)
    try:
        yield Replica(
            jobs=jobs,
            desk=JobDesk(capacity, jobs, cluster="bench", emit=ignore),
            vault=Vault(KEYS),
            work=work_of(operation, pool, capacity.lane(NAME), cookies=False),
            ids=ids,
            has_all=has_all,
        )
    finally:
        await jobs.close()
        await capacity.close()
        await pool.close()
