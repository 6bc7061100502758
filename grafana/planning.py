"""
Capacity planning: when will which operation run out, and what would be needed then?

A peak is the highest share of a limit that was wanted, looked at each minute (over a week, each five minutes).
All of it is reckoned from raw gauges, so it needs no recording rules; only as much history as Prometheus keeps.
"""

from grafana.board import OPERATION_URL, Board
from grafana.colours import BAD, GOOD, PLAIN, WARN
from grafana.fields import Query, Word, in_words
from grafana.panels import Style, answer, graph
from grafana.promql import MANY, more, most, series, tightest
from grafana.tables import Column, listing, matrix

_NEVER = 3650  # days; a demand that does not grow never arrives
_DEMAND = tightest(MANY)
_PEAK = f"max_over_time(({_DEMAND})[7d:5m])"
_PEAK_BEFORE = f"max_over_time(({_DEMAND})[7d:5m] offset 7d)"
# Of a day, from one week to the next: a line through single days would take every weekend for a fall.
_GROWTH = f"({_PEAK} - {_PEAK_BEFORE}) / 7"
_DAYS = f"clamp(clamp_min(1 - ({_PEAK}), 0) / clamp_min({_GROWTH}, 1e-9), 0, {_NEVER})"


def _highest(name: str, limit: str) -> str:
    which = f'limit="{limit}"'
    return f"max by (operation) (max_over_time({series(name, MANY, which)}[7d]))"


_QUOTA = 'limit="quota"'
_RATE = 'limit="rate"'
_QUEUED = series("breaker_queue_jobs", MANY, 'state="queued"')
_WANTED = f"sum({most('breaker_capacity_wanted', MANY, _RATE)})"

# 1 with the hour and the weekday (0 is Monday) as labels; PromQL has no other way to make labels of a time.
_HOUR = 'label_replace(count_values("hour", hour(vector(time()))), "hour", "0$1", "hour", "(.)")'
_DAY = 'count_values("day", (day_of_week(vector(time())) + 6) % 7)'
_DAYS_OF_WEEK = tuple(
    Word(value=day, text=name, colour=PLAIN)
    for day, name in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))
)
_BY_HOUR = f"max_over_time(({_HOUR} * on () group_left (day) {_DAY} * scalar(max({_DEMAND})))[$__range:5m])"
_DAYS_LEFT = (
    Word(value=_NEVER, upto=1e9, text="not in sight", colour=GOOD),
    Word(value=0, text="now", colour=BAD),
)

_TABLE = (
    Column(title="Operation", label="operation", url=OPERATION_URL, width=220),
    Column(title="Peak of limit", expr=_PEAK, unit="percentunit", decimals=0, steps=(0.8, 1.0)),
    Column(title="Week before", expr=_PEAK_BEFORE, unit="percentunit", decimals=0),
    Column(title="Growth a day", expr=_GROWTH, unit="percentunit", decimals=1),
    Column(title="Days left", expr=_DAYS, unit="short", decimals=0, steps=(30, 7), words=_DAYS_LEFT),
    Column(title="Peak starts/s", expr=_highest("breaker_capacity_wanted", "rate"), decimals=1),
    Column(title="Rate limit", expr=most("breaker_capacity_configured", MANY, 'limit="rate"'), decimals=1),
    Column(title="10x starts/s", expr=f"10 * {_highest('breaker_capacity_wanted', 'rate')}", decimals=0),
    Column(title="Peak slots", expr=_highest("breaker_capacity_wanted", "concurrency"), decimals=0),
    Column(title="Slots", expr=most("breaker_capacity_configured", MANY, 'limit="concurrency"'), decimals=0),
    Column(title="10x slots", expr=f"10 * {_highest('breaker_capacity_wanted', 'concurrency')}", decimals=0),
)

