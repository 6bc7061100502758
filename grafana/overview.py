"""
Overview: is anything over capacity now, and what becomes of it?

Read from the top left: two answers in words, what on-call was told, then every operation as a row. A row leads to the
dashboard of its operation.
"""

from grafana.board import OPERATION_URL, Board
from grafana.colours import BAD, OFF, WARN
from grafana.fields import CIRCUIT_WORDS, Query, Word, in_words
from grafana.panels import Style, answer, graph
from grafana.promql import (
    ANY,
    MANY,
    OVER,
    added_up,
    circuit,
    is_at_risk,
    is_over,
    most,
    per_second,
    series,
    tightest,
)
from grafana.tables import Column, listing

# For how long each has been firing; rules of one alert differ in their other labels.
_FIRING = (
    "max by (alertname, severity, operation, band) ((time() - ALERTS_FOR_STATE) and ignoring (alertstate) "
    'ALERTS{alertname=~"Breaker.*", alertname!="BreakerWatchdog", alertstate="firing"})'
)
_WAITING = added_up("breaker_queue_jobs", MANY, 'state=~"queued|held"')

_OPERATIONS = (
    Column(title="Operation", label="operation", url=OPERATION_URL, width=220),
    Column(title="Calls/s", expr=per_second("breaker_calls_total", MANY), decimals=1),
    Column(title="Demand", expr=tightest(MANY), unit="percentunit", decimals=0, steps=(0.9, OVER)),
    Column(title="In flight", expr=most("breaker_capacity_used", MANY, 'limit="concurrency"'), decimals=0),
    Column(title="Slots", expr=most("breaker_capacity_limit", MANY, 'limit="concurrency"'), decimals=0),
    Column(title="Waiting", expr=_WAITING, decimals=0),
    Column(title="Oldest", expr=most("breaker_queue_oldest_seconds", MANY), unit="s", decimals=0),
    Column(
        title="Of promise",
        expr=f"{most('breaker_queue_oldest_seconds', MANY)} / {most('breaker_queue_promise_seconds', MANY)}",
        unit="percentunit",
        decimals=0,
        steps=(0.8, 1.0),
    ),
    Column(title="ETA", expr=most("breaker_queue_eta_seconds", MANY), unit="s", decimals=0),
    Column(title="Circuit", expr=circuit(MANY), words=CIRCUIT_WORDS),
    Column(
        title="Refused/s",
        expr=per_second("breaker_calls_total", MANY, 'outcome="refused"'),
        decimals=1,
        steps=(0.01, 1.0),
    ),
    Column(
        title="Store",
        expr=f"sum by (operation) ({series('breaker_degraded', MANY)})",
        words=(
            Word(value=0, text="-", colour=OFF),
            Word(value=1, upto=1e6, text="degraded", colour=BAD),
        ),
    ),
)

