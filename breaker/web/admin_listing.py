"""
Listing: which jobs a person means, found in bounded steps.

The store lists an operation's jobs of one state by age; a filter is applied here. So a filter that few
jobs pass makes many steps, and each request makes only so many of them: its cursor goes on.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from breaker.core.job_policy import Band
from breaker.core.jobs import JobHead, JobState, Reason
from breaker.store.job_desk import JobDesk
from breaker.web.admin_fields import Fields
from breaker.web.admin_problems import AdminProblem

STEP = 100  # heads asked of the store at a time
LOOK_MAX = 1_000  # heads looked at for one page
FILTER = ("tenant", "band", "caller", "reason", "before", "since")

WRONG_CURSOR = "'after' is not a cursor of this question: ask without it first"

WAITING = (JobState.QUEUED, JobState.SCHEDULED)
LISTED = (JobState.RUNNING, *WAITING, JobState.UNKNOWN, JobState.DEAD)
_STUCK = frozenset({JobState.DEAD, JobState.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """
    What must be true of a job; what is empty, None or 0 is true of all.

    Attributes:
        not_in: A band in which it must not be.
        reason: Why it is dead or unknown.
        before_us, since_us: Bounds of its moment, microseconds since 1970: when it was accepted, or, if it
            is dead or unknown, when it became so.

    """

    tenant: str = ""
    band: Band | None = None
    not_in: Band | None = None
    caller: str = ""
    reason: Reason | None = None
    before_us: int = 0
    since_us: int = 0

    @property
    def is_all(self) -> bool:
        return self == Filter()

    def passes(self, head: JobHead) -> bool:
        moment_us = head.since_us if head.state in _STUCK else head.accepted_us
        return (
            self.tenant in ("", head.tenant)
            and self.band in (None, head.band)
            and self.not_in is not head.band
            and self.caller in ("", head.caller)
            and self.reason in (None, head.reason)
            and moment_us >= self.since_us
            and (not self.before_us or moment_us < self.before_us)
        )


def filter_of(values: Mapping[str, Any], now_us: int) -> Filter:
    """
    The filter that a query or a body describes.

    Raises:
        AdminProblem: It has a field that is not known, or cannot be read.

    """
    fields = Fields(values, *FILTER)
    return Filter(
        tenant=fields.text("tenant"),
        band=fields.word("band", Band),
        caller=fields.text("caller"),
        reason=fields.word("reason", Reason),
        before_us=fields.moment_us("before", now_us),
        since_us=fields.moment_us("since", now_us),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """
    Some jobs, each with its operation.

    Attributes:
        next: Cursor of the next page; empty at the end. A page may be empty and yet have one.
        looked: How many jobs were looked at.

    """

    rows: list[tuple[str, JobHead]]
    next: str
    looked: int


async def page(
    desk: JobDesk, places: Sequence[tuple[str, JobState]], only: Filter, *, after: str, limit: int
) -> Page:
    """
    The next jobs in these operations and states that pass a filter.

    Raises:
        AdminProblem: The cursor is not of these places.

    """
    at, cursor = place_of(after, places)
    try:
        return await found(desk, places, only, at, cursor, limit)
    except ValueError:
        raise AdminProblem(422, WRONG_CURSOR) from None


async def found(
    desk: JobDesk, places: Sequence[tuple[str, JobState]], only: Filter, at: int, cursor: str, limit: int
) -> Page:
    """Like `page`, from a place and the store's own cursor in it. Raises ValueError for a wrong one."""
    rows: list[tuple[str, JobHead]] = []
    looked = 0
    while at < len(places):
        operation, state = places[at]
        wanted = limit - len(rows)
        size = min(STEP, LOOK_MAX - looked, wanted if only.is_all else STEP)
        heads, following = await desk.listed(operation, state, after=cursor, limit=size)
        passing = [index for index, head in enumerate(heads) if only.passes(head)]
        if len(passing) > wanted:
            # Once more, shorter: only the store can say where the page after the last wanted one begins.
            size = passing[wanted - 1] + 1
            heads, following = await desk.listed(operation, state, after=cursor, limit=size)
        rows += [(operation, head) for head in heads if only.passes(head)]
        looked += len(heads)
        cursor = following
        if not cursor:
            at += 1
        if len(rows) >= limit or looked >= LOOK_MAX:
            break
    more = f"{'/'.join(places[at])}/{cursor}" if at < len(places) else ""
    return Page(rows=rows, next=more, looked=looked)


def place_of(after: str, places: Sequence[tuple[str, JobState]]) -> tuple[int, str]:
    """Where a cursor goes on: the index of its place, and the store's own cursor in it."""
    if not after:
        return 0, ""
    operation, _, rest = after.partition("/")
    state, _, cursor = rest.partition("/")
    for index, place in enumerate(places):
        if place == (operation, state):
            return index, cursor
    raise AdminProblem(422, WRONG_CURSOR)


async def walk(
    desk: JobDesk, operation: str, states: Sequence[JobState], only: Filter
) -> AsyncIterator[list[JobHead]]:
    """All jobs that pass, a step at a time; a step in which none did is an empty list."""
    for state in states:
        cursor = ""
        while True:
            heads, cursor = await desk.listed(operation, state, after=cursor, limit=STEP)
            yield [head for head in heads if only.passes(head)]
            if not cursor:
                break
