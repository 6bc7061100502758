"""
Settling: giving back what a call was given, and keeping what it still needs.

1. Giving back is idempotent, and never somebody else's: it names the lease.
2. An abandoned call keeps its slot for as long as the downstream is likely to work on it.
3. A call that gives up while it waits takes a ticket; one that got lost leaves a tombstone.
4. A lease that was lost is taken again, above the limit if need be: the work is running.
"""

from breaker.core import rate
from breaker.core.admission import barred, blocks, ticket_us
from breaker.core.model import LEASE_US
from breaker.core.rate import Bucket
from breaker.core.state import PLAYING, Ask, State, View, look_at, tenant_bucket
from breaker.core.terms import Terms
from breaker.core.verdict import Policy, Refused
from breaker.core.waiting import leave


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
            leases[id_] = now_us + min(stay, LEASE_US)
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
        stop = barred(state, view, ask.tenant) or blocks(state, view, ask)
        policy, wait = stop or (waiter.policy if waiter else Policy.WAITING, 0)
        return Refused(policy=policy, retry_after_us=ticket_us(state, view, ask, policy, wait))
    if waiter:
        return Refused(policy=waiter.policy, retry_after_us=0)
    state.tombs[ask.id] = now_us + LEASE_US
    state.tombs = {id_: until for id_, until in state.tombs.items() if until > now_us}
    return False


def refund(state: State, view: View, ask: Ask) -> None:
    """
    It never started: slot and quota go back, and of the rate what time has not given back since.

    More would let another call start at once on time that a third has used already.
    """
    since_us = view.now_us - (state.own.leases.pop(ask.id) - LEASE_US)
    state.circuit.probes.pop(ask.id, None)
    state.own.tat_us -= max(0, ask.cost * rate.interval_us(view.limits) - since_us)
    state.started = max(0, state.started - ask.cost)
    if view.terms.quota is not None:
        state.quota_used = max(0, state.quota_used - ask.cost)
    limits = view.of_tenant(ask.tenant)
    if limits:
        bucket = state.tenants[ask.tenant]
        bucket.leases.pop(ask.id, None)
        bucket.tat_us -= max(0, ask.cost * rate.interval_us(limits) - since_us)


def renew(state: State, held: list[tuple[str, str]], now_us: int, lease_us: int) -> int:
    """Keep these leases (id, tenant); one that was lost is taken again. How many were lost."""
    lost = 0
    for id_, tenant in held:
        lost += state.own.leases.get(id_, 0) <= now_us
        state.own.leases[id_] = now_us + lease_us
        if id_ in state.circuit.probes:
            state.circuit.probes[id_] = now_us + lease_us
        if tenant:
            state.tenants.setdefault(tenant, Bucket()).leases[id_] = now_us + lease_us
    return lost
