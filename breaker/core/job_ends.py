"""
Job ends: attempts end, jobs end, and what a person does to them.

The store runs the same rules in `store/lua/{ack,alter}.lua` and the end of `store/lua/queue.lua`.

1. The number of an attempt is its fencing token: an ack of a lost lease is counted and ignored,
   and frees nobody else's slot.
2. One visible end: counted once, told once, and its key is remembered for its window from then on.
3. A dead or unknown job keeps what a person needs to run it again; the others keep their result.
4. What did not run goes back to the front, as if its attempt had not been.
5. Results go when they have had their time, and the oldest when they take more than half of the
   room; not before their end was told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from breaker.core import fairness
from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import Ack, Fate, JobState
from breaker.core.queue import (
    COUNTED,
    KEPT,
    SUSPECT,
    WAITING,
    Job,
    Jobs,
    queue_of,
    stop_waiting,
    wait_in_line,
)
from breaker.core.rate import Bucket
from breaker.core.state import State
from breaker.core.terms import QueueTerms, Terms

REAP_MAX = 128
REAP_AGAIN_US = 100_000
DEAD_REAP_MAX = 4
TELL_US = 3_600_000_000  # the record of an end that was not told yet is looked at again after so long
ENDS = {Fate.SUCCEEDED: JobState.SUCCEEDED, Fate.DEAD: JobState.DEAD, Fate.UNKNOWN: JobState.UNKNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of an end: why, and how many bytes the answer takes."""

    reason: str = ""
    size: int = 0


def finish(jobs: Jobs, queue: QueueTerms, job: Job, state: JobState, told: Told, now_us: int) -> None:
    """Rules 2 and 3."""
    job.state, job.reason, job.since_us, job.due_us = state, told.reason, now_us, 0
    if state in KEPT:
        jobs.ends[f"{state}_total"] += 1
        job.answer_size = told.size
    else:
        jobs.ends[COUNTED[state]] += 1
        if queue.keep_result_us > 0 or job.callback:
            job.size = job.head_size + told.size
            jobs.results[job.id] = now_us + queue.keep_result_us
        else:
            del jobs.jobs[job.id]
    if job.callback:
        jobs.callbacks[job.id] = now_us


def let_go(jobs: Jobs, queue: QueueTerms, job: Job, now_us: int) -> None:
    """A dead or unknown job is given up, by a person or by time."""
    jobs.probes.pop(job.id, None)
    job.answer_size = 0
    finish(jobs, queue, job, JobState.DISCARDED, Told(reason=job.reason), now_us)


def reap(jobs: Jobs, queue: QueueTerms, now_us: int) -> bool:
    """Rule 5, a bounded number at a time; whether more was due than that."""
    is_more = True
    for _ in range(REAP_MAX):
        oldest = min(((until, id_) for id_, until in jobs.results.items()), default=None)
        if oldest is None or (oldest[0] > now_us and jobs.result_bytes <= queue.bytes_max / 2):
            is_more = False
            break
        if oldest[1] in jobs.callbacks:
            jobs.results[oldest[1]] = now_us + TELL_US
        else:
            del jobs.results[oldest[1]], jobs.jobs[oldest[1]]
    if queue.keep_dead_us > 0:
        for state in KEPT:
            kept = sorted((job.since_us, job.id) for job in jobs.in_state(state))
            for since, id_ in kept[:DEAD_REAP_MAX]:
                if since <= now_us - queue.keep_dead_us:
                    let_go(jobs, queue, jobs.jobs[id_], now_us)
    return is_more


def ack(state: State, jobs: Jobs, terms: Terms, acks: Sequence[Ack], now_us: int) -> int:
    """
    Attempts that ended; their slots go back.

    Returns:
        How many came late (rule 1).

    """
    queue, service, late = queue_of(terms), state.service_us, 0
    has_tenants = bool(terms.per_tenant or terms.tenants)  # without, their slots go by themselves
    tried: list[tuple[str, str]] = []
    for each in acks:
        if each.service_us > 0:
            learned = state.service_us
            state.service_us = learned + (each.service_us - learned) // 8 if learned else each.service_us
        if has_tenants:
            state.tenants.get(each.tenant, Bucket()).leases.pop(f"{each.job}.{each.attempt}", None)
        job = jobs.jobs.get(each.job)
        tried.append((each.tenant, job.line if job else each.tenant))
        if job and job.state is JobState.RUNNING and job.attempt == each.attempt:
            end_attempt(state, jobs, queue, job, each, now_us, service)
        else:
            late += 1
    for each in acks:
        state.own.leases.pop(each.slot, None)
    for tenant, line in tried:
        fairness.try_again(jobs.turn, tenant, line, now_us)
    jobs.ends["late"] += late
    reap(jobs, queue, now_us)
    return late


