"""
Units: how durations, rates and sizes are written, both ways.

    durations   250ms 10s 5m 2h 3d                 integer milliseconds
    rates       20/s 600/min 5/h 100/day 70/week   starts per period; 0/s is closed
    sizes       500 256KiB 1MB 1MiB                bytes; KB is 1000, KiB is 1024

A `parse_` raises ValueError with a sentence for the person who wrote the value; a `format_`
writes what the `parse_` of that name reads back.
"""

import json
import re

from breaker.core.model import Rate

DURATIONS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
PERIODS_US = {
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
SIZES = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

DURATION_PATTERN = r"^[0-9]{1,12}(ms|s|m|h|d)$"
RATE_PATTERN = r"^[0-9]{1,12}/(s|min|h|day|week)$"
SIZE_PATTERN = r"^[0-9]{1,12}(B|KB|MB|GB|KiB|MiB|GiB)?$"

# Words that people write instead, and what they mean here.
_OTHER_WORDS = {
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "minute": "m",
    "minutes": "m",
    "min": "m",
    "mins": "m",
    "hour": "h",
    "hours": "h",
    "hr": "h",
    "day": "d",
    "days": "d",
}
_OTHER_PERIODS = {
    "sec": "s",
    "second": "s",
    "m": "min",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "d": "day",
    "w": "week",
}
_OTHER_SIZES = {"k": "KiB", "kb": "KB", "kib": "KiB", "m": "MiB", "mb": "MB", "mib": "MiB", "g": "GiB"}
_OTHER_SIZES |= {"gb": "GB", "gib": "GiB", "b": "B"}

_DURATION_MAX_MS = 366 * DURATIONS_MS["d"]


def parse_duration(value: object) -> int:
    """Milliseconds of `250ms`, `10s`, `5m`, `2h` or `3d`; at most 366 days."""
    grammar = "a duration is a whole number and a unit: 250ms, 10s, 5m, 2h or 3d"
    amount, unit = _split(value, r"", grammar)
    if unit not in DURATIONS_MS:
        raise ValueError(_wrong_unit(value, amount, unit, _OTHER_WORDS, grammar))
    duration_ms = amount * DURATIONS_MS[unit]
    if duration_ms > _DURATION_MAX_MS:
        raise ValueError(f"{value!r} is longer than 366 days")
    return duration_ms


def parse_rate(value: object) -> Rate:
    """The Rate (burst 1) of `20/s`, `600/min`, `5/h`, `100/day` or `70/week`."""
    grammar = "a rate is a whole number per s, min, h, day or week: 20/s, 600/min or 70/week"
    limit, period = _split(value, r"\s*(?:/|per )\s*", grammar)
    if period not in PERIODS_US:
        raise ValueError(_wrong_unit(value, limit, period, _OTHER_PERIODS, grammar, "/"))
    rate = Rate(limit=limit, period_us=PERIODS_US[period])
    if rate.limit > rate.period_us:
        raise ValueError(f"{value!r} is more than one start per microsecond: leave the rate out")
    return rate


def parse_size(value: object) -> int:
    """Bytes of `500`, `256KiB`, `1MB` or `1MiB`."""
    grammar = "a size is a whole number of bytes, or one with a unit: 500, 256KiB, 1MB or 1MiB"
    amount, unit = _split(str(value) if type(value) is int else value, r"", grammar)
    if unit not in SIZES:
        raise ValueError(_wrong_unit(value, amount, unit, _OTHER_SIZES, grammar))
    return amount * SIZES[unit]


def format_duration(duration_ms: int) -> str:
    """The shortest way to write these milliseconds."""
    units = [unit for unit, length_ms in DURATIONS_MS.items() if duration_ms % length_ms == 0]
    unit = units[-1] if duration_ms else "s"
    return f"{duration_ms // DURATIONS_MS[unit]}{unit}"


def format_rate(rate: Rate) -> str:
    """Limit and period as in the files; the burst stands in a field of its own."""
    names = {period_us: name for name, period_us in PERIODS_US.items()}
    if rate.period_us in names:
        return f"{rate.limit}/{names[rate.period_us]}"
    return f"{rate.limit * 1_000_000 / rate.period_us:.3g}/s"  # nobody wrote it: it is lowered for a while


def format_size(size: int) -> str:
    """The shortest exact way to write these bytes."""
    fits = [unit for unit in ("B", "KB", "KiB", "MB", "MiB", "GB", "GiB") if size % SIZES[unit] == 0]
    best = max(fits, key=lambda unit: SIZES[unit]) if size else "B"
    return f"{size // SIZES[best]}{best}".removesuffix("B") if best == "B" else f"{size // SIZES[best]}{best}"


def _split(value: object, between: str, grammar: str) -> tuple[int, str]:
    """Number and unit of a text; what is neither is refused with the grammar."""
    if not isinstance(value, str):
        raise ValueError(f"{json.dumps(value)} has no unit; {grammar}")  # noqa: TRY004 - one error for the person
    found = re.fullmatch(rf"([0-9]{{1,12}}){between}\s*([A-Za-z]*)", value)
    if found is None:
        raise ValueError(f"{value!r} cannot be read; {grammar}")
    return int(found[1]), found[2]


def _wrong_unit(
    value: object, amount: int, unit: str, others: dict[str, str], grammar: str, sign: str = ""
) -> str:
    meant = others.get(unit.lower())
    if meant is not None:
        return f"{value!r} has an unknown unit {unit!r} (did you mean '{amount}{sign}{meant}'?)"
    return f"{value!r} has no unit that is known; {grammar}"
