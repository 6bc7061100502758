"""
Accepting: a call starts now, or is a job from now on, or is refused; and can be taken back.

The store runs the same rules in `store/lua/{accept,revoke}.lua`.

1. A call whose replica has given it up does nothing.
2. What can never fit is the caller's mistake.
3. Nobody overtakes: a call goes behind jobs that could start, and behind its own tenant's that are
   parked. A line that its tenant's cap blocks is parked at once, and blocks nobody else.
4. A key is used once: the same request gets the same job, its result, or hears that it is in
   progress; another request is refused. A direct call whose lease is gone is run again where that
   is safe.
5. Bounds: nothing that was accepted is dropped to make room, so what does not fit is refused; and
   so is what could not start before it expires.
6. Taken back can be what has not started and was promised to nobody else; otherwise it can never be
   accepted late.
"""

from collections.abc import Sequence
from dataclasses import replace

from breaker.core import rate
from breaker.core.admission import barred, blocks, in_shadow, never_fits, room, start, ticket_us
from breaker.core.circuit import CircuitState, standing
from breaker.core.job_policy import BANDS
from breaker.core.jobs import (
    Accepted,
    InProgress,
    JobState,
    KeptResult,
    KeyReused,
    Offer,
    OutcomeUnknown,
    Pace,
    Queued,
)
from breaker.core.model import LEASE_US, Mode
from breaker.core.queue import (
    WAITING,
    Job,
    Jobs,
    KnownKey,
    parked_until_us,
    queue_of,
    stop_waiting,
    wait_in_line,
)
from breaker.core.settling import refund
from breaker.core.state import Ask, State, View, look_at, tenant_bucket
from breaker.core.terms import QueueTerms, Terms, held, held_until_us
from breaker.core.verdict import Admitted, Policy, Refused, TooCostly

RETRY_MIN_US = 1_000_000  # for a caller whose key is in progress


def accept(
    state: State, jobs: Jobs, terms: Terms, offers: Sequence[tuple[Offer, int]], now_us: int, lease_us: int
) -> list[Accepted | None]:
    """
    Decide the calls of one step, one after another; None for one that had been withdrawn (rule 1).

    Args:
        offers: Each with the bytes that its job takes in the store besides its payload.

    """
    view = look_at(state, terms, now_us)
    return [decide(state, jobs, view, offer, lease_us, head_size) for offer, head_size in offers]


def decide(
    state: State, jobs: Jobs, view: View, offer: Offer, lease_us: int, head_size: int
) -> Accepted | None:
    """One call."""
    terms, now_us = view.terms, view.now_us
    queue = queue_of(terms)
    ask = Ask(id=offer.lease_id, tenant=offer.tenant, cost=offer.cost)
    blocked, impossible = blocks(state, view, ask), never_fits(view, ask)
    state.wanted += offer.cost
    is_shadow = terms.mode is Mode.SHADOW
    if offer.lease_id in state.tombs or offer.job in state.tombs:
        return None
    if known := find_known(state, jobs, queue, offer, now_us):
        return known
    if impossible and not is_shadow:
        return TooCostly(policy=impossible)
    hold = held(terms, now_us)
    if hold == Policy.DRAINING or terms.is_retired:
        until = held_until_us(terms, now_us)
        retry = until - now_us if until else terms.retry_max_us
        return Refused(policy=Policy.DRAINING, retry_after_us=retry, room=room(state, view, offer.tenant))
    stop = barred(state, view, offer.tenant)
    blocked = stop or blocked
    is_later = offer.not_before_us > now_us or offer.is_async or hold == Policy.PAUSED or stop is not None
    if not is_later and not is_shadow and blocked is None and is_behind(jobs, queue, offer, now_us):
        blocked = (Policy.WAITING, 0)
    if not is_later and (is_shadow or blocked is None):
        return start_now(state, jobs, view, offer, blocked, lease_us)
    counts = stop is not None or terms.mode is Mode.ENFORCE
    if refused := refuse(state, jobs, view, offer, blocked, head_size, counts=counts):
        return refused
    return enqueue(state, jobs, view, offer, blocked, lease_us, head_size, counts=counts)


