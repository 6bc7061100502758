"""
The table of alerts: what can be told, how much it matters, and in which words.

One source for both ways to on-call: the rules for Prometheus (`signals/rules.py`) and the gateway's own evaluator
(`signals/conditions.py`) read it, and each alert has a runbook `docs/runbooks/<name>.md`. Words in braces are values: in the
rules they become templates, in the gateway what was read. `TEXT_FIELDS` says what each stands for.

1. Who reads it has just been woken: what is broken, how bad, who is hurt, what was done already, the first command.
2. A name with two severities stands here twice; the worse one inhibits the other.
3. What is true of an operation carries its name and team; nothing that differs between replicas is a label.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from breaker.core.alert_policy import Severity
from breaker.core.model import Overflow

MINUTE_S = 60.0


class Scope(StrEnum):
    """What an alert is about, and so which labels it has."""

    CLUSTER = "cluster"
    OPERATION = "operation"
    BAND = "band"  # of an operation
    CHANNEL = "channel"


class Source(StrEnum):
    """Who of the gateways can know it, for the gateway's own way."""

    STEWARD = "steward"  # from what is in the store, by one replica for all
    REPLICA = "replica"  # each by itself, because the store cannot be asked
    RULES = "rules"  # nobody: only Prometheus sees that there are no gateways


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    One row of the table.

    Attributes:
        for_s: How long it must be true before it is told; None: the operation's own `alerts.for`.
        keep: How long it goes on after it was last true, as a multiple of the gateway's `alerts.keep`, so that what flaps is
            told once.
        summary, description, impact, action: For people, one line each; `action` is the first command.

    """

    name: str
    severity: Severity
    scope: Scope
    source: Source = Source.STEWARD
    for_s: float | None = 0.0
    keep: float = 1.0
    summary: str
    description: str
    impact: str
    action: str

    @property
    def key(self) -> str:
        """Its name and severity: what tells two rows apart."""
        return f"{self.name}:{self.severity}"


TEXT_FIELDS: Mapping[str, str] = {
    "operation": "the operation's name",
    "band": "the band's name",
    "channel": "the channel's name",
    "limit": "which limit is the tightest: rate, concurrency or quota",
    "wanted": "what demand would use of it, with its unit: 26/s, 11 slots, 900 of the period",
    "allowed": "what it allows, with its unit",
    "fate": "what becomes of calls beyond the limit, by the operation's overflow",
    "percent": "wanted as a share of allowed: 130%",
    "done": "what is done with the calls beyond it: 1560 queued within five minutes, or per second: 5.2/s queued",
    "raise": "arguments that raise the limit to what is needed: rate=34/s, or concurrency=12",
    "expected": "how long a job will have waited when it starts: 3 h 5 min",
    "promise": "start_within",
    "waiting": "jobs that wait",
    "rate_now": "starts per second as things are: 20/s",
    "clears_in": "how long it takes to work off what waits at that rate",
    "rate_needed": "starts per second that would keep the promise: 34/s",
    "room": "for how many jobs there is room, and for how long at this pace",
    "full_in": "until the queue is full",
    "percent_refused": "share of the calls of the last five minutes that were refused, tenants' own limits left out",
    "refused": "calls refused per second, by reason where known",
    "percent_failed": "share of the attempts of the last five minutes that failed",
    "failed_as": "how they failed, the most first, in brackets: (connect_error, timeout); or nothing",
    "state": "the circuit's state",
    "dead": "jobs in the dead letters",
    "more": "how many more than an hour ago",
    "count": "a number, of whatever the alert is about",
    "since": "since when, UTC",
    "until": "until when, UTC",
    "author": "the person who set it",
    "burn": "how many times faster than allowed the error budget is used: 14.4",
    "windows": "the two windows over which that is measured: 5m and 1h",
    "left_in": "when the budget of 30 days is used up at this pace",
    "detail": "what was seen, in the words of whoever saw it",
    "memory": "share of the store's memory in use: 91%",
    "seconds": "seconds",
}  # fmt: skip

FATES: Mapping[Overflow, str] = {
    Overflow.QUEUE: "become jobs and wait; nothing is lost",
    Overflow.THROTTLE: "wait for a moment, and are refused with a time to come back",
    Overflow.ALERT: "go through: the downstream gets more than it should",
}

_C, _W = Severity.CRITICAL, Severity.WARNING

ALERTS: tuple[Alert, ...] = (
    Alert(
        name="BreakerPromiseAtRisk", severity=_C, scope=Scope.BAND, for_s=15,
        summary="{operation}: jobs in band {band} will break their promise: they will have waited {expected}, promised are {promise}.",
        description="{waiting} jobs wait. At {rate_now} this clears in {clears_in}; {rate_needed} would keep the promise. Nothing is lost: all of them are on disk, in order.",
        impact="Whoever sent the last of them gets an answer later than was promised.",
        action='breaker ops set {operation} {raise} --for 1h --reason "promise at risk"  # if the downstream can take it: breaker ops show {operation}',
    ),
    Alert(
        name="BreakerOverCapacity", severity=_W, scope=Scope.OPERATION, for_s=None,
        summary="{operation} is asked for {percent} of what its {limit} allows.",
        description="Demand would use {wanted}, allowed are {allowed}. What was done with the rest: {done}.",
        impact="Calls beyond the limit {fate}.",
        action='breaker ops set {operation} {raise} --for 1h --reason "over capacity"  # if the downstream can take it: breaker ops show {operation}',
    ),
    Alert(
        name="BreakerQueueWillFill", severity=_W, scope=Scope.OPERATION, for_s=2 * MINUTE_S,
        summary="{operation}: the queue will be full in {full_in}.",
        description="{waiting} jobs wait, {room}. Then new calls are refused; what was accepted stays.",
        impact="Nobody yet. Callers are refused once it is full.",
        action='breaker ops set {operation} {raise} --for 1h --reason "queue fills"  # if the downstream can take it: breaker ops show {operation}',
    ),
    Alert(
        name="BreakerRefusing", severity=_C, scope=Scope.OPERATION, keep=2,
        summary="{operation}: the queue is full and callers are refused.",
        description="{refused} refused. What was accepted is safe and goes on at {rate_now}.",
        impact="Callers get 503 with a time to come back; their work is not accepted.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerRefusing", severity=_W, scope=Scope.OPERATION, for_s=MINUTE_S, keep=2,
        summary="{operation} refuses {percent_refused} of its calls.",
        description="{refused} refused in the last five minutes; tenants that are at their own limits are not counted.",
        impact="Callers get 503 with a time to come back.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerCircuitOpen", severity=_C, scope=Scope.OPERATION, for_s=10 * MINUTE_S,
        summary="{operation}: the circuit has been {state} for more than ten minutes.",
        description="{percent_failed} of the last attempts failed{failed_as}. Jobs are held and lose nothing but time; probes go on by themselves.",
        impact="Nothing of this operation reaches the downstream; calls without a queue are refused.",
        action="breaker circuit show {operation}",
    ),
    Alert(
        name="BreakerCircuitOpen", severity=_W, scope=Scope.OPERATION,
        summary="{operation}: the circuit is {state}.",
        description="{percent_failed} of the last attempts failed{failed_as}. Jobs are held and lose nothing but time; probes go on by themselves.",
        impact="Nothing of this operation reaches the downstream; calls without a queue are refused.",
        action="breaker circuit show {operation}",
    ),
    Alert(
        name="BreakerLoneReplicaFailing", severity=_W, scope=Scope.OPERATION, for_s=30,
        summary="{operation}: {count} replica(s) see failures that the others do not.",
        description="It has opened only itself, the others go on. Look at its node: {detail}.",
        impact="Calls that reach it are queued or refused; the others are served.",
        action="breaker circuit show {operation}",
    ),
    Alert(
        name="BreakerDeadLetters", severity=_W, scope=Scope.OPERATION, keep=3,
        summary="{operation}: {more} more jobs are dead than an hour ago.",
        description="{dead} jobs have ended as dead letters: the downstream will not take them, or could not within their time. They are kept.",
        impact="Their callers have been told that the work was not done.",
        action="breaker dead list --operation {operation}",
    ),
    Alert(
        name="BreakerJobsUnaccounted", severity=_C, scope=Scope.OPERATION, for_s=MINUTE_S,
        summary="{operation}: {count} accepted jobs are nowhere to be found.",
        description="Accepted jobs are neither ended, nor waiting, nor running: a bug of ours, or somebody changed keys by hand.",
        impact="Work that was accepted may not be done.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerJobsLost", severity=_C, scope=Scope.OPERATION, keep=12,
        summary="{operation}: the store has lost {count} jobs that callers were given a 202 for.",
        description="The store went back in time: a failover to a replica that was behind, or a restore.",
        impact="This work will not be done unless its callers send it again; with the same Idempotency-Key that is safe.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerOperationRemoved", severity=_W, scope=Scope.OPERATION, for_s=MINUTE_S,
        summary="{operation}: no configuration names it any more, and it has {count} jobs.",
        description="They are kept and held; nobody runs them.",
        impact="Whoever sent these jobs waits for nothing.",
        action="breaker jobs list --operation {operation}",
    ),
    Alert(
        name="BreakerPausedLong", severity=_W, scope=Scope.OPERATION, keep=0,
        summary="{operation} has been held by a person for more than a day.",
        description="Since {since}.",
        impact="Its jobs wait, or nothing new is taken.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerOverrideExpiring", severity=_W, scope=Scope.OPERATION, keep=0,
        summary="{operation}: the limits that a person set end within ten minutes.",
        description="They end at {until}; then what the file states holds again.",
        impact="Nobody yet. Demand that needed the higher limit will be over capacity again.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerErrorBudgetBurn", severity=_C, scope=Scope.OPERATION, for_s=2 * MINUTE_S,
        summary="{operation}: calls fail {burn} times faster than its error budget allows.",
        description="Measured over {windows}; at this pace the budget of 30 days is used up in {left_in}.",
        impact="Callers get errors where they should get answers.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerErrorBudgetBurn", severity=_W, scope=Scope.OPERATION, for_s=15 * MINUTE_S,
        summary="{operation}: calls fail {burn} times faster than its error budget allows.",
        description="Measured over {windows}; at this pace the budget of 30 days is used up in {left_in}.",
        impact="Some callers get errors where they should get answers.",
        action="breaker ops show {operation}",
    ),
    Alert(
        name="BreakerStoreDown", severity=_C, scope=Scope.CLUSTER, source=Source.REPLICA,
        summary="The store cannot be used.",
        description="{detail}. Each operation does what its `when_store_down` says: its local share, refuse, or allow; no 202 is given.",
        impact="Queued work stands still; direct calls go on with a smaller share, or are refused.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerStoreDown", severity=_W, scope=Scope.CLUSTER, source=Source.RULES, for_s=15,
        summary="{count} replica(s) cannot use the store, or a node of it; the rest goes on.",
        description="They are cut off, or one node of a Cluster is down. There each operation does what its `when_store_down` says.",
        impact="Calls that meet it get a smaller share, or are refused; the others are served.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerStoreRefusesWrites", severity=_C, scope=Scope.CLUSTER, source=Source.REPLICA, for_s=10,
        summary="The store answers, and refuses to write.",
        description="{detail}. It is out of memory or disk, read-only, a replica by now, or still loading. Each operation does what its `when_store_down` says.",
        impact="Nothing new is queued; direct calls go on with a smaller share, or are refused.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerStoreReset", severity=_C, scope=Scope.CLUSTER, keep=2,
        summary="The store has lost what it knew.",
        description="It was flushed, restored, or replaced by another one. Limits and running calls were registered again; jobs that were not on disk are gone.",
        impact="Jobs may be lost: BreakerJobsLost says how many.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerStoreWillFill", severity=_W, scope=Scope.CLUSTER, for_s=2 * MINUTE_S,
        summary="The store uses {memory} of its memory.",
        description="When it is full nothing new is accepted; what is stored is still worked off.",
        impact="Nobody yet.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerClockJump", severity=_W, scope=Scope.CLUSTER,
        summary="The store's clock has jumped by {seconds} s.",
        description="Leases and rates go by that clock; nothing more was admitted for longer than one renewal.",
        impact="For some seconds limits may have been kept too strictly.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerConfigSkew", severity=_W, scope=Scope.CLUSTER, for_s=10 * MINUTE_S,
        summary="{count} replica(s) run another configuration than the one in force.",
        description="A rolling change that stopped half-way, or a file that differs between machines.",
        impact="The limits of most replicas hold; what only the files of one say may differ there.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerReloadFailed", severity=_W, scope=Scope.CLUSTER, for_s=MINUTE_S,
        summary="{count} replica(s) refused the configuration that was read last.",
        description="The old one stays in force.",
        impact="Nobody yet: what was meant to change has not changed.",
        action="breaker config validate",
    ),
    Alert(
        name="BreakerDeliveryFailing", severity=_W, scope=Scope.CHANNEL, for_s=MINUTE_S,
        summary="Alerts do not reach the channel {channel}.",
        description="{count} messages wait for it. They are kept, and tried again.",
        impact="Whoever listens there hears nothing.",
        action="breaker alerts test --channel {channel}",
    ),
    Alert(
        name="BreakerAbsent", severity=_C, scope=Scope.CLUSTER, source=Source.RULES, for_s=MINUTE_S,
        summary="No gateway is to be seen.",
        description="Prometheus has scraped none for a minute: all are down, or cannot be reached from there.",
        impact="If they are down, nobody can call anything.",
        action="breaker ops list",
    ),
    Alert(
        name="BreakerWatchdog", severity=Severity.NONE, scope=Scope.CLUSTER, keep=0,
        summary="Alerts arrive.",
        description="This one always fires. When it stops, the way to on-call is broken: let a dead man's switch watch for it.",
        impact="Nobody.",
        action="breaker alerts list",
    ),
)  # fmt: skip

BY_KEY: Mapping[str, Alert] = {alert.key: alert for alert in ALERTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inhibition:
    """
    While one of `by` fires, those of `these` that are no more severe are not told: what does not wake anybody hides nothing that would.

    Attributes:
        same_operation: Only of the same operation; else of all.

    """

    by: tuple[str, ...]
    these: tuple[str, ...]
    same_operation: bool = True


_OF_OPERATIONS = tuple(
    dict.fromkeys(alert.name for alert in ALERTS if alert.scope in (Scope.OPERATION, Scope.BAND))
)

INHIBITIONS: tuple[Inhibition, ...] = (
    Inhibition(by=("BreakerStoreDown", "BreakerStoreRefusesWrites"), these=_OF_OPERATIONS, same_operation=False),
    Inhibition(by=("BreakerStoreRefusesWrites",), these=("BreakerStoreDown",), same_operation=False),
    Inhibition(by=("BreakerCircuitOpen",), these=("BreakerErrorBudgetBurn", "BreakerRefusing", "BreakerPromiseAtRisk", "BreakerOverCapacity")),
    Inhibition(by=("BreakerPromiseAtRisk",), these=("BreakerOverCapacity", "BreakerQueueWillFill")),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnWindow:
    """
    How fast an error budget may be used before somebody is told, over two windows at once.

    Source: Google, The Site Reliability Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".

    Attributes:
        burn: Times as fast as the budget allows.
        long_s, short_s: Both must be over it: the short one ends the alert soon after the trouble has ended.
        calls_min: Calls in the long window, below which it says nothing: one failure of three is no trend.

    """

    severity: Severity
    burn: float
    long_s: int
    short_s: int
    calls_min: int = 100


_HOUR_S = 3_600
BURN_WINDOWS: tuple[BurnWindow, ...] = (
    BurnWindow(severity=_C, burn=14.4, long_s=_HOUR_S, short_s=300),
    BurnWindow(severity=_C, burn=6, long_s=6 * _HOUR_S, short_s=1_800),
    BurnWindow(severity=_W, burn=3, long_s=24 * _HOUR_S, short_s=2 * _HOUR_S),
    BurnWindow(severity=_W, burn=1, long_s=72 * _HOUR_S, short_s=6 * _HOUR_S),
)

DEAD_MIN = 3  # more dead letters within an hour that are a growth
REFUSED_SHARE_MIN = 0.05
REFUSED_MIN = 10  # refused calls within five minutes, below which a share says nothing
PROMISE_CLEAR = 0.9  # of the promise, below which it is no longer at risk
MEMORY_SHARE_MIN = 0.9
FILL_WITHIN_S = 3_600  # how far ahead a forecast looks
FILL_SHARE_MIN = 0.1  # of the queue, below which a burst of some seconds would look like a trend
MEMORY_FORECAST_MIN = 0.5  # of the store's memory, likewise
PAUSED_LONG_S = 86_400
EXPIRING_S = 600

# Refusals that are ours: shared capacity, an ill downstream, an ill store. A tenant at its own limit, a caller's mistake, an
# operation that is closed by its schedule or held by a person is not.
REFUSED_REASONS = (
    "rate", "slots", "quota", "waiting", "circuit", "slow-down", "degraded", "jobs", "bytes", "over-capacity",
)  # fmt: skip
FULL_REASONS = ("jobs", "bytes")
# What the error budget is about: of what was sent downstream, and of what we refused for want of capacity, the share that failed.
# A caller's mistake is served well, and what a caller abandoned says nothing.
FAILED_RESULTS = ("server_error", "timeout", "connect_error")
SERVED_RESULTS = ("ok", "client_error", "slow_down")
