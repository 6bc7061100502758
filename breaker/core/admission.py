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

A call's way on is in `waiting.py` (its turn) and `settling.py` (giving back).
"""

from dataclasses import replace

from breaker.core import circuit, rate
from breaker.core.model import Limits, Mode, Overflow
from breaker.core.state import Ask, State, View, Waiter, look_at, tenant_bucket
from breaker.core.terms import Terms, held, held_until_us
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly, Verdict, Waiting

# What has no capacity that comes back bit by bit: it opens at a moment.
OPENS_AGAIN = (Policy.CLOSED, Policy.QUOTA, Policy.CIRCUIT, Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN)


def admit(state: State, terms: Terms, ask: Ask, now_us: int, lease_us: int) -> Verdict | None:
    """Decide one call; None when it had been withdrawn (rule 1)."""
    view = look_at(state, terms, now_us)
    state.wanted += ask.cost
    if ask.id in state.tombs:
        return None
    if word := held(terms, now_us):
        return refuse_held(state, view, ask, Policy(word))
    if stop := barred(state, view, ask.tenant):
        return refuse_barred(state, view, ask, *stop)
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
        shadow = None if blocked else in_shadow(state, view)
        leased, is_probe = start(state, view, ask.id, ask.tenant, ask.cost, lease_us)
        return Admitted(
            room=room(state, view, ask.tenant), over=blocked[0] if blocked else None, shadow=shadow,
            leased=leased, is_probe=is_probe,
        )  # fmt: skip
    policy, wait = blocked
    if terms.mode is Mode.SHADOW:
        return Admitted(room=room(state, view, ask.tenant), shadow=policy)
    if (
        ask.wait_us > 0
        and has_room_to_wait(state, terms, ask, own_line=own_line)
        and expected_wait_us(state, view, ask, policy, wait, own_line=own_line) <= ask.wait_us
    ):
        join(state, ask, policy, now_us, own_line=own_line)
        return Waiting(policy=policy, room=room(state, view, ask.tenant))
    retry = ticket_us(state, view, ask, policy, wait)
    return Refused(policy=policy, retry_after_us=retry, room=room(state, view, ask.tenant))


def refuse_held(state: State, view: View, ask: Ask, policy: Policy) -> Refused:
    """A person holds the operation: also what is in shadow, or only alerts."""
    now, retry_max = view.now_us, view.terms.retry_max_us
    until = held_until_us(view.terms, now)
    wait = until - now if until else retry_max
    retry = rate.opening_ticket_us(state.own, wait, now, retry_max)
    limits = view.of_tenant(ask.tenant)
    if limits:
        tenant_bucket(state, limits, ask.tenant, now)
    return Refused(policy=policy, retry_after_us=retry, room=room(state, view, ask.tenant))


def barred(state: State, view: View, tenant: str = "") -> tuple[Policy, int] | None:
    """Nothing goes to a downstream that fails or asked for time: why, and for how long."""
    terms, now = view.terms, view.now_us
    of_tenant = tenant_pause(state, view, tenant)
    if found := circuit.bars(state.circuit, terms.circuit, now):
        return found
    if left := circuit.pauses(state.circuit.pause_us, terms.pause_max_us, now):
        return Policy.SLOW_DOWN, left
    return of_tenant


def tenant_pause(state: State, view: View, tenant: str) -> tuple[Policy, int] | None:
    limits = view.of_tenant(tenant)
    if limits is None:
        return None
    bucket = tenant_bucket(state, limits, tenant, view.now_us)
    left = circuit.pauses(bucket.pause_us, view.terms.pause_max_us, view.now_us)
    return (Policy.TENANT_SLOW_DOWN, left) if left else None


def in_shadow(state: State, view: View) -> Policy | None:
    """What a circuit that is only rehearsed would say."""
    terms = view.terms.circuit
    if terms is None or not terms.is_shadow:
        return None
    enforced = replace(terms, is_shadow=False)
    return Policy.CIRCUIT if circuit.bars(state.circuit, enforced, view.now_us) else None


def refuse_barred(state: State, view: View, ask: Ask, policy: Policy, wait_us: int) -> Refused:
    """Also what is in shadow, or only alerts."""
    retry = ticket_us(state, view, ask, policy, wait_us)
    return Refused(policy=policy, retry_after_us=retry, room=room(state, view, ask.tenant))


def blocks(state: State, view: View, ask: Ask | Waiter) -> tuple[Policy, int] | None:
    """The limit that has no room and how long it will not, or None: rule 6."""
    now, cost = view.now_us, ask.cost
    limits = view.of_tenant(ask.tenant)
    if limits:
        if stop := tenant_pause(state, view, ask.tenant):
            return stop
        bucket = state.tenants[ask.tenant]
        if rate.is_closed(limits):
            return Policy.TENANT_RATE, view.terms.retry_max_us
        if (wait := rate.rate_wait_us(bucket, limits, cost, now)) > 0:
            return Policy.TENANT_RATE, wait
        if not rate.has_slot(bucket, limits, now):
            return Policy.TENANT_SLOTS, 0
    if rate.is_closed(view.limits):
        return Policy.CLOSED, (view.until_us or now + view.terms.retry_max_us) - now
    if view.terms.quota is not None and state.quota_used + cost > view.terms.quota:
        return Policy.QUOTA, view.quota_end_us - now if view.quota_end_us else view.terms.retry_max_us
    if (wait := rate.rate_wait_us(state.own, view.limits, cost, now)) > 0:
        return Policy.RATE, wait
    if not rate.has_slot(state.own, view.limits, now):
        return Policy.SLOTS, 0
    return None


def never_fits(view: View, ask: Ask) -> Policy | None:
    """Rule 2."""
    own = view.of_tenant(ask.tenant)
    if own and not rate.can_fit(own, ask.cost):
        return Policy.TENANT_RATE
    if not rate.can_fit(view.whole, ask.cost):
        return Policy.RATE
    return Policy.QUOTA if view.terms.quota and ask.cost > view.terms.quota else None


def start(
    state: State, view: View, id_: str, tenant: str, cost: int, lease_us: int, *, waited: bool = False
) -> tuple[bool, bool]:
    """
    Spend from every limit and take the slots.

    A call that waited holds a lease also where slots are not limited: that is how a lost wake is noticed. So does
    a probe: that is how a lost one is noticed.

    Returns:
        Whether a lease is held, and whether it is a probe.

    """
    now, limits = view.now_us, view.of_tenant(tenant)
    rate.charge(state.own, view.limits, cost, now)
    state.started += cost
    if view.terms.quota is not None:
        state.quota_used += cost
    is_probe = circuit.is_probing(state.circuit, view.terms.circuit, now)
    if is_probe:
        circuit.on_probe(state.circuit, id_, now, lease_us)
    leased = (
        waited
        or is_probe
        or view.limits.concurrency is not None
        or (limits is not None and limits.concurrency is not None)
    )
    if limits:
        bucket = state.tenants[tenant]
        rate.charge(bucket, limits, cost, now)
        if leased:
            bucket.leases[id_] = now + lease_us
    if leased:
        state.own.leases[id_] = now + lease_us
    return leased, is_probe


def has_room_to_wait(state: State, terms: Terms, ask: Ask, *, own_line: bool) -> bool:
    """One tenant's line may take a quarter of the room, so that others find some."""
    behind = len(state.lines.get(ask.tenant, ())) if own_line and state.parked else 0
    is_own_room = not own_line or behind < max(1, terms.waiting_max // 4)
    return len(state.calls) < terms.waiting_max and is_own_room


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
        case _:
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
    own = view.of_tenant(ask.tenant)
    bucket, limits = state.own, view.limits
    if policy.is_tenants_own and own:
        bucket, limits = tenant_bucket(state, own, ask.tenant, now), own
    if policy in OPENS_AGAIN:
        return rate.opening_ticket_us(bucket, wait_us, now, retry_max)
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
