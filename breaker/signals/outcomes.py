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

# What bars a call because its downstream is ill: no want of capacity, and `overflow: alert` lets nothing through.
ILL = frozenset({Policy.CIRCUIT, Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN})

# Limits on starts: what a call can be queued for, or be let through against.
LIMITS = frozenset(policy for policy in Policy if not policy.is_full) - {Policy.DRAINING, Policy.PAUSED} - ILL

# What can be rehearsed.
SHADOWED = LIMITS | {Policy.CIRCUIT}

_BODY = frozenset({"bad-request", "request-timeout", "payload-too-large"})
_REFUSED = _BODY | {"contract", "too-costly", "deadline", "degraded"}
_ENDS: dict[Outcome, frozenset[str]] = {
    Outcome.FORWARDED: frozenset({""}),
    Outcome.DELAYED: frozenset({""}),
    Outcome.FAILED: _BODY | {"deadline", "downstream-timeout", "downstream-unreachable", "cut", "bug"},
    Outcome.UNKNOWN: frozenset({"deadline", "downstream-timeout", "outcome-unknown", "bug"}),
    Outcome.ABANDONED: frozenset({"hang_up", "cut"}),
}

PAIRS: Mapping[Outcome, frozenset[str]] = _ENDS | {
    # A full waiting line cannot let anybody through: `alert` has no line.
    Outcome.OVER_CAPACITY: LIMITS - {Policy.WAITING},
    Outcome.REFUSED: _REFUSED | LIMITS | ILL | {Policy.DRAINING, Policy.PAUSED},
}

QUEUE_PAIRS: Mapping[Outcome, frozenset[str]] = _ENDS | {
    Outcome.QUEUED: LIMITS | ILL | {"asked", "known"},
    Outcome.REPLAYED: frozenset({""}),
    Outcome.REFUSED: _REFUSED
    | {policy for policy in Policy if policy.is_full}
    # By what bars its start when the job could not start before it expires; slots never say when.
    | ILL
    | {Policy.RATE, Policy.TENANT_RATE, Policy.CLOSED, Policy.QUOTA, Policy.DRAINING}
    | {"idempotency-key-reused", "in-progress", "durability-not-met", "result-expired"},
}

# What the edge refuses has no operation yet.
UNKNOWN_PAIRS: Mapping[Outcome, frozenset[str]] = {
    Outcome.REFUSED: _BODY
    | {"unauthenticated", "forbidden", "idempotency-key-missing"}
    | {"unknown-operation", "method-not-allowed", "over-capacity"},
}


def pairs_of(operation: str, *, has_queue: bool) -> Mapping[Outcome, frozenset[str]]:
    """What can become of a call for this operation."""
    if operation == UNKNOWN:
        return UNKNOWN_PAIRS
    return QUEUE_PAIRS if has_queue else PAIRS
