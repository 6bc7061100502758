"""
Leasing: which jobs may start now? Leasing a job is its admission.

The store runs the same rules in `store/lua/lease.lua`.

1. Leases that ran out: the job goes to the front as a suspect, or is `unknown` where sending twice
   is not safe. One that was lost twice while it ran alone is poison.
2. What did not start in time ends, visibly.
3. What was scheduled stands in line when it is due; so do parked lines whose cap may have room.
4. A suspect runs alone on its replica, so that a job that kills replicas takes no neighbours along.
   One busy replica at a time is asked to become idle; while an idle one waits for a slot for it,
   one slot is kept. A suspect whose tenant has no room steps behind the others.
5. The others run in their turn, until capacity or wish is used up: who stands first and has no room
   stops all; who is blocked by its own tenant's cap is parked and stops nobody.
6. A batch is the jobs of one batch key that is due: one slot, tenants' caps count items, and its
   rate is paid behind, as debt. When batches are switched on, what waited before goes first; when
   they are switched off, what is left of the groups goes one by one.
7. A job that costs more than its limits allow at once (they were lowered) waits for all of the
   burst, and not for ever.
8. What was given out in an answer that got lost goes back to the front; what an answer that was
   heard gave out runs.
"""

from heapq import nsmallest

from breaker.core import fairness, rate
from breaker.core.admission import barred
from breaker.core.circuit import held_between, is_probing
from breaker.core.fairness import Pick
from breaker.core.job_ends import REAP_AGAIN_US, Told, finish, give_back, reap
from breaker.core.jobs import JobState, Reason
from breaker.core.lease_step import Leased, Question, Step, blocks_item, blocks_job, charge, expire, take
from breaker.core.model import LEASE_US
from breaker.core.queue import (
    ALONE,
    POISON_MAX,
    SUSPECT,
    Job,
    Jobs,
    expiring,
    parked_until_us,
    queue_of,
    set_group_due,
    wait_in_line,
)
from breaker.core.state import State, look_at
from breaker.core.terms import QueueTerms, Terms, held
from breaker.core.verdict import Policy
from breaker.core.waiting import SLOT_RETRY_US

RECLAIM_MAX = 16
EXPIRE_MAX = 16
SCHEDULED_MAX = 64
SUSPECTS_MAX = 4
SKEW_US = 2_000_000  # a lease that ends later than this beyond any was written before the clock went back
LATE_GROUPS_MAX = 16
GROUP_RETRY_US = 1_000_000  # a batch key all of whose lines are parked is looked at again after this
KEPT_SLOT = "kept"


def lease(state: State, jobs: Jobs, terms: Terms, question: Question, now_us: int, lease_us: int) -> Leased:
    """Give out the jobs whose turn it is, as far as there is capacity."""
    queue = queue_of(terms)
    take_back(state, jobs, queue, question, now_us)
    view = look_at(state, terms, now_us)
    step = Step(state=state, jobs=jobs, queue=queue, view=view, question=question, lease_us=lease_us)
    step.bar = barred(state, view)
    reclaim(step)
    expire_due(step)
    line_up(step)
    step.is_blocked = is_held(step)
    if not step.is_blocked and question.wanted > 0 and jobs.suspects:
        lease_suspect(step)
    keep_slot(step)
    group = choose_group(step)
    is_batch = bool(group) and queue.batch_items > 0
    lease_in_turn(step, group, is_batch=is_batch)
    if reap(jobs, queue, now_us) and question.wanted > 0:
        step.out.ask_again(REAP_AGAIN_US)
    say_when(step, is_batch=is_batch)
    state.own.leases.pop(KEPT_SLOT, None)
    fairness.settle_turn(jobs.turn, step.served)
    if step.out.jobs:
        jobs.given[question.replica] = question.number, list(step.out.jobs)
    return step.out


def is_held(step: Step) -> bool:
    """Nothing starts: a person, the circuit, or the downstream itself."""
    step.was_held = held(step.view.terms, step.now) == Policy.PAUSED or step.bar is not None
    return step.was_held


def take_back(state: State, jobs: Jobs, queue: QueueTerms, question: Question, now_us: int) -> None:
    """Rule 8."""
    number, given = jobs.given.get(question.replica, (0, []))
    if question.heard is None or number <= question.heard:
        return
    del jobs.given[question.replica]
    for id_, attempt in given:
        job = jobs.jobs.get(id_)
        if job and job.state is JobState.RUNNING and job.attempt == attempt:
            give_back(state, jobs, queue, job, now_us, 0)


def reclaim(step: Step) -> None:
    """Rule 1."""
    running = step.jobs.in_state(JobState.RUNNING)
    gone = sorted((job.due_us, job.id) for job in running if job.due_us <= step.now)
    for _, id_ in gone[:RECLAIM_MAX]:
        lose(step, step.jobs.jobs[id_])
    latest = step.now + step.lease_us
    late = [job for job in step.jobs.in_state(JobState.RUNNING) if job.due_us > latest + SKEW_US]
    for job in nsmallest(RECLAIM_MAX, late, key=lambda job: (job.due_us, job.id)):
        job.due_us = latest


