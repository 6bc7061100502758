"""
Circuit posts: what this replica knows of each downstream, and what it says of it.

`circuits.py` acts on them: when something may start here, when it is told, and what is heard.
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum

from breaker.core.circuit import Circuit, CircuitState
from breaker.core.events import Result
from breaker.core.model import Operation
from breaker.core.quorum import CircuitTerms, Seen
from breaker.core.window import Window
from breaker.store.lane import Lane

SAYS_NOTHING = frozenset({Result.ABANDONED})  # of the downstream
DRAWS = 1_000
WORDS = {True: "ok", False: "failed", None: "gone"}  # of report.lua


class ByHand(StrEnum):
    """What a person says to a circuit; words of force.lua."""

    FORCED_OPEN = "forced-open"
    DISABLED = "disabled"
    AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """
    How something that had started ended, as its circuit sees it.

    Attributes:
        id: Of its lease.
        generation: Of the circuit when it started.
        took_us: How long the downstream took to answer.
        retry_after_us: What it asked for; None when it did not.

    """

    id: str
    tenant: str
    generation: int
    is_probe: bool
    result: Result
    took_us: int = 0
    retry_after_us: int | None = None


@dataclass(slots=True, kw_only=True)
class Post:
    """
    Our post before one downstream.

    Attributes:
        terms: None: no circuit, but pauses and an adaptive limit all the same.
        alone: A circuit of our own, which opens when we are alone with what we see.
        told: The window as it was told last; a change is told again.
        probes, pauses, pause_us, stress: What the next report says.
        began: The state in which this generation began: what ends by time is another one before it moves.
        before, why: That of the generation before, and why it ended.

    """

    lane: Lane
    operation: Operation
    terms: CircuitTerms | None
    window: Window
    alone: Circuit = field(default_factory=Circuit)
    told: Seen = field(default=Seen())
    probes: dict[str, bool | None] = field(default_factory=dict)
    pauses: dict[str, int] = field(default_factory=dict)
    pause_us: int = 0
    stress: int = 0
    is_telling: bool = False
    began: CircuitState = CircuitState.CLOSED
    before: CircuitState = CircuitState.CLOSED
    why: str = ""

    @property
    def is_alone(self) -> bool:
        return self.alone.state is not CircuitState.CLOSED

    @property
    def has_news(self) -> bool:
        return bool(self.probes or self.pauses or self.pause_us or self.stress)


def outcome_of(call: CallEnd, *, is_failure: bool) -> bool | None:
    """What a probe says: what a caller does wrong shows all the same that the downstream answers."""
    return None if call.result in SAYS_NOTHING or call.result is Result.SLOW_DOWN else not is_failure


def draw() -> int:
    """Chance in permille, so that replicas and operations spread."""
    return random.randrange(DRAWS)  # noqa: S311 - no secret


def changed(told: Seen, now: Seen) -> bool:
    return (told.calls, told.failed, told.slow, told.streak) != (now.calls, now.failed, now.slow, now.streak)