BOARD = Board(
    uid="breaker-planning",
    name="Capacity planning",
    about="When does which operation run out of capacity, how does it grow, and what would ten times the load need?",
    operation="many",
    since="now-7d",
    rows=[
        (
            5,
            [
                (
                    answer(
                        "Days until the first runs out",
                        "When the peak of the operation that is nearest to its limit will reach it, if it goes on growing as it did "
                        "from the week before to the last 7 days. 'now': one was over its limit already. A forecast, not a promise.",
                        f"min({_DAYS})",
                        unit="short",
                        decimals=0,
                        words=_DAYS_LEFT,
                        steps=(30, 7),
                        none="not two weeks yet",
                    ),
                    6,
                ),
                (
                    answer(
                        "Operations that were over capacity",
                        "Within the last 7 days, at least once. The table says which.",
                        f"sum({_PEAK} > bool 1)",
                        words=in_words("None", "{}", "{}", WARN),
                    ),
                    6,
                ),
                (
                    answer(
                        "Highest demand",
                        "The highest share of a limit that was wanted within the last 7 days, over the chosen operations.",
                        f"max({_PEAK})",
                        unit="percentunit",
                        decimals=0,
                        steps=(0.8, 1.0),
                    ),
                    6,
                ),
                (
                    answer(
                        "Growth, week over week",
                        "Calls of the last 7 days against those of the 7 days before.",
                        f"{more('breaker_calls_total', MANY, per=(), over='7d')} / "
                        f"(sum (increase({series('breaker_calls_total', MANY)}[7d] offset 7d)) > 0) - 1",
                        unit="percentunit",
                        decimals=0,
                        none="not two weeks yet",
                    ),
                    6,
                ),
            ],
        ),
        (
            9,
            [
                (
                    listing(
                        "Room, operation by operation",
                        "Peak: the highest share of its tightest limit that was wanted in the last 7 days. Days left: if the peak goes "
                        "on growing as from the week before. 10x: what ten times the peak would need, to be held against the "
                        "limit beside it, and agreed with whoever owns the downstream. Callers that come back count each time.",
                        _TABLE,
                        descending="Peak of limit",
                    ),
                    24,
                )
            ],
        ),
        (
            9,
            [
                (
                    matrix(
                        "Peak of limit, by weekday and hour (UTC)",
                        "The highest share of a limit that was wanted in each hour of the week, over the chosen operations and the "
                        "chosen time. Orange and red hours are where a calendar of limits, or a later batch run, would help.",
                        _BY_HOUR,
                        row="day",
                        column="hour",
                        unit="percentunit",
                        steps=(0.8, 1.0),
                        rows=_DAYS_OF_WEEK,
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
                        "Peak of limit, hour by hour",
                        "The highest share of its tightest limit that each operation wanted within the hour. Above the dashed "
                        "line it was over capacity.",
                        [Query(expr=f"max_over_time(({_DEMAND})[1h:1m])", name="{{operation}}")],
                        "percentunit",
                        Style(line_at=1.0, filled=0, step="1h"),
                    ),
                    12,
                ),
                (
                    graph(
                        "This week against the one before",
                        "Starts wanted per second over the chosen operations, the highest of each hour; dotted is 7 days earlier.",
                        [
                            Query(expr=f"max_over_time(({_WANTED})[1h:1m])", name="this week"),
                            Query(
                                expr=f"max_over_time(({_WANTED})[1h:1m] offset 7d)", name="the week before"
                            ),
                        ],
                        "cps",
                        Style(step="1h"),
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
                        "Calls without capacity, by day",
                        "What could not start when it came: queued, delayed, let through or refused.",
                        [
                            Query(
                                expr=more("breaker_over_capacity_total", MANY, per=("action",), over="1d"),
                                name="{{action}}",
                            )
                        ],
                        "short",
                        Style(stacked=True, bars=True, step="1d", decimals=0),
                    ),
                    8,
                ),
                (
                    graph(
                        "Longest queue, as a share of its room",
                        "The most jobs that waited within each hour, against `max_jobs`. At 100% callers are refused.",
                        [
                            Query(
                                expr=f"max by (operation) (max_over_time({_QUEUED}[1h])) / {most('breaker_queue_limit_jobs', MANY)}",
                                name="{{operation}}",
                            )
                        ],
                        "percentunit",
                        Style(step="1h", filled=0),
                    ),
                    8,
                ),
                (
                    graph(
                        "Quotas used",
                        "Of the day, week or month that the contract counts; at 100% nothing starts until it begins anew.",
                        [
                            Query(
                                expr=f"{most('breaker_capacity_used', MANY, _QUOTA)} / {most('breaker_capacity_limit', MANY, _QUOTA)}",
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
    ],
)