def lose(step: Step, job: Job) -> None:
    step.out.lost += 1
    if step.queue.is_once:
        finish(step.jobs, step.queue, job, JobState.UNKNOWN, Told(reason=Reason.LOST), step.now)
        if step.queue.probe_us:
            step.jobs.probes[job.id] = step.now + step.queue.probe_us
        return
    job.lost += job.suspect == ALONE
    if job.lost >= POISON_MAX:
        finish(step.jobs, step.queue, job, JobState.DEAD, Told(reason=Reason.POISON), step.now)
        return
    job.suspect, job.since_us, job.reason = SUSPECT, step.now, Reason.LOST
    wait_in_line(step.jobs, step.queue, job, step.now, at_front=True)


def expire_due(step: Step) -> None:
    """Rule 2."""
    for moment, id_ in expiring(step.jobs)[:EXPIRE_MAX]:
        if moment <= step.now:
            expire(step, step.jobs.jobs[id_])


def line_up(step: Step) -> None:
    """Rule 3."""
    scheduled = step.jobs.in_state(JobState.SCHEDULED)
    due = sorted((job.due_us, job.id) for job in scheduled if job.due_us <= step.now)
    for _, id_ in due[:SCHEDULED_MAX]:
        job = step.jobs.jobs[id_]
        if job.first_us:
            job.first_us += held_between(step.state.circuit, step.view.terms.circuit, job.since_us, step.now)
        job.since_us, job.due_us = step.now, 0
        wait_in_line(step.jobs, step.queue, job, step.now, service_us=step.state.service_us)
    for line in fairness.unpark(step.jobs.turn, step.now):
        # A batch key whose lines were all parked was put off.
        name = fairness.group_of(line)
        if name in step.jobs.groups:
            set_group_due(step.jobs, step.queue, name, step.now, is_served=False)


def lease_suspect(step: Step) -> None:
    """Rule 4."""
    jobs, now = step.jobs, step.now
    if not step.question.is_idle:
        is_ours = jobs.alone == step.question.replica
        if is_ours or not now < jobs.alone_until_us <= now + step.lease_us:
            jobs.alone, jobs.alone_until_us = step.question.replica, now + step.lease_us
            step.out.wants_alone = True
        return
    first = sorted((order, id_) for id_, order in jobs.suspects.items())[:SUSPECTS_MAX]
    for _, id_ in first:
        job = jobs.jobs[id_]
        blocked = blocks_job(step, job)
        if blocked is None:
            del jobs.suspects[id_]
            step.out.slot = take(step, job, "", is_alone=True)
            charge(step, step.out.slot, job.cost)
            step.out.is_alone = step.is_blocked = True
            return
        policy, wait = blocked
        is_slots = policy in (Policy.SLOTS, Policy.TENANT_SLOTS)
        step.out.ask_again(SLOT_RETRY_US if is_slots else max(wait, 1_000))
        if not policy.is_tenants_own:
            if policy is Policy.SLOTS:
                jobs.kept_until_us = now + 2 * SLOT_RETRY_US
            step.is_blocked = True
            return
        jobs.suspects[id_] = max(jobs.suspects.values()) + 1


def keep_slot(step: Step) -> None:
    """Rule 4: busy replicas would take each slot that they give back in the same step."""
    is_kept = step.now < step.jobs.kept_until_us <= step.now + 2 * SLOT_RETRY_US
    if step.jobs.suspects and not step.question.is_idle and is_kept:
        step.state.own.leases[KEPT_SLOT] = step.now + LEASE_US


def choose_group(step: Step) -> str:
    """Rule 6: the batch key that is due for longest, or none."""
    groups, now = step.jobs.groups, step.now
    if step.queue.batch_items > 0:
        furthest = now + max(step.queue.batch_window_us, GROUP_RETRY_US)
        late = [(group.due_us, name) for name, group in groups.items() if group.due_us > furthest]
        for _, name in sorted(late)[:LATE_GROUPS_MAX]:  # put off before the clock went back
            groups[name].due_us = now + step.queue.batch_window_us
    if step.is_blocked or (step.queue.batch_items > 0 and has_plain(step)):
        return ""
    return min(
        ((group.due_us, name) for name, group in groups.items() if group.due_us <= now), default=(0, "")
    )[1]


def has_plain(step: Step) -> bool:
    """Lines without a batch key that could start."""
    return any(lines.spots for (_, group), lines in step.jobs.turn.lines.items() if not group)


