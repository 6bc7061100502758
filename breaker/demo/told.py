"""
Told: everything that callers, gateway and downstreams told, and a check that holds two of them together.

Plain values; the rules are in `verdict.py` (calls) and `ledger.py` (jobs).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from breaker.core.events import Outcome
from breaker.core.model import Operation
from breaker.demo.callers import NO_ANSWER, Callers, Tally
from breaker.demo.followed import Job
from breaker.demo.view import Counted, Queue, Seen

LISTS_MAX = 100_000  # a downstream keeps the newest
_MAY_HAVE_ARRIVED = (Outcome.UNKNOWN, Outcome.FAILED, Outcome.ABANDONED)
# How the gateway names a request with several jobs: the slot that they share, the first of them, how many.
_BATCH = re.compile(r"[0-9A-Z]{26}\.\d+\.\d+-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Two numbers that must fit, and whether they do."""

    about: str
    what: str
    left: str
    right: str
    agrees: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """
    Everything that was told.

    Attributes:
        before, after: What the gateway counted, by operation.
        queues_before, queues: Of the operations with a queue.
        seen: By pipeline, with lists.
        carried: By pipeline the calls that were in flight when the downstream began to count.
        began_us, ended_us: Of the traffic, microseconds since 1970.
        store_errors: How often the store did not answer the gateway.
        others_may_call: The gateway may have counted more than our callers did.

    """

    operations: Mapping[str, Operation]
    callers: Callers
    before: Mapping[str, Counted]
    after: Mapping[str, Counted]
    queues_before: Mapping[str, Queue]
    queues: Mapping[str, Queue]
    seen: Mapping[str, Seen]
    carried: Mapping[str, int]
    began_us: int
    ended_us: int
    others_may_call: bool
    store_errors: int = 0

    def jobs_of(self, operation: str) -> list[Job]:
        """In the order in which they were queued."""
        return [job for job in self.callers.jobs.values() if job.operation == operation]

    def others_jobs(self, operation: str) -> float:
        """How many jobs that are not ours may have been run, at most."""
        before = self.queues_before.get(operation)
        return float("inf") if self.others_may_call else before.left if before else 0

    def is_batched(self, operation: str) -> bool:
        return self.operations[operation].batch is not None

    def operations_of(self, pipeline: str) -> list[str]:
        """Those that the demonstration calls."""
        return [name for name in self.callers.tallies if self.operations[name].pipeline == pipeline]


def starts_of(pipeline: str, told: Told) -> Iterator[tuple[str, str, float, int]]:
    """
    What began at a downstream, in that order.

    Yields:
        Operation, request id, seconds since 1970, and how many pieces of work it was. Nothing when they
        cannot be told apart: both lists are in the order of arrival, but for what came twice.

    """
    seen = told.seen[pipeline]
    if len(seen.starts) != len(seen.request_ids):
        return
    batched = [name for name in told.operations_of(pipeline) if told.is_batched(name)]
    for request_id, at_s in zip(seen.request_ids, seen.starts, strict=True):
        name, items = told.callers.operation_of(request_id), batch_items(request_id)
        if name is not None:
            yield name, request_id, at_s, 1
        elif items and batched:
            yield batched[0], request_id, at_s, items


def batch_items(request_id: str) -> int:
    """How many jobs went with this request; 0 when it is no batch."""
    found = _BATCH.fullmatch(request_id)
    return int(found[1]) if found else 0


def unclear(tally: Tally) -> int:
    """Calls of which their caller cannot know whether they arrived."""
    return sum(tally.outcomes[outcome] for outcome in _MAY_HAVE_ARRIVED) + tally.outcomes[NO_ANSWER]


def span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def equal(about: str, what: str, left: str, left_count: int, right: str, right_count: int) -> Check:
    return Check(
        about=about, what=what, left=f"{left} {left_count}", right=f"{right} {right_count}",
        agrees=left_count == right_count,
    )  # fmt: skip
