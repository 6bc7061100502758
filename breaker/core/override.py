"""
Override: what a person changes of an operation's limits for a while, and which limits that makes.

The store runs the same rules in `store/lua/set.lua`; `tests/store/test_override.py` holds the two together.

1. What is not said stays as it is stated now: by an override that has not ended, else the schedule, else the file.
2. A burst belongs to a rate. Where there was no rate, it is the least into which every cost fits.
3. What reaches further back than the store can count is refused.
4. Concurrency that is set beyond what it has adapted to adapts anew from there.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from breaker.core.circuit import Circuit
from breaker.core.model import Limits, Rate
from breaker.core.rate import TAU_MAX_US, tau_us


class Wrong(StrEnum):
    """Why a change cannot be made to these limits."""

    NO_RATE = "no-rate"
    TOO_FAR = "too-far"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    What a person says; None is not said.

    Attributes:
        rate: Its own burst says nothing. A limit of 0 closes the operation.
        burst: At least `burst_least`.
        concurrency: 0 closes the operation.
        burst_least: The most that one call of the operation may cost.

    """

    rate: Rate | None = None
    burst: int | None = None
    concurrency: int | None = None
    burst_least: int = 1


def changed(limits: Limits, change: Change) -> Limits | Wrong:
    """The limits after a change of these."""
    rate, concurrency = change.rate or limits.rate, limits.concurrency
    if change.concurrency is not None:
        concurrency = change.concurrency
    if rate is None:
        return Limits(concurrency=concurrency) if change.burst is None else Wrong.NO_RATE
    burst = change.burst
    if burst is None:
        burst = max(limits.rate.burst if limits.rate else 1, change.burst_least)
    after = Limits(rate=replace(rate, burst=burst), concurrency=concurrency)
    return after if tau_us(after) <= TAU_MAX_US else Wrong.TOO_FAR


def adapt_anew(circuit: Circuit, change: Change) -> None:
    """Rule 4."""
    if change.concurrency is not None and change.concurrency > circuit.adaptive:
        circuit.adaptive = 0
