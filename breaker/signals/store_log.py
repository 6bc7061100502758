"""
The store log: an ill store, and the replicas that share it, as lines.

1. An outage of the store is told when it begins, every 10 s while it lasts, and when it ends;
   one line per failed exchange would drown what matters.
2. What operations did meanwhile is told by each replica for itself; that limits were broken, by whoever noticed.
"""

from collections.abc import Callable

from breaker.core.events import (
    ClockJumped,
    DegradedBegan,
    DegradedEnded,
    OverAdmitted,
    ReplicasSeen,
    StewardChanged,
    StoreFailed,
    StoreRecovered,
    StoreReset,
)
from breaker.signals.quiet import Quiet

Health = StoreFailed | StoreRecovered | ClockJumped | StoreReset
Degraded = DegradedBegan | DegradedEnded | OverAdmitted
Members = ReplicasSeen | StewardChanged
StoreEvent = Health | Degraded | Members


class StoreLog:
    """Listens to the store, and tells."""

    def __init__(self, tell: Callable[..., None], *, now: Callable[[], float]) -> None:
        """
        Wire it.

        Args:
            tell: Takes level, event and fields, and writes them if the level is on.
            now: Seconds, monotonic.

        """
        self._tell = tell
        self._quiet = Quiet(now)

    def listen(self, event: StoreEvent) -> None:
        """Write a line, if this is worth one."""
        match event:
            case StoreFailed() | StoreRecovered() | ClockJumped() | StoreReset():
                self._health(event)
            case DegradedBegan() | DegradedEnded() | OverAdmitted():
                self._degraded(event)
            case ReplicasSeen(differing=0):
                self._tell("info", "replicas_seen", live=event.live, version=event.version)
            case ReplicasSeen():
                self._tell(
                    "warning",
                    "replicas_differ",
                    live=event.live,
                    differing=event.differing,
                    version=event.version,
                )
            case StewardChanged(is_steward=True):
                self._tell("info", "steward_began", term=event.term)
            case StewardChanged():
                self._tell("info", "steward_ended", term=event.term)

    def _health(self, event: Health) -> None:
        match event:
            case StoreFailed():
                left_out = self._quiet.left_out(event.kind)
                if left_out is not None:
                    self._tell(
                        "error", "store_failed", kind=event.kind, detail=event.detail, left_out=left_out
                    )
            case StoreRecovered():
                seconds = round(event.seconds, 3)
                self._tell("warning", "store_recovered", seconds=seconds, left_out=self._quiet.end())
            case ClockJumped():
                self._tell("error", "clock_jumped", seconds=event.jumped_us / 1e6)
            case StoreReset():
                self._tell("warning", "store_reset", detail=event.detail)

    def _degraded(self, event: Degraded) -> None:
        match event:
            case DegradedBegan():
                self._tell(
                    "warning", "degraded_began", kind=event.kind, detail=event.detail, **only(event.operation)
                )
            case DegradedEnded():
                self._tell("info", "degraded_ended", seconds=round(event.seconds, 3), **only(event.operation))
            case OverAdmitted(over=0):
                self._tell("info", "degraded_counted", operation=event.operation, started=event.started)
            case OverAdmitted():
                self._tell(
                    "warning",
                    "over_admitted",
                    operation=event.operation,
                    started=event.started,
                    over=event.over,
                )


def only(operation: str) -> dict[str, str]:
    """Which operation it is about, when that is not all of them."""
    return {"operation": operation} if operation else {}
