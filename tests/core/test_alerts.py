"""How an alert begins, goes on and ends: both sides of each edge."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.alert_table import BY_KEY
from breaker.core.alerts import KEEP_US, Incident, Level, Reading, Stage, move, step
from tests.core.alert_world import (
    BETWEEN,
    CIRCUIT_LONG,
    HIGH,
    KEEP,
    LOW,
    MINUTE,
    NOW,
    OVER,
    REFUSING,
    RISK,
    SECOND,
    fires,
    pending,
    read,
)

RISK_FOR = 15 * SECOND
PENDING = pending(fires(RISK, at_us=NOW))


@pytest.mark.parametrize("level", [LOW, BETWEEN])
def test_nothing_begins_below_the_threshold(level: Level) -> None:
    """Between the two thresholds is where one goes on that has begun."""
    assert step(None, read(level), NOW) is None


def test_one_without_a_for_fires_at_once() -> None:
    """Callers who are refused are no forecast."""
    now = step(None, read(HIGH, REFUSING, values={"refused": "3"}), NOW)
    assert now
    assert (now.stage, now.since_us, now.fired_us, now.true_us) == (Stage.FIRING, NOW, NOW, NOW)
    assert (now.id, now.team, now.values) == (f"{REFUSING}:billing.charge", "finance", {"refused": "3"})


@pytest.mark.parametrize(("after", "stage"), [(0, Stage.PENDING), (RISK_FOR - 1, Stage.PENDING), (RISK_FOR, Stage.FIRING)])  # fmt: skip
def test_it_fires_when_it_was_true_for_its_for(after: int, stage: Stage) -> None:
    """One bad look is nothing that anybody can act on."""
    now = step(PENDING, read(HIGH, RISK), NOW + after)
    assert now
    assert (now.stage, now.since_us, now.fired_us) == (
        stage,
        NOW,
        NOW + after if stage is Stage.FIRING else 0,
    )


@pytest.mark.parametrize(("after", "stage"), [(MINUTE - 1, Stage.PENDING), (MINUTE, Stage.FIRING)])
def test_an_operation_has_its_own_for(after: int, stage: Stage) -> None:
    """Its file says `alerts.for`; the table has none for that alert."""
    assert BY_KEY[OVER].for_s is None
    now = step(pending(fires(OVER)), read(HIGH, OVER, for_us=MINUTE), NOW + after)
    assert now
    assert now.stage is stage


@pytest.mark.parametrize("level", [LOW, BETWEEN])
def test_what_falls_before_it_fires_was_nothing(level: Level) -> None:
    """Also only below the upper threshold: the lower one counts from when it fires."""
    assert step(PENDING, read(level, RISK), NOW + 10 * SECOND) is None


def test_between_the_thresholds_it_goes_on() -> None:
    """90 % of a promise is no reason to tell people that all is well."""
    was = fires(RISK)
    now = step(was, replace(read(BETWEEN, RISK), values={"expected": "54 min"}), NOW + 10 * KEEP)
    assert now == replace(was, true_us=NOW + 10 * KEEP, values={"expected": "54 min"})
    assert step(now, read(LOW, RISK), NOW + 11 * KEEP - 1) == now, "its keep begins there"


@pytest.mark.parametrize(("after", "is_over"), [(0, False), (KEEP - 1, False), (KEEP, True)])
def test_it_ends_when_it_was_not_true_for_its_keep(after: int, is_over: bool) -> None:
    """What comes back within that is the same trouble."""
    assert KEEP == KEEP_US
    was = fires(RISK, true_us=NOW)
    assert step(was, read(LOW, RISK), NOW + after) == (None if is_over else was)


@pytest.mark.parametrize(("after", "is_over"), [(2 * KEEP - 1, False), (2 * KEEP, True)])
def test_some_are_kept_longer(after: int, is_over: bool) -> None:
    """A queue that is full has no room for some minutes, and then none again."""
    assert BY_KEY[REFUSING].keep == 2
    assert (step(fires(REFUSING, true_us=NOW), read(LOW, REFUSING), NOW + after) is None) is is_over


@pytest.mark.parametrize(("keep", "is_over"), [(MINUTE, True), (MINUTE + 1, False)])
def test_the_gateway_says_how_long_an_alert_is_kept(keep: int, is_over: bool) -> None:
    """`alerts.keep` of gateway.yaml."""
    assert (step(fires(RISK, true_us=NOW), read(LOW, RISK), NOW + MINUTE, keep) is None) is is_over


def test_the_values_of_an_end_are_those_of_when_it_was_last_true() -> None:
    """Who reads that it has ended reads what it was."""
    was = replace(fires(RISK), values={"expected": "3 h"})
    now = step(was, replace(read(LOW, RISK), values={"expected": "0 s"}), NOW + 1)
    assert now == was


def test_what_was_not_read_changes_nothing() -> None:
    """A node of a Cluster that is away must neither wake anybody nor tell them that all is well."""
    living = {known.id: known for known in (fires(REFUSING), pending(fires(RISK, "support.create")))}
    found = move(living, [], NOW + 10 * KEEP)
    assert (found.living, found.ended) == (living, ())


def test_only_what_fired_has_an_end() -> None:
    """Nobody was told of the others."""
    fired, was_nothing = fires(RISK, true_us=NOW), pending(fires(RISK, "support.create"))
    living = {known.id: known for known in (fired, was_nothing)}
    readings = [read(LOW, RISK), read(LOW, RISK, "support.create")]
    found = move(living, readings, NOW + KEEP)
    assert (found.living, found.ended) == ({}, (fired,))


def test_a_signal_that_flaps_for_ten_minutes_is_one_incident() -> None:
    """Every 20 s over the threshold and below it again: a page each time is how people stop reading them."""
    living: dict[str, Incident] = {}
    begun, ended = set[int](), list[Incident]()
    for second in range(0, 600, 5):
        level = HIGH if second // 20 % 2 == 0 else LOW
        found = move(living, [read(level, RISK)], NOW + second * SECOND)
        living = dict(found.living)
        begun |= {known.since_us for known in living.values() if known.stage is Stage.FIRING}
        ended += found.ended
    assert (len(begun), ended) == (1, [])
    found = move(living, [read(LOW, RISK)], NOW + 600 * SECOND + KEEP)
    assert [known.since_us for known in found.ended] == [NOW]


def test_the_next_incident_of_the_same_kind_is_another() -> None:
    """An acknowledgement of yesterday's must not silence today's; `since_us` tells them apart."""
    first = step(None, read(HIGH), NOW)
    assert step(first, read(LOW), NOW + 2 * KEEP) is None
    second = step(None, read(HIGH), NOW + 2 * KEEP)
    assert first
    assert second
    assert (first.id, second.since_us - first.since_us) == (second.id, 2 * KEEP)


def test_a_long_alert_counts_from_when_it_was_first_true() -> None:
    """Ten minutes of an open circuit, also while it is tried by probes."""
    known = step(None, read(HIGH, CIRCUIT_LONG), NOW)
    for second in range(5, 600, 5):
        known = step(known, read(HIGH, CIRCUIT_LONG), NOW + second * SECOND)
        assert known
        assert known.stage is Stage.PENDING
    known = step(known, read(HIGH, CIRCUIT_LONG), NOW + 10 * MINUTE)
    assert known
    assert known.stage is Stage.FIRING


STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 5 * SECOND, 14 * SECOND, 15 * SECOND, 16 * SECOND, KEEP - 1, KEEP, KEEP + 1]),
        st.sampled_from([HIGH, HIGH, BETWEEN, LOW, LOW, None]),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_incident_begins_twice_within_its_keep_and_each_end_has_a_beginning(
    steps: list[tuple[int, Level | None]],
) -> None:
    """Whatever is read, and whatever is not: a person hears begin, end, begin, end, no sooner than they can act."""
    now, living, is_on, last_end = NOW, dict[str, Incident](), False, NOW - KEEP
    last_true = NOW
    for pause, level in steps:
        now += pause
        readings: list[Reading] = [read(level, RISK)] if level else []
        found = move(living, readings, now)
        if found.ended:
            assert is_on
            assert level is LOW
            assert now - last_true >= KEEP
            is_on, last_end = False, now
        living = dict(found.living)
        firing = [known for known in living.values() if known.stage is Stage.FIRING]
        if firing and not is_on:
            assert level is HIGH
            assert now - firing[0].since_us >= RISK_FOR
            assert firing[0].since_us >= last_end
            is_on = True
        assert bool(firing) is is_on
        if level in (HIGH, BETWEEN):
            last_true = now
