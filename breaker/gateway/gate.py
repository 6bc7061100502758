"""
Gate: may this call start now, and what it gives back when it has ended.

The path asks here and nowhere else. While the store can be used, the store decides for all replicas; while it
cannot, each operation does what its configuration says.

1. A decision has one deadline, `store.timeout`; what the store did not decide by then is decided here, at once.
2. What needs the store for its safety never starts without it: work with a queue, and effects that must happen once.
3. A slot goes back to where it came from.
4. A call that waits when the store is lost, or comes back, goes on waiting at the other place for what is left.
5. What one node of a Cluster did not decide is decided here for its own operations, and others do not notice.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import partial

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.errors import StoreError
from breaker.core.events import Result
from breaker.core.job_policy import Effects
from breaker.core.model import Operation
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Policy, Refused, TooCostly, Waiting
from breaker.gateway.call import Kind, Refusal
from breaker.gateway.local import LocalCapacity
from breaker.gateway.refusals import degraded
from breaker.gateway.work import Work
from breaker.store.capacity import CapacityStore
from breaker.store.circuit_posts import CallEnd
from breaker.store.health import StoreKeeper

# Behind the id of a call that the store is asked about once more: its first id was withdrawn there.
AGAIN = "-again"
MOVES_MAX = 3  # from here to the store, which comes and goes


@dataclass(slots=True, kw_only=True)
class Ended:
    """
    How a call that had started ended, as capacity and circuit see it.

    Attributes:
        result: What the downstream made of it; `ABANDONED` says nothing of the downstream.
        linger: As settle.lua takes it: how long the slot is kept because the work goes on.
        service_us: How long it took; 0 teaches nothing.
        took_us: How long the downstream took to answer, not counting how fast the caller took the answer.
        retry_after_us: What the downstream asked for; None when it did not.

    """

    result: Result = Result.ABANDONED
    linger: str = ""
    service_us: int = 0
    took_us: int = 0
    retry_after_us: int | None = None


def needs_store(operation: Operation) -> bool:
    """Rule 2, and what the files say."""
    return (
        operation.queue is not None
        or operation.effects is Effects.ONCE
        or operation.when_store_down is WhenStoreDown.REFUSE
    )


def refuses_alone(work: Work) -> bool:
    """Whether none of this operation's calls start without the store."""
    return work.is_limited and needs_store(work.operation)


