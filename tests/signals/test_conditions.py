"""What of the table of alerts is true of one operation: both sides of each threshold, and the sentences that come of it."""

import pytest

from breaker.core.alert_policy import AlertPolicy
from breaker.core.alert_table import ALERTS, BURN_WINDOWS, FATES, Source
from breaker.core.alerts import Level
from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, CircuitPolicy
from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import Pace
from breaker.core.model import Limits, Overflow, Rate
from breaker.signals import cluster_conditions, conditions
from breaker.signals.conditions import Trends, readings_of
from breaker.signals.expected import Expected
from breaker.signals.trend import Trend
from breaker.store.capacity import CircuitLook
from tests.signals.seen_scene import HOUR, NAME, NOW, SECOND, TWENTY, by_key, level, look, queue, seen, words

HIGH, BETWEEN, LOW = Level.HIGH, Level.BETWEEN, Level.LOW
OVER, RISK, FILL = (
    "BreakerOverCapacity:warning",
    "BreakerPromiseAtRisk:critical",
    "BreakerQueueWillFill:warning",
)
FULL, REFUSING = "BreakerRefusing:critical", "BreakerRefusing:warning"
CIRCUIT, CIRCUIT_LONG = "BreakerCircuitOpen:warning", "BreakerCircuitOpen:critical"
RAISED = 'breaker ops set billing.charge {} --for 1h --reason "{}"  # if the downstream can take it: breaker ops show billing.charge'
LOOKED = "breaker ops show billing.charge"


def test_all_of_an_operation_is_read_and_each_once() -> None:
    """What is not read for one pass stays as it is; what is never read never fires, and never ends."""
    with_queue = seen(queue=queue(), expected=Expected(), windows=dict.fromkeys(windows_of(), (0, 0)))
    keys = [(found.alert, found.about) for found in readings_of(with_queue)]
    assert len(keys) == len(set(keys))
    assert {alert for alert, _ in keys} == {
        OVER, RISK, FILL, FULL, REFUSING, CIRCUIT, CIRCUIT_LONG, "BreakerOverrideExpiring:warning",
        "BreakerErrorBudgetBurn:critical", "BreakerErrorBudgetBurn:warning", "BreakerDeadLetters:warning",
        "BreakerJobsUnaccounted:critical", "BreakerPausedLong:warning",
    }  # fmt: skip
    assert {about for alert, about in keys if alert == RISK} == set(BANDS)
    assert all(found.level is LOW for found in readings_of(with_queue))
    assert {(found.operation, found.team) for found in readings_of(with_queue)} == {(NAME, "finance")}
    of_queues = {
        RISK,
        FILL,
        "BreakerDeadLetters:warning",
        "BreakerJobsUnaccounted:critical",
        "BreakerPausedLong:warning",
    }
    assert not of_queues & {found.alert for found in readings_of(seen(has_queue=False))}


# Capacity.


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(0, LOW), (14.99, LOW), (15, BETWEEN), (17.99, BETWEEN), (18, HIGH), (200, HIGH)],
)
def test_over_capacity_begins_at_one_share_and_ends_below_another(wanted: float, expected: Level) -> None:
    """0.9 and 0.75 of 20/s."""
    assert level(conditions.over_capacity(seen(demand=wanted))) is expected


def test_an_operation_says_itself_when_and_after_how_long() -> None:
    """Its `alerts`; the table has no `for` for it."""
    told = conditions.over_capacity(
        seen(demand=10, alerts=AlertPolicy(utilisation=0.5, clear=0.4, for_ms=30_000))
    )
    assert (told.level, told.for_us) == (HIGH, 30 * SECOND)


