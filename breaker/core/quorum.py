"""
Quorum: do the replicas together see that a downstream fails?

1. The share of failed or slow calls over all replicas is above what the operation allows.
2. There were enough calls; where calls are rare, failures in a row on enough replicas count instead.
3. Enough replicas see it by themselves: two and a third of those that made calls; one, if only one did. One bad
   node must not cut off good ones.
"""

from dataclasses import dataclass

VOTE_CALLS = 3  # a replica with fewer calls in its window has no say


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitTerms:
    """
    What a circuit goes by, as the scripts read it.

    Attributes:
        failure_ppm, slow_ppm: Shares in millionths; `slow_ppm` 0 does not count slow calls.
        is_shadow: It moves, and bars nothing.

    """

    failure_ppm: int = 500_000
    slow_ppm: int = 0
    min_calls: int = 10
    consecutive: int = 5
    window_us: int = 30_000_000
    open_us: int = 5_000_000
    open_max_us: int = 300_000_000
    probes: int = 3
    ramp_us: int = 30_000_000
    is_shadow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    What one replica sees of a downstream within its window.

    Attributes:
        streak: Failures in a row, however long ago.

    """

    at_us: int = 0
    calls: int = 0
    failed: int = 0
    slow: int = 0
    streak: int = 0


def is_over(terms: CircuitTerms, calls: int, failed: int, slow: int) -> bool:
    """Whether these shares are too high; nothing is too high a share of no calls."""
    if calls == 0:
        return False
    is_failing = failed * 1_000_000 >= terms.failure_ppm * calls
    return is_failing or (terms.slow_ppm > 0 and slow * 1_000_000 >= terms.slow_ppm * calls)


def trips(terms: CircuitTerms, windows: list[Seen]) -> bool:
    """Whether these replicas together see enough of it."""
    made_calls = [seen for seen in windows if seen.calls]
    calls = sum(seen.calls for seen in made_calls)
    if not is_over(
        terms, calls, sum(seen.failed for seen in made_calls), sum(seen.slow for seen in made_calls)
    ):
        return False
    quorum = 1 if len(made_calls) == 1 else max(2, -(-len(made_calls) // 3))
    in_a_row = sum(seen.streak >= terms.consecutive for seen in made_calls)
    votes = sum(
        seen.streak >= terms.consecutive
        or (seen.calls >= VOTE_CALLS and is_over(terms, seen.calls, seen.failed, seen.slow))
        for seen in made_calls
    )
    return votes >= quorum and (calls >= terms.min_calls or in_a_row >= quorum)
