"""
When each alert of the table fires, as PromQL.

1. A condition has the labels of its alert and no others.
2. What is true of a circuit that is only rehearsed holds nothing up: only one that a person forced open does.
3. An alert that flaps is kept by two thresholds, and by `keep_firing_for`; what lasts a moment by `for`.
4. Windows are a minute at least, so that a scrape every 15 s sees every increase.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from breaker.core.alert_policy import AlertPolicy, Severity
from breaker.core.alert_table import (
    BURN_WINDOWS,
    BY_KEY,
    DEAD_MIN,
    EXPIRING_S,
    FILL_SHARE_MIN,
    FILL_WITHIN_S,
    FULL_REASONS,
    MEMORY_FORECAST_MIN,
    MEMORY_SHARE_MIN,
    PAUSED_LONG_S,
    PROMISE_CLEAR,
    REFUSED_MIN,
    REFUSED_SHARE_MIN,
    BurnWindow,
)
from breaker.core.circuit_policy import CircuitMode
from breaker.core.model import Operation
from breaker.policy.units import format_duration
from breaker.signals import rules_recorded as r

OVER_CAPACITY = "BreakerOverCapacity"
BY_THRESHOLD = (OVER_CAPACITY, "BreakerErrorBudgetBurn")  # what the `alerts` of an operation change


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Operations of one team, at least one."""

    team: str
    operations: tuple[Operation, ...]
    cluster: str

    @property
    def policies(self) -> set[AlertPolicy]:
        """What differs between its operations; who hears of it is Alertmanager's business."""
        return {replace(operation.alerts, routes=()) for operation in self.operations}

    @property
    def policy(self) -> AlertPolicy:
        """Of all of them: asked for where they do not differ."""
        return self.operations[0].alerts

    @property
    def each(self) -> "Iterator[Owned]":
        """Every operation for itself."""
        for operation in self.operations:
            yield replace(self, operations=(operation,))

    @property
    def all(self) -> str:
        """A matcher for its operations."""
        return matcher(operation.name for operation in self.operations)

    @property
    def queues(self) -> str:
        """A matcher for those with a queue; empty without any."""
        return matcher(operation.name for operation in self.operations if operation.queue)

    def circuits(self, *modes: CircuitMode) -> str:
        """A matcher for those whose circuit is in such a mode; empty without any."""
        return matcher(operation.name for operation in self.operations if operation.circuit.mode in modes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """Of operations that no file names, so that they are in no group of a team."""

    key: str
    condition: str


Condition = Callable[[Owned], str | None]

REMOVED = Removed(
    key=BY_KEY["BreakerOperationRemoved:warning"].key,
    condition="max by (operation) (breaker_removed_jobs) > 0",
)


def matcher(operations: Iterable[str]) -> str:
    names = list(operations)
    if len(names) == 1:
        return f'operation="{names[0]}"'
    return f'operation=~"{"|".join(re.sub("[.]", "[.]", name) for name in names)}"' if names else ""


def duration(seconds: float) -> str:
    """As Prometheus writes it."""
    return format_duration(round(seconds * 1_000))


def promise_at_risk(owned: Owned) -> str | None:
    own, by_band = f"{r.EXPECTED}{{{owned.queues}}} >= on (operation) group_left ()", "on (operation, band)"
    firing = _firing("BreakerPromiseAtRisk", owned)
    return owned.queues and (
        f"{own} {r.PROMISE}\nor\n({own} ({PROMISE_CLEAR:g} * {r.PROMISE}) and {by_band} {firing})"
    )


def over_capacity(owned: Owned) -> str:
    own = f"{r.UTILISATION}{{{owned.all}}}"
    firing = _firing(OVER_CAPACITY, owned)
    return f"{own} >= {owned.policy.utilisation:g}\nor\n({own} >= {owned.policy.clear:g} and on (operation) {firing})"


def _firing(alert: str, owned: Owned) -> str:
    """What fires already, and so goes on down to its lower threshold."""
    return f'ALERTS{{alertname="{alert}",alertstate="firing",cluster="{owned.cluster}"}}'


def raise_over_capacity(operations: Iterable[Operation]) -> dict[str, str]:
    """What limits would have to be for the alert to end; none where it is the quota, which only the file changes."""
    shared: dict[float, list[str]] = {}
    for operation in operations:
        shared.setdefault(operation.alerts.clear, []).append(operation.name)
    parts = [f"{r.WANTED}{{{matcher(names)}}} / {clear:g}" for clear, names in shared.items()]
    return {
        r.NEEDED_OVER: "("
        + "\n or ".join(parts)
        + f')\n> {r.LIMIT} > 0\nunless on (operation) {r.TIGHTEST}{{limit="quota"}}',
        r.RAISE_OVER: r.raised(r.NEEDED_OVER),
    }


def queue_will_fill(owned: Owned) -> str | None:
    """A few seconds of a burst are no trend: the queue must be filled to a part already, and go on filling."""
    own = f"{r.WAITING}{{{owned.queues}}}"
    return owned.queues and (
        f"predict_linear({own}[15m], {FILL_WITHIN_S}) >= {r.LIMIT_JOBS}\nand deriv({own}[15m]) > 0\n"
        f"and {own} >= {FILL_SHARE_MIN:g} * {r.LIMIT_JOBS}"
    )


def refusing_full(owned: Owned) -> str | None:
    reasons = "|".join(FULL_REASONS)
    return owned.queues and (
        f'sum by (operation) (increase(breaker_calls_total{{{owned.queues},outcome="refused",reason=~"{reasons}"}}[1m])) > 0'
    )


def refusing(owned: Owned) -> str:
    return (
        f"{r.REFUSED_SHARE}{{{owned.all}}} >= {REFUSED_SHARE_MIN:g}\nand {r.REFUSED_CALLS} >= {REFUSED_MIN}"
    )


def circuit_open(owned: Owned) -> str:
    return _circuit(owned, "open|half-open|forced-open", forced=True)


def circuit_open_long(owned: Owned) -> str | None:
    """Not one that a person forced open: they know."""
    return _circuit(owned, "open|half-open", forced=False) or None


def _circuit(owned: Owned, states: str, *, forced: bool) -> str:
    deciding, rehearsed = owned.circuits(CircuitMode.ENFORCE), owned.circuits(CircuitMode.SHADOW)
    parts = []
    if deciding:
        parts.append(f'max by (operation) ({r.CIRCUIT}{{{deciding},state=~"{states}"}}) == 1')
    if rehearsed and forced:
        parts.append(f'max by (operation) ({r.CIRCUIT}{{{rehearsed},state="forced-open"}}) == 1')
    return "\nor ".join(parts)


def lone_replica(owned: Owned) -> str:
    return f"sum by (operation) (breaker_circuit_lone{{{owned.all}}}) > 0"


def dead_letters(owned: Owned) -> str | None:
    """Against the least of the hour: after a redrive or a purge, what dies again is a growth too."""
    dead = f'{r.STATES}{{{owned.queues},state="dead"}}'
    return owned.queues and f"sum by (operation) ({dead} - min_over_time({dead}[1h])) >= {DEAD_MIN}"


def unaccounted(owned: Owned) -> str | None:
    return owned.queues and f"max by (operation) (breaker_jobs_unaccounted{{{owned.queues}}}) != 0"


def lost(owned: Owned) -> str | None:
    """What each replica has missed lately: its gauge stays up until it restarts, the incident does not."""
    own = f"breaker_jobs_lost{{{owned.queues}}}"
    return owned.queues and f"sum by (operation) ({own} - min_over_time({own}[10m])) > 0"


def paused_long(owned: Owned) -> str | None:
    held = f"max by (operation) (breaker_held_since_timestamp_seconds{{{owned.queues}}})"
    return owned.queues and f"time() - ({held} > 0) >= {PAUSED_LONG_S}"


def override_expiring(owned: Owned) -> str:
    """Not one that was set for less than that: who set it knows."""
    left = f"max by (operation) (breaker_override_expires_timestamp_seconds{{{owned.all}}}) - time()"
    return f"{left} > 0 < {EXPIRING_S}\nand max_over_time(({left})[{duration(EXPIRING_S + 300)}:1m]) > {EXPIRING_S}"


def budget_burn(severity: Severity) -> Condition:
    """How many times faster than allowed, of the windows of this severity the first that is over it."""

    def condition(owned: Owned) -> str:
        budget = f"{1 - owned.policy.objective:.6g}"
        windows = [window for window in BURN_WINDOWS if window.severity is severity]
        parts = [burning(window, owned.policy, owned.all) for window in windows]
        return "(\n  " + "\n  or\n  ".join(parts) + f"\n) / {budget}"

    return condition


def burning(window: BurnWindow, policy: AlertPolicy, operations: str) -> str:
    """Both windows are over it, and there were enough calls to say so."""
    most = f"{window.burn * (1 - policy.objective):.6g}"
    return (
        f"{r.burn_ratio(window.long_s)}{{{operations}}} >= {most} and {r.burn_ratio(window.short_s)} >= {most}"
        f" and {r.burn_calls(window.long_s)} >= {window.calls_min}"
    )


OPERATION_CONDITIONS: Mapping[str, Condition] = {
    "BreakerPromiseAtRisk:critical": promise_at_risk,
    "BreakerOverCapacity:warning": over_capacity,
    "BreakerQueueWillFill:warning": queue_will_fill,
    "BreakerRefusing:critical": refusing_full,
    "BreakerRefusing:warning": refusing,
    "BreakerCircuitOpen:critical": circuit_open_long,
    "BreakerCircuitOpen:warning": circuit_open,
    "BreakerLoneReplicaFailing:warning": lone_replica,
    "BreakerDeadLetters:warning": dead_letters,
    "BreakerJobsUnaccounted:critical": unaccounted,
    "BreakerJobsLost:critical": lost,
    "BreakerPausedLong:warning": paused_long,
    "BreakerOverrideExpiring:warning": override_expiring,
    "BreakerErrorBudgetBurn:critical": budget_burn(Severity.CRITICAL),
    "BreakerErrorBudgetBurn:warning": budget_burn(Severity.WARNING),
}

# A replica that is cut off is degraded, and says so: one exchange that failed at the moment of a scrape is not enough.
_CUT_OFF = "max without (operation, mode) (breaker_degraded) == 1"
_REFUSES = 'sum(increase(breaker_store_errors_total{kind="refused"}[1m])) > 0'
_FAILING = 'sum by (channel) (increase(breaker_alert_deliveries_total{result=~"retry|failed"}[10m])) > 0'
_GIVEN_UP = 'sum by (channel) (increase(breaker_alert_deliveries_total{result="failed"}[10m])) > 0'

CLUSTER_CONDITIONS: Mapping[str, Callable[[str], str]] = {
    "BreakerStoreDown:critical": lambda _: (
        "count(breaker_store_up == 0)\nand on () max(breaker_store_up) == 0\n"
        f"and on () max(breaker_degraded) == 1\nunless on () {_REFUSES}"
    ),
    "BreakerStoreDown:warning": lambda _: f"count({_CUT_OFF}) > 0\nand on () max(breaker_store_up) == 1",
    "BreakerStoreRefusesWrites:critical": lambda _: f"{_REFUSES}\nand on () max(breaker_degraded) == 1",
    "BreakerStoreReset:critical": lambda _: "sum(increase(breaker_store_resets_total[1m])) > 0",
    "BreakerStoreWillFill:warning": lambda _: (
        f"{r.MEMORY} >= {MEMORY_SHARE_MIN:g}\nor (\n  {r.MEMORY} >= {MEMORY_FORECAST_MIN:g}\n"
        f"  and predict_linear({r.MEMORY}[15m], {FILL_WITHIN_S}) >= 1\n  and deriv({r.MEMORY}[15m]) > 0\n)"
    ),
    "BreakerClockJump:warning": lambda _: (
        "max(breaker_store_clock_jump_seconds) > 0\nor min(breaker_store_clock_jump_seconds) < 0"
    ),
    "BreakerConfigSkew:warning": lambda _: "max(breaker_replicas_differing) > 0",
    "BreakerReloadFailed:warning": lambda _: "count(breaker_config_reload_ok == 0) > 0",
    "BreakerDeliveryFailing:warning": lambda _: (
        f"(max by (channel) (breaker_alert_outbox) > 0 and on (channel) {_FAILING})\nor {_GIVEN_UP}"
    ),
    "BreakerAbsent:critical": lambda cluster: f'absent(breaker_build_info{{cluster="{cluster}"}})',
    "BreakerWatchdog:none": lambda _: "vector(1)",
}
