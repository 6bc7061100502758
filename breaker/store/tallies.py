"""
Tallies: what all replicas counted of an operation's calls, for alerts that look back.

Each replica adds its counts every few seconds to buckets of a minute, of five and of an hour, which the store's clock
chooses; the steward reads their sums. A window of an hour is the last twelve whole buckets of five minutes and the one that
has begun. So nothing is lost when the steward or a replica ends, and nobody keeps a history of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from breaker.core.alert_table import FAILED_RESULTS
from breaker.store.capacity import CapacityStore

NAMES = (
    "all", "bad", "refused", "full", "queued", "delayed", "turned_away", "let_through", "answers", "failures",
    *FAILED_RESULTS,
)  # fmt: skip
RECENT_S = 300

# How each window is made of buckets: unit, and how many whole ones.
WINDOWS: Mapping[int, tuple[str, int]] = {
    300: ("m", 5), 1_800: ("f", 6), 3_600: ("f", 12), 7_200: ("f", 24), 21_600: ("f", 72), 86_400: ("h", 24),
    259_200: ("h", 72),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """
    Sums over all replicas.

    Attributes:
        recent: In the last five minutes, by name; see `signals/tally.py` for what each counts.
        windows: By length in seconds, (all, bad) calls of the error budget; empty unless they were asked for.

    """

    recent: Mapping[str, int] = field(default_factory=dict)
    windows: Mapping[int, tuple[int, int]] = field(default_factory=dict)


class Tallies:
    """Adds and reads, on the line on which decisions go."""

    def __init__(self, capacity: CapacityStore) -> None:
        self._capacity = capacity

    async def add(self, operation: str, counts: Mapping[str, int], now_us: int | None = None) -> None:
        """
        Add what was counted since the last time.

        Args:
            now_us: Instead of the store's clock.

        Raises:
            StoreError: It may not have been added.

        """
        pairs = [part for name, count in counts.items() for part in (name, count)]
        await self._run(operation, "tally", now_us, *pairs)

    async def read(self, operation: str, *, is_long: bool, now_us: int | None = None) -> Tallied:
        """
        The sums.

        Args:
            is_long: Those of the windows as well.
            now_us: Instead of the store's clock.

        Raises:
            StoreError: They cannot be had now.

        """
        windows = WINDOWS if is_long else {}
        pairs = [part for pair in windows.values() for part in pair]
        reply = await self._run(operation, "tallied", now_us, len(NAMES), *NAMES, *pairs)
        recent, sums = reply[2 : 2 + len(NAMES)], reply[2 + len(NAMES) :]
        return Tallied(
            recent=dict(zip(NAMES, recent, strict=True)),
            windows={seconds: (found[0], found[1]) for seconds, found in zip(windows, sums, strict=True)},
        )

    async def _run(self, operation: str, verb: str, now_us: int | None, *arguments: str | int) -> list[Any]:
        capacity = self._capacity
        given = b"" if now_us is None else now_us
        return await capacity.coalescer.run(capacity.lane(operation), verb, given, *arguments)
