"""
Noted: what only this replica can see, as alerts ask for it.

The store's failures, circuits of our own, jobs that the store has forgotten: fed by events, told to the steward as a note, or
judged here when there is no store to tell it to.
"""

from collections import deque
from collections.abc import Callable

from breaker.core.events import (
    ClockJumped,
    ConfigLoaded,
    DegradedBegan,
    DegradedEnded,
    Event,
    JobsLost,
    LoneReplica,
    StoreReset,
)
from breaker.signals.cluster_conditions import Outage
from breaker.store.alert_book import Note

LOST_SHOWN_US = 3_600_000_000
LOST_MAX = 1_000  # tellings that are kept


class Noted:
    """
    What this replica saw.

    Attributes:
        outage: The store cannot be used; None while it can.

    """

    def __init__(self, replica: str, now_us: Callable[[], int]) -> None:
        self.outage: Outage | None = None
        self._replica, self._now_us = replica, now_us
        self._lone: set[str] = set()
        self._lost: deque[tuple[int, str, int]] = deque(maxlen=LOST_MAX)
        self._reload_ok = True
        self._reset_us, self._jump_us, self._jumped_us = 0, 0, 0

    def listen(self, event: Event) -> None:
        """Note what happened."""
        match event:
            case LoneReplica():
                (self._lone.add if event.is_lone else self._lone.discard)(event.operation)
            case JobsLost():
                self._lost.append((self._now_us(), event.operation, event.count))
            case ConfigLoaded():
                self._reload_ok = event.ok
            case StoreReset():
                self._reset_us = self._now_us()
            case ClockJumped():
                self._jump_us, self._jumped_us = self._now_us(), event.jumped_us
            case DegradedBegan(operation=""):
                self.outage = Outage(kind=event.kind, detail=event.detail)
            case DegradedEnded(operation=""):
                self.outage = None
            case _:
                pass

    def note(self) -> Note:
        """For the steward."""
        now_us = self._now_us()
        lost: dict[str, int] = {}
        for at_us, operation, count in self._lost:
            if now_us - at_us < LOST_SHOWN_US:
                lost[operation] = lost.get(operation, 0) + count
        return Note(
            replica=self._replica, at_us=now_us, lone=tuple(sorted(self._lone)), lost=lost, reload_ok=self._reload_ok,
            reset_us=self._reset_us, jump_us=self._jump_us, jumped_us=self._jumped_us,
        )  # fmt: skip
