"""
The circuit log: ill downstreams, as lines.

1. The replica whose step moved a circuit says why. Every other one says what it heard, once.
2. A downstream that asks for time is told once in ten seconds by operation: as many calls as were in flight hear it.
3. Retries of calls are debug: their number is a metric, and the line of the call says how it ended.
"""

from collections.abc import Callable

from breaker.core.circuit import CircuitState
from breaker.core.events import CallRetried, CircuitMoved, CircuitSeen, LoneReplica, SlowedDown
from breaker.signals.quiet import Quiet

CircuitEvent = CircuitMoved | CircuitSeen | LoneReplica | SlowedDown | CallRetried
SHUT = (CircuitState.OPEN, CircuitState.FORCED_OPEN)


class CircuitLog:
    """Listens to circuits, and tells."""

    def __init__(self, tell: Callable[..., None], *, now: Callable[[], float]) -> None:
        """
        Wire it.

        Args:
            tell: Takes level, event and fields, and writes them if the level is on.
            now: Seconds, monotonic.

        """
        self._tell = tell
        self._quiet = Quiet(now)
        self._heard: dict[str, str] = {}

    def listen(self, event: CircuitEvent) -> None:
        """Write a line, if this is worth one."""
        operation = event.operation
        match event:
            case CircuitMoved():
                level, word = (
                    ("warning", "circuit_opened") if event.state in SHUT else ("info", "circuit_moved")
                )
                self._tell(
                    level, word, operation=operation, was=event.was, state=event.state,
                    generation=event.generation, detail=event.detail,
                )  # fmt: skip
            case CircuitSeen():
                if self._heard.get(operation, CircuitState.CLOSED) != event.state:
                    self._heard[operation] = event.state
                    self._tell("info", "circuit_seen", operation=operation, state=event.state)
            case LoneReplica(is_lone=True):
                self._tell("warning", "lone_replica", operation=operation, detail=event.detail)
            case LoneReplica():
                self._tell("info", "lone_replica_ended", operation=operation, detail=event.detail)
            case SlowedDown():
                left_out = self._quiet.left_out(operation)
                if left_out is not None:
                    seconds = round(event.seconds, 3)
                    self._tell(
                        "info", "slowed_down", operation=operation, tenant=event.tenant, seconds=seconds,
                        left_out=left_out,
                    )  # fmt: skip
            case CallRetried():
                self._tell("debug", "call_retried", operation=operation, reason=event.reason)