def test_over_capacity_says_how_much_what_was_done_and_what_would_be_enough() -> None:
    """Three numbers and one command: 130 % of 20/s, for a minute of calls."""
    recent = {"queued": 1_560, "delayed": 30, "turned_away": 0, "let_through": 0}
    said = words(conditions.over_capacity(seen(demand=26, recent=recent)))
    assert said["summary"] == "billing.charge is asked for 130% of what its rate allows."
    assert said["description"] == (
        "Demand would use 26/s, allowed are 20/s. What was done with the rest: 1560 queued, 30 delayed within five minutes."
    )
    assert said["action"] == RAISED.format("rate=35/s", "over capacity"), "26 / 0.75, so that it ends"
    nothing_yet = words(conditions.over_capacity(seen(demand=19)))
    assert nothing_yet["description"].endswith("What was done with the rest: nothing had to be done yet.")


def test_the_tightest_limit_is_named() -> None:
    """Here 13 calls hold or want 10 slots, and 18 a second ask for 20."""
    told = conditions.over_capacity(seen(look=look(in_use=10, waiting=3, service_us=500_000), demand=18))
    said = words(told)
    assert said["summary"] == "billing.charge is asked for 130% of what its concurrency allows."
    assert said["description"].startswith("Demand would use 13 slots, allowed are 10 slots.")
    assert said["action"] == RAISED.format("rate=24/s concurrency=18", "over capacity")


def test_a_quota_is_over_capacity_and_no_command_can_raise_it() -> None:
    """Only the file can; the first command is to look."""
    of_quota = look(Limits(), quota_limit=1_000, quota_used=900)
    told = conditions.over_capacity(seen(look=of_quota))
    assert told.level is HIGH
    said = words(told)
    assert said["description"].startswith(
        "Demand would use 900 of the period, allowed are 1000 of the period."
    )
    assert said["action"] == LOOKED


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(rate=Rate(limit=0, period_us=SECOND)), Limits(concurrency=0)]
)
def test_what_is_closed_or_unlimited_is_not_over_capacity(limits: Limits) -> None:
    """Somebody closed it on purpose; and a limit of 0 is no divisor."""
    assert level(conditions.over_capacity(seen(look=look(limits), demand=50))) is LOW


# Refusals.


@pytest.mark.parametrize(("full", "expected"), [(0, LOW), (1, HIGH)])
def test_a_full_queue_is_critical_from_the_first_refusal(full: int, expected: Level) -> None:
    """Work is turned away that was promised a place."""
    assert level(readings_of(seen(recent={"full": full, "refused": full, "all": 1_000})), FULL) is expected


@pytest.mark.parametrize(
    ("refused", "asked", "expected"),
    [(9, 10, LOW), (10, 200, HIGH), (10, 201, LOW), (50, 1_000, HIGH), (49, 1_000, LOW), (0, 0, LOW)],
)
def test_refusals_are_told_by_their_share(refused: int, asked: int, expected: Level) -> None:
    """5 %, of at least ten calls: one of three is no trend."""
    assert level(readings_of(seen(recent={"refused": refused, "all": asked})), REFUSING) is expected


def test_refusals_say_how_many() -> None:
    """And how fast that is worked off which was accepted."""
    found = by_key(readings_of(seen(queue=queue(), recent={"refused": 50, "full": 12, "all": 400})))
    critical, warning = words(found[FULL]), words(found[REFUSING])
    assert critical["summary"] == "billing.charge: the queue is full and callers are refused."
    assert critical["description"] == (
        "12 calls in five minutes were refused. What was accepted is safe and goes on at 20/s."
    )
    assert warning["summary"] == "billing.charge refuses 12% of its calls."
    assert warning["description"] == (
        "50 of 400 calls were refused in the last five minutes; tenants that are at their own limits are not counted."
    )
    one = words(by_key(readings_of(seen(recent={"refused": 1, "full": 1, "all": 2})))[FULL])
    assert one["description"].startswith("1 call in five minutes was refused.")


# Circuits.


