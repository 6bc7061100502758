"""
Recorded rules: what alerts and dashboards have in common, computed once.

Names are `level:metric:how`: the labels that are left, the metric, and how it was brought there.

1. What every replica says of the store is aggregated with `max`; only what each replica knows of itself is summed.
2. Counters are summed as rates, never before: a replica that restarts begins at 0, and `rate` knows that.
3. A limit of 0 is closed, which is not over capacity: it is left out.
4. An error budget is counted in steps of five minutes, and long windows add those up: 3 days of raw samples of every replica
   would be read once a minute otherwise.
5. `unit` is what stands behind a number when a person reads it.
"""

from collections.abc import Mapping

from breaker.core.alert_table import BURN_WINDOWS, FAILED_RESULTS, REFUSED_REASONS, SERVED_RESULTS
from breaker.policy.units import format_duration

BUDGET_EVERY_S = 30
STEP_S = 300
RAISED_LEAST = 3  # a number below this would be rounded up by too much: the next smaller unit is taken

REFUSED = f'breaker_calls_total{{outcome="refused",reason=~"{"|".join(REFUSED_REASONS)}"}}'
_FAILED = f'breaker_downstream_calls_total{{result=~"{"|".join(FAILED_RESULTS)}"}}'
_COUNTED = f'breaker_downstream_calls_total{{result=~"{"|".join((*SERVED_RESULTS, *FAILED_RESULTS))}"}}'

LIMIT = "operation_limit:breaker_capacity_limit:max"
USED = "operation_limit:breaker_capacity_used:max"
WANTED = "operation_limit:breaker_capacity_wanted:max"
BY_LIMIT = "operation_limit:breaker_utilisation:max"
UTILISATION = "operation:breaker_utilisation:max"
TIGHTEST = "operation_limit:breaker_tightest:max"
SERVICE = "operation:breaker_service_seconds:mean5m"
STATES = "operation_state:breaker_queue_jobs:max"
WAITING = "operation:breaker_queue_waiting:max"
ROOM = "operation:breaker_queue_room:max"
FULL_IN = "operation:breaker_queue_full_in:seconds"
LIMIT_JOBS = "operation:breaker_queue_limit_jobs:max"
EXPECTED = "operation_band:breaker_queue_expected_seconds:max"
PROMISE = "operation:breaker_queue_promise_seconds:max"
NEEDED = "operation:breaker_queue_needed_rate:max"
STARTS = "operation:breaker_starts:rate1m"
CLEARS_IN = "operation:breaker_queue_clears_in:seconds"
CIRCUIT = "operation_state:breaker_circuit_state:max"
MEMORY = "cluster:breaker_store_memory_ratio:max"
REFUSED_SHARE = "operation:breaker_refused:ratio_rate5m"
REFUSED_CALLS = "operation:breaker_refused:increase5m"
REFUSED_BY = "operation_reason:breaker_refused:rate5m"
OVER_BY = "operation_action:breaker_over_capacity:rate1m"
FAILED_SHARE = "operation:breaker_downstream_failed:ratio_rate5m"
FAILED_AS = "operation_result:breaker_downstream_failed:rate5m"

# What limits would have to be.
NEEDED_OVER = "operation_limit:breaker_needed_over_capacity:max"
NEEDED_PROMISE = "operation_limit:breaker_needed_promise:max"
NEEDED_FILL = "operation_limit:breaker_needed_fill:max"
# For the first command: the same, rounded up and with its unit.
RAISE_OVER = "operation_limit_unit:breaker_raise_over_capacity:ceil"
RAISE_PROMISE = "operation_limit_unit:breaker_raise_promise:ceil"
RAISE_FILL = "operation_limit_unit:breaker_raise_fill:ceil"


def worded(name: str) -> str:
    """The name under which a number is recorded with its unit."""
    level, _, rest = name.partition(":")
    return f"{level}_unit:{rest}"


RECORDED: Mapping[str, str] = {
    LIMIT: "max by (operation, limit) (breaker_capacity_limit)",
    USED: "max by (operation, limit) (breaker_capacity_used)",
    # How much of a quota is wanted nobody can say; how much is used up is the nearest.
    WANTED: "max by (operation, limit) (breaker_capacity_wanted)\n"
    'or max by (operation, limit) (breaker_capacity_used{limit="quota"})',
    BY_LIMIT: f"{WANTED} / ({LIMIT} > 0)",
    UTILISATION: f"max by (operation) ({BY_LIMIT})",
    TIGHTEST: f"topk by (operation) (1, {BY_LIMIT})",
    SERVICE: "sum by (operation) (rate(breaker_downstream_duration_seconds_sum[5m]))\n"
    "/ (sum by (operation) (rate(breaker_downstream_duration_seconds_count[5m])) > 0)",
    STATES: "max by (operation, state) (breaker_queue_jobs)",
    WAITING: f'sum by (operation) ({STATES}{{state=~"queued|held|scheduled"}})',
    LIMIT_JOBS: "max by (operation) (breaker_queue_limit_jobs)",
    ROOM: f"clamp_min({LIMIT_JOBS} - {WAITING}, 0)",
    FULL_IN: f"{ROOM} / (deriv({WAITING}[15m]) > 0)",
    EXPECTED: "max by (operation, band) (breaker_queue_expected_seconds)",
    PROMISE: "max by (operation) (breaker_queue_promise_seconds)",
    NEEDED: "max by (operation) (breaker_queue_needed_rate)",
    STARTS: "sum by (operation) (rate(breaker_downstream_calls_total[1m]))",
    CLEARS_IN: f"{WAITING} / ({STARTS} > 0)",
    CIRCUIT: "max by (operation, state) (breaker_circuit_state)",
    MEMORY: "max(breaker_store_memory_ratio)",
    REFUSED_CALLS: f"sum by (operation) (increase({REFUSED}[5m]))",
    REFUSED_SHARE: f"sum by (operation) (rate({REFUSED}[5m]))\n"
    "/ (sum by (operation) (rate(breaker_calls_total[5m])) > 0)",
    REFUSED_BY: f"sum by (operation, reason) (rate({REFUSED}[5m])) > 0",
    OVER_BY: "sum by (operation, action) (rate(breaker_over_capacity_total[1m])) > 0",
    FAILED_AS: f"sum by (operation, result) (rate({_FAILED}[5m])) > 0",
    FAILED_SHARE: f"sum by (operation) (rate({_FAILED}[5m]))\n/ (sum by (operation) (rate({_COUNTED}[5m])) > 0)",
}


