"""
Queue: what the store remembers of an operation's jobs, and how a job waits.

This file and its neighbours are the specification; `store/lua/queue.lua` and the verbs beside it
repeat it in the store, and `tests/model` holds the two together by replaying random histories.

    accepting.py   a call starts now or becomes a job, and can be taken back
    leasing.py     which jobs may start now (what one look sees: lease_step.py)
    job_ends.py    attempts and jobs end; what a person does to them
    fairness.py    whose turn it is

1. Every job that was accepted is in exactly one place: waiting, running, dead, unknown, or counted
   under the one way in which it ended (`unaccounted`).
2. A job that waits stands in its tenant's line; a suspect (its lease was lost) waits apart.
3. Jobs of one batch key wait for company: until enough of them wait, or the first of them needs to
   go. A batch key that was served goes behind the others.
4. A line whose tenant has no room is tried again when a slot of its tenant's comes back, or when its
   rate has room.
"""

from dataclasses import dataclass, field

from breaker.core import fairness
from breaker.core.fairness import Entry, Turn, group_of
from breaker.core.jobs import JobState
from breaker.core.terms import QueueTerms, Terms
from breaker.core.verdict import Policy
from breaker.core.waiting import PARK_MAX_US, SLOT_RETRY_US

WAITING = (JobState.SCHEDULED, JobState.QUEUED)
KEPT = (JobState.DEAD, JobState.UNKNOWN)
COUNTED = {
    JobState.SUCCEEDED: "succeeded",
    JobState.EXPIRED: "expired",
    JobState.CANCELLED: "cancelled",
    JobState.DISCARDED: "discarded",
}
POISON_MAX = 2
SUSPECT, ALONE = 1, 2  # of `Job.suspect`, as it stands in the store


@dataclass(slots=True, kw_only=True)
class Job:
    """
    One job, or the record of one that has ended. The names are those of `core.jobs.JobHead`.

    Attributes:
        head_size: Bytes that it takes without payload or result; `size` with it.
        suspect: SUSPECT when its lease was lost, ALONE while it runs alone for that.
        due_us: When a scheduled one is due, or a running one's lease ends.
        answer_size: Bytes of the last answer of a dead or unknown one.

    """

    id: str
    band: int
    tenant: str
    line: str
    caller: str
    key: str
    callback: str
    cost: int
    head_size: int
    size: int
    accepted_us: int
    deadline_us: int
    expiry_us: int
    state: JobState = JobState.QUEUED
    attempt: int = 0
    failures: int = 0
    lost: int = 0
    suspect: int = 0
    first_us: int = 0
    since_us: int = 0
    reason: str = ""
    due_us: int = 0
    answer_size: int = 0


@dataclass(slots=True, kw_only=True)
class Group:
    """Jobs of one batch key: id -> when it needs the batch to go; and when a batch is due."""

    members: dict[str, int] = field(default_factory=dict)
    due_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """
    An idempotency key: a job's, or a direct call's with the lease that it holds.

    Attributes:
        is_shared: A repeated request was told of the job: it is promised to more than the first caller.

    """

    job: str
    lease_id: str
    fingerprint: str
    is_shared: bool = False


@dataclass(slots=True, kw_only=True)
class Jobs:
    """
    All that the store remembers of one operation's jobs.

    Attributes:
        jobs: Those that may still run or be asked for, by id.
        suspects: Id -> order.
        keys: (caller, key) -> what it was used for.
        results: Ended job -> until when its record is kept.
        callbacks, probes: Job -> when its end is to be told, its outcome to be asked for.
        ends: The ledger's counters, late acks, and how many ever died or became unknown. None ever falls.
        alone, alone_until_us: The replica that was asked to become idle for a suspect.
        kept_until_us: Until when the next slot is kept for a suspect.
        given: Replica -> number of its question that was answered last with jobs, and these with their attempt.

    """

    jobs: dict[str, Job] = field(default_factory=dict)
    turn: Turn = field(default_factory=Turn)
    suspects: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    keys: dict[tuple[str, str], KnownKey] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    callbacks: dict[str, int] = field(default_factory=dict)
    probes: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ["accepted", "withdrawn", "late", "dead_total", "unknown_total", *COUNTED.values()], 0
        )
    )
    alone: str = ""
    alone_until_us: int = 0
    kept_until_us: int = 0
    given: dict[str, tuple[int, list[tuple[str, int]]]] = field(default_factory=dict)

    def in_state(self, *states: JobState) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in states]

    @property
    def waiting(self) -> list[Job]:
        return self.in_state(*WAITING)

    @property
    def bytes_used(self) -> int:
        """Of all that is stored: jobs, results, last answers."""
        return sum(job.size + job.answer_size for job in self.jobs.values())

    @property
    def result_bytes(self) -> int:
        return sum(self.jobs[id_].size for id_ in self.results)

    @property
    def unaccounted(self) -> int:
        """Rule 1: 0, or a job got lost."""
        ended = sum(self.ends[name] for name in COUNTED.values())
        kept = self.in_state(*WAITING, JobState.RUNNING, *KEPT)
        return self.ends["accepted"] - self.ends["withdrawn"] - ended - len(kept)


