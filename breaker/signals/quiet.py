"""
Quiet: what happens thousands of times in an incident has one line in ten seconds, which says how many were left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

QUIET_S = 10.0


@dataclass(slots=True)
class Told:
    """Not again before `until`; seconds of the clock."""

    until: float
    left_out: int = 0


class Quiet:
    """What was told lately, by a key from a closed set."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._told: dict[str, Told] = {}

    def left_out(self, key: str) -> int | None:
        """Whether it is told now: how many were not since it last was; None when this one is not, either."""
        now, told = self._now(), self._told.get(key)
        if told and now < told.until:
            told.left_out += 1
            return None
        self._told[key] = Told(now + QUIET_S)
        return told.left_out if told else 0

    def end(self) -> int:
        """It is over: how many were left out, of all keys; the next one is told at once."""
        left_out = sum(told.left_out for told in self._told.values())
        self._told.clear()
        return left_out
