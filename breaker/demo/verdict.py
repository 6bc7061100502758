"""
Verdict: do the callers, the gateway and the downstreams tell the same story?

1. Every call that was sent got exactly one answer.
2. Callers and /metrics count the same outcomes, and the same reasons of refusals.
3. What was forwarded arrived, each call once, and each attempt of a job; what was refused did not.
4. A downstream never had more in flight than the stated concurrency.
5. In no window did more calls start than rate * t + burst (GCRA over the downstream's own times). A batch
   starts when a single call could, and its other items are debt for those that follow.
   Not for `overflow: alert`, which lets calls through on purpose, and not for `when_store_down: allow` where
   the store did not always answer in time, as on a machine that is too busy: then all calls are let through.

What became of what was queued is `ledger.py`'s. Plain functions of what was seen.
"""

from collections import Counter
from collections.abc import Sequence

from breaker.core.calendar import transitions
from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.events import Action, Outcome
from breaker.core.jobs import JobState
from breaker.core.model import Limits, Mode, Operation, Overflow, Rate
from breaker.core.verdict import Policy
from breaker.demo.callers import NO_ANSWER, Callers, Tally
from breaker.demo.ledger import job_checks, work_checks
from breaker.demo.told import LISTS_MAX, Check, Told, equal, span, starts_of, unclear
from breaker.demo.view import Counted, Seen
from breaker.gateway.endings import CAPACITY_REASONS

# The gateway decides by the store's clock, the downstream notes when it began to read: on a busy machine
# the way between them takes longer for one call than for the next.
JITTER_S = 0.25
_ARRIVED = (Outcome.FORWARDED, Outcome.DELAYED, Outcome.OVER_CAPACITY)


def checks(told: Told) -> list[Check]:
    """All comparisons, by operation and then by pipeline."""
    found: list[Check] = []
    for name, tally in told.callers.tallies.items():
        found += _answers(name, tally)
        found += _counts(name, tally, told)
        found += job_checks(name, told)
    for pipeline, seen in told.seen.items():
        found += _arrivals(pipeline, seen, told)
        found += work_checks(pipeline, seen, told)
        past = seen.started - sum(seen.request_ids.values()) - told.carried.get(pipeline, 0)
        if past and seen.started <= LISTS_MAX:
            # The gateway gives each call an id: these came by another way, and used capacity.
            found.append(
                Check(about=pipeline, what="came past the gateway, so its capacity cannot be judged",
                      left=f"downstream {past}", right="expected 0", agrees=told.others_may_call)
            )  # fmt: skip
            continue
        found += _in_flight(pipeline, seen, told)
        found += _rates(pipeline, told)
    return found


def not_shown(callers: Callers) -> list[str]:
    """What the demonstration should have shown, and did not."""
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for tally in callers.tallies.values():
        outcomes += tally.outcomes
        refusals += tally.refusals
    wanted = {
        "a call that was forwarded": outcomes[Outcome.FORWARDED],
        "a call that was delayed": outcomes[Outcome.DELAYED],
        "a call that was let through over capacity": outcomes[Outcome.OVER_CAPACITY],
        "a call that was queued (202)": outcomes[Outcome.QUEUED],
        "a call that was recognised by its key": outcomes[Outcome.REPLAYED]
        + sum(tally.joined for tally in callers.tallies.values()),
        "a call that was refused by a tenant's own limit (429)": sum(
            refusals[policy] for policy in Policy if policy.is_tenants_own
        ),
        "a call that was refused by shared capacity (503)": sum(
            refusals[policy] for policy in Policy if not policy.is_tenants_own
        ),
        "a call that was refused by a contract (422)": refusals["contract"],
        "a job that is dead": sum(job.state == JobState.DEAD for job in callers.jobs.values()),
    }
    return [what for what, count in wanted.items() if not count]


def _answers(name: str, tally: Tally) -> list[Check]:
    answered = tally.outcomes.total() - tally.outcomes[NO_ANSWER]
    return [equal(name, "one answer each", "sent", tally.sent, "answered", answered)]


def _counts(name: str, tally: Tally, told: Told) -> list[Check]:
    """What callers were told against what the gateway counted."""
    before, after = told.before.get(name, Counted()), told.after.get(name, Counted())
    outcomes, refusals = after.outcomes - before.outcomes, after.refusals - before.refusals
    actions = after.actions - before.actions
    found = [(outcome, tally.outcomes[outcome], outcomes[outcome])
             for outcome in sorted({*tally.outcomes, *outcomes} - {Outcome.REFUSED, NO_ANSWER})]  # fmt: skip
    found += [(f"refused: {reason}", tally.refusals[reason], refusals[reason])
              for reason in sorted({*tally.refusals, *refusals})]  # fmt: skip
    return [
        *(
            Check(
                about=name, what=what, left=f"callers {callers}", right=f"gateway {gateway}",
                agrees=callers == gateway or (told.others_may_call and callers < gateway),
            )
            for what, callers, gateway in found
        ),
        _over_capacity(name, tally, actions, told),
    ]  # fmt: skip


def _over_capacity(name: str, tally: Tally, actions: Counter[str], told: Told) -> Check:
    """The series that the alerts stand on."""
    least = tally.outcomes[Outcome.DELAYED] + tally.outcomes[Outcome.OVER_CAPACITY]
    least += tally.outcomes[Outcome.QUEUED] - tally.joined - tally.asked
    least += sum(count for reason, count in tally.refusals.items() if reason in CAPACITY_REASONS)
    # A call that failed may have waited before; one that asked for the queue may have had no choice.
    most = least + unclear(tally) + tally.asked
    counted = sum(actions[action] for action in Action)
    return Check(
        about=name, what="over capacity", left=f"callers {span(least, most)}", right=f"gateway {counted}",
        agrees=least <= counted and (counted <= most or told.others_may_call),
    )  # fmt: skip


