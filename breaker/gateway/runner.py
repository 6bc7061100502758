"""
Runner: a leased job, or a batch of them, from its lease to its ack.

    open      the payload                                undecryptable: dead
    attempt   one request, or one for the whole batch
    judge     what becomes of the job (core/retry.py)
    ack       with the result, off everybody's path; on every exit

A job that is given up while it runs (the process stops) goes back to the front at once where an attempt
may be repeated; else its outcome is unknown.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson

from breaker.core.events import BatchSent, JobAttempted, JobStarted, Listener, Result
from breaker.core.job_policy import Batch, Effects
from breaker.core.jobs import Ack, Fate, JobHead, LeasedJob, Reason
from breaker.core.retry import Failed, Next, after
from breaker.core.trace import Begin, Span, trace_id_of
from breaker.gateway.attempt import Attempted, attempt
from breaker.gateway.batches import send_batch
from breaker.gateway.job_payload import JobResult, Payload, job_result
from breaker.gateway.passage import traced
from breaker.gateway.vault import Unreadable, Vault
from breaker.gateway.work import Work
from breaker.store.circuit_posts import CallEnd
from breaker.store.jobs import JobStore

NOTE_MAX = 600  # characters of a note's detail
ENDED = (Fate.SUCCEEDED, Fate.DEAD, Fate.UNKNOWN)
# Whether it was sent is not known; its retries slow it down, where giving it back would run it again at once.
BROKEN_BY_US = Attempted(
    failed=Failed.BROKEN, detail="the gateway made a mistake of its own, see its log", result=Result.ABANDONED
)


class Runner:
    """
    Runs jobs; one for all operations.

    Attributes:
        drops_results: Whether the store is too short of memory for results.
        begin_span: None when nothing is traced.

    """

    def __init__(self, jobs: JobStore, vault: Vault, emit: Listener) -> None:
        self.vault = vault
        self.drops_results: Callable[[], bool] = lambda: False
        self.begin_span: Begin | None = None
        self._jobs, self._emit = jobs, emit
        self._clock, self._circuits = jobs.capacity.clock, jobs.capacity.circuits

    async def run(self, work: Work, job: LeasedJob) -> None:
        """
        One job, alone.

        Raises:
            CancelledError: It was given up, and went back or is unknown.

        """
        payload = self._open(work, job)
        if payload is None:
            return
        self._started(work, job)
        span = self._span_of(payload)
        sent = payload if span is None else with_span(payload, span)
        most, began = work.payload_max, asyncio.get_running_loop().time()
        try:
            ended = await attempt(work, job, sent, now_us=self._clock.now_us(), most=most)
        except asyncio.CancelledError:
            self._seen(work, job, BROKEN_BY_US)
            self._give_up(work, job)
            raise
        except Exception:
            self._seen(work, job, BROKEN_BY_US)
            took_s = asyncio.get_running_loop().time() - began
            self._judge(work, job, payload, BROKEN_BY_US, took_s, span)
            raise
        took_s = asyncio.get_running_loop().time() - began
        self._seen(work, job, ended, took_s)
        self._judge(work, job, payload, ended, took_s, span)

    async def run_batch(self, work: Work, jobs: Sequence[LeasedJob]) -> None:
        """
        Jobs of one slot, in one request; all are told of at once, since the slot is one.

        Raises:
            CancelledError: They were given up, likewise.

        """
        batch = work.operation.batch
        if batch is None:
            return
        opened: list[tuple[LeasedJob, Payload]] = []
        unreadable: list[tuple[LeasedJob, Unreadable]] = []
        for job in jobs:
            try:
                opened.append((job, self.vault.payload(work.operation.name, job.head, job.payload)))
            except Unreadable as exc:
                unreadable.append((job, exc))
        try:
            if opened:
                await self._send_batch(work, batch, opened)
        finally:
            # Behind the others: what is told first gives the slot back, which the request still needs.
            for job, why in unreadable:
                self._unreadable(work, job, why)

    async def _send_batch(
        self, work: Work, batch: Batch, opened: Sequence[tuple[LeasedJob, Payload]]
    ) -> None:
        for job, _ in opened:
            self._started(work, job)
        self._emit(BatchSent(work.operation.name, len(opened)))
        began = asyncio.get_running_loop().time()
        try:
            ends = await send_batch(work, batch, opened, now_us=self._clock.now_us(), most=work.payload_max)
        except asyncio.CancelledError:
            self._seen(work, opened[0][0], BROKEN_BY_US)
            for job, _ in opened:
                self._give_up(work, job)
            raise
        except Exception:
            self._seen(work, opened[0][0], BROKEN_BY_US)
            for job, payload in opened:
                took_s = asyncio.get_running_loop().time() - began
                self._judge(work, job, payload, BROKEN_BY_US, took_s, self._span_of(payload))
            raise
        took_s = asyncio.get_running_loop().time() - began
        self._seen(work, opened[0][0], as_one(ends), took_s)
        for (job, payload), ended in zip(opened, ends, strict=True):
            if ended is None:
                self._back(work, job)
            else:
                self._judge(work, job, payload, ended, took_s, self._span_of(payload))

    def _open(self, work: Work, job: LeasedJob) -> Payload | None:
        try:
            return self.vault.payload(work.operation.name, job.head, job.payload)
        except Unreadable as exc:
            self._unreadable(work, job, exc)
            return None

    def _unreadable(self, work: Work, job: LeasedJob, why: Unreadable) -> None:
        ended = Attempted(was_sent=False, detail=str(why), result=Result.ABANDONED)
        self._end(work, job, ended, Next(fate=Fate.DEAD, reason=Reason.UNDECRYPTABLE))

    def _seen(self, work: Work, job: LeasedJob, ended: Attempted, took_s: float = 0.0) -> None:
        """What the request says of the downstream; a batch is one request."""
        self._circuits.ended(
            work.operation.name,
            CallEnd(
                id=job.slot, tenant=job.head.tenant, generation=job.generation, is_probe=job.is_probe,
                result=ended.result, took_us=int(took_s * 1e6), retry_after_us=ended.retry_after_us,
            ),
        )  # fmt: skip

    def _started(self, work: Work, job: LeasedJob) -> None:
        head = job.head
        waited_us = 0
        if head.attempt == 1 and work.operation.queue:
            # For one that was scheduled, since its promise began.
            promised_us = head.deadline_us - work.operation.queue.start_within_ms * 1_000
            waited_us = max(0, self._clock.now_us() - max(head.accepted_us, promised_us))
        self._emit(JobStarted(work.operation.name, head.band, head.attempt, waited_us / 1e6))

    def _span_of(self, payload: Payload) -> Span | None:
        return self.begin_span(traceparent_of(payload)) if self.begin_span else None

    def _judge(
        self,
        work: Work,
        job: LeasedJob,
        payload: Payload,
        ended: Attempted,
        took_s: float,
        span: Span | None,
    ) -> None:
        operation, head = work.operation, job.head
        following = after(
            operation.retry, operation.effects, ended.failure, failures=head.failures, first_us=head.first_us,
            now_us=self._clock.now_us(), draw=random.random(),  # noqa: S311 - jitter is no secret
            was_sent=ended.was_sent, retry_after_us=ended.retry_after_us, says_never=ended.says_never,
            is_probe=job.is_probe,
        )  # fmt: skip
        self._end(work, job, ended, following, took_s, trace_id_of(traceparent_of(payload)), span)

    def _end(
        self,
        work: Work,
        job: LeasedJob,
        ended: Attempted,
        following: Next,
        took_s: float = 0.0,
        trace_id: str = "",
        span: Span | None = None,
    ) -> None:
        operation, head = work.operation, job.head
        is_ended = following.fate in ENDED
        result, is_dropped = b"", False
        if is_ended:
            kept = job_result(
                status=ended.status, headers=ended.headers, body=ended.body, is_cut=ended.is_cut,
                most=work.payload_max, reason=following.reason or "", detail=ended.detail,
            )  # fmt: skip
            is_dropped = bool(kept.body) and self.drops_results()
            result = self.seal(work, head, kept.without_body() if is_dropped else kept)
        asks = following.fate is Fate.UNKNOWN and operation.probe is not None
        self._jobs.ack(
            work.lane,
            Ack(
                job=head.id, attempt=head.attempt, tenant=head.tenant, slot=job.slot, fate=following.fate,
                reason=following.reason or "", delay_us=following.delay_us, result=result,
                note=b"" if following.fate is Fate.SUCCEEDED and head.attempt == 1 else note(self._clock.now_us(), head, ended, following),
                service_us=ended.service_us, probe_us=int(work.timeout_s * 1e6) if asks else 0,  # by then it has ended there, too

            ),
        )  # fmt: skip
        self._emit(
            JobAttempted(
                operation=operation.name, job=head.id, attempt=head.attempt, fate=following.fate,
                reason=following.reason or "", status=ended.status or 0, duration_s=took_s,
                result=ended.result, trace_id=trace_id, is_ended=is_ended, dropped=is_dropped, span=span,
            )
        )  # fmt: skip

    def seal(self, work: Work, head: JobHead, result: JobResult) -> bytes:
        return self.vault.close_result(work.operation, head.id, result)

    def _give_up(self, work: Work, job: LeasedJob) -> None:
        if work.operation.effects is Effects.KEYED:
            self._back(work, job)
            return
        ended = Attempted(detail="the gateway stopped while it ran", result=Result.ABANDONED)
        self._end(work, job, ended, Next(fate=Fate.UNKNOWN, reason=Reason.AMBIGUOUS))

    def _back(self, work: Work, job: LeasedJob) -> None:
        head = job.head
        self._jobs.ack(
            work.lane,
            Ack(job=head.id, attempt=head.attempt, tenant=head.tenant, slot=job.slot, fate=Fate.BACK),
        )


def as_one(ends: Sequence[Attempted | None]) -> Attempted:
    """A batch as one call: it failed when no item of it succeeded."""
    told = [ended for ended in ends if ended is not None]
    if not told:
        return BROKEN_BY_US
    return next((ended for ended in told if ended.result is Result.OK), told[0])


def traceparent_of(payload: Payload) -> str:
    """Of the call that it was; empty when that named none."""
    parent = next((value for name, value in payload.headers if name.lower() == b"traceparent"), b"")
    return parent.decode("latin-1")


def with_span(payload: Payload, span: Span) -> Payload:
    """The same as this attempt sends it."""
    return replace(payload, headers=traced(payload.headers, span, span.for_downstream))


def note(now_us: int, head: JobHead, ended: Attempted, following: Next) -> bytes:
    """A line of the job's history; never a body."""
    line: dict[str, object] = {
        "at_us": now_us, "attempt": head.attempt, "what": following.fate,
        "status": ended.status, "reason": following.reason,
    }  # fmt: skip
    if following.delay_us:
        line["again_in_ms"] = following.delay_us // 1_000
    if ended.detail:
        line["detail"] = ended.detail[:NOTE_MAX].encode("utf-8", "backslashreplace").decode()
    return orjson.dumps(line)
