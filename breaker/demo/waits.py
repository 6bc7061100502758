"""
Waits: how long jobs waited, beside what their 202 had said.

1. A job that goes downstream alone is seen there by its request id, so its wait ends when the downstream
   began with it. In a batch it has no id of its own: there its wait ends with the job, a little later.
2. A 202 says when the job will probably start if nobody comes who goes first. Those who come later and go
   first all the same (a higher band; a customer who waits for little, before one who waits for much) are
   fairness, not a wrong reckoning. So the pace is judged: what was said, for as many as did go first.
3. How many jobs started in the time that was said, whoever went first, is shown.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from breaker.core.job_policy import BANDS
from breaker.demo.followed import Job
from breaker.demo.orders import HEAVY_CUSTOMER
from breaker.demo.told import Told, starts_of

PACE_MIN = 0.8  # of the jobs; p90 is for nine of ten, and a run of seconds has few
PACE_BETWEEN = (0.5, 2.0)  # of what was said (p50): who always says "an hour" is in time, too
JUDGED_MIN = 10  # jobs; fewer say nothing
_P50, _P90 = 0.5, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """
    How long one job waited.

    Attributes:
        waited_s: Seconds from the 202 to the start; None while it has not started.
        so_far_s: Seconds that it has waited in any case.
        went_first: Calls and jobs of its operation that started in that time; None when that cannot be known.

    """

    job: Job
    waited_s: float | None
    so_far_s: float
    went_first: int | None

    @property
    def is_kept(self) -> bool | None:
        """Whether it started within the p90 that was said; None when that cannot be known."""
        return self._is_within(self.job.eta_p90_s)

    @property
    def is_pace_right(self) -> bool | None:
        """The same for as many as did go first (rule 2)."""
        most_s, position = self.job.eta_p90_s, self.job.position
        if most_s is None or position is None or self.went_first is None:
            return None
        return self._is_within(most_s * max(1.0, self._starts / (position + 1)))

    @property
    def pace(self) -> float | None:
        """What it took, as a multiple of the p50 that was said, for as many as did go first."""
        said_s, position = self.job.eta_p50_s, self.job.position
        if not said_s or position is None or self.waited_s is None or self.went_first is None:
            return None
        return self.waited_s / said_s * (position + 1) / self._starts

    @property
    def _starts(self) -> int:
        """Its own, and those that went first."""
        return max(0, self.went_first or 0) + 1

    def _is_within(self, most_s: float | None) -> bool | None:
        if most_s is None:
            return None
        if self.waited_s is not None:
            return self.waited_s <= most_s
        return False if self.so_far_s > most_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """
    Jobs of one operation and band: those of the customer with most of them, or those of all others.

    Attributes:
        said_s, took_s: p50 and p90 over the jobs, in seconds: of the ETA's p50 and p90, of the waits; None
            without any.
        kept, judged: Jobs that started within their p90, of those of which it is known.

    """

    operation: str
    band: str
    whose: str
    jobs: int
    said_s: tuple[float, float] | None
    took_s: tuple[float, float] | None
    kept: int
    judged: int


def waits_of(jobs: Sequence[Job], told: Told) -> list[Wait]:
    """Of jobs of one operation."""
    if not jobs:
        return []
    name = jobs[0].operation
    pipeline = told.operations[name].pipeline
    starts = {} if told.is_batched(name) else {id_: at_s for _, id_, at_s, _ in starts_of(pipeline, told)}
    in_order = sorted(starts.values())
    waits = []
    for job in jobs:
        at_s = starts.get(job.request_id) or (job.ended_s or None)
        went_first = bisect_left(in_order, at_s or math.inf) - bisect_right(in_order, job.told_s)
        waits.append(
            Wait(
                job=job,
                waited_s=max(0.0, at_s - job.told_s) if at_s else None,
                so_far_s=told.ended_us / 1e6 - job.told_s,
                went_first=went_first if starts else None,
            )
        )
    return waits


def share_of(answers: Iterable[bool | None]) -> tuple[int, int]:
    """How many are true, of those that are known."""
    known = [answer for answer in answers if answer is not None]
    return sum(known), len(known)


def groups_of(told: Told) -> list[Group]:
    """All jobs, by operation, band, and whether they are those of the heavy customer."""
    found = []
    for name in told.queues:
        waits = waits_of(told.jobs_of(name), told)
        for band in BANDS:
            for whose in (HEAVY_CUSTOMER, "others"):
                mine = [
                    wait
                    for wait in waits
                    if wait.job.band == band
                    and (wait.job.order.tenant == HEAVY_CUSTOMER) == (whose == HEAVY_CUSTOMER)
                ]
                if mine:
                    found.append(_group(name, band, whose, mine))
    return found


def _group(name: str, band: str, whose: str, waits: Sequence[Wait]) -> Group:
    said = [wait.job for wait in waits if wait.job.eta_p50_s is not None]
    took = [wait.waited_s for wait in waits if wait.waited_s is not None]
    kept, judged = share_of(wait.is_kept for wait in waits)
    return Group(
        operation=name, band=band, whose=whose, jobs=len(waits), kept=kept, judged=judged,
        said_s=(
            quantile([job.eta_p50_s or 0.0 for job in said], _P50),
            quantile([job.eta_p90_s or 0.0 for job in said], _P50),
        ) if said else None,
        took_s=(quantile(took, _P50), quantile(took, _P90)) if took else None,
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above; of at least one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
