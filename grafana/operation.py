"""
Operation: one operation in full. The picture of this product is its first graph: wanted, admitted, limit.

From top to bottom: the verdict, demand against capacity, what became of calls, who waits and for how long, the
downstream, and what went wrong.
"""

from grafana.board import Board, Mark
from grafana.colours import BAD, GOOD, OFF, WARN, WORDS
from grafana.fields import CIRCUIT_WORDS, Query, Word
from grafana.panels import Row, Style, answer, graph, timeline
from grafana.promql import (
    INTERVAL,
    ONE,
    OVER,
    added_up,
    by_one,
    circuit,
    demand,
    is_at_risk,
    is_over,
    most,
    per_second,
    quantile,
    series,
    worst,
)

_CIRCUIT = most("breaker_circuit_state", ONE, 'state=~"open|forced-open"', per=())
_REFUSED = per_second("breaker_over_capacity_total", ONE, 'action="refused"', per=())
_VERDICT = worst(
    (0, f"{most('breaker_circuit_state', ONE, per=())}"),
    (1, f"max({is_over(ONE)})"),
    (2, f"max({is_at_risk(ONE)})"),
    (3, f"{_REFUSED} > bool 0"),
    (4, _CIRCUIT),
)
_PROMISE = most("breaker_queue_promise_seconds", ONE, per=())
_WAITING = added_up("breaker_queue_jobs", ONE, 'state=~"queued|held"', per=())
_HELD = most("breaker_held_since_timestamp_seconds", ONE, per=())
_NEEDED = most("breaker_queue_needed_rate", ONE, per=())
_DEGRADED = f"sum({series('breaker_degraded', ONE)})"


def _capacity(limit: str, unit: str) -> list[Query]:
    """The lines of the picture; the limit last, so that it is drawn over the others."""
    which = f'limit="{limit}"'
    return [
        Query(expr=most("breaker_capacity_wanted", ONE, which, per=()), name="wanted"),
        Query(expr=most("breaker_capacity_used", ONE, which, per=()), name=unit),
        Query(expr=most("breaker_capacity_configured", ONE, which, per=()), name="configured"),
        Query(expr=most("breaker_capacity_limit", ONE, which, per=()), name="limit"),
    ]


def _quantiles(name: str, *, has_exemplars: bool = False) -> list[Query]:
    return [
        Query(expr=quantile(share, name, ONE), name=word, has_exemplars=has_exemplars and word == "p99")
        for word, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    ]


_YES_NO = {
    "over": (
        Word(value=0, text="within capacity", colour=GOOD),
        Word(value=1, text="over capacity", colour=WARN),
    ),
    "risk": (
        Word(value=0, text="promise kept", colour=GOOD),
        Word(value=1, text="promise at risk", colour=BAD),
    ),
    "held": (
        Word(value=0, text="running", colour=GOOD),
        Word(value=1, text="held by a person", colour=WORDS["held"]),
    ),
    "store": (
        Word(value=0, text="store in use", colour=GOOD),
        Word(value=1, upto=1e6, text="degraded: without the store", colour=BAD),
    ),
}