BOARD = Board(
    uid="breaker-overview",
    name="Overview",
    about="Is anything over capacity now, is a promise at risk, and which operation is it?",
    operation="many",
    since="now-1h",
    rows=[
        (
            6,
            [
                (
                    answer(
                        "Is anything over capacity now?",
                        "Operations that are asked for more than their limits allow: by rate, by slots, or a quota that is used "
                        "up. What is done with the rest is in the table. A queue that is being worked off is not over capacity; "
                        "whether it is in time is the next answer. 'not known': no gateway has read the store for 15 s.",
                        f"sum({is_over(MANY)})",
                        words=in_words("No", "Yes: {} operation", "Yes: {} operations", WARN),
                    ),
                    6,
                ),
                (
                    answer(
                        "Promises at risk",
                        "Queues and bands whose jobs will have waited longer than `start_within` when they start, as things "
                        "are now. Nothing is lost, but somebody will be late: raise the limit, or talk to those who wait.",
                        f"sum({is_at_risk(MANY)})",
                        words=in_words("All kept", "{} at risk", "{} at risk", BAD),
                        none="none made",
                    ),
                    5,
                ),
                (
                    listing(
                        "Alerts that fire",
                        "What Prometheus' rules say now. Each alert has a runbook of its name. Empty is good; whether alerts "
                        "can be delivered at all is on the dashboard Internals.",
                        [
                            Column(title="Alert", label="alertname", width=220),
                            Column(title="Severity", label="severity", width=80),
                            Column(title="Operation", label="operation", url=OPERATION_URL),
                            Column(title="Band", label="band", width=80),
                            Column(
                                title="Firing for",
                                expr=_FIRING,
                                unit="s",
                                decimals=0,
                                width=100,
                            ),
                        ],
                        joined="",
                        none="no alert fires",
                        descending="Firing for",
                    ),
                    13,
                ),
            ],
        ),
        (
            9,
            [
                (
                    listing(
                        "Operations",
                        "One row each; click a name for its own dashboard. Demand: what is wanted of the tightest limit, over "
                        "100% is over capacity. Oldest: age of the oldest job that waits, and as a share of `start_within`. "
                        "ETA: until a job accepted now starts, in nine of ten cases. Empty cells: the operation has no such "
                        "limit, or no queue. Store: 'degraded' where replicas decide without it.",
                        _OPERATIONS,
                        descending="Demand",
                    ),
                    24,
                )
            ],
        ),
        (
            8,
            [
                (
                    graph(
                        "Demand against capacity",
                        "What each operation is asked for, as a share of its tightest limit. Above the dashed line it is over "
                        "capacity.",
                        [Query(expr=tightest(MANY), name="{{operation}}")],
                        "percentunit",
                        Style(line_at=1.0, filled=0),
                    ),
                    12,
                ),
                (
                    graph(
                        "What became of calls",
                        "Every call ends in exactly one of these. Blue waits, orange went out over capacity, red was refused by "
                        "us, dark red failed downstream. Yellow: nobody knows whether it was done.",
                        [
                            Query(
                                expr=per_second("breaker_calls_total", ANY, per=("outcome",)),
                                name="{{outcome}}",
                            )
                        ],
                        "cps",
                        Style(stacked=True),
                    ),
                    12,
                ),
            ],
        ),
        (
            8,
            [
                (
                    graph(
                        "Calls without capacity",
                        "Calls that found no room, by what was done with them: queued as jobs, delayed for a moment, let "
                        "through with a signal, or refused. Zero is normal.",
                        [
                            Query(
                                expr=per_second("breaker_over_capacity_total", MANY, per=("action",)),
                                name="{{action}}",
                            )
                        ],
                        "cps",
                        Style(stacked=True),
                    ),
                    8,
                ),
                (
                    graph(
                        "Jobs that wait",
                        "Accepted, not yet started, with those that are held by a person or an open circuit. None of them is lost.",
                        [
                            Query(
                                expr=_WAITING,
                                name="{{operation}}",
                            )
                        ],
                        "short",
                        Style(decimals=0),
                    ),
                    8,
                ),
                (
                    graph(
                        "Expected wait, as a share of the promise",
                        "How long the slowest band's jobs will have waited when they start, against `start_within`. Above the "
                        "dashed line the promise will be broken.",
                        [
                            Query(
                                expr=f"{most('breaker_queue_expected_seconds', MANY)} / {most('breaker_queue_promise_seconds', MANY)}",
                                name="{{operation}}",
                            )
                        ],
                        "percentunit",
                        Style(line_at=1.0, filled=0),
                    ),
                    8,
                ),
            ],
        ),
        (
            7,
            [
                (
                    graph(
                        "Slowest tenth of answers",
                        "From a call's arrival to its end, our part and the downstream's: nine of ten calls are faster.",
                        [
                            Query(
                                expr="histogram_quantile(0.9, sum by (le, operation) "
                                f"(rate({series('breaker_call_duration_seconds_bucket', MANY)}[$__rate_interval])))",
                                name="{{operation}}",
                            )
                        ],
                        "s",
                        Style(filled=0),
                    ),
                    12,
                ),
                (
                    graph(
                        "New dead letters",
                        "Jobs that ended as dead: the downstream will not take them, or could not within their time. They are "
                        "kept: `breaker dead list`.",
                        [
                            Query(
                                expr="max by (operation) (increase("
                                + series("breaker_jobs_finished_total", MANY, 'result="dead"')
                                + "[$__rate_interval]))",
                                name="{{operation}}",
                            )
                        ],
                        "short",
                        Style(bars=True, stacked=True),
                    ),
                    12,
                ),
            ],
        ),
    ],
)