class Gate:
    """
    Admission as the path of a call sees it; one for all operations.

    Args:
        timeout_ms: Of a decision of the store.

    """

    def __init__(
        self, store: CapacityStore, keeper: StoreKeeper, local: LocalCapacity, *, timeout_ms: int
    ) -> None:
        self._store, self._keeper, self._local = store, keeper, local
        self._circuits = store.circuits
        self._seconds = timeout_ms / 1_000
        self._again: dict[str, Ask] = {}

    def is_free(self, work: Work) -> bool:
        """Whether nothing has to be asked: no limits, and a circuit that is closed as far as is known."""
        if work.is_limited or self._circuits.is_barred(work.lane) or self._store.overrides.holds(work.lane):
            return False
        return self._keeper.is_usable(work.operation.name)

    async def admit(self, work: Work, ask: Ask) -> Admitted | Refused | TooCostly | Refusal:
        """May this call start? Waits for its turn as long as the ask says."""
        if (alone_us := self._circuits.bars_here(work.operation.name)) is not None:
            return alone(work.operation, alone_us)
        loop = asyncio.get_running_loop()
        began = loop.time()
        is_usable = self._keeper.is_usable(work.operation.name)
        verdict = await self._ask_store(work, ask) if is_usable else None
        id_, moves = ask.id, 0
        while verdict is None and moves < MOVES_MAX:
            verdict = await self._ask_here(work, left_of(ask, loop.time() - began))
            if verdict is None:
                # The store is back (rule 4).
                id_, moves = id_ + AGAIN, moves + 1
                again = replace(left_of(ask, loop.time() - began), id=id_)
                verdict = await self._ask_store(work, again)
                if isinstance(verdict, Admitted):
                    self._again[ask.id] = again
        return verdict or await self._ask_here(work, replace(ask, wait_us=0)) or gone()

    async def _ask_store(self, work: Work, ask: Ask) -> Admitted | Refused | TooCostly | Refusal | None:
        """What the store says; None when it cannot decide now."""
        lane, store = work.lane, self._store
        waits = False
        try:
            async with asyncio.timeout(self._seconds):
                verdict = await store.admit(lane, ask)
            if isinstance(verdict, Waiting):
                waits = True
                verdict = await store.wait_for_turn(lane, ask, ask.wait_us / 1e6)
        except (StoreError, TimeoutError) as exc:
            # Rule 5. Out of time, it may also have stood behind what was for a node that hangs.
            is_partial = exc.is_partial if isinstance(exc, StoreError) else store.coalescer.fails_in_parts
            self._keeper.doubt(lane.operation if is_partial else "")
            if waits:
                store.coalescer.withdraw(lane, ask)
            return None
        if isinstance(verdict, Admitted | Refused):
            self._local.heard(lane, verdict)
            return verdict
        return verdict if isinstance(verdict, TooCostly) else gone()

    async def _ask_here(self, work: Work, ask: Ask) -> Admitted | Refused | TooCostly | Refusal | None:
        """What this replica may decide; None when the store is back before the call's turn came."""
        if refuses_alone(work):
            return degraded(
                "the store cannot be used, and this operation does not start without it; nothing was executed"
            )
        verdict = await self._local.admit(work.operation, work.lane, ask)
        if isinstance(verdict, Admitted):
            return replace(verdict, generation=work.lane.generation)
        return verdict

    def began(self, work: Work, ask: Ask, verdict: Admitted) -> None:
        """The call starts: from now on its lease is renewed."""
        self._circuits.began(work.operation.name, ask.id)
        if verdict.leased and not self._local.has(work.lane, ask.id):
            self._store.hold(work.lane, self._again.get(ask.id, ask))

    def ended(self, work: Work, ask: Ask, verdict: Admitted, ended: Ended) -> None:
        """The call has ended: its slot goes back, off its caller's way; never fails."""
        linger, service_us = ended.linger, ended.service_us
        if self._again:
            ask = self._again.pop(ask.id, ask)
        here = self._local.ended(work.lane, ask, linger=linger, service_us=service_us)
        if here or verdict.leased:
            # Of one that started here the store knows only if it has come back meanwhile.
            self._store.settle(work.lane, here or ask, linger=linger, service_us=service_us)
        name, held = work.operation.name, here or ask
        call = CallEnd(
            id=held.id, tenant=held.tenant, generation=verdict.generation, is_probe=verdict.is_probe,
            result=ended.result, took_us=ended.took_us, retry_after_us=ended.retry_after_us,
        )  # fmt: skip
        self._circuits.ended(name, call)
        if not self._keeper.is_usable(name) and self._local.told(
            work.lane, partial(self._circuits.report_of, name, call)
        ):
            self._circuits.begin_anew(name)


def alone(operation: Operation, wait_us: int) -> Refusal:
    """Whose downstream fails for us and for nobody else: only our own circuit is open."""
    return Refusal(
        kind=Kind.CIRCUIT_OPEN, policy=Policy.CIRCUIT, retry_after_us=wait_us, extra={"scope": "replica"},
        detail=f"calls of {operation.name} fail from this gateway process, and not from others; send it again, "
        "and another may take it",
    )  # fmt: skip


def left_of(ask: Ask, seconds: float) -> Ask:
    """The same with less time to wait."""
    return replace(ask, wait_us=max(0, ask.wait_us - int(seconds * 1e6))) if ask.wait_us else ask


def gone() -> Refusal:
    return degraded("withdrawn; nothing was executed")
