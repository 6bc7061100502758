"""
Overrides: a person sets the limits of an operation for a while, or ends that early.

1. One script changes what holds for all replicas, from that moment on; it ends by itself, by the store's clock.
2. Jobs and waiting calls that could start now are woken by the same step.
3. Calls of an operation without limits do not ask the store. While a person has set some they do: replicas hear of it
   on the channel of all, and with each look.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from breaker.core.events import Listener, OverrideChanged
from breaker.core.model import Limits
from breaker.core.override import Change, Wrong
from breaker.policy.values import limits_in_words
from breaker.store.clock import StoreClock
from breaker.store.coalescer import Coalescer
from breaker.store.keys import wake_prefix
from breaker.store.lane import Lane
from breaker.store.policy import limits_of

NOTHING = 3  # of set.lua, as are the numbers of what is wrong
WRONG: Mapping[int, Wrong] = {1: Wrong.NO_RATE, 2: Wrong.TOO_FAR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """
    Limits as they were stated, and as they are from now on.

    Attributes:
        is_changed: A person's limits were set, or there were some to end.

    """

    before: Limits
    after: Limits
    is_changed: bool = True


class Overrides:
    """What people set, through one replica."""

    def __init__(self, coalescer: Coalescer, clock: StoreClock, *, cluster: str, emit: Listener) -> None:
        self._coalescer, self._clock, self._emit = coalescer, clock, emit
        self._wake = wake_prefix(cluster)

    async def set(
        self, operation: str, change: Change, until_us: int, author: str, reason: str
    ) -> Replaced | Wrong:
        """
        Change the limits of an operation until a moment of the store's clock.

        Raises:
            StoreError: It is not known whether that was done.

        """
        rate = change.rate
        said = (rate.limit, rate.period_us, rate.interval_us) if rate else ("", "", "")
        burst = "" if change.burst is None else change.burst
        concurrency = "" if change.concurrency is None else change.concurrency
        return await self._run(
            operation, until_us, (*said, burst, concurrency, change.burst_least), author, reason
        )

    async def end(self, operation: str, author: str, reason: str) -> Replaced:
        """
        What the schedule or the file says holds again, now.

        Raises:
            StoreError: It is not known whether that was done.

        """
        found = await self._run(operation, 0, ("", "", "", "", "", 1), author, reason)
        assert isinstance(found, Replaced)  # noqa: S101 - only what is said can be wrong
        return found

    async def _run(
        self, operation: str, until_us: int, said: tuple[str | int, ...], author: str, reason: str
    ) -> Replaced | Wrong:
        lane = self._coalescer.lane(operation)
        lane.wants_grant = True  # behind it in the same exchange: who waits may start by the new limits
        reply = await self._coalescer.run(
            lane, "set", b"", until_us, *said, author, reason, self._wake, operation
        )
        if reply[2] in WRONG:
            return WRONG[reply[2]]
        before, after = (limits_of(text.decode()) for text in reply[3:5])
        is_changed = reply[2] != NOTHING
        if is_changed:
            lane.override_until_us = until_us
            # Told here, because only here it is known who did it and why.
            self._emit(OverrideChanged(operation, author, reason, until_us, limits_in_words(after)))
        return Replaced(before=before, after=after, is_changed=is_changed)

    def heard(self, operation: str, until_us: int) -> None:
        """Rule 3: through another replica, perhaps."""
        self._coalescer.lane(operation).override_until_us = until_us

    def holds(self, lane: Lane) -> bool:
        """Whether a person's limits hold now, as far as this replica has heard."""
        return lane.override_until_us > 0 and lane.override_until_us > self._clock.now_us()