def find_known(state: State, jobs: Jobs, queue: QueueTerms, offer: Offer, now_us: int) -> Accepted | None:
    """Rule 4."""
    entry = jobs.keys.get((offer.caller, offer.key)) if offer.key else None
    if entry is None:
        return None
    if entry.fingerprint != offer.fingerprint:
        return KeyReused()
    if entry.lease_id:
        if state.own.leases.get(entry.lease_id, 0) > now_us:
            return InProgress(retry_after_us=max(state.service_us, RETRY_MIN_US))
        return OutcomeUnknown(job=entry.job) if queue.is_once else None
    job = jobs.jobs.get(entry.job)
    if job and job.state in (*WAITING, JobState.RUNNING):
        jobs.keys[offer.caller, offer.key] = replace(entry, is_shared=True)
        return Queued(job=job.id, ahead=0, depth=len(jobs.waiting), pace=Pace(), is_known=True)
    return KeptResult(job=entry.job)


def is_behind(jobs: Jobs, queue: QueueTerms, offer: Offer, now_us: int) -> bool:
    """Rule 3. With batches only those that are due could start; what waits for company does not."""
    is_parked = bool(jobs.turn.parked)
    if queue.batch_items > 0:
        is_any_due = any(group.due_us <= now_us for group in jobs.groups.values())
        return is_any_due or (is_parked and any(job.tenant == offer.tenant for job in jobs.waiting))
    could_start = any(lines.spots for (_, group), lines in jobs.turn.lines.items() if not group)
    is_own_parked = any(line == offer.tenant for _, line in jobs.turn.parked)
    return could_start or bool(jobs.groups) or is_own_parked


def start_now(
    state: State, jobs: Jobs, view: View, offer: Offer, blocked: tuple[Policy, int] | None, lease_us: int
) -> Admitted:
    """A call with a key holds a lease in any case: while it lives, the key is in progress."""
    leased, is_probe, shadow = bool(offer.key), False, blocked[0] if blocked else in_shadow(state, view)
    if blocked is None:
        leased, is_probe = start(
            state, view, offer.lease_id, offer.tenant, offer.cost, lease_us, waited=bool(offer.key)
        )
    if blocked and leased:
        state.own.leases[offer.lease_id] = view.now_us + lease_us
        if view.of_tenant(offer.tenant):
            state.tenants[offer.tenant].leases[offer.lease_id] = view.now_us + lease_us
    if offer.key:
        jobs.keys[offer.caller, offer.key] = KnownKey(
            job=offer.job, lease_id=offer.lease_id, fingerprint=offer.fingerprint
        )
    return Admitted(room=room(state, view, offer.tenant), leased=leased, shadow=shadow, is_probe=is_probe)


def refuse(
    state: State, jobs: Jobs, view: View, offer: Offer, blocked: tuple[Policy, int] | None, head_size: int,
    *, counts: bool,
) -> Refused | None:  # fmt: skip
    """Rule 5; `counts`: what blocks it is not only rehearsed."""
    ask = Ask(id=offer.lease_id, tenant=offer.tenant, cost=offer.cost)
    earliest = earliest_us(state, view, offer, blocked) if counts else None
    if blocked and earliest is not None and 0 < offer.expiry_us <= earliest:
        retry = ticket_us(state, view, ask, *blocked)
        return Refused(policy=blocked[0], retry_after_us=retry, room=room(state, view, offer.tenant))
    bound = full(jobs, queue_of(view.terms), offer, head_size + len(offer.payload))
    if bound is None:
        return None
    # Room comes with the next start.
    interval = rate.interval_us(view.limits)
    wait = max(interval, blocked[1] if blocked and blocked[0] is Policy.RATE else 0)
    retry = ticket_us(state, view, ask, Policy.RATE if interval else Policy.WAITING, wait)
    return Refused(policy=bound, retry_after_us=retry, room=room(state, view, offer.tenant))