def lease_in_turn(step: Step, group: str, *, is_batch: bool) -> None:
    """Rules 5 and 6."""
    most = step.question.wanted
    if is_batch:
        most = step.queue.batch_items if most > 0 else 0
        in_debt = rate.interval_us(step.view.limits) > 0 and step.state.own.tat_us > step.now
        if in_debt and not step.is_shadow:
            step.is_blocked = True
            step.out.ask_again(step.state.own.tat_us - step.now)
    cost = size = 0
    steps_max = 2 * most + 64
    while not step.is_blocked and len(step.out.jobs) < most and step.steps < steps_max:
        step.steps += 1
        circuit = step.view.terms.circuit
        tries_only = not is_batch and is_probing(step.state.circuit, circuit, step.now)
        tries_only = tries_only and circuit is not None and not circuit.is_shadow
        choose = fairness.pick_urgent if tries_only else fairness.pick
        picked = choose(step.jobs.turn, group, step.now)
        if picked is None:
            break
        job = step.jobs.jobs[picked.id]
        if 0 < job.expiry_us <= step.now and job.first_us == 0:
            expire(step, job)
            continue
        blocked = blocks_item(step, job, cost) if is_batch else blocks_job(step, job)
        if blocked:
            stand_aside(step, picked, *blocked)
            continue
        if is_batch and size > 0 and size + job.size > step.queue.batch_bytes:
            break
        give_out(step, picked, job, is_batch=is_batch)
        cost, size = cost + job.cost, size + job.size
    if group:
        if is_batch and cost > 0:
            charge(step, step.out.slot, cost)
        settle_group(step, group, is_exhausted=step.steps == steps_max)


def give_out(step: Step, picked: Pick, job: Job, *, is_batch: bool) -> None:
    fairness.serve(step.jobs.turn, picked, job.cost, step.queue.weights.get(job.tenant, 1))
    name = fairness.group_of(picked.line)
    step.served.add((picked.band, name))
    if name:
        del step.jobs.groups[name].members[job.id]
    slot = take(step, job, step.out.slot, is_alone=False)
    if is_batch:
        step.out.slot = slot
    else:
        charge(step, slot, job.cost)
        # All probes are under way: the others wait for what they say.
        step.is_blocked = step.bar is not None


def stand_aside(step: Step, picked: Pick, policy: Policy, wait_us: int) -> None:
    """Rule 5."""
    if policy.is_tenants_own:
        until = parked_until_us(policy, wait_us, step.now, step.lease_us, picked.line)
        fairness.park(step.jobs.turn, picked.band, picked.line, until)
        return
    step.is_blocked = True
    step.out.ask_again(step.lease_us if policy is Policy.SLOTS else max(1, wait_us))


def settle_group(step: Step, name: str, *, is_exhausted: bool) -> None:
    """A batch key that was served goes behind the others; one whose lines are parked is put off."""
    is_served = bool(step.out.jobs)
    if name in step.jobs.groups:
        set_group_due(step.jobs, step.queue, name, step.now, is_served=is_served)
    is_idle = not is_served and not step.is_blocked and not is_exhausted
    if is_idle and step.question.wanted > 0 and name in step.jobs.groups:
        step.jobs.groups[name].due_us = step.now + GROUP_RETRY_US


def say_when(step: Step, *, is_batch: bool) -> None:
    """When it makes sense to ask again: at once when more could start, else when something is due."""
    if step.question.wanted <= 0:
        return
    due_groups = [group.due_us for group in step.jobs.groups.values()]
    if not step.is_blocked and (has_plain(step) or any(due <= step.now for due in due_groups)):
        find_room(step, is_batch=is_batch)
    if step.out.has_more:
        step.out.next_us = 0
        return
    jobs, now = step.jobs, step.now
    if step.bar:
        step.out.ask_again(max(1_000, step.bar[1]))
    moments = [job.due_us for job in jobs.in_state(JobState.SCHEDULED, JobState.RUNNING)]
    moments += [moment for moment, _ in expiring(jobs)]
    hold = step.view.terms.hold
    if not step.was_held:
        moments += jobs.turn.parked.values()
        moments += [due for due in due_groups if due > now]
    elif hold and hold.until_us and held(step.view.terms, now) == Policy.PAUSED:
        moments.append(hold.until_us)
    for moment in moments:
        step.out.ask_again(max(0, moment - now))


def find_room(step: Step, *, is_batch: bool) -> None:
    """Somebody waits whose turn it could be: is there room for more?"""
    own, limits, now = step.state.own, step.view.limits, step.now
    wait = own.tat_us - now if is_batch else rate.rate_wait_us(own, limits, 1, now)
    blocked_us = wait if rate.interval_us(limits) and wait > 0 else None
    if not rate.has_slot(own, limits, now) and (is_batch or blocked_us is None):
        blocked_us = step.lease_us
    step.out.has_more = blocked_us is None or step.is_shadow
    if not step.out.has_more and blocked_us is not None:
        step.out.ask_again(blocked_us)
