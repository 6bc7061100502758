"""
Amounts: numbers as a person reads them in an alert. Three digits are enough at 3 a.m.
"""

from datetime import UTC, datetime
from math import ceil

from breaker.core.model import Limits

_UNITS_S = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_PERIODS_S = ((1, "s"), (60, "min"), (3_600, "h"), (86_400, "day"), (604_800, "week"))


def number(value: float) -> str:
    """`34`, `5.2`, `0.25`: whole from ten on."""
    if value >= 10 or value == int(value):  # noqa: PLR2004 - two digits say enough
        return f"{value:.0f}"
    return f"{value:.2g}"


def per_second(value: float) -> str:
    """`34/s`, or by the minute or hour where a second is too short: `12/min`; `0/s`."""
    if value <= 0:
        return "0/s"
    for length_s, unit in _PERIODS_S:
        if value * length_s >= 1 or unit == "week":
            return f"{number(value * length_s)}/{unit}"
    raise AssertionError("the week is the last")


def span(seconds: float) -> str:
    """`3 h 5 min`, `41 s`: two units at most."""
    left = max(0, round(seconds))
    words = []
    for length_s, unit in _UNITS_S:
        count, left = divmod(left, length_s)
        if count:
            words.append(f"{count} {unit}")
        elif words:
            break
        if len(words) == 2:  # noqa: PLR2004 - the second unit is precise enough
            break
    return " ".join(words) or "0 s"


def counted(count: int, one: str, many: str) -> str:
    """`1 call`, `12 calls`."""
    return f"{count} {one if count == 1 else many}"


def share(ratio: float) -> str:
    """`130%`."""
    return f"{ratio:.0%}"


def moment(us: int) -> str:
    """A moment of unix time: `2026-11-30 14:05 UTC`."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")


def rate_at_least(per_s: float) -> str:
    """A rate as `breaker ops set` takes it, rounded up: `34/s`, `12/min`; `0/s`."""
    if per_s <= 0:
        return "0/s"
    for length_s, unit in _PERIODS_S:
        if per_s * length_s >= 1 or unit == "week":
            return f"{ceil(round(per_s * length_s, 6))}/{unit}"
    raise AssertionError("the week is the last")


def raised(limits: Limits, per_s: float, slots: float) -> str:
    """
    Arguments of `breaker ops set` that give at least so much, of the limits that the operation has.

    Args:
        per_s, slots: What is needed.

    """
    words = []
    if limits.rate and per_s * limits.rate.period_us / 1e6 > limits.rate.limit:
        words.append(f"rate={rate_at_least(per_s)}")
    if limits.concurrency is not None and slots > limits.concurrency:
        words.append(f"concurrency={ceil(slots)}")
    if not words and limits.rate:
        words.append(f"rate={rate_at_least(max(per_s, limits.rate.limit * 1e6 / limits.rate.period_us))}")
    if not words and limits.concurrency is not None:
        words.append(f"concurrency={max(ceil(slots), limits.concurrency)}")
    return " ".join(words) or f"rate={rate_at_least(per_s)}"
