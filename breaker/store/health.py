"""
Health: can the store be used for decisions?

1. A failed exchange puts the store in doubt: until it has taken a write, nobody asks it.
2. Three failures in a row, or 300 ms without any reply, and it is down, for at least 1 s: one slow fork flips
   nothing.
3. Only a write brings it back: a store that is read-only, out of memory, out of disk, busy or loading answers too.
4. A clock that jumped is not down: the estimate is corrected already.
5. A store that has lost our state is down at once. When it has our limits again, it stays so for one renewal: what
   other replicas hold must be known before it grants freely.
6. What one node of a Cluster fails concerns the operations that it has: each of them by the same rules, no other.

`Health` is the rules; `StoreKeeper` tries the store, and tells when operations are on their own.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from breaker.core.errors import (
    StoreClockError,
    StoreError,
    StoreRefusedError,
    StoreResetError,
    StoreTimeoutError,
)
from breaker.core.events import DegradedBegan, DegradedEnded, Event, Listener, StoreFailed, StoreReset
from breaker.core.model import RENEW_US
from breaker.store.clock import monotonic_us
from breaker.store.ending import end

FAILURES_MAX = 3
SILENT_US = 300_000
PAUSE_S = 1.0  # between two attempts at a store that is down ...
JITTER = 0.25  # ... and up to this share more, so that replicas do not come all at once


@dataclass(slots=True)
class Health:
    """
    What one replica thinks of its store; times are monotonic.

    Attributes:
        is_usable: Decisions may be asked for; read by every call.
        failures: In a row, since the last write that was taken.
        silent_since_us: When what was not answered was sent; None when nothing is missing.
        down_since_us: None while it is not down.
        is_forgetful: It has lost what it knew, and that was not made good yet.

    """

    timeout_us: int
    is_usable: bool = True
    failures: int = 0
    silent_since_us: int | None = None
    down_since_us: int | None = None
    is_forgetful: bool = False

    @property
    def is_down(self) -> bool:
        return self.down_since_us is not None

    def on_doubt(self) -> None:
        """Rule 1, for whatever reason: the next write decides."""
        self.is_usable = False

    def on_failure(self, kind: str, now_us: int) -> bool:
        """An exchange failed; whether the store is down from now on (rules 2, 4, 5)."""
        if kind == StoreClockError.kind:
            return False
        self.on_doubt()
        if kind == StoreResetError.kind:
            self.is_forgetful = True
            return self._is_down_from(now_us)
        self.failures += 1
        if kind == StoreTimeoutError.kind and self.silent_since_us is None:
            self.silent_since_us = now_us - self.timeout_us
        is_silent = self.silent_since_us is not None and now_us - self.silent_since_us >= SILENT_US
        return (self.failures >= FAILURES_MAX or is_silent) and self._is_down_from(now_us)

    def on_write(self) -> None:
        """It took a write (rule 3): failures are forgotten, though what is down is not up yet."""
        self.failures, self.silent_since_us = 0, None

    def on_up(self) -> int | None:
        """It is used again; since when it was down, or None when it never was."""
        self.on_write()
        since_us, self.down_since_us = self.down_since_us, None
        self.is_usable, self.is_forgetful = True, False
        return since_us

    def _is_down_from(self, now_us: int) -> bool:
        if self.is_down:
            return False
        self.down_since_us = now_us
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """
    What is done when the store takes writes again.

    Attributes:
        write: A small write by the way that decisions go; raises StoreError.
        register: Bring back limits and leases before anybody asks; raises StoreError.
        reopen: It is used from now on, but by these operations: what was done without it is told, ahead of the
            first question.
        lost: It is down: whoever waits for it must not go on.
        part: The same for one operation, by its name.

    """

    write: Callable[[], Awaitable[object]]
    register: Callable[[], Awaitable[object]]
    reopen: Callable[[Collection[str]], None]
    lost: Callable[[], None]
    part: Callable[[str], "Returning"] | None = None


class StoreKeeper:
    """
    Finds out whether the store can be used, for one replica; hears the events of its connection.

    For an operation whose node failed (rule 6) it has another keeper, which knows that operation alone.
    """

    def __init__(
        self,
        health: Health,
        emit: Listener,
        on_bug: Callable[[BaseException], None],
        *,
        draw: Callable[[], float] = random.random,
        operation: str = "",
    ) -> None:
        """
        Wire it; nothing runs before `start`.

        Args:
            on_bug: Told of a mistake of ours; the store is tried again all the same.
            draw: 0..1, for the jitter.
            operation: The only one that it is about; empty: the store as a whole.

        """
        self.health = health
        self._emit, self._on_bug, self._draw = emit, on_bug, draw
        self._operation = operation
        self._parts: dict[str, StoreKeeper] = {}
        self._doubted = asyncio.Event()
        self._returning: Returning | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, returning: Returning) -> None:
        """Begin to keep an eye on it."""
        self._returning = returning
        self._task = asyncio.get_running_loop().create_task(self._run(returning))

    async def close(self) -> None:
        self._returning = None  # no further keepers from now on
        for part in list(self._parts.values()):
            await part.close()
        if self._task:
            await end([self._task])

    def is_usable(self, operation: str) -> bool:
        """Whether decisions of this operation may be asked for."""
        if self._parts and (part := self._parts.get(operation)) and not part.health.is_usable:
            return False
        return self.health.is_usable

    def is_down(self, operation: str) -> bool:
        """Whether this operation goes on without the store until further notice."""
        part = self._parts.get(operation)
        return self.health.is_down or (part is not None and part.health.is_down)

    def listen(self, event: Event) -> None:
        """What the connection tells of itself. A refusal may be one operation's own: the next write says more."""
        match event:
            case StoreFailed(is_partial=True, kind=StoreResetError.kind, detail=detail, operation=operation):
                if part := self._part(operation):
                    part.failed(StoreResetError.kind, detail)
            case StoreFailed(is_partial=True, kind=kind, operation=operation):
                if kind != StoreClockError.kind and (part := self._part(operation)):
                    part.doubt()
            case StoreFailed(kind=StoreRefusedError.kind):
                self.doubt()
            case StoreFailed(kind=kind, detail=detail):
                self.failed(kind, detail)
            case StoreReset(detail=detail):
                self.failed(StoreResetError.kind, detail)
            case _:
                pass

    def absent(self, detail: str) -> None:
        """The gateway starts without it."""
        self.health.on_doubt()
        self.health.down_since_us = monotonic_us()
        self._emit(DegradedBegan(StoreError.kind, detail))
        self._doubted.set()

    def doubt(self, operation: str = "") -> None:
        """A decision could not be had, of this operation alone or by all: nobody asks before a write was taken."""
        if operation:
            if part := self._part(operation):
                part.doubt()
            return
        self.health.on_doubt()
        self._doubted.set()

    def failed(self, kind: str, detail: str) -> None:
        """An exchange failed."""
        if self.health.on_failure(kind, monotonic_us()):
            self._emit(DegradedBegan(kind, detail, self._operation))
            if self._returning:
                self._returning.lost()
        if not self.health.is_usable:
            self._doubted.set()

    def _part(self, operation: str) -> "StoreKeeper | None":
        """The keeper of one operation, made when it fails for the first time."""
        returning_of = self._returning.part if self._returning else None
        if not operation or returning_of is None:
            return None
        part = self._parts.get(operation)
        if part is None:
            part = self._parts[operation] = StoreKeeper(
                Health(self.health.timeout_us), self._emit, self._on_bug, draw=self._draw, operation=operation
            )
            part.start(returning_of(operation))
        return part

    async def _run(self, returning: Returning) -> None:
        while True:
            await self._doubted.wait()
            await self._pause()
            try:
                if await self._is_back(returning):
                    self._reopen(returning)
            except Exception as exc:  # noqa: BLE001 - without this task the store would be lost for good
                self._on_bug(exc)
                await asyncio.sleep(PAUSE_S)

    def _reopen(self, returning: Returning) -> None:
        self._doubted.clear()
        returning.reopen({name for name, part in self._parts.items() if not part.health.is_usable})
        since_us = self.health.on_up()
        if since_us is not None:
            self._emit(DegradedEnded((monotonic_us() - since_us) / 1e6, self._operation))

    async def _pause(self) -> None:
        """A store that is down is tried again after a while; one that has forgotten us answers, so at once."""
        if self.health.is_down and (self.health.failures or not self.health.is_forgetful):
            await asyncio.sleep(PAUSE_S * (1 + JITTER * self._draw()))

    async def _is_back(self, returning: Returning) -> bool:
        """One attempt: does it take a write, and then what must be known to it?"""
        try:
            await returning.write()
            self.health.on_write()
            if self.health.is_down:
                await self._register(returning)
        except StoreError as exc:
            # The event of its exchange has told it, unless that only raised a doubt.
            if self._operation or exc.kind == StoreRefusedError.kind:
                self.failed(exc.kind, str(exc))
        else:
            return True
        return False

    async def _register(self, returning: Returning) -> None:
        """Rule 5; that it has forgotten may be found out by this, and begins a renewal. So does what it forgets then."""
        health = self.health
        forgot, health.is_forgetful = health.is_forgetful, False
        try:
            await returning.register()
            while forgot or health.is_forgetful:
                forgot, health.is_forgetful = True, False
                await asyncio.sleep(RENEW_US / 1e6)
                forgot, health.is_forgetful = health.is_forgetful, False
                await returning.register()
        except StoreError:
            health.is_forgetful = health.is_forgetful or forgot
            raise
