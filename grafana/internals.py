"""
Internals: is Breaker itself well, and would on-call be told?

The verdict first, then replicas, the store, what we add to each call, and the delivery of alerts.
"""

from grafana.board import Board, Mark
from grafana.colours import BAD, GOOD, WARN
from grafana.fields import Query, Word
from grafana.panels import Style, answer, graph
from grafana.promql import INTERVAL, more, most, per_second, quantile, series, worst
from grafana.tables import Column, listing

_TOLD = 'severity!="none"'  # the watchdog always fires
_UP = f"min({series('breaker_store_up')})"
_DEGRADED = f"sum({series('breaker_degraded')})"
_DIFFERING = most("breaker_replicas_differing", per=())
_RELOAD = f"min({series('breaker_config_reload_ok')})"
_UNACCOUNTED = most("breaker_jobs_unaccounted")
_LOST = f"sum({series('breaker_jobs_lost')})"
_OUTBOX = f"sum by (channel) ({series('breaker_alert_outbox')})"

_FAILED = more("breaker_alert_deliveries_total", 'result="failed"', per=(), over="10m")
_VERDICT = worst(
    (0, f"max({series('breaker_build_info')})"),
    (1, f"max({_DIFFERING} > bool 0 or ({_RELOAD} == bool 0))"),
    (2, f"max({most('breaker_removed_jobs')}) > bool 0"),
    (3, f"{_FAILED} > bool 0"),
    (4, f"{_DEGRADED} > bool 0"),
    (5, f"{_UP} == bool 0"),
    (6, f"max(abs({_UNACCOUNTED})) + {_LOST} > bool 0"),
)


def _quantiles(name: str) -> list[Query]:
    return [Query(expr=quantile(share, name), name=word) for word, share in (("p50", 0.5), ("p99", 0.99))]


_STATUS = [
    (
        answer(
            "Is Breaker itself well?",
            "The worst of: the ledger of jobs does not balance (a bug, or the store went back in time), the store is away, some "
            "operations are degraded, alerts are not delivered, there are jobs of an operation that no file names any more, replicas "
            "differ in their configuration.",
            _VERDICT,
            words=[
                Word(value=0, text="Yes", colour=GOOD),
                Word(value=1, text="Configurations differ", colour=WARN),
                Word(value=2, text="Jobs of removed operations", colour=WARN),
                Word(value=3, text="Alerts are not delivered", colour=BAD),
                Word(value=4, text="Degraded", colour=BAD),
                Word(value=5, text="Store is away", colour=BAD),
                Word(value=6, text="Jobs unaccounted for", colour=BAD),
            ],
            none="No gateway answers",
        ),
        6,
    ),
    (
        answer(
            "Replicas",
            "Gateways that live, as they see each other in the store. Whether that is enough is for you to say: "
            "`replicas_expected`.",
            most("breaker_replicas", per=()),
            decimals=0,
        ),
        3,
    ),
    (
        answer(
            "Stewards",
            "One replica does the chores of all. Zero for some seconds after it died is normal; zero for longer, or two, is not.",
            f"sum({series('breaker_steward')})",
            decimals=0,
            words=(
                Word(value=0, text="none", colour=BAD),
                Word(value=1, text="one", colour=GOOD),
                Word(value=2, upto=1e6, text="several", colour=WARN),
            ),
        ),
        3,
    ),
    (
        answer(
            "Jobs unaccounted for",
            "Accepted jobs that are neither ended, nor waiting, nor running. Anything but 0 is a bug of ours, or keys that were "
            "changed by hand.",
            f"max(abs({_UNACCOUNTED}))",
            decimals=0,
            steps=(1, 1),
            none="no queue",
        ),
        4,
    ),
    (
        answer(
            "Jobs lost by the store",
            "202s that were given and that the store does not know any more: after a failover to a replica that was behind, or a "
            "restore.",
            _LOST,
            decimals=0,
            steps=(1, 1),
            none="no queue",
        ),
        4,
    ),
    (
        answer(
            "Store memory",
            "Of its `maxmemory`. When it is full new jobs are refused, before anything is written; work in progress goes on. 0% "
            "without a `maxmemory`.",
            most("breaker_store_memory_ratio", per=()),
            unit="percentunit",
            decimals=0,
            steps=(0.75, 0.9),
        ),
        4,
    ),
]

