"""
Outcomes: which (outcome, reason) pairs a call can end in.

A counter that first appears at 1 has no increase, so the pairs that can occur exist from the
start. The full product of outcomes and reasons would be five times as many series, nearly all of
them for ever 0. A pair that nobody foresaw is still counted, from its first occurrence on.
"""

from collections.abc import Mapping

from breaker.core.events import Outcome
from breaker.core.verdict import Policy

UNKNOWN = "_unknown"  # the operation of calls that match none
OTHER = "other"  # the reason of what is not in the closed set

_EDGE = frozenset({"unauthenticated", "forbidden", "bad-request", "request-timeout", "payload-too-large"})
_BODY = frozenset({"bad-request", "request-timeout", "payload-too-large"})

PAIRS: Mapping[Outcome, frozenset[str]] = {
    Outcome.FORWARDED: frozenset({""}),
    Outcome.DELAYED: frozenset({""}),
    # A full waiting line cannot let anybody through: `alert` has no line.
    Outcome.OVER_CAPACITY: frozenset(Policy) - {Policy.WAITING},
    Outcome.REFUSED: frozenset(Policy) | _EDGE | {"contract", "too-costly", "deadline", "degraded"},
    Outcome.FAILED: _BODY | {"deadline", "downstream-timeout", "downstream-unreachable", "cut", "bug"},
    Outcome.UNKNOWN: frozenset({"deadline", "downstream-timeout", "outcome-unknown", "bug"}),
    Outcome.ABANDONED: frozenset({"hang_up", "cut"}),
}

UNKNOWN_PAIRS: Mapping[Outcome, frozenset[str]] = {
    Outcome.REFUSED: _EDGE | {"unknown-operation", "method-not-allowed", "over-capacity"},
}


def pairs_of(operation: str) -> Mapping[Outcome, frozenset[str]]:
    """What can become of a call for this operation."""
    return UNKNOWN_PAIRS if operation == UNKNOWN else PAIRS
