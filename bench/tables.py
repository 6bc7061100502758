"""
Tables: how results look in docs/benchmarks.md, whatever the part.
"""

from typing import Any


def machine_line(part: dict[str, Any]) -> str:
    machine = part["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Measured {part['measured_at']} on {machine['cores']} cores ({machine['cpu']}), Python {machine['python']}, "
        f"{versions}; store: {part['store']}, append-only file: {part['fsync']}; a small fsync takes {machine['fsync_ms']['p50']} ms "
        f"(p99 {machine['fsync_ms']['p99']} ms); "
        f"load average before: {machine['load_before']:.1f}."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def not_measured(subject: dict[str, Any], *, columns: int) -> list[str]:
    return [subject["title"], f"not measured: {first_line(subject['left_out'])}", *["-"] * (columns - 2)]


def first_line(text: str) -> str:
    return text.splitlines()[0].replace("|", "/")


def count(value: float) -> str:
    return f"{value:,.0f}"
