"""
PromQL: the expressions that several panels share.

1. What is cluster-wide comes from every replica, so it goes through `most` (max), never through sum or avg.
2. Counters go through `per_second` or `more`; over `$__rate_interval`, which spans at least four scrapes.
3. Every selector has `$job`: one Prometheus may scrape several clusters, and they are not to be added up.
"""

JOB = 'job=~"$job"'
ANY = 'operation=~"$operation"'
MANY = f'{ANY}, operation!="_unknown"'  # calls that match no operation have no capacity
ONE = 'operation="$operation"'
INTERVAL = "$__rate_interval"
OVER = 1.0001  # of a limit; exactly all of it is full, not over


def series(name: str, *matchers: str) -> str:
    """One selector, with the job."""
    return f"{name}{{{', '.join((JOB, *matchers))}}}"


def by(labels: tuple[str, ...]) -> str:
    return f"by ({', '.join(labels)}) " if labels else ""


def most(name: str, *matchers: str, per: tuple[str, ...] = ("operation",)) -> str:
    """A cluster-wide gauge: the same from every replica that knows it."""
    return f"max {by(per)}({series(name, *matchers)})"


def per_second(name: str, *matchers: str, per: tuple[str, ...] = ("operation",), over: str = INTERVAL) -> str:
    """How often a second, over all replicas."""
    return f"sum {by(per)}(rate({series(name, *matchers)}[{over}]))"


def more(name: str, *matchers: str, per: tuple[str, ...] = ("operation",), over: str = INTERVAL) -> str:
    """How many more, over all replicas."""
    return f"sum {by(per)}(increase({series(name, *matchers)}[{over}]))"


def quantile(share: float, name: str, *matchers: str, per: tuple[str, ...] = ()) -> str:
    """Seconds, or whatever the histogram counts, that so large a share stays below."""
    selected = series(f"{name}_bucket", *matchers)
    return f"histogram_quantile({share}, sum {by(('le', *per))}(rate({selected}[{INTERVAL}])))"


def added_up(name: str, *matchers: str, dropped: str = "state", per: tuple[str, ...] = ("operation",)) -> str:
    """
    A cluster-wide gauge over the values of one label.

    Added up within each replica: they read the store some seconds apart, and a job that was queued for one and is
    held for the next would count twice.
    """
    return f"max {by(per)}(sum without ({dropped}) ({series(name, *matchers)}))"


def by_one(name: str, *matchers: str, per: tuple[str, ...]) -> str:
    """A cluster-wide gauge as the steward sees it, for the same reason; while there is none, as all do."""
    seen = series(name, *matchers)
    steward = f"{series('breaker_steward')} == 1"
    return f"max {by(per)}({seen} and on (instance, worker) ({steward})) or max {by(per)}({seen})"


def demand(*matchers: str) -> str:
    """What is wanted as a share of each limit, 0..1 and more; of a quota, what is used: wanted cannot be told."""
    per = ("operation", "limit")
    wanted = most("breaker_capacity_wanted", *matchers, per=per)
    used = most("breaker_capacity_used", *matchers, 'limit="quota"', per=per)
    limit = most("breaker_capacity_limit", *matchers, per=per)
    return f"({wanted} or {used}) / {limit}"


def tightest(*matchers: str) -> str:
    """The demand for the limit that leaves the least room, by operation."""
    return f"max by (operation) ({demand(*matchers)})"


def is_over(*matchers: str) -> str:
    """1 where more is wanted than there is; a quota that is used up counts."""
    per = ("operation", "limit")
    wanted = most("breaker_capacity_wanted", *matchers, per=per)
    used = most("breaker_capacity_used", *matchers, 'limit="quota"', per=per)
    limit = most("breaker_capacity_limit", *matchers, per=per)
    return f"max by (operation) ({wanted} > bool {limit} or {used} >= bool {limit})"


def is_at_risk(*matchers: str) -> str:
    """1 for each operation and band whose jobs will have waited longer than promised when they start."""
    expected = most("breaker_queue_expected_seconds", *matchers, per=("operation", "band"))
    promise = most("breaker_queue_promise_seconds", *matchers)
    return f"{expected} > bool on (operation) group_left () {promise}"


CIRCUIT_CODES = {"closed": 0, "half-open": 1, "open": 2, "forced-open": 3, "disabled": 4}


def circuit(*matchers: str) -> str:
    """The state of each circuit as a number, as CIRCUIT_CODES has it."""
    states = (
        f"{code} * "
        + most("breaker_circuit_state", *matchers, f'state="{state}"', per=("operation", "state"))
        for state, code in CIRCUIT_CODES.items()
    )
    return f"max by (operation) ({' or '.join(states)})"


def worst(*ranked: tuple[int, str]) -> str:
    """The highest of these numbers whose condition is 1; conditions have no labels."""
    parts = (
        f'label_replace({number} * ({condition}), "cause", "{number}", "", "")'
        for number, condition in ranked
    )
    return f"max({' or '.join(parts)})"