_REPLICAS = [
    (
        listing(
            "Replica by replica",
            "One row each. Version and configuration should be the same in all, but while a rollout is under way.",
            [
                Column(title="Instance", label="instance", width=190),
                Column(title="Replica", label="replica"),
                Column(title="Version", label="version", width=90),
                Column(title="Cluster", label="cluster", width=110),
                Column(
                    title="Store",
                    expr=f"min by (instance) ({series('breaker_store_up')}) * on (instance) group_left (replica, version, cluster) "
                    f"group by (instance, replica, version, cluster) ({series('breaker_build_info')})",
                    words=(Word(value=1, text="in use", colour=GOOD), Word(value=0, text="away", colour=BAD)),
                    width=80,
                ),
                Column(
                    title="Steward",
                    expr=f"sum by (instance) ({series('breaker_steward')})",
                    words=(Word(value=1, text="yes", colour=GOOD), Word(value=0, text="-", colour=GOOD)),
                    width=80,
                ),
                Column(
                    title="Loop lag p99",
                    expr=quantile(0.99, "breaker_loop_lag_seconds", per=("instance",)),
                    unit="s",
                    decimals=1,
                    steps=(0.05, 0.25),
                    width=110,
                ),
            ],
            joined="instance",
        ),
        12,
    ),
    (
        graph(
            "Configuration, by version",
            "How many processes run each configuration. Two at a time is a rollout; two for long is a replica that did not reload.",
            [Query(expr=f"count by (version) ({series('breaker_config_info')})", name="{{version}}")],
            "short",
            Style(stacked=True, stepped=True, decimals=0),
        ),
        6,
    ),
    (
        graph(
            "Degraded replicas, by mode",
            "Operations times replicas that decide without the store, by what they do then: each takes its share, refuses, or "
            "lets all through. Zero is normal.",
            [Query(expr=f"sum by (mode) ({series('breaker_degraded')})", name="{{mode}}")],
            "short",
            Style(stacked=True, stepped=True, decimals=0),
        ),
        6,
    ),
]

_OURS = [
    (
        graph(
            "What we add before forwarding",
            "From a call's arrival until it was decided, a wait for its turn included. Each line of the "
            "grid is ten times the one below; the median is what an idle gateway costs.",
            _quantiles("breaker_admission_duration_seconds"),
            "s",
            Style(filled=0, by_tens=True),
        ),
        8,
    ),
    (
        graph(
            "Event loop lag, slowest hundredth",
            "How much later than planned the event loop ran a timer. Above 50 ms a replica is short of processor, or blocked.",
            [Query(expr=quantile(0.99, "breaker_loop_lag_seconds", per=("instance",)), name="{{instance}}")],
            "s",
            Style(filled=0),
        ),
        8,
    ),
    (
        graph(
            "Leases lost",
            "Slots whose lease was gone while their call ran: the store lost it, or the replica stood still for too long. More "
            "may be in flight downstream than is counted.",
            [Query(expr=more("breaker_leases_lost_total", 'operation!="_unknown"'), name="{{operation}}")],
            "short",
            Style(bars=True),
        ),
        8,
    ),
]

_STORE = [
    (
        graph(
            "Store: one exchange",
            "Each decision waits for one. Above its timeout the replica goes on without the store.",
            _quantiles("breaker_store_round_trip_seconds"),
            "s",
            Style(filled=0),
        ),
        6,
    ),
    (
        graph(
            "Store: decisions in one exchange",
            "Grows under load, which is how throughput does: many decisions share one round trip. Exchanges that only look or give back count as 0.",
            _quantiles("breaker_store_batch_size"),
            "short",
        ),
        6,
    ),
    (
        graph(
            "Store: errors",
            "Exchanges that failed, by kind. `refused` is the store's own no: no memory, no disk, or not enough replicas.",
            [Query(expr=per_second("breaker_store_errors_total", per=("kind",)), name="{{kind}}")],
            "ops",
            Style(stacked=True),
        ),
        6,
    ),
    (
        graph(
            "Store: clock jumps",
            "By how much its clock last jumped, within ten minutes. Rates and leases go by it.",
            [Query(expr=f"max(abs({series('breaker_store_clock_jump_seconds')}))", name="seconds")],
            "s",
        ),
        6,
    ),
]

_ALERTS = [
    (
        graph(
            "Alerts that fire, by severity",
            "What the gateway itself has found, whether or not Prometheus agrees: `breaker alerts list` names them.",
            [
                Query(
                    expr=f"sum by (severity) ({series('breaker_alerts_firing', _TOLD)})",
                    name="{{severity}} alerts",
                )
            ],
            "short",
            Style(stacked=True, stepped=True, decimals=0),
        ),
        6,
    ),
    (
        graph(
            "Deliveries, by result",
            "Tries to tell a channel. `retry` is tried again, `failed` was given up: nobody was told there.",
            [Query(expr=more("breaker_alert_deliveries_total", per=("result",)), name="{{result}}")],
            "short",
            Style(bars=True, stacked=True),
        ),
        6,
    ),
    (
        graph(
            "Notifications not delivered yet",
            "What waits in the outbox, by channel. It is kept over restarts, and should be empty within seconds.",
            [Query(expr=_OUTBOX, name="{{channel}}")],
            "short",
            Style(stepped=True, decimals=0),
        ),
        6,
    ),
    (
        answer(
            "Last delivery",
            "Since any channel last took a notification. Long is normal when nothing fires; `breaker alerts test` sends one.",
            "time() - max(" + series("breaker_alert_last_delivery_timestamp_seconds") + " > 0)",
            unit="s",
            decimals=0,
            none="none since the start",
        ),
        6,
    ),
]

BOARD = Board(
    uid="breaker-internals",
    name="Internals",
    about="Is Breaker itself well: replicas, store, what it adds to each call, and would on-call be told?",
    operation="none",
    since="now-1h",
    rows=[(5, _STATUS), (8, _REPLICAS), (7, _OURS), (7, _STORE), (7, _ALERTS)],
    marks=(
        Mark(
            name="Store lost what it knew",
            expr=f"max(increase({series('breaker_store_resets_total')}[{INTERVAL}])) > bool 0",
            text="The store was flushed, restored or replaced",
            colour=BAD,
        ),
    ),
)
