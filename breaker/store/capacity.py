"""
Capacity: the store as the path of a call sees it.

`admit` asks, `wait_for_turn` waits in line, `settle` gives back. Leases that are held are renewed
by one timer per replica. What goes wrong is a StoreError, and nothing else.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from breaker.core.circuit import CircuitState
from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreResetError
from breaker.core.events import Event, LeasesLost, Listener, StoreFailed
from breaker.core.model import LEASE_US, RENEW_US, Limits, Operation
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, Verdict
from breaker.store.circuits import Circuits
from breaker.store.clock import StoreClock
from breaker.store.coalescer import Coalescer
from breaker.store.ending import end
from breaker.store.lane import CIRCUIT_STATES, Lane, SettleItem
from breaker.store.overrides import Overrides
from breaker.store.policy import limits_of, publish_arguments, terms_of
from breaker.store.scripts import load_scripts
from breaker.store.steward import Standing, Stewardship
from breaker.store.topology import make_line
from breaker.store.wake import WakeListener

RENEW_BATCH = 500
REFRESH_S = 6 * 3_600.0  # calendars are published again this often


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitLook:
    """
    A circuit, now.

    Attributes:
        since_us: When it came into this state; 0 when it never moved.
        until_us: When a pause is over, or a person's word ends; 0: not by itself.
        author, reason: Of the person who forced it; else empty.
        pause_until_us: Until when the downstream asked for time.

    """

    state: CircuitState = CircuitState.CLOSED
    generation: int = 0
    since_us: int = 0
    until_us: int = 0
    author: str = ""
    reason: str = ""
    pause_until_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    An operation's numbers over all replicas, now.

    Attributes:
        limits: In force, after adapting and while a ramp rises; `stated`: before that; `source` says whether from
            file, schedule or override.
        configured: As the file states them.
        in_use: Slots held. waiting: Calls in line.
        started, wanted: Cost that started, and that asked, since the store began to count.
        service_us: Mean time that a call holds its slot; 0 when not known.
        quota_limit, quota_used: None without a quota.
        override_until_us, override_since_us: When a person's limits end, and since when they hold; 0 without any.
        override_author, override_reason: Whose they are, and why; else empty.
        held, held_until_us: `paused`, `draining` or empty; until when, 0 is until resumed.

    """

    limits: Limits
    configured: Limits
    source: str
    version: str
    in_use: int
    waiting: int
    started: int
    wanted: int
    service_us: int
    quota_limit: int | None
    quota_used: int
    stated: Limits = Limits()
    circuit: CircuitLook = field(default_factory=CircuitLook)
    override_until_us: int = 0
    held: str = ""
    held_until_us: int = 0
    override_author: str = ""
    override_reason: str = ""
    override_since_us: int = 0


