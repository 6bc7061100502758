"""
Admission: may this call start now, wait, or come back?

This file is the specification; it also is the limiter of one process that has lost its store.
`store/lua/{admit,grant,settle,withdraw,renew}.lua` repeat it in the store, and `tests/model`
holds the two together by replaying random histories through both.

1. A call that was withdrawn is never admitted late.
2. What can never fit is the caller's mistake.
3. Nobody overtakes: a new call goes behind its own tenant's waiting calls, and behind those who
   wait for the operation's limits. A tenant blocked by its own limit steps aside and blocks nobody.
4. A call joins the line only if, by what is known, its turn comes in time.
5. A refusal names the limit and gives a ticket of its own.
6. All limits or none: everything is evaluated before anything is spent.

The state is changed in place: it is one process's copy of what the store holds.
"""

from dataclasses import dataclass, field

from breaker.core import rate
from breaker.core.model import WAITER_LAPSE_US, Limits, Mode, Overflow
from breaker.core.rate import Bucket
from breaker.core.terms import Terms, quota_period, stated
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly, Verdict, Waiting

PLAYING = 9 * 10**15  # a parked tenant whose first waiter stands in the common line
TENANT_RETRY_US = 1_000_000  # a parked tenant without a slot is tried again after this, or at a settle
SLOT_RETRY_US = 500_000
GRANTS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """
    One call that wants to start.

    Attributes:
        id: `replica.number`; numbers of one replica sort in order of arrival.
        tenant: Empty when the operation knows no tenants.
        wait_us: How long it may wait for its turn.

    """

    id: str
    tenant: str = ""
    cost: int = 1
    wait_us: int = 0

    @property
    def replica(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """A waiting call: what it asked for, until when, and why it waits."""

    tenant: str
    cost: int
    give_up_us: int
    policy: Policy
    arrival_us: int


@dataclass(slots=True, kw_only=True)
class State:
    """
    All that admission remembers of one operation.

    Attributes:
        waiting: Waiter id -> arrival; those that only wait for the operation's limits.
        lines: The waiters of each parked tenant, likewise.
        parked: Tenant -> when its first waiter may be tried again.
        tombs: Withdrawn id -> until when it must not be admitted.
        seen: Replica -> last sign of life.

    """

    own: Bucket = field(default_factory=Bucket)
    tenants: dict[str, Bucket] = field(default_factory=dict)
    service_us: int = 0
    started: int = 0
    wanted: int = 0
    quota_start_us: int = 0
    quota_used: int = 0
    calls: dict[str, Waiter] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    tombs: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The limits that hold at this moment, read once per step."""

    terms: Terms
    limits: Limits
    until_us: int | None
    quota_end_us: int
    now_us: int

    def of_tenant(self, tenant: str) -> Limits | None:
        if not tenant:
            return None
        return self.terms.tenants.get(tenant, self.terms.per_tenant)


def look_at(state: State, terms: Terms, now_us: int) -> View:
    """Bring the operation's clocks up to date, and say what holds."""
    limits, until = stated(terms, now_us)
    quota_end = 0
    if terms.quota is not None:
        start, quota_end = quota_period(terms, now_us)
        if start != state.quota_start_us:
            state.quota_start_us, state.quota_used = start, 0
    rate.bring_up_to_date(state.own, limits, now_us)
    return View(terms=terms, limits=limits, until_us=until, quota_end_us=quota_end, now_us=now_us)


def blocks(state: State, view: View, ask: Ask | Waiter) -> tuple[Policy, int] | None:
    """The limit that has no room and how long it will not, or None: rule 6."""
    now, cost = view.now_us, ask.cost
    limits = view.of_tenant(ask.tenant)
    if limits:
        bucket = tenant_bucket(state, limits, ask.tenant, now)
        if rate.is_closed(limits):
            return Policy.TENANT_RATE, view.terms.retry_max_us
        if (wait := rate.rate_wait_us(bucket, limits, cost, now)) > 0:
            return Policy.TENANT_RATE, wait
        if not rate.has_slot(bucket, limits, now):
            return Policy.TENANT_SLOTS, 0
    if rate.is_closed(view.limits):
        return Policy.CLOSED, (view.until_us or now + view.terms.retry_max_us) - now
    if view.terms.quota is not None and state.quota_used + cost > view.terms.quota:
        return Policy.QUOTA, view.quota_end_us - now
    if (wait := rate.rate_wait_us(state.own, view.limits, cost, now)) > 0:
        return Policy.RATE, wait
    if not rate.has_slot(state.own, view.limits, now):
        return Policy.SLOTS, 0
    return None


def tenant_bucket(state: State, limits: Limits, tenant: str, now_us: int) -> Bucket:
    bucket = state.tenants.setdefault(tenant, Bucket())
    rate.bring_up_to_date(bucket, limits, now_us)
    return bucket


def never_fits(view: View, ask: Ask) -> Policy | None:
    """Rule 2."""
    own = view.of_tenant(ask.tenant)
    if own and not rate.can_fit(own, ask.cost):
        return Policy.TENANT_RATE
    if not rate.can_fit(view.limits, ask.cost):
        return Policy.RATE
    return Policy.QUOTA if view.terms.quota and ask.cost > view.terms.quota else None


def admit(state: State, terms: Terms, ask: Ask, now_us: int, lease_us: int) -> Verdict | None:
    """Decide one call; None when it had been withdrawn (rule 1)."""
    view = look_at(state, terms, now_us)
    state.wanted += ask.cost
    if ask.id in state.tombs:
        return None
    throttles = terms.overflow is Overflow.THROTTLE and terms.mode is Mode.ENFORCE
    blocked = blocks(state, view, ask)
    impossible = never_fits(view, ask)
    if impossible and terms.mode is Mode.ENFORCE:
        return TooCostly(policy=impossible)
    own_line = (blocked is not None and blocked[0].is_tenants_own) or (
        throttles and ask.tenant in state.parked
    )
    if blocked is None and throttles and (state.waiting or own_line):
        blocked = (Policy.WAITING, 0)
    enforced_alert = terms.overflow is Overflow.ALERT and terms.mode is Mode.ENFORCE
    if blocked is None or enforced_alert:
        leased = start(state, view, ask.id, ask.tenant, ask.cost, lease_us)
        return Admitted(
            room=room(state, view, ask.tenant), over=blocked[0] if blocked else None, leased=leased
        )
    policy, wait = blocked
    if terms.mode is Mode.SHADOW:
        return Admitted(room=room(state, view, ask.tenant), shadow=policy)
    if (
        ask.wait_us > 0
        and len(state.calls) < terms.waiting_max
        and expected_wait_us(state, view, ask, policy, wait, own_line=own_line) <= ask.wait_us
    ):
        join(state, ask, policy, now_us, own_line=own_line)
        return Waiting(policy=policy, room=room(state, view, ask.tenant))
    retry = ticket_us(state, view, ask, policy, wait)
    return Refused(policy=policy, retry_after_us=retry, room=room(state, view, ask.tenant))


def start(state: State, view: View, id_: str, tenant: str, cost: int, lease_us: int) -> bool:
    """Spend from every limit and take the slots; whether a lease is held."""
    now, limits = view.now_us, view.of_tenant(tenant)
    rate.charge(state.own, view.limits, cost, now)
    state.started += cost
    if view.terms.quota is not None:
        state.quota_used += cost
    leased = view.limits.concurrency is not None or (limits is not None and limits.concurrency is not None)
    if limits:
        bucket = state.tenants[tenant]
        rate.charge(bucket, limits, cost, now)
        if leased:
            bucket.leases[id_] = now + lease_us
    if leased:
        state.own.leases[id_] = now + lease_us
    return leased


def expected_wait_us(
    state: State, view: View, ask: Ask, policy: Policy, wait_us: int, *, own_line: bool
) -> int:
    """Rule 4, by what is known: the reset, those ahead, and the mean service time."""
    line = len(state.waiting)
    own = view.of_tenant(ask.tenant) or Limits()
    behind = len(state.lines.get(ask.tenant, ())) if own_line else 0
    match policy:
        case Policy.RATE:
            return wait_us + line * rate.interval_us(view.limits)
        case Policy.TENANT_RATE:
            return wait_us + behind * rate.interval_us(own)
        case Policy.SLOTS:
            return (line + 1) * rate.slot_step_us(state.service_us, view.limits) if state.service_us else 0
        case Policy.TENANT_SLOTS:
            return (behind + 1) * rate.slot_step_us(state.service_us, own) if state.service_us else 0
        case Policy.WAITING:
            return line * ask.cost * rate.interval_us(view.limits)
        case Policy.CLOSED | Policy.QUOTA:
            return wait_us


def join(state: State, ask: Ask, policy: Policy, now_us: int, *, own_line: bool) -> None:
    state.calls[ask.id] = Waiter(
        tenant=ask.tenant, cost=ask.cost, give_up_us=now_us + ask.wait_us, policy=policy, arrival_us=now_us
    )
    if own_line:
        state.lines.setdefault(ask.tenant, {})[ask.id] = now_us
        state.parked.setdefault(ask.tenant, now_us)
    else:
        state.waiting[ask.id] = now_us
    state.seen[ask.replica] = now_us


def ticket_us(state: State, view: View, ask: Ask, policy: Policy, wait_us: int) -> int:
    """Rule 5. A closed limit names its opening; the others spread callers."""
    now, retry_max = view.now_us, view.terms.retry_max_us
    if policy in (Policy.CLOSED, Policy.QUOTA):
        return min(wait_us, retry_max)
    own = view.of_tenant(ask.tenant)
    bucket, limits = state.own, view.limits
    if policy.is_tenants_own and own:
        bucket, limits = tenant_bucket(state, own, ask.tenant, now), own
    step = ask.cost * rate.interval_us(limits)
    if policy in (Policy.SLOTS, Policy.TENANT_SLOTS) or (policy is Policy.WAITING and step == 0):
        step = rate.SERVICE_UNKNOWN_US
        if limits.concurrency is not None:
            step = rate.slot_step_us(state.service_us, limits)
        return rate.slots_ticket_us(bucket, step, wait_us, now, retry_max)
    return rate.rate_ticket_us(bucket, step, wait_us, now, retry_max)


def room(state: State, view: View, tenant: str) -> Room:
    """What is left of the tenant's rate, else of the operation's, else of its slots."""
    limits, bucket, policy = view.limits, state.own, Policy.RATE
    own = view.of_tenant(tenant)
    if own and rate.interval_us(own):
        limits, bucket, policy = own, state.tenants[tenant], Policy.TENANT_RATE
    interval, tau = rate.interval_us(limits), rate.tau_us(limits)
    if interval:
        debt = max(0, bucket.tat_us - view.now_us)
        remaining = max(0, (tau - debt) // interval)
        reset = debt if remaining else max(0, debt + interval - tau)
        return Room(policy=policy, remaining=remaining, reset_us=reset)
    if limits.concurrency is not None:
        free = max(0, limits.concurrency - rate.in_use(bucket, view.now_us))
        return Room(policy=Policy.SLOTS, remaining=free)
    return Room()


def leave(state: State, id_: str, waiter: Waiter, now_us: int) -> None:
    """A waiting call goes: granted, given up or withdrawn; its tenant's next one is due."""
    del state.calls[id_]
    was_first = state.waiting.pop(id_, None) is not None
    if not waiter.tenant:
        return
    if not was_first:
        state.lines.get(waiter.tenant, {}).pop(id_, None)
    due = state.parked.get(waiter.tenant)
    if due is not None and (was_first or due < PLAYING):
        if state.lines.get(waiter.tenant):
            state.parked[waiter.tenant] = now_us if was_first else due
        else:
            del state.parked[waiter.tenant]


def unpark(state: State, now_us: int) -> None:
    """Parked tenants whose time has come send their first waiter, with its old place in the line."""
    due = sorted((at, tenant) for tenant, at in state.parked.items() if at <= now_us)[:16]
    for _, tenant in due:
        line = state.lines.get(tenant)
        if line:
            arrival, first = min((arrival, id_) for id_, arrival in line.items())
            del line[first]
            state.waiting[first] = arrival
            state.parked[tenant] = PLAYING
        else:
            del state.parked[tenant]


def grant(state: State, terms: Terms, now_us: int, lease_us: int) -> tuple[list[str], int]:
    """
    Admit the waiting calls whose turn it is.

    Returns:
        Their ids in order, and microseconds until another grant makes sense (-1: nobody waits).

    """
    view = look_at(state, terms, now_us)
    granted: list[str] = []
    next_us: int | None = None
    for step in range(1, GRANTS_MAX + 1):
        unpark(state, now_us)
        if not state.waiting:
            break
        _, id_ = min((arrival, id_) for id_, arrival in state.waiting.items())
        waiter = state.calls[id_]
        is_alive = state.seen.get(id_.partition(".")[0], 0) > now_us - WAITER_LAPSE_US
        blocked = None
        if waiter.give_up_us <= now_us or not is_alive:
            leave(state, id_, waiter, now_us)
        elif (blocked := blocks(state, view, waiter)) is None:
            start(state, view, id_, waiter.tenant, waiter.cost, lease_us)
            leave(state, id_, waiter, now_us)
            granted.append(id_)
        elif blocked[0].is_tenants_own:
            del state.waiting[id_]
            state.lines.setdefault(waiter.tenant, {})[id_] = waiter.arrival_us
            pause = TENANT_RETRY_US if blocked[0] is Policy.TENANT_SLOTS else blocked[1]
            state.parked[waiter.tenant] = now_us + max(1, pause)
        else:
            next_us = SLOT_RETRY_US if blocked[0] is Policy.SLOTS else blocked[1]
            break
        if step == GRANTS_MAX:
            next_us = 0
    due = min(state.parked.values(), default=PLAYING)
    if due < PLAYING:
        next_us = min(PLAYING if next_us is None else next_us, max(0, due - now_us))
    return granted, ((next_us or 0) if state.calls else -1)


def settle(
    state: State, id_: str, tenant: str, now_us: int, *, linger_us: int | None = None, service_us: int = 0
) -> None:
    """
    Give a slot back; idempotent.

    Args:
        linger_us: Keep the slot this long, because the work goes on; -1 is the mean service time.
        service_us: How long the downstream took; 0 teaches nothing.

    """
    stay = (state.service_us or rate.SERVICE_UNKNOWN_US) if linger_us == -1 else linger_us
    if service_us > 0:
        learned = state.service_us
        state.service_us = learned + (service_us - learned) // 8 if learned else service_us
    own = state.tenants.get(tenant, Bucket())
    for leases in (state.own.leases, own.leases):
        if stay is None:
            leases.pop(id_, None)
        elif leases.get(id_, 0) > now_us:
            leases[id_] = now_us + min(stay, 10_000_000)
    due = state.parked.get(tenant)
    if due is not None and due < PLAYING:
        state.parked[tenant] = min(now_us, due)


def withdraw(state: State, terms: Terms, ask: Ask, now_us: int, *, timed_out: bool) -> Refused | bool:
    """
    A call gives up.

    Returns:
        Refused, with a ticket on a time-out; True when it had been granted (and, on a time-out,
        may start); False when it is not known: then it can never be admitted.

    """
    view = look_at(state, terms, now_us)
    limits = view.of_tenant(ask.tenant)
    if limits:
        tenant_bucket(state, limits, ask.tenant, now_us)
    waiter = state.calls.get(ask.id)
    if waiter:
        leave(state, ask.id, waiter, now_us)
    elif state.own.leases.get(ask.id, 0) > now_us:
        if not timed_out:
            refund(state, view, ask)
        return True
    if timed_out:
        # Still in line, or dropped from it by a grant that came just before: a ticket in any case.
        policy, wait = blocks(state, view, ask) or (waiter.policy if waiter else Policy.WAITING, 0)
        return Refused(policy=policy, retry_after_us=ticket_us(state, view, ask, policy, wait))
    if waiter:
        return Refused(policy=waiter.policy, retry_after_us=0)
    state.tombs[ask.id] = now_us + 10_000_000
    state.tombs = {id_: until for id_, until in state.tombs.items() if until > now_us}
    return False


def refund(state: State, view: View, ask: Ask) -> None:
    """It never started: the slot and the rate it took go back."""
    limits = view.of_tenant(ask.tenant)
    del state.own.leases[ask.id]
    state.own.tat_us -= ask.cost * rate.interval_us(view.limits)
    state.started = max(0, state.started - ask.cost)
    if limits:
        bucket = state.tenants[ask.tenant]
        bucket.leases.pop(ask.id, None)
        bucket.tat_us -= ask.cost * rate.interval_us(limits)


def renew(state: State, held: list[tuple[str, str]], now_us: int, lease_us: int) -> int:
    """Keep these leases (id, tenant); one that was lost is taken again. How many were lost."""
    lost = 0
    for id_, tenant in held:
        lost += state.own.leases.get(id_, 0) <= now_us
        state.own.leases[id_] = now_us + lease_us
        if tenant:
            state.tenants.setdefault(tenant, Bucket()).leases[id_] = now_us + lease_us
    return lost
