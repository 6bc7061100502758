"""
Trend: how a number went lately, and where it is going.

The steward keeps one for each number that it forecasts. It begins anew with each steward: until it has seen enough it
forecasts nothing, and the rules for Prometheus, which remember longer, do.
"""

from collections import deque

EVERY_S = 15.0
HORIZON_S = 3_600.0
WINDOW_S = 900.0  # of which the line is drawn
ENOUGH_S = 180.0


class Trend:
    """One number over the last hour, one point each 15 s; seconds of any steady clock."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def note(self, at_s: float, value: float) -> None:
        """What it is now."""
        points = self._points
        if points and at_s - points[-1][0] < EVERY_S:
            return
        points.append((at_s, value))
        while at_s - points[0][0] > HORIZON_S + EVERY_S:
            points.popleft()

    def slope(self, now_s: float) -> float | None:
        """By how much it grows per second: least squares over the last quarter of an hour; None: too little is known."""
        points = [(at - now_s, value) for at, value in self._points if now_s - at <= WINDOW_S]
        if len(points) < 3 or points[-1][0] - points[0][0] < ENOUGH_S:  # noqa: PLR2004 - two points are no trend
            return None
        count = len(points)
        mean_at, mean_value = sum(at for at, _ in points) / count, sum(value for _, value in points) / count
        spread = sum((at - mean_at) ** 2 for at, _ in points)
        return sum((at - mean_at) * (value - mean_value) for at, value in points) / spread

    def an_hour_ago(self) -> float | None:
        """The oldest that is known, at most an hour old."""
        return self._points[0][1] if self._points else None