_STATUS = [
    (
        answer(
            "How is it now?",
            "The worst of: circuit open (nothing reaches the downstream), refusing (callers are told to come back), promise at "
            "risk (jobs will start later than `start_within`), over capacity (more is wanted than allowed).",
            _VERDICT,
            words=[
                Word(value=0, text="Within capacity", colour=GOOD),
                Word(value=1, text="Over capacity", colour=WARN),
                Word(value=2, text="Promise at risk", colour=BAD),
                Word(value=3, text="Refusing callers", colour=BAD),
                Word(value=4, text="Circuit open", colour=WORDS["forced-open"]),
            ],
        ),
        6,
    ),
    (
        answer(
            "Demand",
            "What is wanted of its tightest limit. From 100% on calls wait, are queued, let through or refused.",
            f"max({demand(ONE)})",
            unit="percentunit",
            decimals=0,
            steps=(0.9, OVER),
            trend=True,
        ),
        4,
    ),
    (
        answer(
            "Jobs waiting",
            "Accepted and not yet started, those that are held included. They are kept, whatever happens to a replica.",
            _WAITING,
            decimals=0,
            none="no queue",
            trend=True,
        ),
        4,
    ),
    (
        answer(
            "Expected wait, of promise",
            "How long the slowest band's jobs will have waited when they start, as a share of `start_within`. Over 100% "
            "somebody will be late.",
            f"{most('breaker_queue_expected_seconds', ONE, per=())} / {_PROMISE}",
            unit="percentunit",
            decimals=0,
            steps=(0.8, 1.0),
            none="no queue",
        ),
        4,
    ),
    (
        answer(
            "Refused",
            "Calls that had no capacity and were sent away with a time to come back. What is refused by contract, or for "
            "want of a key, is not in it.",
            _REFUSED,
            unit="cps",
            decimals=1,
            steps=(0.01, 1.0),
            trend=True,
        ),
        3,
    ),
    (
        answer(
            "Dead letters",
            "Jobs that ended without success and wait for a person: `breaker dead list`.",
            most("breaker_queue_jobs", ONE, 'state="dead"', per=()),
            decimals=0,
            steps=(1, 100),
            none="no queue",
        ),
        3,
    ),
]

_PICTURE = [
    (
        graph(
            "Demand against capacity: starts per second",
            "The picture of the operation. Purple is what asks, green is what was let through, the dashed line is the limit in "
            "force and the dotted one what the file says. Purple above dashed is over capacity. Dashed below dotted: by "
            "calendar, by a person (see the marks), or because the downstream struggles. Orange: what would keep the promise.",
            [Query(expr=f"{_NEEDED} > 0", name="needed"), *_capacity("rate", "admitted")],
            "cps",
        ),
        14,
    ),
    (
        graph(
            "Demand against capacity: slots",
            "The same for calls in flight: what is in use over all replicas, and what would be if there were enough.",
            _capacity("concurrency", "in use"),
            "short",
            Style(stepped=True),
        ),
        10,
    ),
]

_CALLS = [
    (
        graph(
            "What became of calls",
            "Every call ends in exactly one of these. Blue waits, orange went out over capacity, red was refused by us, dark "
            "red failed downstream.",
            [Query(expr=per_second("breaker_calls_total", ONE, per=("outcome",)), name="{{outcome}}")],
            "cps",
            Style(stacked=True),
        ),
        12,
    ),
    (
        graph(
            "Why calls did not go straight through",
            "The limit or rule that decided, for every call that was not plainly forwarded: `rate`, `slots` and `quota` are ours, "
            "`tenant...` is one customer's own, `circuit` and `slow-down` spare an ill downstream, `asked` wished to be a job.",
            [
                Query(
                    expr=per_second("breaker_calls_total", ONE, 'reason!=""', per=("outcome", "reason"))
                    + " > 0",
                    name="{{outcome}}: {{reason}}",
                )
            ],
            "cps",
            Style(filled=0),
        ),
        12,
    ),
]

_QUEUE = [
    (
        graph(
            "Jobs, by where they are",
            "Queued ones wait for capacity, held ones for a person or the circuit, scheduled ones for their moment. The dashed "
            "line is how many may wait; above it callers are refused.",
            [
                Query(
                    expr=by_one("breaker_queue_jobs", ONE, 'state!~"dead|unknown"', per=("state",)),
                    name="{{state}}",
                ),
                Query(expr=most("breaker_queue_limit_jobs", ONE, per=()), name="room for"),
            ],
            "short",
            Style(stacked=True, decimals=0),
        ),
        8,
    ),
    (
        graph(
            "Expected wait against the promise",
            "How long jobs of each band will have waited when they start, in nine of ten cases. The dashed line is "
            "`start_within`: a band above it will break the promise.",
            [
                Query(expr=most("breaker_queue_expected_seconds", ONE, per=("band",)), name="{{band}}"),
                Query(expr=_PROMISE, name="promise"),
            ],
            "s",
            Style(filled=0),
        ),
        8,
    ),
    (
        graph(
            "Waits that ended, by band",
            "From acceptance to the first attempt: nine of ten jobs that started in these moments had waited less.",
            [
                Query(
                    expr=quantile(0.9, "breaker_queue_wait_seconds", ONE, per=("band",)),
                    name="{{band}}",
                )
            ],
            "s",
            Style(filled=0),
        ),
        8,
    ),
]