def worded_rules() -> dict[str, str]:
    """Numbers as a person reads them (rule 5), and what the first command says."""
    return {
        worded(STARTS): with_unit(STARTS),
        worded(NEEDED): with_unit(NEEDED),
        worded(REFUSED_BY): with_unit(REFUSED_BY),
        worded(OVER_BY): with_unit(OVER_BY),
        worded(WANTED): of_limits(WANTED),
        worded(LIMIT): of_limits(LIMIT),
        NEEDED_PROMISE: needed_by_limit(NEEDED),
        RAISE_PROMISE: raised(NEEDED_PROMISE),
        # With what comes beyond what is started the queue would no longer grow.
        NEEDED_FILL: needed_by_limit(f"({STARTS} + (deriv({WAITING}[15m]) > 0))"),
        RAISE_FILL: raised(NEEDED_FILL),
    }


def budget_rules() -> dict[str, str]:
    """
    Share of calls that failed over each window of `BURN_WINDOWS`, and how many there were in the long ones (rule 4).

    A call that was refused for want of capacity was never sent downstream, so none is counted twice.
    """
    rules = {
        "operation:breaker_errors:rate5m": f"sum by (operation) (rate({_FAILED}[5m]) or rate({REFUSED}[5m]))",
        "operation:breaker_counted:rate5m": f"sum by (operation) (rate({_COUNTED}[5m]) or rate({REFUSED}[5m]))",
    }
    for seconds in sorted({s for window in BURN_WINDOWS for s in (window.short_s, window.long_s)}):
        rules[burn_ratio(seconds)] = f"{_over('errors', seconds)}\n/ ({_over('counted', seconds)} > 0)"
    for seconds in sorted({window.long_s for window in BURN_WINDOWS}):
        rules[burn_calls(seconds)] = f"{_over('counted', seconds)} * {BUDGET_EVERY_S}"
    return rules


def burn_ratio(seconds: int) -> str:
    return f"operation:breaker_errors:ratio_rate{format_duration(seconds * 1_000)}"


def burn_calls(seconds: int) -> str:
    return f"operation:breaker_counted:increase{format_duration(seconds * 1_000)}"


def with_unit(rate: str) -> str:
    """A rate per second as one per second, minute or hour, to a tenth: in the unit that gives at least 1."""
    return "\nor ".join(
        (
            unit_of(f"round({rate} >= 1, 0.1)", "/s"),
            unit_of(f"round(({rate} < 1) * 60 >= 1, 0.1)", "/min"),
            unit_of(f"round(({rate} < 1 / 60) * 3600, 0.1)", "/h"),
        )
    )


def of_limits(capacity: str) -> str:
    """Starts, slots or a share of the period."""
    return "\nor ".join(
        (
            with_unit(f'{capacity}{{limit="rate"}}'),
            unit_of(f'ceil({capacity}{{limit="concurrency"}})', " slots"),
            unit_of(f'{capacity}{{limit="quota"}}', " of the period"),
        )
    )


def needed_by_limit(starts: str) -> str:
    """
    What limits would have to be for so many starts per second.

    Only those that are lower than that, and not while jobs are held: there a higher limit would not help.
    """
    return (
        f'(label_replace({starts}, "limit", "rate", "", "") > {LIMIT}{{limit="rate"}}\n'
        f'  or label_replace({starts} * {SERVICE}, "limit", "concurrency", "", "") > {LIMIT}{{limit="concurrency"}})\n'
        f'unless on (operation) {STATES}{{state="held"}} > 0'
    )


def raised(capacity: str) -> str:
    """
    Rounded up to a whole number, in a unit in which that adds little.

    First to a thousandth: what is 22 but for the last bit of a float is not 23.
    """
    rate, slots, least = f'{capacity}{{limit="rate"}}', f'{capacity}{{limit="concurrency"}}', RAISED_LEAST
    return "\nor ".join(
        (
            unit_of(f"ceil(round({rate}, 0.001) >= {least})", "/s"),
            unit_of(f"ceil(round(({rate} < {least}) * 60, 0.001) >= {least})", "/min"),
            unit_of(f"ceil(round(({rate} < {least} / 60) * 3600, 0.001))", "/h"),
            f"ceil(round({slots}, 0.001))",
        )
    )


def unit_of(numbers: str, unit: str) -> str:
    return f'label_replace({numbers}, "unit", "{unit}", "", "")'


def _over(what: str, seconds: int) -> str:
    step = f"operation:breaker_{what}:rate5m"
    return step if seconds == STEP_S else f"sum_over_time({step}[{format_duration(seconds * 1_000)}])"
