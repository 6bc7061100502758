"""
History: fifteen days of numbers as a gateway would have left them in Prometheus, made up.

What plans over weeks cannot be waited for. The shape is that of an office: busy by day, quiet at night and at weekends,
and growing. Names and labels are those of the live metrics, which `grafana/lint.py` holds against the manual.
"""

import itertools
import math
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DAY_S = 86_400
DAYS = 15
STEP_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """
    How one operation was used.

    Attributes:
        rate, slots: Its limits; `per_day` is its quota, 0 without one.
        busy: Starts per second at the busiest hour of the first day.
        growth: By which that grows in a day.
        night: Share of the day's demand at night.

    """

    operation: str
    rate: float
    slots: int
    busy: float
    growth: float
    night: float = 0.1
    per_day: int = 0
    jobs_max: int = 0


def demand(course: Course, moment: float, began: float) -> float:
    """Starts wanted per second."""
    day = (moment % (7 * DAY_S)) / DAY_S  # 0 is a Thursday
    hour = moment % DAY_S / 3_600
    is_weekend = int(day) in (2, 3)
    by_day = max(course.night, math.exp(-(((hour - 13) / 4) ** 2)))
    ripple = 1 + 0.08 * math.sin(moment / 977) + 0.05 * math.sin(moment / 311)
    grown = 1 + course.growth * (moment - began) / DAY_S
    return course.busy * by_day * (0.25 if is_weekend else 1) * ripple * grown


def samples(courses: list[Course], now: float, job: str) -> Iterator[str]:
    """OpenMetrics text, family by family."""
    end = int(now) // STEP_S * STEP_S - STEP_S
    moments = range(end - DAYS * DAY_S, end, STEP_S)
    wanted = {
        course.operation: [demand(course, moment, moments[0]) for moment in moments] for course in courses
    }
    series: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for course in courses:
        for name, labels, values in (
            *capacity(course, wanted[course.operation]),
            *quota(course, wanted[course.operation], moments),
            *jobs(course, wanted[course.operation]),
            *calls(course, wanted[course.operation]),
        ):
            series[name][",".join(filter(None, (f'operation="{course.operation}"', labels)))] = values
    for name, family in series.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        yield f"# TYPE {name.removesuffix('_total')} {kind}"
        for labels, values in family.items():
            for value, moment in zip(values, moments, strict=True):
                yield f'{name}{{job="{job}",instance="history",{labels}}} {value:.10g} {moment}'
    # What ran until two minutes ago, so that the version of now is a new one.
    for name in ("breaker_config_info", "breaker_build_info"):
        yield f"# TYPE {name} gauge"
        yield f'{name}{{job="{job}",instance="history",version="before"}} 1 {int(now) - 150}'
    yield "# EOF"


Series = Iterator[tuple[str, str, list[float]]]


def capacity(course: Course, wanted: list[float]) -> Series:
    for limit, most in (("rate", course.rate), ("concurrency", course.slots)):
        labels, scaled = f'limit="{limit}"', [value * most / course.rate for value in wanted]
        yield "breaker_capacity_wanted", labels, scaled
        yield "breaker_capacity_used", labels, [min(value, most) for value in scaled]
        yield "breaker_capacity_limit", labels, [most] * len(wanted)
        yield "breaker_capacity_configured", labels, [most] * len(wanted)


def quota(course: Course, wanted: list[float], moments: range) -> Series:
    if not course.per_day:
        return
    used, today = [], 0.0
    for value, moment in zip(wanted, moments, strict=True):
        today = min(course.per_day, value * STEP_S + (today if moment % DAY_S else 0.0))
        used.append(today)
    yield "breaker_capacity_used", 'limit="quota"', used
    yield "breaker_capacity_limit", 'limit="quota"', [course.per_day] * len(wanted)


def jobs(course: Course, wanted: list[float]) -> Series:
    if not course.jobs_max:
        return
    waiting = [0.0]
    for value in wanted[1:]:
        waiting.append(max(0.0, min(course.jobs_max, waiting[-1] + (value - course.rate) * STEP_S)))
    yield "breaker_queue_jobs", 'state="queued"', waiting
    yield "breaker_queue_limit_jobs", "", [course.jobs_max] * len(wanted)


def calls(course: Course, wanted: list[float]) -> Series:
    action = "queued" if course.jobs_max else "delayed"
    beyond = [max(0.0, value - course.rate) for value in wanted]
    for name, labels, rates in (
        ("breaker_calls_total", 'outcome="forwarded",reason=""', wanted),
        ("breaker_over_capacity_total", f'action="{action}"', beyond),
    ):
        yield name, labels, list(itertools.accumulate(rate * STEP_S for rate in rates))


def fill(folder: Path, courses: list[Course], now: float, job: str) -> None:
    """Write blocks into a Prometheus' folder, before it starts."""
    text = folder.parent / "history.txt"
    with text.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in samples(courses, now, job))
    done = subprocess.run(
        [
            "promtool",
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "--max-block-duration=720h",
            "-q",
            text,
            folder,
        ],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