def queue_of(terms: Terms) -> QueueTerms:
    """The terms of a queue; there is one wherever jobs are."""
    if terms.queue is None:
        raise ValueError("these terms have no queue")
    return terms.queue


def expiring(jobs: Jobs) -> list[tuple[int, str]]:
    """Waiting jobs that have not started and end at a moment, by that."""
    return sorted((job.expiry_us, job.id) for job in jobs.waiting if job.expiry_us > 0 and job.first_us == 0)


def parked_until_us(policy: Policy, wait_us: int, now_us: int, lease_us: int, line: str) -> int:
    """
    Rule 4: when to try a line again that its tenant's cap blocks.

    A slot comes back with an ack, which knows the lines of the tenant's name; those of a batch key
    look for themselves.
    """
    if policy is Policy.TENANT_SLOTS:
        return now_us + (SLOT_RETRY_US if group_of(line) else lease_us)
    return now_us + min(max(1, wait_us), PARK_MAX_US)


def wait_in_line(
    jobs: Jobs, queue: QueueTerms, job: Job, now_us: int, *, at_front: bool = False, service_us: int = 0,
    until_us: int | None = None,
) -> None:  # fmt: skip
    """Rules 2 and 3: the job waits from now on; `until_us` as in `fairness.stand`."""
    job.state = JobState.QUEUED
    if job.suspect:
        jobs.suspects[job.id] = job.deadline_us
        return
    entry = Entry(deadline_us=job.deadline_us, accepted_us=job.accepted_us)
    fairness.stand(jobs.turn, job.band, job.line, job.id, entry, at_front=at_front, until_us=until_us)
    name = group_of(job.line)
    if not name:
        return
    due = min(job.accepted_us + queue.batch_window_us, job.deadline_us - service_us)
    is_new = name not in jobs.groups
    group = jobs.groups.setdefault(name, Group())
    group.members[job.id] = due
    if is_full(jobs, queue, group):
        due = now_us
    due = min(due, now_us + queue.batch_window_us)
    group.due_us = due if is_new else min(group.due_us, due)


def is_full(jobs: Jobs, queue: QueueTerms, group: Group) -> bool:
    size = sum(jobs.jobs[id_].size for id_ in group.members)
    return len(group.members) >= queue.batch_items or size >= queue.batch_bytes


def set_group_due(jobs: Jobs, queue: QueueTerms, name: str, now_us: int, *, is_served: bool) -> None:
    """Rule 3, after some of its jobs have left."""
    group = jobs.groups[name]
    if not group.members:
        del jobs.groups[name]
    elif is_full(jobs, queue, group):
        group.due_us = now_us if is_served else min(group.due_us, now_us)
    else:
        group.due_us = min(*group.members.values(), now_us + queue.batch_window_us)


def stop_waiting(jobs: Jobs, queue: QueueTerms, job: Job, now_us: int) -> None:
    """A waiting job leaves its place, whatever becomes of it; not because it was its turn."""
    if job.state is JobState.SCHEDULED or jobs.suspects.pop(job.id, None) is not None:
        return
    fairness.leave(jobs.turn, job.band, job.line, job.id)
    name = group_of(job.line)
    if name:
        del jobs.groups[name].members[job.id]
        set_group_due(jobs, queue, name, now_us, is_served=False)