class CapacityStore:
    """All operations' shared capacity, for one replica."""

    def __init__(self, settings: StoreSettings, *, cluster: str, replica: str, emit: Listener) -> None:
        scripts = load_scripts()
        self._emit = emit
        self.clock = StoreClock()
        self.replica = replica
        self.coalescer = Coalescer(
            make_line(settings, scripts), self.clock, scripts,
            cluster=cluster, replica=replica, timeout_ms=settings.timeout_ms, emit=self._on_event,
        )  # fmt: skip
        self.coalescer.on_clock_jump = self._renew_soon
        self.circuits = Circuits(self.coalescer, self.clock, replica=replica, emit=self._emit)
        self.wakes = WakeListener(settings, cluster=cluster, replica=replica, lanes=self.coalescer.lanes)
        self.wakes.on_circuit = self.circuits.heard
        self.overrides = Overrides(self.coalescer, self.clock, cluster=cluster, emit=self._emit)
        self.wakes.on_limits = self.overrides.heard
        self._operations: Mapping[str, Operation] = {}
        self._version = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._renew_now = asyncio.Event()
        self._publish_now = asyncio.Event()
        self._is_half_published = False
        self.standing: Callable[[], Standing] | None = None  # without others, what we publish holds

    async def start(
        self, operations: Mapping[str, Operation], version: str, *, is_needed: bool = True
    ) -> None:
        """
        Publish the limits, and begin to listen and to renew.

        Args:
            is_needed: Else it may be away: what it did not take is published when it is there.

        Raises:
            StoreError: The store did not take the limits.

        """
        self.circuits.configure(operations)
        if is_needed:
            await self.publish(operations, version)
        else:
            self._operations, self._version, self._is_half_published = operations, version, True
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.wakes.run()),
            loop.create_task(self._keep_renewed()),
            loop.create_task(self._keep_published()),
        ]

    async def publish(
        self,
        operations: Mapping[str, Operation],
        version: str,
        *,
        renews: bool = False,
        term: int | None = None,
    ) -> None:
        """
        Tell the scripts what the files say; replaces what they said before, keeps live overrides.

        While another version is in force, only what nobody has published is.

        Args:
            renews: Only bring calendars up to date, unless another version is published by now.
            term: Of the steward that does so; refused when the store has seen a later one.

        Raises:
            StoreError: Not all of it was taken; what was published before will be again.

        """
        if not self.clock.is_set:
            await self.coalescer.connect()
        now_us = self.clock.now_us()
        standing = self.standing() if self.standing else None
        is_ours = standing is None or standing.is_in_force
        guards = {"edition": standing.edition} if standing and is_ours else {}
        if term is not None:
            guards["term"] = term
        try:
            await asyncio.gather(
                *(
                    self.coalescer.run(
                        self.lane(name),
                        "publish",
                        *publish_arguments(
                            terms_of(operation, now_us),
                            version,
                            renews=renews,
                            only_missing=not is_ours,
                            guards=guards,
                        ),
                    )
                    for name, operation in operations.items()
                )
            )
        except StoreError:
            self._is_half_published = True
            self._publish_now.set()
            raise
        self._is_half_published = False
        self._operations, self._version = operations, version
        self.circuits.configure(operations)

    async def republish(self) -> None:
        """
        Bring back what the files said last, unless another version is published by now.

        Raises:
            StoreError: Not all of it was taken.

        """
        await self.publish(self._operations, self._version, renews=not self._is_half_published)

    def publish_soon(self) -> None:
        """What holds has changed: publish all again, off the caller's path."""
        self._is_half_published = True
        self._publish_now.set()

    async def renew_calendars(self, stewardship: Stewardship) -> None:
        """
        A chore of the steward: calendars reach only 60 days ahead.

        Raises:
            StoreError: Not all of it was taken.

        """
        await self.publish(self._operations, self._version, renews=True, term=stewardship.term)

    def restore_soon(self) -> None:
        """The store has forgotten what it knew: publish all again, and register the leases that we hold."""
        self._publish_now.set()
        self._renew_soon()  # calls that run must count before others start

    def lane(self, operation: str) -> Lane:
        return self.coalescer.lane(operation)

    async def admit(self, lane: Lane, ask: Ask) -> Verdict | None:
        """
        May this call start? None when it had been withdrawn meanwhile.

        Raises:
            StoreError: The store did not decide.

        """
        answer = self.coalescer.ask(lane, ask)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                # It was answered in the moment in which the caller hung up.
                lane.waiters.pop(ask.id, None)
                self.coalescer.withdraw(lane, ask)
            raise

    async def wait_for_turn(self, lane: Lane, ask: Ask, seconds: float) -> Admitted | Refused:
        """
        Wait in line, at most so long; then take the ticket.

        Raises:
            StoreError: The store was lost while waiting.

        """
        waiter = lane.waiters.get(ask.id)
        try:
            if waiter is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        return await waiter
                if waiter.done() and not waiter.cancelled():
                    return waiter.result()  # granted in the moment in which the time was up
            return await self.coalescer.time_out(lane, ask)
        except asyncio.CancelledError:
            # The caller hung up: its place goes to the next, and what was granted goes back.
            self.coalescer.withdraw(lane, ask)
            raise
        finally:
            lane.waiters.pop(ask.id, None)

    def hold(self, lane: Lane, ask: Ask) -> None:
        """From now on this lease is renewed, until it is settled."""
        lane.held[ask.id] = (ask.tenant, asyncio.get_running_loop().time())

    def settle(self, lane: Lane, ask: Ask, *, linger: str = "", service_us: int = 0) -> None:
        """Give the slot back, off the caller's path; never fails."""
        if lane.held.pop(ask.id, None) is not None:
            self.coalescer.settle(lane, SettleItem(ask.id, ask.tenant, linger, service_us))

    def give_back(self, lane: Lane, slot: str, tenant: str) -> None:
        """Free a slot that nobody holds any more."""
        self.coalescer.settle(lane, SettleItem(slot, tenant, "", 0))

    async def look(self, operation: str) -> Look:
        """
        The operation's numbers.

        Raises:
            StoreError: They cannot be had now.

        """
        lane = self.lane(operation)
        reply = await self.coalescer.run(lane, "look", b"")
        lane.heard_circuit(reply[15], reply[14], moved=False)
        texts: list[Any] = [part.decode() if isinstance(part, bytes) else part for part in reply]
        lane.override_until_us = int(texts[21])
        return Look(
            limits=limits_of(texts[2]), configured=limits_of(texts[3]), version=texts[4], in_use=texts[5],
            waiting=texts[6], started=int(texts[7]), wanted=int(texts[8]), service_us=int(texts[9]),
            quota_limit=None if texts[10] < 0 else texts[10], quota_used=texts[11], source=texts[12],
            stated=limits_of(texts[13]),
            circuit=CircuitLook(
                state=CIRCUIT_STATES[texts[14]], generation=texts[15], since_us=int(texts[16]), until_us=int(texts[17]),
                author=texts[18], reason=texts[19], pause_until_us=int(texts[20]),
            ),
            override_until_us=int(texts[21]), held=texts[22], held_until_us=int(texts[23]),
            override_author=texts[24], override_reason=texts[25], override_since_us=int(texts[26]),
        )  # fmt: skip

    async def close(self) -> None:
        """Give back what is left to give back, and hang up."""
        await end(self._tasks)
        await self.circuits.close()
        await self.coalescer.close()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StoreFailed) and event.kind == StoreResetError.kind:
            self.restore_soon()  # flushed, or another instance: it was said aloud
        self._emit(event)

    def _renew_soon(self) -> None:
        self._renew_now.set()

    async def _keep_renewed(self) -> None:
        """Every lease lives 10 s and is renewed before it is 6.6 s old; after a clock jump at once."""
        loop = asyncio.get_running_loop()
        while True:
            jumped = False
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_US / 1e6):
                    await self._renew_now.wait()
                    jumped = True
            self._renew_now.clear()
            for lane in list(self.coalescer.lanes.values()):
                older_than = loop.time() if jumped else loop.time() - RENEW_US / 1e6
                due = [(id_, tenant) for id_, (tenant, at) in lane.held.items() if at <= older_than]
                for at in range(0, len(due), RENEW_BATCH):
                    with suppress(StoreError):  # told by its own event; the next round tries again
                        await self._renew(lane, due[at : at + RENEW_BATCH])

    async def _renew(self, lane: Lane, leases: Iterable[tuple[str, str]]) -> None:
        arguments: list[str | bytes | int] = [b"", LEASE_US]
        for lease in leases:
            arguments += lease
        reply = await self.coalescer.run(lane, "renew", *arguments)
        now = asyncio.get_running_loop().time()
        for id_, tenant in leases:
            if id_ in lane.held:
                lane.held[id_] = (tenant, now)
            else:
                # Settled while we renewed, so it may have been taken again just now.
                self.coalescer.settle(lane, SettleItem(id_, tenant, "", 0))
        if reply[2]:
            self._emit(LeasesLost(lane.operation, reply[2]))

    async def _keep_published(self) -> None:
        """What was lost, or holds from now on, is published; without a steward that does so, also calendars."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S if self.standing is None else None):
                    await self._publish_now.wait()
            self._publish_now.clear()
            with suppress(StoreError):
                await self.republish()
            await asyncio.sleep(1.0)  # a store that forgets again and again is not hammered