def earliest_us(state: State, view: View, offer: Offer, blocked: tuple[Policy, int] | None) -> int | None:
    """When the call could start, where the limit that blocks it says so."""
    if blocked is None:
        return None
    policy, wait = blocked
    own = view.of_tenant(offer.tenant)
    if policy is Policy.CLOSED:
        return view.until_us
    if policy is Policy.QUOTA:
        return view.quota_end_us or None
    if policy is Policy.RATE or (policy is Policy.TENANT_RATE and own and not rate.is_closed(own)):
        return view.now_us + wait
    if policy in (Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN):
        return view.now_us + wait
    if policy is Policy.CIRCUIT and view.terms.circuit:
        is_open = standing(state.circuit, view.terms.circuit, view.now_us) is CircuitState.OPEN
        return view.now_us + wait if is_open else None
    return None


def full(jobs: Jobs, queue: QueueTerms, offer: Offer, size: int) -> Policy | None:
    """Rule 5: the bound that has no room for these bytes."""
    own = [job.size for job in jobs.waiting if job.tenant == offer.tenant]
    if len(jobs.waiting) >= queue.jobs_max:
        return Policy.JOBS
    if jobs.bytes_used + size > queue.bytes_max:
        return Policy.BYTES
    if 0 <= queue.tenant_jobs_max <= len(own):
        return Policy.TENANT_JOBS
    if 0 <= queue.tenant_bytes_max < sum(own) + size:
        return Policy.TENANT_BYTES
    return None


def enqueue(
    state: State, jobs: Jobs, view: View, offer: Offer, blocked: tuple[Policy, int] | None,
    lease_us: int, head_size: int, *, counts: bool,
) -> Queued:  # fmt: skip
    now = view.now_us
    job = Job(
        id=offer.job, band=BANDS.index(offer.band), tenant=offer.tenant, line=offer.line, caller=offer.caller,
        key=offer.key, callback=offer.callback, cost=offer.cost, head_size=head_size,
        size=head_size + len(offer.payload), accepted_us=now, since_us=now, deadline_us=offer.deadline_us,
        expiry_us=offer.expiry_us,
    )  # fmt: skip
    ahead = sum(other.band <= job.band for other in jobs.in_state(JobState.QUEUED))
    jobs.jobs[job.id] = job
    jobs.ends["accepted"] += 1
    if job.key:
        jobs.keys[job.caller, job.key] = KnownKey(job=job.id, lease_id="", fingerprint=offer.fingerprint)
    if offer.not_before_us > now:
        job.state, job.due_us = JobState.SCHEDULED, offer.not_before_us
    else:
        until = None
        if blocked and blocked[0].is_tenants_own and counts:
            until = parked_until_us(*blocked, now, lease_us, job.line)
        wait_in_line(jobs, queue_of(view.terms), job, now, service_us=state.service_us, until_us=until)
    why = blocked[0] if blocked else None
    return Queued(job=job.id, ahead=ahead, depth=len(jobs.waiting), pace=Pace(), why=why)


def revoke(state: State, jobs: Jobs, terms: Terms, offer: Offer, now_us: int) -> bool:
    """
    An accept whose answer got lost, or that was not durable enough, is taken back (rule 6).

    Returns:
        Whether it was; False when it runs or ran already, another caller was told of it, or it is not known.

    """
    queue, view = queue_of(terms), look_at(state, terms, now_us)
    limits = view.of_tenant(offer.tenant)
    if limits:
        tenant_bucket(state, limits, offer.tenant, now_us)
    job, entry = jobs.jobs.get(offer.job), jobs.keys.get((offer.caller, offer.key))
    is_shared = entry is not None and entry.job == offer.job and entry.is_shared
    if state.own.leases.get(offer.lease_id, 0) > now_us:
        refund(state, view, Ask(id=offer.lease_id, tenant=offer.tenant, cost=offer.cost))
    elif job and job.state in WAITING and job.attempt == 0 and not is_shared:
        stop_waiting(jobs, queue, job, now_us)
        del jobs.jobs[job.id]
        jobs.ends["withdrawn"] += 1
    else:
        if job is None:
            state.tombs[offer.lease_id] = state.tombs[offer.job] = now_us + LEASE_US
            state.tombs = {id_: until for id_, until in state.tombs.items() if until > now_us}
        return False
    if entry and entry.job == offer.job:
        del jobs.keys[offer.caller, offer.key]
    return True