_DOWNSTREAM = [
    (
        graph(
            "What the downstream answered",
            "Attempts of calls and of jobs. Red shades are its failures; `slow_down` is its wish for time, which we heed.",
            [
                Query(
                    expr=per_second("breaker_downstream_calls_total", ONE, per=("result",)), name="{{result}}"
                )
            ],
            "cps",
            Style(stacked=True),
        ),
        8,
    ),
    (
        graph(
            "How long the downstream took",
            "From forwarding to the end of its answer; an attempt of a job counts like a call.",
            _quantiles("breaker_downstream_duration_seconds"),
            "s",
            Style(filled=0),
        ),
        8,
    ),
    (
        graph(
            "How long callers waited",
            "From a call's arrival to its end, a wait for a turn included; for jobs only until the 202. A dot is one call: "
            "click it for its trace.",
            _quantiles("breaker_call_duration_seconds", has_exemplars=True),
            "s",
            Style(filled=0),
        ),
        8,
    ),
]

_STATES = [
    (
        timeline(
            "What held when",
            "Read it from the left: which came first? An open circuit or a lost store explains what is below; being over "
            "capacity with both in order is too much demand.",
            [
                Row(name="Capacity", expr=f"max({is_over(ONE)})", words=_YES_NO["over"]),
                Row(name="Promise", expr=f"max({is_at_risk(ONE)})", words=_YES_NO["risk"]),
                Row(name="Circuit", expr=f"max({circuit(ONE)})", words=CIRCUIT_WORDS),
                Row(name="Jobs", expr=f"{_HELD} > bool 0", words=_YES_NO["held"]),
                Row(name="Store", expr=_DEGRADED, words=_YES_NO["store"]),
            ],
        ),
        12,
    ),
    (
        graph(
            "Repeated attempts",
            "Attempts that failed and will be made again, by why. A rising line with an open circuit is normal; without one the "
            "downstream is ill in part.",
            [Query(expr=per_second("breaker_retries_total", ONE, per=("reason",)), name="{{reason}}")],
            "cps",
            Style(filled=0),
        ),
        6,
    ),
    (
        graph(
            "Jobs that ended",
            "By how. Dead ones wait for a person, unknown ones may or may not have been done.",
            [
                Query(
                    expr="max by (result) (rate("
                    + series("breaker_jobs_finished_total", ONE)
                    + f"[{INTERVAL}]))",
                    name="{{result}}",
                )
            ],
            "cps",
            Style(stacked=True),
        ),
        6,
    ),
]

BOARD = Board(
    uid="breaker-operation",
    name="Operation",
    about="What is wanted of this operation, what may start, what became of the rest, and why?",
    operation="one",
    since="now-1h",
    rows=[(4, _STATUS), (10, _PICTURE), (8, _CALLS), (8, _QUEUE), (8, _DOWNSTREAM), (8, _STATES)],
    marks=(
        Mark(
            name="A person's limits",
            expr=f"{most('breaker_override_expires_timestamp_seconds', ONE, per=())} > bool 0",
            text="Limits that a person set were in force: breaker ops show $operation",
            colour=WARN,
        ),
        Mark(
            name="Circuit",
            expr=most("breaker_circuit_state", ONE, 'state=~"open|forced-open"', per=("state",)),
            text="Circuit {{state}}",
            colour=BAD,
        ),
        Mark(
            name="Held",
            expr=f"{_HELD} > bool 0",
            text="A person pauses or drains the operation",
            colour=OFF,
        ),
    ),
)
