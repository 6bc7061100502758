"""
The coalescer: calls that arrive while a round trip is under way share the next one.

No timer and no extra latency when idle; under load many decisions travel in one exchange, and
slots that come back travel along. One exchange at a time, each operation with a bounded share of
it, so that a flood of one cannot starve another. A failed exchange fails exactly its own calls.
What one node of a Cluster fails is put off, and nothing that is for the others waits for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from breaker.core.errors import StoreClockError, StoreError, StoreRefusedError, StoreUnreachedError
from breaker.core.events import AcksLate, ClockJumped, Listener, RoundTripEnded, StoreFailed, StoreRecovered
from breaker.core.jobs import Accepted, Ack, Leases, Offer
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, Verdict
from breaker.store.clock import StoreClock, monotonic_us
from breaker.store.connection import Command
from breaker.store.job_parts import AcceptPart, AckPart, KeepPart, LeasePart, RevokePart, take_bytes
from breaker.store.keys import Keys, wake_prefix
from breaker.store.lane import (
    AcceptItem,
    AskItem,
    KeepItem,
    Lane,
    LeaseRequest,
    RevokeItem,
    SettleItem,
    WithdrawItem,
)
from breaker.store.parts import AskPart, GrantPart, OtherPart, SettlePart, WithdrawPart
from breaker.store.replies import Part, error_in, note_reach, time_told
from breaker.store.scripts import Script
from breaker.store.topology import AnyLine

PENDING_MAX = 10_000  # calls that may stand before the store; more is refused at once
LANES_MAX = 64  # operations in one round trip
SHARE_MAX = 128  # of one operation and kind in one round trip
OTHERS_SHARE = 16  # rare verbs of one operation in one round trip
OTHERS_MAX = 2_000  # that may stand before the store; what only looks is refused beyond
LOOKS = ("show", "look", "ledger", "listed")
SETTLE_S = 0.002  # a slot that nobody waits for may travel with the next call for so long
RETRY_S = 0.25  # what must not be lost tries again after this
GRANT_S_MAX = 0.5  # waiters are kept alive by a grant at least this often

T = TypeVar("T")


class Coalescer:
    """All steps of one replica in one store, in shared round trips."""

    def __init__(
        self,
        line: AnyLine,
        clock: StoreClock,
        scripts: dict[str, Script],
        *,
        cluster: str,
        replica: str,
        timeout_ms: int,
        emit: Listener,
        after: tuple[Command, ...] = (),
    ) -> None:
        """
        Make it ready; nothing is sent yet.

        Args:
            after: Commands that follow each round trip which accepts jobs and say how far its writes
                got (WAITAOF, WAIT). They stall what is behind them: such a coalescer is for that alone.

        """
        self._line, self._clock, self._scripts = line, clock, scripts
        self.after = after
        self._cluster, self._replica = cluster, replica
        self._timeout_us = timeout_ms * 1_000
        self._emit = emit
        self.lanes: dict[str, Lane] = {}
        self._active: dict[str, Lane] = {}  # those with work, the longest waiting first
        self._task: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[tuple[int, int, int]] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._put_off: dict[str, Lane] = {}  # those whose node failed, until `_later`
        self._later: asyncio.TimerHandle | None = None
        self._pending = 0
        self._failing_since_us: int | None = None
        self.on_clock_jump: Callable[[], None] | None = None

    async def connect(self) -> None:
        """
        Make the first connection, so that the store's time is known.

        Raises:
            StoreError: It cannot be made.

        """
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._line.open())
        opening = self._opening
        try:
            self._take_clock(*await asyncio.shield(opening))
        finally:
            if self._opening is opening and opening.done():
                self._opening = None

    def lane(self, operation: str) -> Lane:
        """The operation's place in round trips; made at its first use."""
        lane = self.lanes.get(operation)
        if lane is None:
            lane = self.lanes[operation] = Lane(operation, Keys(self._cluster, operation).all)
        return lane

    def ask(self, lane: Lane, ask: Ask) -> asyncio.Future[Verdict | None]:
        """
        May this call start?

        Raises:
            StoreRefusedError: Too many calls stand before the store already.

        """
        if self._pending >= PENDING_MAX:
            raise too_many()
        answer: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        lane.asks.append(AskItem(ask, answer))
        self._pending += 1
        self._kick(lane)
        return answer

    def settle(self, lane: Lane, item: SettleItem) -> None:
        """
        Give a slot back with the next round trip; kept until the store has it.

        It travels with the next call that asks, and goes by itself only when none has come for 2 ms:
        a round trip of its own would stand in the way of that call. When somebody waits for it, at once.
        """
        lane.settles.append(item)
        self._active[lane.operation] = lane
        if lane.waiting or lane.waiters:
            self._start()
        elif self._task is None and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SETTLE_S, self._settle_now)

    def accept(self, lane: Lane, offer: Offer) -> asyncio.Future[Accepted | None]:
        """
        May this call start, and if not, is it a job from now on?

        Raises:
            StoreRefusedError: Too many calls stand before the store already.

        """
        if self._pending >= PENDING_MAX:
            raise too_many()
        answer: asyncio.Future[Accepted | None] = asyncio.get_running_loop().create_future()
        lane.accepts.append(AcceptItem(offer, answer))
        self._pending += 1
        self._kick(lane)
        return answer

    def revoke(self, lane: Lane, offer: Offer) -> asyncio.Future[bool]:
        """Take an offer back; whether that came before it ran."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lane.revokes.append(RevokeItem(offer, answer))
        self._kick(lane)
        return answer

    def lease(self, lane: Lane, want: int, *, is_idle: bool) -> asyncio.Future[Leases]:
        """Ask for jobs to run with the next round trip; one request of an operation at a time."""
        answer: asyncio.Future[Leases] = asyncio.get_running_loop().create_future()
        lane.lease = LeaseRequest(want, is_idle, answer)
        self._kick(lane)
        return answer

    def ack(self, lane: Lane, ack: Ack) -> None:
        """Tell how an attempt ended, with the next round trip; kept until the store has it."""
        lane.acks.append(ack)
        self._kick(lane)

    def keep(self, lane: Lane, item: KeepItem) -> None:
        """Tell how a direct call with a key ended, with the next round trip; kept until the store has it."""
        lane.keeps.append(item)
        self._kick(lane)

    def withdraw(self, lane: Lane, ask: Ask) -> None:
        """The call has gone: whatever it was given goes back."""
        lane.gone.append(ask)
        self._kick(lane)

    def time_out(self, lane: Lane, ask: Ask) -> asyncio.Future[Admitted | Refused]:
        """The call's wait is over: it was granted just now, or gets its ticket."""
        answer: asyncio.Future[Admitted | Refused] = asyncio.get_running_loop().create_future()
        lane.withdraws.append(WithdrawItem(ask, answer))
        self._kick(lane)
        return answer

    def run(self, lane: Lane, verb: str, *arguments: str | bytes | int) -> asyncio.Future[list[Any]]:
        """
        A rare verb (renew, look, publish) with one of the next round trips; its whole reply.

        What only looks is refused (StoreRefusedError) when too much of it stands before the store.
        """
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if verb in LOOKS and len(lane.others) >= OTHERS_MAX:
            answer.set_exception(StoreRefusedError(f"{OTHERS_MAX} questions are waiting for the store"))
            return answer
        part = OtherPart(lane, self._scripts[verb], arguments, answer)
        if verb in ("renew", "extend"):
            lane.others.appendleft(part)  # a lease must not run out behind people who look
        else:
            lane.others.append(part)
        self._kick(lane)
        return answer

    @property
    def fails_in_parts(self) -> bool:
        """Whether a failure now would be an operation's own, and not the store's as a whole."""
        return self._line.fails_in_parts

    def look_whose_turn(self, lane: Lane) -> None:
        """Grant with the next round trip."""
        lane.grant_timer = None
        lane.wants_grant = True
        self._kick(lane)

    async def close(self) -> None:
        """Deliver what must not be lost, as far as the store takes it, and hang up."""
        self._try_again()
        while self._task:
            await self._task
        for timer in (self._retry, self._soon, self._later):
            if timer:
                timer.cancel()
        if self._opening:
            self._opening.cancel()
        for lane in self.lanes.values():
            if lane.grant_timer:
                lane.grant_timer.cancel()
        await self._line.close()

    def _kick(self, lane: Lane) -> None:
        self._active[lane.operation] = lane
        self._start()

    def _settle_now(self) -> None:
        self._soon = None
        self._start()

    def _try_again(self) -> None:
        self._later = None
        self._active |= self._put_off
        self._put_off.clear()
        self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._active:
                parts = self._next_parts()
                if not parts:
                    continue  # all of its callers hung up before they were asked for
                if not await self._round_trip(parts) and self._pending == 0:
                    # Only what must not be lost is left: it need not hammer a store that is ill.
                    if self._retry:
                        self._retry.cancel()
                    self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._start)
                    break
        finally:
            self._task = None

    def _next_parts(self) -> list[Part]:
        """A share of each operation that has work, and of so many operations as one exchange can carry."""
        parts: list[Part] = []
        for name in list(islice(self._active, LANES_MAX)):
            lane = self._active.pop(name)
            parts += self._parts_of(lane)
            if not lane.is_idle:
                self._active[name] = lane  # what is left stands behind the others
        return parts

    def _parts_of(self, lane: Lane) -> Iterator[Part]:
        """What goes back first, so that what asks finds it."""
        scripts = self._scripts
        if lane.withdraws:
            yield WithdrawPart(lane, scripts["withdraw"], take(lane.withdraws))
        if lane.gone:
            yield WithdrawPart(
                lane, scripts["withdraw"], [WithdrawItem(ask, None) for ask in take(lane.gone)]
            )
        if lane.revokes:
            yield RevokePart(lane, scripts["revoke"], self._replica, take(lane.revokes))
        if lane.keeps:
            yield KeepPart(lane, scripts["keep"], take_bytes(lane.keeps, lambda item: len(item.result)))
        # A key whose call has lost its lease looks as if its gateway had died: what the call kept goes first.
        if lane.settles and not lane.keeps:
            yield SettlePart(lane, scripts["settle"], take(lane.settles))
            lane.wants_grant = lane.wants_grant or lane.waiting > 0
        if lane.acks:
            acks = take_bytes(lane.acks, lambda ack: len(ack.result))
            yield AckPart(lane, scripts["ack"], wake_prefix(self._cluster), acks, self._late)
        for _ in range(min(len(lane.others), OTHERS_SHARE)):
            yield lane.others.popleft()
        if lane.asks:
            items = take(lane.asks)
            self._pending -= len(items)
            items = [item for item in items if not item.answer.done()]  # hung up before we asked
            if items:
                yield AskPart(lane, scripts["admit"], self._replica, items)
        yield from self._job_parts_of(lane)
        if lane.wants_grant:
            lane.wants_grant = False
            yield GrantPart(lane, scripts["grant"], self._replica, wake_prefix(self._cluster))

    def _job_parts_of(self, lane: Lane) -> Iterator[Part]:
        wake = wake_prefix(self._cluster)
        if lane.accepts:
            accepts = take_bytes(lane.accepts, lambda item: len(item.offer.payload))
            self._pending -= len(accepts)
            accepts = [item for item in accepts if not item.answer.done()]
            if accepts:
                yield AcceptPart(lane, self._scripts["accept"], self._replica, wake, accepts)
        if lane.lease:
            request, lane.lease = lane.lease, None
            yield LeasePart(lane, self._scripts["lease"], self._replica, wake, request)

    def _late(self, operation: str, count: int) -> None:
        self._emit(AcksLate(operation, count))

    async def _round_trip(self, parts: list[Part]) -> bool:
        sent_us = monotonic_us()
        estimate_us = self._clock.now_us()
        not_after_us = estimate_us + self._timeout_us
        try:
            if not self._line.is_open:
                await self._open()
                sent_us = monotonic_us()
                estimate_us = self._clock.now_us()
                not_after_us = estimate_us + self._timeout_us
            commands = [part.command(estimate_us, not_after_us) for part in parts]
            is_checked = bool(self.after) and any(isinstance(part, AcceptPart) for part in parts)
            replies = await self._line.exchange([*commands, *self.after] if is_checked else commands)
            if is_checked:
                note_reach(parts, replies[len(parts) :])
                del replies[len(parts) :]
        except StoreError as exc:
            self._failed(exc, "")
            for part in parts:
                part.on_failure(exc)
                self._plan(part)
            return False
        except BaseException as exc:
            for part in parts:
                part.on_failure(StoreError(f"the exchange was broken off: {exc!r}"))
            raise
        received_us = monotonic_us()
        if told := time_told(replies):
            self._take_clock(told[0], sent_us, received_us, is_off=told[1])
        errors = [self._deliver(part, reply) for part, reply in zip(parts, replies, strict=True)]
        if any(error and not error.is_partial for error in errors):
            # It answers, and refuses (read-only, no replicas): that is not up, and asking at once is no use.
            return False
        if all(errors):
            return True  # nothing was done, and all of it is put off
        if self._failing_since_us is not None:
            self._emit(StoreRecovered((received_us - self._failing_since_us) / 1e6))
            self._failing_since_us = None
        self._emit(RoundTripEnded((received_us - sent_us) / 1e6, sum(part.calls for part in parts)))
        return True

    async def _open(self) -> None:
        """
        Connect, for at most one round trip's time; longer ones go on behind our back.

        Raises:
            StoreUnreachedError: Not connected yet.
            StoreError: The store is not there.

        """
        if self._opening and self._opening.done():
            # It ended behind our back: what it opened is open or broken by now, and its error is old.
            _ = self._opening.cancelled() or self._opening.exception()
            self._opening = None
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._line.open())
        try:
            done, _ = await asyncio.wait([self._opening], timeout=self._timeout_us / 1e6)
        except asyncio.CancelledError:
            self._opening.cancel()
            raise
        if not done:
            raise StoreUnreachedError("the connection to the store is still being made")
        opening, self._opening = self._opening, None
        self._take_clock(*opening.result())

    def _take_clock(self, store_us: int, sent_us: int, received_us: int, *, is_off: bool = False) -> None:
        jumped_us = self._clock.take(store_us, sent_us, received_us, is_off=is_off)
        if jumped_us is not None:
            self._emit(ClockJumped(jumped_us))
            if self.on_clock_jump:
                self.on_clock_jump()

    def _deliver(self, part: Part, reply: Any) -> StoreError | None:
        """Hand a reply on; what kept the store from doing what the part asked for."""
        error = error_in(part, reply)
        if error:
            error.is_partial = self._line.fails_in_parts
            self._failed(error, part.lane.operation)
            before = len(part.lane.asks) + len(part.lane.accepts)
            part.on_failure(error)
            self._pending += len(part.lane.asks) + len(part.lane.accepts) - before
        self._plan(part)
        if isinstance(error, StoreClockError):
            return None  # the same calls ask again at once, with the estimate corrected
        if error and error.is_partial:
            self._put_it_off(part.lane)
        return error

    def _put_it_off(self, lane: Lane) -> None:
        """What must not be lost need not hammer a node that is ill, nor keep what is for others from going out."""
        if lane.is_idle or lane.asks or lane.accepts:
            return
        self._put_off[lane.operation] = lane
        self._active.pop(lane.operation, None)
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    def _plan(self, part: Part) -> None:
        """
        What is left to do: another round trip, and the next look whose turn it is.

        A look is due when a token is, and often enough to keep our waiters alive.

        Also for a line in which none of ours stands: those whose replica has died are dropped by a
        look, and until then they stand before everybody.
        """
        lane, delay = part.lane, GRANT_S_MAX
        if isinstance(part, GrantPart):
            if lane.grant_timer:
                lane.grant_timer.cancel()
                lane.grant_timer = None
            if lane.waiters and part.next_us >= 0:
                delay = min(part.next_us / 1e6, GRANT_S_MAX)
        if (lane.waiters or lane.waiting > 0) and not lane.grant_timer:
            lane.grant_timer = asyncio.get_running_loop().call_later(delay, self.look_whose_turn, lane)
        if not lane.is_idle:
            self._active[lane.operation] = lane

    def _failed(self, exc: StoreError, operation: str) -> None:
        if self._failing_since_us is None and not isinstance(exc, StoreClockError) and not exc.is_partial:
            self._failing_since_us = monotonic_us()
        self._emit(StoreFailed(exc.kind, str(exc), operation, exc.is_partial))


def too_many() -> StoreRefusedError:
    """We refuse this call ourselves: of the store, and of other operations, it says nothing."""
    refusal = StoreRefusedError(f"{PENDING_MAX} decisions are waiting for the store")
    refusal.is_partial = True
    return refusal


def take(queue: deque[T]) -> list[T]:
    """Up to a fair share of a queue."""
    return [queue.popleft() for _ in range(min(len(queue), SHARE_MAX))]
