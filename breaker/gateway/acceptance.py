"""
Acceptance: a call of an operation with a queue: it starts now, or it is a job from now on.

One atomic step in the store, as admission is. What it answers is a start (the path forwards), a receipt
(202), an answer that was kept, or a refusal.

1. Nothing is promised that the store has not written.
2. The same key and request is the same job; with `wait` its caller is held for the result.
3. A direct call with a key keeps its result, or frees the key, on every exit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from breaker.core.errors import StoreError, StoreTimeoutError
from breaker.core.events import JobAccepted, Listener
from breaker.core.job_policy import Band, Effects
from breaker.core.jobs import (
    Accepted,
    JobRecord,
    JobState,
    KeptResult,
    Offer,
    Queued,
)
from breaker.core.retry import FailureClass, classify
from breaker.core.verdict import Admitted, Policy
from breaker.gateway.asked_time import retry_after_us
from breaker.gateway.call import Call, CallerError, Kind, Receipt, Refusal, Wishes
from breaker.gateway.downstream import DownstreamError, Response
from breaker.gateway.job_ends import end_of
from breaker.gateway.job_payload import (
    JobResult,
    Kept,
    Payload,
    batch_line,
    fingerprint,
    job_result,
    kept_headers,
)
from breaker.gateway.passage import traced
from breaker.gateway.receipts import Receipts
from breaker.gateway.refusals import degraded, no_answer, outcome_unknown, refusal_of
from breaker.gateway.vault import Unreadable, Vault
from breaker.store.job_desk import JobDesk
from breaker.store.jobs import JobStore

WAIT_MAX_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """An answer of the downstream that was kept; `is_first`: the caller waited for it, nothing is repeated."""

    job: str
    result: JobResult
    is_first: bool
    preference: str = ""


Answer = Admitted | Receipt | Replay | Refusal


class Acceptance:
    """
    All operations with a queue.

    Args:
        on_accepted: A call of this operation has become a job, since this limit had no room.
        is_store_down: Of this operation nothing is asked then, and nothing promised.

    """

    def __init__(
        self,
        jobs: JobStore,
        desk: JobDesk,
        vault: Vault,
        receipts: Receipts,
        emit: Listener,
        on_accepted: Callable[[str, Policy | None], None],
        is_store_down: Callable[[str], bool],
    ) -> None:
        self.vault = vault
        self._jobs, self._desk, self._receipts, self._emit, self._on_accepted = (
            jobs,
            desk,
            receipts,
            emit,
            on_accepted,
        )
        self._clock = jobs.capacity.clock
        self._is_store_down = is_store_down

    async def decide(self, call: Call, now: float) -> Answer:
        """
        Start, queue or refuse a call; with `wait`, hold it.

        Args:
            now: Loop seconds.

        """
        if self._is_store_down(call.work.operation.name):
            return degraded(
                "the store cannot be used, and nothing is queued without it; nothing was executed"
            )
        wait_s = self._wait_s(call, now)
        offer = call.offer = self._offer(call, watches=wait_s > 0)
        # Our circuit alone is open: others take it from the queue.
        is_alone = self._jobs.capacity.circuits.bars_here(call.work.operation.name) is not None
        if is_alone:
            offer = call.offer = replace(offer, is_async=True, wakes_others=True)
        if wait_s > 0:
            self._jobs.expect_end(offer.job)
        verdict: Accepted | None = None
        try:
            verdict = await self._jobs.accept(call.work.lane, offer)
        except StoreError as exc:
            if type(exc) in (StoreTimeoutError, StoreError):
                after = "what it may have begun is being taken back; repeat it with the same Idempotency-Key"
            else:
                after = "nothing was executed"
            return degraded(f"the call cannot be decided now: {exc}; {after}")
        finally:
            if wait_s > 0 and not (isinstance(verdict, Queued) and not verdict.is_known):
                self._jobs.forget_end(offer.job)
        if isinstance(verdict, Queued) and is_alone and not call.wishes.is_async and verdict.why is None:
            verdict = replace(verdict, why=Policy.CIRCUIT)
        if isinstance(verdict, Queued):
            return await self._queued(call, offer, verdict, wait_s)
        if isinstance(verdict, KeptResult):
            return await self._replayed(call, verdict.job)
        return verdict if isinstance(verdict, Admitted) else refusal_of(call, verdict)

    def _offer(self, call: Call, *, watches: bool) -> Offer:
        work, wishes = call.work, call.wishes
        operation, now_us = work.operation, self._clock.now_us()
        queue, body, job = operation.queue, call.sent_body or b"", call.decision[-26:]
        headers = traced(call.headers, call.span, call.span.for_job) if call.span else call.headers
        payload = Payload(
            method=call.method, target=call.target, body=body, request_id=call.request_id,
            headers=kept_headers(headers, queue.store_headers if queue else ()),
        )  # fmt: skip
        start_us = max(now_us, wishes.not_before_us)
        within_ms = queue.expire_after_ms if queue else None
        expiries = [ms for ms in (within_ms, wishes.expires_in_ms) if ms is not None]
        expiry_us = start_us + min(expiries) * 1_000 if expiries else 0
        deadline_us = self._receipts.deadline_us(work, start_us)
        return Offer(
            lease_id=call.id, job=job, tenant=call.tenant, cost=call.cost, caller=call.caller, key=wishes.key,
            fingerprint=fingerprint(call.method, call.target, body) if wishes.key else "-",
            band=band_of(call), is_async=wishes.is_async, not_before_us=wishes.not_before_us,
            line=batch_line(call.tenant, call.batch_value) if operation.batch else call.tenant,
            deadline_us=min(deadline_us, expiry_us) if expiry_us else deadline_us, expiry_us=expiry_us,
            callback=wishes.callback, payload=self.vault.close(operation, job, payload.encode()),
            watches=watches,
        )  # fmt: skip

    def _wait_s(self, call: Call, now: float) -> float:
        if call.wishes.wait_s is None:
            return 0.0
        return max(0.0, min(call.wishes.wait_s, WAIT_MAX_S, call.deadline - now))

    async def _queued(self, call: Call, offer: Offer, queued: Queued, wait_s: float) -> Answer:
        name = call.work.operation.name
        if not queued.is_known:
            self._emit(JobAccepted(name, offer.job, offer.band, queued.why or ""))
        # One that expires early is due before anything that a dispatcher knows of.
        self._on_accepted(name, None if call.wishes.expires_in_ms else queued.why)
        preference = preference_of(call.wishes, wait_s)
        try:
            record = await self._record(call, queued, wait_s)
        except StoreError as exc:
            if queued.is_known:
                return degraded(
                    f"the job of this key cannot be looked up now: {exc}; nothing else was executed"
                )
            record = None  # it was accepted, whatever else cannot be told of it
        if record is None:
            return self._receipts.of_queued(call, queued, preference=preference)
        if record.head.state.is_ended:
            return self._ended(call, record, is_first=not queued.is_known, preference=preference)
        return self._receipts.of_record(
            call.work, record, durability=queued.durability, preference=preference, is_known=queued.is_known
        )

    async def _record(self, call: Call, queued: Queued, wait_s: float) -> JobRecord | None:
        """The job as it stands, after waiting for its end; None: as it was accepted just now."""
        name = call.work.operation.name
        if queued.is_known and wait_s > 0:
            return await end_of(self._jobs, self._desk, name, queued.job, wait_s, caller=call.caller)
        if wait_s > 0:
            await self._jobs.wait_ended(queued.job, wait_s)
        elif not queued.is_known:
            return None
        return await self._desk.show(name, queued.job)

    async def _replayed(self, call: Call, job: str) -> Answer:
        try:
            record = await self._desk.show(call.work.operation.name, job)
        except StoreError as exc:
            return degraded(
                f"the answer of this key cannot be looked up now: {exc}; nothing else was executed"
            )
        if record is None:
            return Refusal(
                kind=Kind.RESULT_EXPIRED,
                detail="the work of this key has ended; its answer is not kept any longer, and it is not done again",
            )
        return self._ended(call, record, is_first=False)

    def _ended(self, call: Call, record: JobRecord, *, is_first: bool, preference: str = "") -> Answer:
        """The answer that was kept; without a whole one the first caller has its job, others are told why."""
        name, head = call.work.operation.name, record.head
        try:
            result = self.vault.result(name, head, record.answer if head.state.keeps_payload else record.body)
        except Unreadable as exc:
            return Refusal(kind=Kind.RESULT_EXPIRED, detail=f"the answer is kept, but cannot be read: {exc}")
        if head.state is JobState.UNKNOWN:
            return outcome_unknown(call, f"{name}~{head.id}")
        if result is None or not result.status or result.kept is not Kept.WHOLE:
            if is_first:
                return self._receipts.of_record(call.work, record, preference=preference)
            return no_answer(f"{name}~{head.id}", head, result)
        return Replay(job=f"{name}~{head.id}", result=result, is_first=is_first, preference=preference)

    def direct_ended(
        self, call: Call, response: Response | None, failure: DownstreamError | CallerError | None
    ) -> None:
        """A direct call has ended: its key is kept with the answer, freed, or its outcome is unknown."""
        offer, work = call.offer, call.work
        if offer is None or not offer.key:
            return
        is_once = work.operation.effects is Effects.ONCE
        if response is None or failure is not None:
            was_sent = response is not None or failure is None or getattr(failure, "sent", False)
            self._jobs.keep(work.lane, offer, "unknown" if was_sent and is_once else "released")
            return
        whose = classify(
            status=response.status, retry_after_us=retry_after_us(response.headers, self._clock.now_us())
        )
        if whose in (None, FailureClass.CALLER):
            kept = job_result(
                status=response.status, headers=response.headers, body=response.body or b"",
                is_cut=response.body is None, most=work.payload_max,
            )  # fmt: skip
            stored = self.vault.close_result(work.operation, offer.job, kept)
            self._jobs.keep(work.lane, offer, "kept", stored)
        else:
            may_have_run = whose in (FailureClass.AMBIGUOUS, FailureClass.DOWNSTREAM)
            self._jobs.keep(work.lane, offer, "unknown" if may_have_run and is_once else "released")


def band_of(call: Call) -> Band:
    """What its caller says, if it may; else what the operation finds in it."""
    queue = call.work.operation.queue
    source = queue.bands if queue else None
    if call.wishes.band:
        return call.wishes.band
    if source is None:
        return Band.NORMAL
    wanted = source.header.lower().encode() if source.header else None
    said = next((value.decode("latin-1") for name, value in call.headers if name.lower() == wanted), None)
    return source.values.get(said or call.band_word or "", source.default)


def preference_of(wishes: Wishes, wait_s: float) -> str:
    """`Preference-Applied` of a job (RFC 7240, section 3)."""
    waited = f"wait={int(min(wishes.wait_s or 0, WAIT_MAX_S))}" if wait_s > 0 else ""
    return ", ".join(filter(None, ("respond-async" if wishes.is_async else "", waited)))