@pytest.mark.parametrize(
    ("mode", "state", "warning", "critical"),
    [
        (CircuitMode.ENFORCE, CircuitState.CLOSED, LOW, LOW),
        (CircuitMode.ENFORCE, CircuitState.OPEN, HIGH, HIGH),
        (CircuitMode.ENFORCE, CircuitState.HALF_OPEN, BETWEEN, HIGH),
        (CircuitMode.ENFORCE, CircuitState.FORCED_OPEN, HIGH, LOW),
        (CircuitMode.ENFORCE, CircuitState.DISABLED, LOW, LOW),
        (CircuitMode.SHADOW, CircuitState.OPEN, LOW, LOW),
        (CircuitMode.SHADOW, CircuitState.HALF_OPEN, LOW, LOW),
        (CircuitMode.SHADOW, CircuitState.FORCED_OPEN, HIGH, LOW),
        (CircuitMode.OFF, CircuitState.FORCED_OPEN, LOW, LOW),
    ],
)
def test_a_circuit_that_bars_is_told(
    mode: CircuitMode, state: CircuitState, warning: Level, critical: Level
) -> None:
    """One that is rehearsed bars nothing; who forced it open knows, and is not paged after ten minutes."""
    what = seen(look=look(circuit=CircuitLook(state=state)), circuit=CircuitPolicy(mode=mode))
    found = by_key(readings_of(what))
    assert (found[CIRCUIT].level, found[CIRCUIT_LONG].level) == (warning, critical)


def test_an_open_circuit_says_what_share_failed_and_who_forced_it() -> None:
    """Where nothing was counted that is said, and not 0 %."""
    is_open = look(circuit=CircuitLook(state=CircuitState.OPEN))
    found = by_key(
        readings_of(
            seen(look=is_open, recent={"answers": 50, "failures": 32, "timeout": 12, "connect_error": 20})
        )
    )
    said = words(found[CIRCUIT])
    assert said["summary"] == "billing.charge: the circuit is open."
    assert said["description"] == (
        "64% of the last attempts failed (connect_error, timeout). Jobs are held and lose nothing but time; probes go on by themselves."
    )
    assert said["action"] == "breaker circuit show billing.charge"
    assert (
        words(found[CIRCUIT_LONG])["summary"]
        == "billing.charge: the circuit has been open for more than ten minutes."
    )
    forced = look(circuit=CircuitLook(state=CircuitState.FORCED_OPEN, author="ann"))
    said = words(by_key(readings_of(seen(look=forced)))[CIRCUIT])
    assert said["summary"] == "billing.charge: the circuit is forced-open, by ann."
    assert said["description"].startswith("An unknown share of the last attempts failed.")


# Overrides.


@pytest.mark.parametrize(
    ("left", "lasts", "source", "expected"),
    [
        (601, 3_600, "override", LOW), (600, 3_600, "override", HIGH), (1, 3_600, "override", HIGH), (0, 3_600, "override", LOW),
        (300, 600, "override", LOW), (300, 601, "override", HIGH), (300, 3_600, "file", LOW),
    ],
)  # fmt: skip
def test_limits_that_a_person_set_are_told_of_before_they_end(
    left: int, lasts: int, source: str, expected: Level
) -> None:
    """Ten minutes before; who set them for ten minutes knows."""
    ends = NOW + left * SECOND
    what = look(source=source, override_until_us=ends, override_since_us=ends - lasts * SECOND)
    told = conditions.override_expiring(seen(look=what))
    assert told.level is expected
    if expected is HIGH and left == 600:
        assert (
            words(told)["description"]
            == "They end at 2026-01-06 14:12 UTC; then what the file states holds again."
        )


# The error budget.


def windows_of() -> set[int]:
    return {seconds for window in BURN_WINDOWS for seconds in (window.short_s, window.long_s)}


