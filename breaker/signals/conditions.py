"""
Conditions: what of the table of alerts is true of one operation, now.

Plain functions of what was seen. Each reading says on which side of its thresholds it is, and carries the values for its
words; whether somebody is told is not decided here. What is true of the cluster is in `cluster_conditions.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from breaker.core.alert_policy import AlertPolicy, Severity
from breaker.core.alert_table import (
    BURN_WINDOWS,
    DEAD_MIN,
    EXPIRING_S,
    FAILED_RESULTS,
    FATES,
    FILL_SHARE_MIN,
    FILL_WITHIN_S,
    PAUSED_LONG_S,
    PROMISE_CLEAR,
    REFUSED_MIN,
    REFUSED_SHARE_MIN,
    BurnWindow,
)
from breaker.core.alerts import Level, Reading
from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.job_policy import BANDS
from breaker.core.model import Operation
from breaker.signals import amounts
from breaker.signals.capacity import rate_of, values_of
from breaker.signals.sights import Sight
from breaker.signals.trend import Trend
from breaker.store.job_desk import QueueLook
from breaker.store.tallies import Tallied

BUDGET_S = 30 * 86_400
DONE_WORDS = {
    "queued": "queued", "delayed": "delayed", "turned_away": "refused", "let_through": "let through",
}  # fmt: skip


@dataclass(slots=True)
class Trends:
    """How an operation's numbers went: its waiting jobs, and its dead letters in all."""

    waiting: Trend = field(default_factory=Trend)
    dead: Trend = field(default_factory=Trend)

    def note(self, at_s: float, queue: QueueLook) -> None:
        self.waiting.note(at_s, queue.queued + queue.scheduled)
        self.dead.note(at_s, queue.dead_total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    All that is known of one operation.

    Attributes:
        now_us: By the store's clock. now_s: The steady clock of `trends`.

    """

    operation: Operation
    sight: Sight
    tallied: Tallied
    trends: Trends
    now_us: int
    now_s: float


def readings_of(seen: Seen) -> Iterator[Reading]:
    """All of one operation."""
    yield over_capacity(seen)
    yield from refusing(seen)
    yield from circuit_open(seen)
    yield override_expiring(seen)
    yield from burning(seen)
    if seen.sight.queue:
        yield from promise_at_risk(seen, seen.sight.queue)
        yield from will_fill(seen, seen.sight.queue)
        yield dead_letters(seen, seen.sight.queue)
        yield reading(seen, "BreakerJobsUnaccounted", Severity.CRITICAL, seen.sight.queue.unaccounted != 0,
                      count=str(abs(seen.sight.queue.unaccounted)))  # fmt: skip
        yield paused_long(seen, seen.sight.queue)


def reading(
    seen: Seen, name: str, severity: Severity, level: Level | bool, *, about: str = "", **values: str
) -> Reading:
    if not isinstance(level, Level):
        level = Level.HIGH if level else Level.LOW
    operation = seen.operation
    return Reading(
        alert=f"{name}:{severity}",
        level=level,
        operation=operation.name,
        about=about,
        team=operation.team,
        values=values,
    )


def level_of(value: float, high: float, low: float) -> Level:
    if value >= high:
        return Level.HIGH
    return Level.BETWEEN if value >= low else Level.LOW


# Capacity.


def utilisations(seen: Seen) -> list[tuple[float, str, float, float]]:
    """(share, limit, wanted, allowed) of each limit, the tightest first; what is closed on purpose is not over capacity."""
    values = values_of(seen.sight.look, seen.sight.demand)
    found = []
    for limit in ("rate", "concurrency", "quota"):
        allowed = values.get(("breaker_capacity_limit", limit), 0.0)
        wanted = max(
            values.get(("breaker_capacity_used", limit), 0.0),
            values.get(("breaker_capacity_wanted", limit), 0.0),
        )
        if allowed > 0:
            found.append((wanted / allowed, limit, wanted, allowed))
    return sorted(found, reverse=True)


def over_capacity(seen: Seen) -> Reading:
    policy, look = seen.operation.alerts, seen.sight.look
    found = utilisations(seen)
    if not found:
        return reading(seen, "BreakerOverCapacity", Severity.WARNING, Level.LOW)
    ratio, limit, wanted, allowed = found[0]
    demand = seen.sight.demand.wanted if seen.sight.demand else 0.0
    slots = next((wanted for _, name, wanted, _ in found if name == "concurrency"), 0.0)
    told = reading(
        seen, "BreakerOverCapacity", Severity.WARNING, level_of(ratio, policy.utilisation, policy.clear),
        limit=limit, percent=amounts.share(ratio), wanted=amount(limit, wanted), allowed=amount(limit, allowed),
        done=done_words(seen.tallied.recent), fate=FATES[seen.operation.overflow],
        # Nobody can raise a quota but who writes the file.
        **{"raise": "" if limit == "quota" else amounts.raised(look.stated, demand / policy.clear, slots / policy.clear)},
    )  # fmt: skip
    return with_for(told, policy)


def with_for(told: Reading, policy: AlertPolicy) -> Reading:
    """The operation says itself how long it must last."""
    return replace(told, for_us=policy.for_ms * 1_000)


def amount(limit: str, value: float) -> str:
    if limit == "rate":
        return amounts.per_second(value)
    return f"{amounts.number(value)} {'slots' if limit == 'concurrency' else 'of the period'}"


def done_words(recent: Mapping[str, int]) -> str:
    words = [f"{recent[name]} {word}" for name, word in DONE_WORDS.items() if recent.get(name)]
    return f"{', '.join(words)} within five minutes" if words else "nothing had to be done yet"


def refusing(seen: Seen) -> Iterator[Reading]:
    recent = seen.tallied.recent
    refused, full, asked = recent.get("refused", 0), recent.get("full", 0), recent.get("all", 0)
    share = refused / asked if asked else 0.0
    rate_now = rate_now_of(seen)
    yield reading(
        seen, "BreakerRefusing", Severity.CRITICAL, full > 0,
        refused=f"{amounts.counted(full, 'call', 'calls')} in five minutes {'was' if full == 1 else 'were'}",
        rate_now=rate_now,
    )  # fmt: skip
    is_high = refused >= REFUSED_MIN and share >= REFUSED_SHARE_MIN
    yield reading(
        seen, "BreakerRefusing", Severity.WARNING, is_high,
        percent_refused=amounts.share(share), refused=f"{refused} of {asked} calls were",
    )  # fmt: skip


def rate_now_of(seen: Seen) -> str:
    """How fast things start, as they are."""
    queue, look = seen.sight.queue, seen.sight.look
    stated = rate_of(look.limits)
    paces = [
        pace for pace in (stated, 1e6 / queue.pace.mean_us if queue and queue.pace.mean_us else None) if pace
    ]
    if not paces and look.limits.concurrency and look.service_us:
        paces = [look.limits.concurrency * 1e6 / look.service_us]
    return amounts.per_second(min(paces)) if paces else "an unknown rate"


def circuit_open(seen: Seen) -> Iterator[Reading]:
    circuit, state = seen.sight.look.circuit, barring(seen)
    # While it is tried by probes it is not well yet, and it falls back to open: one incident.
    is_half = state is CircuitState.HALF_OPEN
    level = Level.BETWEEN if is_half else Level.HIGH if state else Level.LOW
    answers, failures = seen.tallied.recent.get("answers", 0), seen.tallied.recent.get("failures", 0)
    values = {
        "state": f"{circuit.state}, by {circuit.author}" if circuit.author else str(circuit.state),
        "percent_failed": amounts.share(failures / answers) if answers else "An unknown share",
        "failed_as": failed_as(seen.tallied.recent),
    }
    yield reading(seen, "BreakerCircuitOpen", Severity.WARNING, level, **values)
    # For ten minutes it may be tried in between, so there this counts as open. Who forced it knows.
    yield reading(
        seen, "BreakerCircuitOpen", Severity.CRITICAL, is_half or state is CircuitState.OPEN, **values
    )


def failed_as(recent: Mapping[str, int]) -> str:
    """How attempts failed, the most first."""
    found = sorted((name for name in FAILED_RESULTS if recent.get(name)), key=lambda name: -recent[name])
    return f" ({', '.join(found)})" if found else ""


def barring(seen: Seen) -> CircuitState | None:
    """The circuit's state while it bars; None while it does not: one that is only rehearsed does when a person forced it open."""
    state, mode = seen.sight.look.circuit.state, seen.operation.circuit.mode
    if state is CircuitState.FORCED_OPEN and mode is not CircuitMode.OFF:
        return state
    return (
        state
        if state in (CircuitState.OPEN, CircuitState.HALF_OPEN) and mode is CircuitMode.ENFORCE
        else None
    )


def is_held(seen: Seen) -> bool:
    """Whether its jobs wait for something else than capacity, so that no higher limit would help."""
    return bool(barring(seen)) or (seen.sight.queue is not None and seen.sight.queue.held == "paused")


def override_expiring(seen: Seen) -> Reading:
    look = seen.sight.look
    left_us = look.override_until_us - seen.now_us
    lasts_us = look.override_until_us - look.override_since_us
    # Who set it for a few minutes knows that it ends.
    is_near = look.source == "override" and 0 < left_us <= EXPIRING_S * 1e6 < lasts_us
    return reading(
        seen,
        "BreakerOverrideExpiring",
        Severity.WARNING,
        is_near,
        until=amounts.moment(look.override_until_us),
    )


def burning(seen: Seen) -> Iterator[Reading]:
    """Nothing while the windows were not read."""
    if not seen.tallied.windows:
        return
    for severity in (Severity.CRITICAL, Severity.WARNING):
        over = [
            (window, burn)
            for window in BURN_WINDOWS
            if window.severity is severity and (burn := burn_of(seen, window)) >= window.burn
        ]
        if not over:
            yield reading(seen, "BreakerErrorBudgetBurn", severity, Level.LOW)
            continue
        window, burn = over[0]
        yield reading(
            seen, "BreakerErrorBudgetBurn", severity, Level.HIGH,
            burn=amounts.number(burn),
            windows=f"{amounts.span(window.short_s)} and {amounts.span(window.long_s)}",
            left_in=amounts.span(BUDGET_S / burn),
        )  # fmt: skip


def burn_of(seen: Seen, window: BurnWindow) -> float:
    """How many times faster than allowed, over both windows; 0 where too few calls say anything."""
    budget = 1 - seen.operation.alerts.objective
    burns = []
    for seconds in (window.short_s, window.long_s):
        asked, bad = seen.tallied.windows[seconds]
        if not asked or (seconds == window.long_s and asked < window.calls_min):
            return 0.0
        burns.append(bad / asked / budget)
    return min(burns)


# Queues.


def promise_at_risk(seen: Seen, queue: QueueLook) -> Iterator[Reading]:
    expected, terms = seen.sight.expected, seen.operation.queue
    if expected is None or terms is None:
        return
    promise_s = terms.start_within_ms / 1e3
    needed_slots = expected.needed * seen.sight.look.service_us / 1e6
    rate_now = rate_now_of(seen) + (", once it goes on," if is_held(seen) else "")
    clears = "an unknown time" if expected.clears_s is None else amounts.span(expected.clears_s)
    for band in BANDS:
        seconds = expected.seconds.get(band, 0.0)
        yield reading(
            seen, "BreakerPromiseAtRisk", Severity.CRITICAL,
            level_of(seconds, promise_s, promise_s * PROMISE_CLEAR), about=str(band),
            expected=amounts.span(seconds), promise=amounts.span(promise_s), waiting=str(queue.queued),
            rate_now=rate_now, clears_in=clears, rate_needed=amounts.rate_at_least(expected.needed),
            **{"raise": "" if is_held(seen) else amounts.raised(seen.sight.look.stated, expected.needed, needed_slots)},
        )  # fmt: skip


def will_fill(seen: Seen, queue: QueueLook) -> Iterator[Reading]:
    """Nothing while a new steward does not know how it went: what has begun goes on."""
    terms, look = seen.operation.queue, seen.sight.look
    slope = seen.trends.waiting.slope(seen.now_s)
    depth = queue.queued + queue.scheduled
    if terms is None or depth < FILL_SHARE_MIN * terms.jobs_max:
        yield reading(seen, "BreakerQueueWillFill", Severity.WARNING, Level.LOW)
        return
    if slope is None:
        return
    room = max(0, terms.jobs_max - depth)
    full_in_s = room / slope if slope > 0 else float("inf")
    if full_in_s <= FILL_WITHIN_S:
        level = Level.HIGH
    else:
        level = Level.BETWEEN if full_in_s <= 2 * FILL_WITHIN_S else Level.LOW
    demand = seen.sight.demand.wanted if seen.sight.demand else 0.0
    yield reading(
        seen, "BreakerQueueWillFill", Severity.WARNING, level, waiting=str(depth),
        full_in=amounts.span(min(full_in_s, BUDGET_S)),
        room=f"there is room for {room} more, {amounts.per_second(max(slope, 0.0))} are added",
        **{"raise": "" if is_held(seen) else amounts.raised(look.stated, demand, demand * look.service_us / 1e6)},
    )  # fmt: skip


def dead_letters(seen: Seen, queue: QueueLook) -> Reading:
    before = seen.trends.dead.an_hour_ago()
    more = 0 if before is None else queue.dead_total - int(before)
    return reading(
        seen, "BreakerDeadLetters", Severity.WARNING, more >= DEAD_MIN, dead=str(queue.dead), more=str(more)
    )


def paused_long(seen: Seen, queue: QueueLook) -> Reading:
    is_long = bool(queue.held) and seen.now_us - queue.held_since_us >= PAUSED_LONG_S * 1e6
    since = f"{amounts.moment(queue.held_since_us)}, by {queue.held_author}" if queue.held else ""
    return reading(seen, "BreakerPausedLong", Severity.WARNING, is_long, since=since)
