"""
Verdict: do the callers, the gateway and the downstreams tell the same story?

1. Every call that was sent got exactly one answer.
2. Callers and /metrics count the same outcomes, and the same reasons of refusals.
3. What was forwarded arrived, each call once; what was refused did not.
4. A downstream never had more in flight than the stated concurrency.
5. In no window did more calls start than rate * t + burst (GCRA over the downstream's own times).
   Not for `overflow: alert`, which lets calls through on purpose.

Plain functions of what was seen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from breaker.core.calendar import transitions
from breaker.core.events import Action, Outcome
from breaker.core.model import Limits, Mode, Operation, Overflow, Rate
from breaker.core.verdict import Policy
from breaker.demo.callers import NO_ANSWER, Callers, Tally
from breaker.demo.view import Counted, Seen

# The gateway decides by the store's clock, the downstream notes when it began to read: on a busy machine
# the way between them takes longer for one call than for the next.
JITTER_S = 0.25
_LISTS_MAX = 100_000  # a downstream keeps the newest
_CAPACITY = frozenset(Policy)
_ARRIVED = (Outcome.FORWARDED, Outcome.DELAYED, Outcome.OVER_CAPACITY)
_MAY_HAVE_ARRIVED = (Outcome.UNKNOWN, Outcome.FAILED, Outcome.ABANDONED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Two numbers that must fit, and whether they do."""

    about: str
    what: str
    left: str
    right: str
    agrees: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """
    Everything that was told.

    Attributes:
        before, after: What the gateway counted, by operation.
        seen: By pipeline, with lists.
        began_us, ended_us: Of the traffic, microseconds since 1970.
        others_may_call: The gateway may have counted more than our callers did.

    """

    operations: Mapping[str, Operation]
    callers: Callers
    before: Mapping[str, Counted]
    after: Mapping[str, Counted]
    seen: Mapping[str, Seen]
    began_us: int
    ended_us: int
    others_may_call: bool


def checks(told: Told) -> list[Check]:
    """All comparisons, by operation and then by pipeline."""
    found: list[Check] = []
    for name, tally in told.callers.tallies.items():
        found += _answers(name, tally)
        found += _counts(name, tally, told)
    for pipeline, seen in told.seen.items():
        found += _arrivals(pipeline, seen, told)
        past = seen.started - sum(seen.request_ids.values())
        if past and seen.started <= _LISTS_MAX:
            # The gateway gives each call an id: these came by another way, and used capacity.
            found.append(
                Check(about=pipeline, what="came past the gateway, so its capacity cannot be judged",
                      left=f"downstream {past}", right="expected 0", agrees=told.others_may_call)
            )  # fmt: skip
            continue
        found += _in_flight(pipeline, seen, told)
        found += _rates(pipeline, seen, told)
    return found


def not_shown(callers: Callers) -> list[str]:
    """What the demonstration should have shown, and did not."""
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for tally in callers.tallies.values():
        outcomes += tally.outcomes
        refusals += tally.refusals
    wanted = {
        "forwarded": outcomes[Outcome.FORWARDED],
        "delayed": outcomes[Outcome.DELAYED],
        "let through over capacity": outcomes[Outcome.OVER_CAPACITY],
        "refused by a tenant's own limit (429)": sum(
            refusals[policy] for policy in Policy if policy.is_tenants_own
        ),
        "refused by shared capacity (503)": sum(
            refusals[policy] for policy in Policy if not policy.is_tenants_own
        ),
        "refused by a contract (422)": refusals["contract"],
    }
    return [what for what, count in wanted.items() if not count]


def _answers(name: str, tally: Tally) -> list[Check]:
    answered = tally.outcomes.total() - tally.outcomes[NO_ANSWER]
    return [_equal(name, "one answer each", "sent", tally.sent, "answered", answered)]


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
    least += sum(count for reason, count in tally.refusals.items() if reason in _CAPACITY)
    most = least + _unclear(tally)  # a call that failed may have waited before
    counted = sum(actions[action] for action in Action)
    return Check(
        about=name, what="over capacity", left=f"callers {_span(least, most)}", right=f"gateway {counted}",
        agrees=least <= counted and (counted <= most or told.others_may_call),
    )  # fmt: skip


