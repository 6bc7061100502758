"""
The store's clock, as this replica estimates it between replies.

Replicas' own clocks never decide. An estimate is the store's last word plus monotonic time since
then; scripts refuse to write when it is off by more than 2 s (`core.model.CLOCK_SKEW_US`).
"""

import time

from breaker.core.model import CLOCK_SKEW_US


def monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


class StoreClock:
    """Offset between the store's clock and our monotonic one."""

    __slots__ = ("_offset_us", "is_set", "jumped_us")

    def __init__(self) -> None:
        self._offset_us = 0
        self.is_set = False
        self.jumped_us = 0

    def now_us(self) -> int:
        """The store's time by our estimate."""
        return monotonic_us() + self._offset_us

    def take(self, store_us: int, sent_us: int, received_us: int, *, is_off: bool = False) -> int | None:
        """
        A reply that said `store_us`; by how much the clock jumped, or None.

        Args:
            is_off: The store says itself that our estimate is wrong.

        """
        if is_off or (self.is_set and abs(store_us - self.now_us()) > CLOCK_SKEW_US):
            return self.jumped(store_us, sent_us, received_us)
        self.heard(store_us, sent_us, received_us)
        return None

    def heard(self, store_us: int, sent_us: int, received_us: int) -> None:
        """A reply that said `store_us`; it was true between sending and receiving (our monotonic time)."""
        self._offset_us = store_us - (sent_us + received_us) // 2
        self.is_set = True

    def jumped(self, store_us: int, sent_us: int, received_us: int) -> int:
        """A reply that contradicts the estimate: by how much, in microseconds."""
        before = self._offset_us
        self.heard(store_us, sent_us, received_us)
        self.jumped_us = self._offset_us - before
        return self.jumped_us