def windows(**changed: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Ten thousand good calls in each, but for what is said by `s300=(all, bad)`."""
    return dict.fromkeys(windows_of(), (10_000, 0)) | {
        int(name[1:]): found for name, found in changed.items()
    }


BURNS = ("BreakerErrorBudgetBurn:critical", "BreakerErrorBudgetBurn:warning")


@pytest.mark.parametrize(
    ("changed", "critical", "warning"),
    [
        ({"s3600": (1_000, 145), "s300": (100, 15)}, HIGH, LOW),
        ({"s3600": (1_000, 143), "s300": (100, 15)}, LOW, LOW),
        ({"s3600": (1_000, 145), "s300": (100, 14)}, LOW, LOW),
        ({"s3600": (99, 99), "s300": (99, 99)}, LOW, LOW),
        ({"s3600": (100, 100), "s300": (1, 1)}, HIGH, LOW),
        ({"s3600": (1_000, 145), "s300": (0, 0)}, LOW, LOW),
        ({"s21600": (1_000, 61), "s1800": (100, 7)}, HIGH, LOW),
        ({"s86400": (1_000, 31), "s7200": (1_000, 31)}, LOW, HIGH),
        ({"s86400": (1_000, 29), "s7200": (1_000, 31)}, LOW, LOW),
        ({"s259200": (1_000, 11), "s21600": (1_000, 11)}, LOW, HIGH),
    ],
)
def test_the_budget_burns_when_both_windows_do_and_enough_was_asked(
    changed: dict[str, tuple[int, int]], critical: Level, warning: Level
) -> None:
    """The long one says that it matters, the short one that it still goes on."""
    found = by_key(readings_of(seen(windows=windows(**changed))))
    assert tuple(found[key].level for key in BURNS) == (critical, warning)


def test_a_burn_says_how_fast_over_what_and_until_when() -> None:
    """Thirty days at that pace."""
    found = by_key(readings_of(seen(windows=windows(s3600=(1_000, 200), s300=(100, 30)))))
    said = words(found[BURNS[0]])
    assert said["summary"] == "billing.charge: calls fail 20 times faster than its error budget allows."
    assert (
        said["description"]
        == "Measured over 5 min and 1 h; at this pace the budget of 30 days is used up in 1 d 12 h."
    )


def test_windows_that_were_not_read_say_nothing() -> None:
    """They are read every half a minute; in between an incident stays as it is."""
    assert not [found for found in readings_of(seen()) if found.alert in BURNS]


# Promises.


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, LOW), (53.9, LOW), (54, BETWEEN), (59.9, BETWEEN), (60, HIGH), (7_200, HIGH)],
)
def test_a_promise_is_at_risk_when_a_job_will_have_waited_for_so_long(
    seconds: float, expected: Level
) -> None:
    """Before it is broken; and until it is kept with a tenth to spare."""
    what = seen(queue=queue(), expected=Expected(seconds=dict.fromkeys(BANDS, 0.0) | {Band.HIGH: seconds}))
    levels = {found.about: found.level for found in readings_of(what) if found.alert == RISK}
    assert levels == {"critical": LOW, "high": expected, "normal": LOW, "low": LOW}


LATE = Expected(seconds={Band.NORMAL: 11_100.0}, needed=33.6, clears_s=10_800.0)


def test_a_promise_at_risk_says_what_would_keep_it() -> None:
    """The sentence that somebody reads at 3 a.m., with the command that helps."""
    what = seen(queue=queue(waiting={Band.NORMAL: 216_000}), expected=LATE)
    told = next(found for found in readings_of(what) if found.about == "normal")
    said = words(told)
    assert said["summary"] == (
        "billing.charge: jobs in band normal will break their promise: they will have waited 3 h 5 min, promised are 1 min."
    )
    assert said["description"] == (
        "216000 jobs wait. At 20/s this clears in 3 h; 34/s would keep the promise. Nothing is lost: all of them are on disk, in order."
    )
    assert said["impact"] == "Whoever sent the last of them gets an answer later than was promised."
    assert said["action"] == RAISED.format("rate=34/s", "promise at risk")


@pytest.mark.parametrize("held", [{"held": "paused"}, {"state": CircuitState.OPEN}])
def test_jobs_that_are_held_need_no_higher_limit(held: dict[str, str]) -> None:
    """A person's pause, or an ill downstream: to raise the limit would change nothing."""
    circuit = CircuitLook(state=CircuitState(held.get("state", "closed")))
    waiting = queue(waiting={Band.NORMAL: 216_000}, held=held.get("held", ""))
    what = seen(look=look(circuit=circuit), queue=waiting, expected=LATE)
    said = words(next(found for found in readings_of(what) if found.about == "normal"))
    assert said["action"] == LOOKED
    assert "At 20/s, once it goes on, this clears in 3 h;" in said["description"]


def test_a_rehearsed_circuit_holds_no_jobs() -> None:
    """So a higher limit helps."""
    circuit = CircuitLook(state=CircuitState.OPEN)
    what = seen(
        look=look(circuit=circuit),
        queue=queue(),
        expected=LATE,
        circuit=CircuitPolicy(mode=CircuitMode.SHADOW),
    )
    assert words(next(found for found in readings_of(what) if found.about == "normal"))["action"].startswith(
        "breaker ops set"
    )


@pytest.mark.parametrize(
    ("limits", "mean_us", "service_us", "shown"),
    [
        (TWENTY, 0, 0, "20/s"),
        (TWENTY, 100_000, 0, "10/s"),
        (TWENTY, 10_000, 0, "20/s"),
        (Limits(concurrency=4), 0, 500_000, "8/s"),
        (Limits(concurrency=4), 200_000, 500_000, "5/s"),
        (Limits(concurrency=4), 0, 0, "an unknown rate"),
        (Limits(rate=Rate(limit=0, period_us=SECOND)), 0, 0, "an unknown rate"),
    ],
)
def test_how_fast_things_start_is_the_slower_of_what_is_measured_and_what_is_allowed(
    limits: Limits, mean_us: int, service_us: int, shown: str
) -> None:
    """A queue that has been idle has a pace of long ago."""
    what = seen(look=look(limits, service_us=service_us), queue=queue(pace=Pace(mean_us=mean_us)))
    assert conditions.rate_now_of(what) == shown


def test_a_clearing_that_nobody_can_tell_is_said_to_be_unknown() -> None:
    """Not "0 s"."""
    what = seen(queue=queue(), expected=Expected(seconds={Band.LOW: 90.0}, needed=2))
    assert (
        "clears in an unknown time"
        in words(next(found for found in readings_of(what) if found.about == "low"))["description"]
    )


# Queues that fill.


def filled(rate: float, *, depth: int = 100, scheduled: int = 0) -> conditions.Seen:
    """A queue of 500 that has grown at this pace for five minutes."""
    trends = Trends()
    for at in range(0, 301, 15):
        trends.waiting.note(at, depth + scheduled - rate * (300 - at))
    waiting = queue(waiting={Band.NORMAL: depth}, scheduled=scheduled)
    return seen(queue=waiting, trends=trends, now_s=300, demand=26)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (400 / 3_599, HIGH),
        (400 / 3_601, BETWEEN),
        (400 / 7_199, BETWEEN),
        (400 / 7_201, LOW),
        (0, LOW),
        (-1, LOW),
    ],
)
def test_a_queue_will_fill_within_the_hour(rate: float, expected: Level) -> None:
    """And it does no longer when that is more than two hours off."""
    what = filled(rate)
    assert what.sight.queue
    assert level(next(conditions.will_fill(what, what.sight.queue))) is expected


