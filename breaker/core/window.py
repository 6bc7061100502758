"""
Window: how the calls of one replica to one downstream went lately.

Ten buckets of time that are summed up as they are asked for. Counting a call is a few additions: it is done for each.
"""

from dataclasses import dataclass, field

from breaker.core.quorum import Seen

BUCKETS = 10


@dataclass(slots=True, kw_only=True)
class Window:
    """
    Calls of the last `window_us`, of one generation of the circuit.

    Attributes:
        streak: Failures in a row, also beyond the window; `streak_us`: when the first of them was counted.

    """

    window_us: int
    generation: int = 0
    streak: int = 0
    streak_us: int = 0
    calls: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    failed: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    slow: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    newest: int = 0

    def count(self, now_us: int, *, failed: bool, slow: bool) -> None:
        """One more call ended."""
        self.forget(now_us)
        at = self.newest % BUCKETS
        self.calls[at] += 1
        self.failed[at] += failed
        self.slow[at] += slow
        if failed and self.streak == 0:
            self.streak_us = now_us
        self.streak = self.streak + 1 if failed else 0

    def forget(self, now_us: int) -> None:
        """Drop what is older than the window."""
        bucket = now_us * BUCKETS // self.window_us
        behind = bucket - self.newest
        if behind == 0:
            return
        # Also when time went back: what was counted then is of no use.
        for step in range(1, min(behind, BUCKETS) + 1 if behind > 0 else BUCKETS + 1):
            at = (self.newest + step) % BUCKETS
            self.calls[at] = self.failed[at] = self.slow[at] = 0
        self.newest = bucket

    def seen(self, now_us: int) -> Seen:
        """
        The sums at this moment.

        Failures in a row count where calls are rare: where they lasted for a whole window. Five within a second
        are told by the number of calls.
        """
        self.forget(now_us)
        streak = self.streak if now_us - self.streak_us >= self.window_us else 0
        return Seen(
            at_us=now_us, calls=sum(self.calls), failed=sum(self.failed), slow=sum(self.slow), streak=streak
        )  # fmt: skip

    def restart(self, generation: int) -> None:
        """A new generation: what was counted before is not looked at."""
        self.generation, self.streak = generation, 0
        for counts in (self.calls, self.failed, self.slow):
            counts[:] = [0] * BUCKETS
