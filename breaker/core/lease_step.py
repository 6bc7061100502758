"""
Lease step: what one look for jobs sees, whom the limits stop, and what starting a job writes.

`leasing.py` holds the rules (their numbers are its) and their order.
"""

from dataclasses import dataclass, field

from breaker.core import rate
from breaker.core.admission import barred, blocks, never_fits, tenant_pause
from breaker.core.circuit import held_between, is_probing, on_probe
from breaker.core.job_ends import Told, finish
from breaker.core.jobs import JobState
from breaker.core.model import Limits, Mode
from breaker.core.queue import ALONE, Job, Jobs, stop_waiting
from breaker.core.state import Ask, State, View, tenant_bucket
from breaker.core.terms import QueueTerms
from breaker.core.verdict import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """
    A dispatcher asks for work.

    Attributes:
        wanted: At most so many jobs; or one batch.
        is_idle: It runs nothing, so that it may run a suspect.
        number: Of this question.
        heard: Of its newest question whose answer came; None when that is the one before.

    """

    replica: str
    wanted: int
    is_idle: bool
    number: int = 0
    heard: int | None = None


@dataclass(slots=True, kw_only=True)
class Leased:
    """
    The answer, as `core.jobs.Leases`.

    Attributes:
        jobs: (id, attempt) in order.
        slot: Of a batch or a suspect; empty when each job holds its own.
        next_us: When it makes sense to ask again; None: nothing is due.

    """

    jobs: list[tuple[str, int]] = field(default_factory=list)
    slot: str = ""
    next_us: int | None = None
    wants_alone: bool = False
    is_alone: bool = False
    has_more: bool = False
    lost: int = 0
    expired: int = 0

    def ask_again(self, wait_us: int) -> None:
        self.next_us = wait_us if self.next_us is None else min(self.next_us, wait_us)


@dataclass(slots=True, kw_only=True)
class Step:
    """One lease step: what it looks at, and how far it has come."""

    state: State
    jobs: Jobs
    queue: QueueTerms
    view: View
    question: Question
    lease_us: int
    out: Leased = field(default_factory=Leased)
    is_blocked: bool = False
    bar: tuple[Policy, int] | None = None
    was_held: bool = False
    steps: int = 0
    served: set[tuple[int, str]] = field(default_factory=set)

    @property
    def now(self) -> int:
        return self.view.now_us

    @property
    def is_shadow(self) -> bool:
        return self.view.terms.mode is Mode.SHADOW


def expire(step: Step, job: Job) -> None:
    stop_waiting(step.jobs, step.queue, job, step.now)
    finish(step.jobs, step.queue, job, JobState.EXPIRED, Told(reason=job.reason), step.now)
    step.out.expired += 1


def take(step: Step, job: Job, slot: str, *, is_alone: bool) -> str:
    """The job runs from now on, under this slot or one of its own."""
    now, tenant = step.now, step.view.of_tenant(job.tenant)
    # What it waited while nothing could start does not count against its retries.
    if job.first_us:
        job.first_us += held_between(step.state.circuit, step.view.terms.circuit, job.since_us, now)
    job.state, job.attempt, job.since_us = JobState.RUNNING, job.attempt + 1, now
    job.suspect, job.due_us = ALONE if is_alone else 0, now + step.lease_us
    job.first_us = job.first_us or now
    held_as = f"{job.id}.{job.attempt}"
    if tenant:
        bucket = tenant_bucket(step.state, tenant, job.tenant, now)
        rate.charge(bucket, tenant, job.cost, now)
        bucket.leases[held_as] = now + step.lease_us
    step.out.jobs.append((job.id, job.attempt))
    return slot or held_as


def charge(step: Step, slot: str, cost: int) -> None:
    """The operation's own limits: once a slot, for a batch with the cost of all its items."""
    rate.charge(step.state.own, step.view.limits, cost, step.now)
    step.state.started += cost
    if step.view.terms.quota is not None:
        step.state.quota_used += cost
    step.state.own.leases[slot] = step.now + step.lease_us
    if is_probing(step.state.circuit, step.view.terms.circuit, step.now):
        on_probe(step.state.circuit, slot, step.now, step.lease_us)
        step.bar = barred(step.state, step.view)


def at_once(limits: Limits, cost: int) -> int:
    """Rule 7."""
    return min(cost, limits.rate.burst) if rate.interval_us(limits) and limits.rate else cost


def blocks_job(step: Step, job: Job) -> tuple[Policy, int] | None:
    """The limit that has no room for this job, and how long it will not."""
    if step.is_shadow:
        return tenant_pause(step.state, step.view, job.tenant)
    ask = Ask(id=job.id, tenant=job.tenant, cost=job.cost)
    if never_fits(step.view, ask):
        own, quota = step.view.of_tenant(job.tenant), step.view.terms.quota
        cost = at_once(step.view.limits, job.cost)
        cost = at_once(own, cost) if own else cost
        ask = Ask(id=job.id, tenant=job.tenant, cost=min(cost, quota) if quota else cost)
    return blocks(step.state, step.view, ask)


def blocks_item(step: Step, job: Job, cost: int) -> tuple[Policy, int] | None:
    """Rule 6: the same for an item of a batch that costs so much already."""
    if step.is_shadow:
        return tenant_pause(step.state, step.view, job.tenant)
    view, now = step.view, step.now
    if blocked := blocks_tenant(step, job):
        return blocked
    if rate.is_closed(view.limits):
        return Policy.CLOSED, (view.until_us or now + view.terms.retry_max_us) - now
    quota = view.terms.quota
    if (
        quota is not None
        and step.state.quota_used + cost + (min(job.cost, quota) if quota else job.cost) > quota
    ):
        return Policy.QUOTA, view.quota_end_us - now if view.quota_end_us else view.terms.retry_max_us
    return None if rate.has_slot(step.state.own, view.limits, now) else (Policy.SLOTS, 0)


def blocks_tenant(step: Step, job: Job) -> tuple[Policy, int] | None:
    own = step.view.of_tenant(job.tenant)
    if own is None:
        return None
    if stop := tenant_pause(step.state, step.view, job.tenant):
        return stop
    bucket = tenant_bucket(step.state, own, job.tenant, step.now)
    if rate.is_closed(own):
        return Policy.TENANT_RATE, step.view.terms.retry_max_us
    if (wait := rate.rate_wait_us(bucket, own, at_once(own, job.cost), step.now)) > 0:
        return Policy.TENANT_RATE, wait
    return None if rate.has_slot(bucket, own, step.now) else (Policy.TENANT_SLOTS, 0)