@pytest.mark.parametrize(("depth", "expected"), [(49, LOW), (50, HIGH), (500, HIGH), (510, HIGH)])
def test_a_queue_that_is_nearly_empty_will_not_fill(depth: int, expected: Level) -> None:
    """A burst of some seconds looks like a trend; the rules for Prometheus ask for a tenth as well."""
    what = filled(0.5, depth=depth)
    assert what.sight.queue
    assert level(next(conditions.will_fill(what, what.sight.queue))) is expected


def test_jobs_for_later_take_room_too() -> None:
    """`max_jobs` counts them."""
    what = filled(0.1, depth=300, scheduled=180)
    assert what.sight.queue
    assert (
        words(next(conditions.will_fill(what, what.sight.queue)))["summary"]
        == "billing.charge: the queue will be full in 3 min 20 s."
    )


def test_a_queue_that_will_fill_says_when_and_what_would_help() -> None:
    """The pace is that of the last minutes."""
    what = filled(0.2)
    assert what.sight.queue
    said = words(next(conditions.will_fill(what, what.sight.queue)))
    assert said["summary"] == "billing.charge: the queue will be full in 33 min 20 s."
    assert said["description"] == (
        "100 jobs wait, there is room for 400 more, 12/min are added. Then new calls are refused; what was accepted stays."
    )
    assert said["action"] == RAISED.format("rate=26/s", "queue fills")


