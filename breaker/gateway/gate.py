"""
Gate: may this call start now, and what it gives back when it has ended.

The path asks here and nowhere else. While the store can be used, the store decides for all replicas; while it
cannot, each operation does what its configuration says.
"""

from dataclasses import dataclass

from breaker.core.errors import StoreError
from breaker.core.events import Result
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, TooCostly, Waiting
from breaker.gateway.call import Refusal
from breaker.gateway.refusals import degraded
from breaker.gateway.work import Work
from breaker.store.capacity import CapacityStore


@dataclass(slots=True, kw_only=True)
class Ended:
    """
    How a call that had started ended, as capacity and circuit see it.

    Attributes:
        result: What the downstream made of it; `ABANDONED` says nothing of the downstream.
        linger: As settle.lua takes it: how long the slot is kept because the work goes on.
        service_us: How long it took; 0 teaches nothing.
        retry_after_us: What the downstream asked for; None when it did not.

    """

    result: Result = Result.ABANDONED
    linger: str = ""
    service_us: int = 0
    retry_after_us: int | None = None


class Gate:
    """Admission as the path of a call sees it; one for all operations."""

    def __init__(self, store: CapacityStore) -> None:
        self._store = store

    async def admit(self, work: Work, ask: Ask) -> Admitted | Refused | TooCostly | Refusal:
        """May this call start? Waits for its turn as long as the ask says."""
        lane = work.lane
        try:
            verdict = await self._store.admit(lane, ask)
            if isinstance(verdict, Waiting):
                verdict = await self._store.wait_for_turn(lane, ask, ask.wait_us / 1e6)
        except StoreError as exc:
            return degraded(f"capacity cannot be decided now: {exc}; nothing was executed")
        if isinstance(verdict, Admitted | Refused | TooCostly):
            return verdict
        return degraded("withdrawn; nothing was executed")

    def began(self, work: Work, ask: Ask, verdict: Admitted) -> None:
        """The call starts: from now on its lease is renewed."""
        if verdict.leased:
            self._store.hold(work.lane, ask)

    def ended(self, work: Work, ask: Ask, verdict: Admitted, ended: Ended) -> None:
        """The call has ended: its slot goes back, off its caller's way; never fails."""
        if verdict.leased:
            self._store.settle(work.lane, ask, linger=ended.linger, service_us=ended.service_us)
