"""
Waiting: whose turn is it among the calls that wait?

1. Nobody who has gone is granted: a waiter whose time is up, or whose replica was silent for 2 s.
2. Arrival order, over all replicas.
3. A call that its own tenant's limit blocks steps aside; its tenant is parked until there may be
   room, and its first call then returns to its old place.
4. Whoever stands first and has no room stops the line: then nobody has.
"""

from breaker.core.admission import barred, blocks, start
from breaker.core.model import WAITER_LAPSE_US
from breaker.core.state import PLAYING, State, Waiter, look_at
from breaker.core.terms import Terms, held
from breaker.core.verdict import Policy

TENANT_RETRY_US = 1_000_000  # a parked tenant without a slot is tried again after this, or at a settle
SLOT_RETRY_US = 500_000
PARK_MAX_US = 60_000_000  # nobody waits longer; a parked tenant that is due later met a clock that went back
GRANTS_MAX = 64


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
        stop = barred(state, view)
        if stop or held(terms, now_us) == Policy.PAUSED:
            next_us = min(stop[1] if stop else SLOT_RETRY_US, SLOT_RETRY_US)
            break
        _, id_ = min((arrival, id_) for id_, arrival in state.waiting.items())
        waiter = state.calls[id_]
        is_alive = state.seen.get(id_.partition(".")[0], 0) > now_us - WAITER_LAPSE_US
        blocked = None
        if waiter.give_up_us <= now_us or not is_alive:
            leave(state, id_, waiter, now_us)
        elif (blocked := blocks(state, view, waiter)) is None:
            start(state, view, id_, waiter.tenant, waiter.cost, lease_us, waited=True)
            leave(state, id_, waiter, now_us)
            granted.append(id_)
        elif blocked[0].is_tenants_own:
            del state.waiting[id_]
            state.lines.setdefault(waiter.tenant, {})[id_] = waiter.arrival_us
            pause = TENANT_RETRY_US if blocked[0] is Policy.TENANT_SLOTS else max(1, blocked[1])
            state.parked[waiter.tenant] = now_us + min(pause, PARK_MAX_US)
        else:
            next_us = SLOT_RETRY_US if blocked[0] is Policy.SLOTS else blocked[1]
            break
        if step == GRANTS_MAX:
            next_us = 0
    due = min(state.parked.values(), default=PLAYING)
    if due < PLAYING:
        next_us = min(PLAYING if next_us is None else next_us, max(0, due - now_us))
    return granted, ((next_us or 0) if state.calls else -1)


def unpark(state: State, now_us: int) -> None:
    """Parked tenants whose time has come send their first waiter, with its old place in the line."""
    due = sorted((at, tenant) for tenant, at in state.parked.items() if at <= now_us)[:16]
    due += sorted((at, tenant) for tenant, at in state.parked.items() if now_us + PARK_MAX_US < at < PLAYING)[
        :16
    ]
    for _, tenant in due:
        line = state.lines.get(tenant)
        if line:
            arrival, first = min((arrival, id_) for id_, arrival in line.items())
            del line[first]
            state.waiting[first] = arrival
            state.parked[tenant] = PLAYING
        else:
            del state.parked[tenant]


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