def _arrivals(pipeline: str, seen: Seen, told: Told) -> list[Check]:
    """What callers were told was forwarded, against what came."""
    if seen.started > _LISTS_MAX:
        return []  # the oldest are forgotten, and the rest cannot be compared
    arrived: Counter[str] = Counter()
    for request_id, count in seen.request_ids.items():
        operation = told.callers.operation_of(request_id)
        if operation is not None:
            arrived[operation] += count
    found = []
    for name in _operations_of(pipeline, told):
        tally = told.callers.tallies[name]
        least = sum(tally.outcomes[outcome] for outcome in _ARRIVED)
        most = least + _unclear(tally)
        found.append(
            Check(
                about=name, what="forwarded, and arrived", left=f"callers {_span(least, most)}",
                right=f"downstream {arrived[name]}", agrees=least <= arrived[name] <= most,
            )
        )  # fmt: skip
    distinct = sum(told.callers.operation_of(request_id) is not None for request_id in seen.request_ids)
    return [*found, _equal(pipeline, "no call arrived twice", "calls", distinct, "arrivals", arrived.total())]


def _in_flight(pipeline: str, seen: Seen, told: Told) -> list[Check]:
    stated = []
    for operation in (told.operations[name] for name in _operations_of(pipeline, told)):
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


def _rates(pipeline: str, seen: Seen, told: Told) -> list[Check]:
    # Both lists are in the order of arrival, so the n-th start is that of the n-th id: unless one came
    # twice, and then that is what has been said.
    if len(seen.starts) != len(seen.request_ids):
        return []
    starts: dict[str, list[float]] = {}
    for request_id, at_s in zip(seen.request_ids, seen.starts, strict=True):
        name = told.callers.operation_of(request_id)
        if name is not None:
            starts.setdefault(name, []).append(at_s)
    found = []
    for name in _operations_of(pipeline, told):
        operation = told.operations[name]
        rates = [limits.rate for limits in limits_between(operation, told.began_us, told.ended_us)]
        stated = [rate for rate in rates if rate and rate.limit]
        if not _is_enforced(operation) or len(stated) < len(rates) or name not in starts:
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


def tightest_window(starts_s: Sequence[float], rate: Rate) -> tuple[int, float]:
    """
    The window in which the starts came closest to their rate, or went furthest over it.

    Args:
        starts_s: Ascending, seconds, at least one.
        rate: Stated; not closed.

    Returns:
        How many starts, and the length of the window in seconds.

    """
    interval_s = rate.interval_us / 1e6
    ahead_most, found = float("-inf"), (1, 0.0)
    began, debt_s = 0, 0.0
    for index, at_s in enumerate(starts_s):
        if index:
            debt_s -= at_s - starts_s[index - 1]
        if debt_s <= 0:
            began, debt_s = index, 0.0  # all that came before is worked off
        debt_s += interval_s
        if debt_s > ahead_most:
            ahead_most, found = debt_s, (index - began + 1, at_s - starts_s[began])
    return found


def limits_between(operation: Operation, began_us: int, ended_us: int) -> list[Limits]:
    """All limits that held at some moment of a span, by the calendar."""
    changes = transitions(operation.capacity, began_us, ended_us + 1)
    return [limits for _, limits in changes] or [operation.capacity.limits]


def _is_enforced(operation: Operation) -> bool:
    return operation.capacity.mode is Mode.ENFORCE and operation.overflow is not Overflow.ALERT


def _operations_of(pipeline: str, told: Told) -> list[str]:
    return [name for name in told.callers.tallies if told.operations[name].pipeline == pipeline]


def _unclear(tally: Tally) -> int:
    """Calls of which their caller cannot know whether they arrived."""
    return sum(tally.outcomes[outcome] for outcome in _MAY_HAVE_ARRIVED) + tally.outcomes[NO_ANSWER]


def _span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _equal(about: str, what: str, left: str, left_count: int, right: str, right_count: int) -> Check:
    return Check(
        about=about, what=what, left=f"{left} {left_count}", right=f"{right} {right_count}",
        agrees=left_count == right_count,
    )  # fmt: skip