# Jobs.


@pytest.mark.parametrize(("ever", "expected"), [(7, LOW), (9, LOW), (10, HIGH), (1, LOW)])
def test_dead_letters_that_grow_are_told(ever: int, expected: Level) -> None:
    """By three within an hour, redriven or not; a store that was emptied is no growth."""
    trends = Trends()
    trends.note(0, queue(dead_total=7))
    told = conditions.dead_letters(seen(trends=trends), queue(dead=2, dead_total=ever))
    assert told.level is expected
    if expected is HIGH:
        assert words(told)["summary"] == "billing.charge: 3 more jobs are dead than an hour ago."
    assert level(conditions.dead_letters(seen(), queue(dead_total=50))) is LOW, "nothing to compare with yet"


@pytest.mark.parametrize(("count", "expected"), [(0, LOW), (1, HIGH), (-1, HIGH)])
def test_a_ledger_that_does_not_balance_is_told(count: int, expected: Level) -> None:
    """In both directions."""
    found = by_key(readings_of(seen(queue=queue(unaccounted=count))))["BreakerJobsUnaccounted:critical"]
    assert found.level is expected
    assert found.values == {"count": str(abs(count))}


@pytest.mark.parametrize(
    ("held", "since", "expected"),
    [
        ("paused", 24 * HOUR, HIGH),
        ("draining", 24 * HOUR, HIGH),
        ("paused", 24 * HOUR - 1, LOW),
        ("", 24 * HOUR, LOW),
    ],
)
def test_what_a_person_forgot_is_told_after_a_day(held: str, since: int, expected: Level) -> None:
    """With since when, and by whom."""
    what = queue(held=held, held_since_us=NOW - since, held_author="ann")
    told = conditions.paused_long(seen(), what)
    assert told.level is expected
    if expected is HIGH:
        assert words(told)["description"] == "Since 2026-01-05 14:02 UTC, by ann."


def test_a_steward_that_does_not_know_how_a_queue_went_says_nothing_of_it() -> None:
    """What the one before it had begun goes on; of one that is nearly empty it is known."""
    full, empty = filled(0.2), filled(0.2, depth=49)
    for what, expected in ((full, []), (empty, [LOW])):
        what.trends.waiting = Trend()
        assert what.sight.queue
        assert [level(one) for one in conditions.will_fill(what, what.sight.queue)] == expected


@pytest.mark.parametrize("overflow", list(Overflow))
def test_who_is_hurt_depends_on_what_is_done_with_the_rest(overflow: Overflow) -> None:
    """One sentence for the operation at hand, not a list of all that there is."""
    what = seen(demand=26, overflow=overflow)
    assert words(conditions.over_capacity(what))["impact"] == f"Calls beyond the limit {FATES[overflow]}."


def test_every_row_of_the_table_is_judged_by_whom_it_says() -> None:
    """A row that nobody judges is an alert that never comes."""
    one = Trend()
    waits = seen(queue=queue(), expected=Expected(), windows=dict.fromkeys(windows_of(), (0, 0)))
    found = cluster_conditions.Cluster(
        operations={NAME: waits.operation}, notes=(), differing=0, removed={"old.one": 1}, memory_ratio=0.1, memory=one,
        now_us=NOW, now_s=0.0, waiting={"chat": (0, 0)},
    )  # fmt: skip
    judged = {
        Source.STEWARD: [*readings_of(waits), *cluster_conditions.readings_of(found)],
        Source.REPLICA: list(cluster_conditions.own_readings(None)),
        Source.RULES: [],
    }
    for source, readings in judged.items():
        rows = {alert.key for alert in ALERTS if alert.source is source}
        assert {reading.alert for reading in readings} == (set() if source is Source.RULES else rows), source
