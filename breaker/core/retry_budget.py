"""
Retry budget: is a direct call that failed tried again, and after which pause?

What is worth another attempt is judged in `gateway/direct_retries.py`; jobs have `retry.py`.

1. Full jitter over `min(cap, base * 2^n)` (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
   2015). A downstream that names a moment is not asked before it, and those that it told the same one come
   back spread over that pause behind it.
2. A pause that would end after the time is up is not begun: the caller learns of the failure now, not later.
3. Of an operation, no more calls at once are in a pause or a further attempt than a fifth of the calls in
   flight, or three where there are few (Envoy, `retry_budget`: 20 %, 3). Without it every layer that tries three
   times makes three times the load, just when there is least room for it. Pauses count, because what is in one
   comes back (envoyproxy/envoy#30205).
"""

from dataclasses import dataclass

from breaker.core.circuit_policy import DirectRetry

CALLS_PER_RETRY = 5
RETRIES_MIN = 3  # so many may always be under way
ASKED_MAX_US = 30_000_000  # a downstream that asks for more is answered for now: somebody waits
_DOUBLINGS_MAX = 40  # far above any cap; keeps 2^n small


@dataclass(slots=True, kw_only=True)
class RetryBudget:
    """
    The calls of one operation in one replica.

    Attributes:
        calls: In flight, pauses included; whoever forwards counts them.
        retries: How many of them are in a pause, or in an attempt after the first.

    """

    calls: int = 0
    retries: int = 0

    def begin(self) -> bool:
        """Take a place for one retry, if there is one; from before its pause until `end`."""
        if self.retries >= max(RETRIES_MIN, self.calls // CALLS_PER_RETRY):
            return False
        self.retries += 1
        return True

    def end(self) -> None:
        """Give the place back, whatever came of the retry."""
        self.retries -= 1


def pause_us(
    policy: DirectRetry,
    *,
    attempts: int,
    left_us: int | None,
    draw: float,
    retry_after_us: int | None = None,
) -> int | None:
    """
    How long to wait before the next attempt; None when there is none.

    Args:
        attempts: That were made; at least 1, and all of them failed.
        left_us: Until the call's time is up; None when it has no end.
        draw: Chance, at least 0 and below 1.
        retry_after_us: What the downstream asked for; None when it did not.

    """
    if attempts >= policy.attempts or (retry_after_us or 0) > ASKED_MAX_US:
        return None
    most_us = min(policy.cap_ms, policy.base_ms * 2 ** min(attempts - 1, _DOUBLINGS_MAX)) * 1_000
    pause = (retry_after_us or 0) + int(draw * most_us)
    return pause if left_us is None or pause < left_us else None