def end_attempt(
    state: State, jobs: Jobs, queue: QueueTerms, job: Job, done: Ack, now_us: int, service_us: int
) -> None:
    """The job has ended, or waits again."""
    if done.fate in ENDS:
        told = Told(reason=done.reason, size=len(done.result))
        finish(jobs, queue, job, ENDS[done.fate], told, now_us)
        if done.fate is Fate.UNKNOWN and done.probe_us > 0:
            jobs.probes[job.id] = now_us + done.probe_us
        return
    job.reason = done.reason
    if done.fate is Fate.BACK:
        give_back(state, jobs, queue, job, now_us, service_us)
        return
    job.failures += done.fate is Fate.RETRY
    job.since_us, job.suspect = now_us, 0
    if done.delay_us > 0:
        job.state, job.due_us = JobState.SCHEDULED, now_us + done.delay_us
    else:
        wait_in_line(jobs, queue, job, now_us, service_us=service_us)


def give_back(state: State, jobs: Jobs, queue: QueueTerms, job: Job, now_us: int, service_us: int) -> None:
    """Rule 4."""
    held = f"{job.id}.{job.attempt}"
    state.own.leases.pop(held, None)
    state.circuit.probes.pop(held, None)
    state.tenants.get(job.tenant, Bucket()).leases.pop(held, None)
    job.suspect = min(job.suspect, SUSPECT)
    if job.first_us == job.since_us:
        job.first_us = 0
    job.since_us = now_us
    wait_in_line(jobs, queue, job, now_us, at_front=True, service_us=service_us)
    fairness.try_again(jobs.turn, job.tenant, job.line, now_us)


def cancel(jobs: Jobs, queue: QueueTerms, job: Job, now_us: int) -> bool:
    """Whether it was; only what waits can be."""
    if job.state not in WAITING:
        return False
    stop_waiting(jobs, queue, job, now_us)
    finish(jobs, queue, job, JobState.CANCELLED, Told(), now_us)
    return True


def move(jobs: Jobs, queue: QueueTerms, job: Job, band: Band, now_us: int, service_us: int) -> bool:
    """Whether it waits in this band now."""
    if job.state not in WAITING:
        return False
    is_queued = job.state is JobState.QUEUED
    if is_queued:
        stop_waiting(jobs, queue, job, now_us)
    job.band, job.since_us = BANDS.index(band), now_us
    if is_queued:
        wait_in_line(jobs, queue, job, now_us, service_us=service_us)
    return True


def requeue(jobs: Jobs, queue: QueueTerms, job: Job, now_us: int, service_us: int) -> bool:
    """A dead or unknown job runs again; its retries begin anew, and it has started once: it does not expire."""
    if job.state not in KEPT:
        return False
    jobs.probes.pop(job.id, None)
    jobs.callbacks.pop(job.id, None)
    job.failures = job.lost = job.suspect = job.answer_size = 0
    job.reason, job.first_us, job.since_us = "", now_us, now_us
    wait_in_line(jobs, queue, job, now_us, service_us=service_us)
    return True


def discard(jobs: Jobs, queue: QueueTerms, job: Job, now_us: int) -> bool:
    """A dead or unknown job is purged."""
    if job.state not in KEPT:
        return False
    let_go(jobs, queue, job, now_us)
    return True


def resolve(jobs: Jobs, queue: QueueTerms, job: Job, state: JobState, told: Told, now_us: int) -> bool:
    """A person, or the downstream, says what became of an unknown job: it succeeded, or is dead."""
    if job.state is not JobState.UNKNOWN:
        return False
    jobs.probes.pop(job.id, None)
    job.answer_size = 0
    finish(jobs, queue, job, state, told, now_us)
    return True