def _arrivals(pipeline: str, seen: Seen, told: Told) -> list[Check]:
    """What callers were told was forwarded, against what came."""
    if seen.started > LISTS_MAX:
        return []  # the oldest are forgotten, and the rest cannot be compared
    arrived: Counter[str] = Counter()
    for request_id, count in seen.request_ids.items():
        operation = told.callers.operation_of(request_id)
        if operation is not None:
            arrived[operation] += count
    found, again = [], 0
    for name in told.operations_of(pipeline):
        tally = told.callers.tallies[name]
        # Jobs that go alone carry the id of the call that they were.
        jobs = [] if told.is_batched(name) else [job.arrivals for job in told.jobs_of(name)]
        again += sum(max(0, most - 1) for _, most in jobs)
        direct = sum(tally.outcomes[outcome] for outcome in _ARRIVED)
        least = direct + sum(least for least, _ in jobs)
        most = direct + unclear(tally) + sum(most for _, most in jobs)
        found.append(
            Check(
                about=name, what="forwarded, and arrived", left=f"callers {span(least, most)}",
                right=f"downstream {arrived[name]}", agrees=least <= arrived[name] <= most,
            )
        )  # fmt: skip
    distinct = sum(told.callers.operation_of(request_id) is not None for request_id in seen.request_ids)
    return [
        *found,
        Check(
            about=pipeline, what="no call arrived twice", left=f"calls, and retries {span(distinct, distinct + again)}",
            right=f"arrivals {arrived.total()}", agrees=distinct <= arrived.total() <= distinct + again,
        ),
    ]  # fmt: skip


def _in_flight(pipeline: str, seen: Seen, told: Told) -> list[Check]:
    stated = []
    for operation in (told.operations[name] for name in told.operations_of(pipeline)):
        limits = limits_between(operation, told.began_us, told.ended_us)
        if _is_enforced(operation) and all(each.concurrency is not None for each in limits):
            stated.append(max(each.concurrency or 0 for each in limits))
    if not stated:
        return []
    return [
        Check(
            about=pipeline, what="most in flight", left=f"downstream {seen.in_flight_max}",
            right=f"stated {sum(stated)}", agrees=seen.in_flight_max <= sum(stated),
        )
    ]  # fmt: skip


def _rates(pipeline: str, told: Told) -> list[Check]:
    starts: dict[str, list[tuple[float, int]]] = {}
    for name, _, at_s, items in starts_of(pipeline, told):
        starts.setdefault(name, []).append((at_s, items))
    found = []
    for name in told.operations_of(pipeline):
        operation = told.operations[name]
        rates = [limits.rate for limits in limits_between(operation, told.began_us, told.ended_us)]
        stated = [rate for rate in rates if rate and rate.limit]
        if not _is_enforced(operation) or len(stated) < len(rates) or name not in starts:
            continue
        if told.store_errors and operation.when_store_down is WhenStoreDown.ALLOW:
            found.append(
                Check(about=name, what="starts, which cannot be judged: without the store all are allowed",
                      left=f"downstream {sum(items for _, items in starts[name])}",
                      right=f"store errors {told.store_errors}", agrees=True)
            )  # fmt: skip
            continue
        rate = min(stated, key=lambda each: each.interval_us)  # the calendar may have changed it meanwhile
        count, window_s = tightest_window(starts[name], rate)
        most = rate.burst + (window_s + JITTER_S) * 1e6 / rate.interval_us
        found.append(
            Check(
                about=name, what="starts in the tightest window", left=f"downstream {count} in {window_s:.2f} s",
                right=f"stated at most {most:.1f}", agrees=count <= most,
            )
        )  # fmt: skip
    return found


def tightest_window(starts: Sequence[tuple[float, int]], rate: Rate) -> tuple[int, float]:
    """
    The window in which the starts came closest to their rate, or went furthest over it.

    Args:
        starts: When, ascending, in seconds, and how many pieces of work at once; at least one.
        rate: Stated; not closed.

    Returns:
        How many pieces of work, of the last start only the first one; and the length of the window in seconds.

    """
    interval_s = rate.interval_us / 1e6
    ahead_most, found = float("-inf"), (1, 0.0)
    began_s, last_s, count, debt_s = starts[0][0], starts[0][0], 0, 0.0
    for at_s, items in starts:
        debt_s -= at_s - last_s
        if debt_s <= 0:
            began_s, count, debt_s = at_s, 0, 0.0  # all that came before is worked off
        # A batch may start when a single call may: only its first item is held against the burst.
        if debt_s + interval_s > ahead_most:
            ahead_most, found = debt_s + interval_s, (count + 1, at_s - began_s)
        debt_s += interval_s * items
        count, last_s = count + items, at_s
    return found


def limits_between(operation: Operation, began_us: int, ended_us: int) -> list[Limits]:
    """All limits that held at some moment of a span, by the calendar."""
    changes = transitions(operation.capacity, began_us, ended_us + 1)
    return [limits for _, limits in changes] or [operation.capacity.limits]


def _is_enforced(operation: Operation) -> bool:
    return operation.capacity.mode is Mode.ENFORCE and operation.overflow is not Overflow.ALERT
