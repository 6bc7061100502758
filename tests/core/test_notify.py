"""Who is told of which incidents, and when: every rule, on both sides of its edge."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breaker.core.alert_policy import Severity
from breaker.core.alert_table import ALERTS, INHIBITIONS, Inhibition, Scope
from breaker.core.alerts import Incident, Moved, Stage, move
from breaker.core.notify import SAME_OUTAGE_US, TRUE_US, Ack, Desk, Kind, Said, Silence, is_inhibited, plan
from tests.core.alert_world import (
    ALERTING,
    BURN,
    CHANNELS,
    CIRCUIT,
    CIRCUIT_LONG,
    DESK,
    HIGH,
    HOUR,
    KEEP,
    LOW,
    MINUTE,
    NOW,
    OVER,
    REFUSING,
    RISK,
    SECOND,
    WATCHDOG,
    ack,
    fires,
    moved,
    pending,
    planned,
    read,
    silence,
    told,
)

CHARGE, CREATE = "billing.charge", "support.create"
WAIT, INTERVAL, REPEAT = 10 * SECOND, MINUTE, 4 * HOUR
BOTH = [("pager", "firing", [f"{REFUSING}:{CHARGE}"]), ("chat", "firing", [f"{REFUSING}:{CHARGE}"])]
CHAT_AT = f"chat {OVER} finance"  # a group

# 1. Routes.


def test_an_incident_goes_to_all_channels_of_its_severity() -> None:
    """The route of critical ones names two."""
    assert told(planned(fires(REFUSING))) == BOTH


def test_an_operation_may_have_its_own_channels() -> None:
    """Its team is told instead of those of the gateway; but of the watchdog, which is nobody's."""
    desk = replace(DESK, own_routes={CHARGE: ("hook",), "": ("hook",)})
    found = told(planned(fires(REFUSING), fires(REFUSING, CREATE), desk=desk))
    assert [(channel, ids) for channel, _, ids in found] == [
        ("hook", [f"{REFUSING}:{CHARGE}"]), ("pager", [f"{REFUSING}:{CREATE}"]), ("chat", [f"{REFUSING}:{CREATE}"]),
    ]  # fmt: skip
    assert [channel for channel, *_ in told(planned(fires(WATCHDOG, ""), desk=desk))] == ["am"]


def test_the_watchdog_goes_to_the_route_of_none_and_nowhere_else() -> None:
    """It would else ring somebody's telephone for ever."""
    assert told(planned(fires(WATCHDOG, "", team=""))) == [("am", "firing", [WATCHDOG])]
    without = tuple(route for route in ALERTING.routes if route.severity is not Severity.NONE)
    assert told(planned(fires(WATCHDOG, ""), desk=Desk(alerting=replace(ALERTING, routes=without)))) == []


def test_a_route_to_a_channel_that_is_not_there_tells_nobody() -> None:
    """As after a reload that took it away."""
    desk = Desk(alerting=replace(ALERTING, channels={"chat": CHANNELS["chat"]}))
    found = planned(fires(REFUSING), desk=desk)
    assert [channel for channel, *_ in told(found)] == ["chat"]
    assert found.living[f"{REFUSING}:{CHARGE}"].told.keys() == {"chat"}


def test_what_is_pending_is_told_to_nobody() -> None:
    """It may be nothing."""
    assert told(planned(pending(fires(RISK)))) == []


# 2. Groups.


@pytest.mark.parametrize(("after", "is_told"), [(0, False), (WAIT - 1, False), (WAIT, True)])
def test_the_first_of_a_group_waits_for_others(after: int, is_told: bool) -> None:
    """Ten operations whose downstream fails at once are one message."""
    found = planned(fires(OVER), now_us=NOW + after)
    assert bool(found.letters) is is_told
    assert found.groups == ({CHAT_AT: NOW + after} if is_told else {})


def test_several_operations_of_a_team_are_one_letter() -> None:
    """All that fires by the time that the first has waited."""
    found = planned(fires(OVER), fires(OVER, CREATE, at_us=NOW + WAIT), now_us=NOW + WAIT)
    assert told(found) == [("chat", "firing", [f"{OVER}:{CHARGE}", f"{OVER}:{CREATE}"])]
    assert all(known.told == {"chat": NOW + WAIT} for known in found.living.values())


def test_other_teams_and_other_alerts_are_letters_of_their_own() -> None:
    """Nobody reads what concerns somebody else."""
    found = planned(fires(OVER), fires(OVER, CREATE, team="support"), fires("BreakerDeadLetters:warning"))
    assert len(found.letters) == 3


@pytest.mark.parametrize(("after", "is_told"), [(INTERVAL - 1, False), (INTERVAL, True)])
def test_more_of_a_group_waits_for_its_interval(after: int, is_told: bool) -> None:
    """A storm is one message a minute and not one for each operation."""
    first = fires(OVER, told={"chat": NOW})
    found = planned(first, fires(OVER, CREATE, at_us=NOW), groups={CHAT_AT: NOW}, now_us=NOW + after)
    assert told(found) == ([("chat", "firing", [f"{OVER}:{CREATE}"])] if is_told else [])


def test_a_group_that_nobody_is_in_is_forgotten_after_its_interval() -> None:
    """The table of groups must not grow for ever; nor may what comes back at once escape the interval."""
    groups = {CHAT_AT: NOW}
    assert planned(groups=groups, now_us=NOW + INTERVAL - 1).groups == groups
    assert planned(groups=groups, now_us=NOW + INTERVAL).groups == {}
    assert planned(pending(fires(OVER)), groups=groups, now_us=NOW + HOUR).groups == groups
    again = planned(fires(OVER, at_us=NOW + SECOND), groups=groups, now_us=NOW + WAIT + SECOND)
    assert told(again) == []


# 3. Silences and inhibition.


@pytest.mark.parametrize(
    ("said", "is_silent"),
    [
        (silence(alert="BreakerRefusing", operation=CHARGE), True),
        (silence(alert="Breaker*", operation="billing.*"), True),
        (silence(alert="BreakerRefusin", operation="*"), False),
        (silence(alert="*", operation="support.*"), False),
        (silence(alert="breakerrefusing"), False),
        (silence(from_us=NOW + HOUR), True),
        (silence(from_us=NOW + HOUR + 1), False),
        (silence(until_us=NOW + HOUR + 1), True),
        (silence(until_us=NOW + HOUR), False),
    ],
)
def test_a_silence_covers_names_and_always_ends(said: Said, is_silent: bool) -> None:
    """`*` stands for any part; the moment at which it ends is no longer silent."""
    assert told(planned(fires(REFUSING), said=said)) == ([] if is_silent else BOTH)


def test_what_still_fires_when_a_silence_ends_is_told_then() -> None:
    """Somebody silenced it for the night, and it is morning."""
    found = planned(fires(REFUSING), said=silence(until_us=NOW + 2 * HOUR), now_us=NOW + 2 * HOUR - 1)
    assert (told(found), found.living[f"{REFUSING}:{CHARGE}"].told) == ([], {})
    again = plan(
        moved(*found.living.values()), found.groups, silence(until_us=NOW + 2 * HOUR), DESK, NOW + 2 * HOUR
    )
    assert told(again) == BOTH


def test_a_silence_of_what_was_told_stops_the_repeats_and_not_the_end() -> None:
    """Who had the beginning has the end, in any case."""
    known = fires(OVER, told={"chat": NOW})
    said = silence(until_us=NOW + 9 * HOUR)
    assert told(planned(known, groups={CHAT_AT: NOW}, said=said, now_us=NOW + REPEAT)) == []
    assert told(planned(ended=[known], said=said)) == [("chat", "resolved", [known.id])]


def test_the_worse_one_of_the_same_name_is_enough() -> None:
    """Critical over warning, of the same operation."""
    assert is_inhibited(fires(CIRCUIT), [fires(CIRCUIT_LONG)])
    assert not is_inhibited(fires(CIRCUIT_LONG), [fires(CIRCUIT)])
    assert not is_inhibited(fires(CIRCUIT), [fires(CIRCUIT_LONG, CREATE)])
    assert not is_inhibited(fires(CIRCUIT), [fires(CIRCUIT)])


@pytest.mark.parametrize("rule", INHIBITIONS, ids=lambda rule: rule.by[0])
def test_each_inhibition_of_the_table_holds(rule: Inhibition) -> None:
    """A list that nobody reads is how five pages come for one trouble."""
    for worse in (fires(row.key, CHARGE) for row in ALERTS if row.name in rule.by):
        for row in (row for row in ALERTS if row.name in rule.these):
            # What wakes nobody hides nothing that would.
            is_louder = worse.severity is Severity.CRITICAL or row.severity is Severity.WARNING
            assert is_inhibited(fires(row.key, CHARGE), [worse]) is is_louder
            assert is_inhibited(fires(row.key, CREATE), [worse]) is (is_louder and not rule.same_operation)


def test_a_store_that_is_down_says_it_for_all_operations() -> None:
    """Every alert of an operation would else ring at the same minute."""
    down = fires("BreakerStoreDown:critical", "", team="")
    of_operations = [row.key for row in ALERTS if row.scope in (Scope.OPERATION, Scope.BAND)]
    assert all(is_inhibited(fires(key), [down]) for key in of_operations)
    found = planned(down, fires(REFUSING), fires(BURN))
    assert [ids for channel, _, ids in told(found) if channel == "pager"] == [[down.id]]


def test_what_somebody_else_tells_inhibits_as_well() -> None:
    """A replica that lost its store tells that by itself; what it judges for all meanwhile is known by that."""
    desk = replace(DESK, elsewhere=frozenset({"BreakerStoreDown"}))
    assert told(planned(fires(REFUSING), desk=desk)) == []
    assert (
        told(planned(fires(REFUSING), desk=replace(DESK, elsewhere=frozenset({"BreakerCircuitOpen"}))))
        == BOTH
    )


def test_what_was_inhibited_and_still_fires_is_told_then() -> None:
    """The circuit has closed, and callers are still refused."""
    found = planned(fires(CIRCUIT_LONG), fires(REFUSING))
    assert {tuple(ids) for *_, ids in told(found)} == {(f"{CIRCUIT_LONG}:{CHARGE}",)}
    rest = plan(moved(found.living[f"{REFUSING}:{CHARGE}"]), found.groups, Said(), DESK, NOW + 2 * HOUR)
    assert told(rest) == BOTH


def test_what_is_only_pending_inhibits_nothing() -> None:
    """It may be nothing, and then nobody would have been told anything."""
    found = planned(pending(fires(RISK)), fires(OVER))
    assert told(found) == [("chat", "firing", [f"{OVER}:{CHARGE}"])]


# 4. Repeats and acknowledgements.


@pytest.mark.parametrize(("after", "is_told"), [(REPEAT - 1, False), (REPEAT, True)])
def test_it_is_said_again_that_an_alert_goes_on(after: int, is_told: bool) -> None:
    """Whoever was told four hours ago may have forgotten it, or gone home."""
    found = planned(fires(OVER, told={"chat": NOW}), groups={CHAT_AT: NOW}, now_us=NOW + after)
    assert told(found) == ([("chat", "repeated", [f"{OVER}:{CHARGE}"])] if is_told else [])
    again = plan(moved(*found.living.values()), found.groups, Said(), DESK, NOW + after + 1)
    assert told(again) == (
        [] if is_told or after + 1 < REPEAT else [("chat", "repeated", [f"{OVER}:{CHARGE}"])]
    )


def test_a_new_one_and_an_old_one_of_a_group_are_told_apart() -> None:
    """ "Goes on" is another message than "begins"."""
    found = planned(
        fires(OVER, told={"chat": NOW}), fires(OVER, CREATE, at_us=NOW + REPEAT - WAIT),
        groups={CHAT_AT: NOW}, now_us=NOW + REPEAT,
    )  # fmt: skip
    assert told(found) == [
        ("chat", "firing", [f"{OVER}:{CREATE}"]),
        ("chat", "repeated", [f"{OVER}:{CHARGE}"]),
    ]


def test_an_acknowledgement_is_told_once_to_each_who_was_told() -> None:
    """The others who were woken can go back to sleep; Alertmanager has no word for it."""
    known = fires(REFUSING, told={"am": NOW, "pager": NOW, "chat": NOW})
    said = ack(known, at_us=NOW + 1, reason="on it")
    found = planned(known, said=said)
    assert told(found) == [("pager", "acknowledged", [known.id]), ("chat", "acknowledged", [known.id])]
    assert {made.detail for made in found.letters} == {"ann: on it"}
    assert told(plan(moved(*found.living.values()), {}, said, DESK, NOW + 2 * HOUR)) == []
    assert planned(known, said=ack(known, at_us=NOW + 1)).letters[0].detail == "ann"


def test_what_is_acknowledged_is_not_said_again() -> None:
    """Its end still is."""
    known = fires(OVER, told={"chat": NOW})
    found = planned(known, said=ack(known, at_us=NOW + 1), now_us=NOW + REPEAT)
    assert [kind for _, kind, _ in told(found)] == ["acknowledged"]
    assert (
        told(plan(moved(*found.living.values()), {}, ack(known, at_us=NOW + 1), DESK, NOW + 9 * REPEAT)) == []
    )
    assert told(planned(ended=[known], said=ack(known, at_us=NOW + 1))) == [("chat", "resolved", [known.id])]


def test_an_acknowledgement_of_an_older_incident_does_not_count() -> None:
    """Yesterday's word is none about today."""
    known = fires(OVER, told={"chat": NOW})
    older = Said(acks={known.id: Ack(since_us=NOW - HOUR, author="ann", reason="", at_us=NOW + 1)})
    assert [kind for _, kind, _ in told(planned(known, said=older, now_us=NOW + REPEAT))] == ["repeated"]


@pytest.mark.parametrize(("at", "is_told"), [(0, False), (1, True), (HOUR, True), (HOUR + 1, False)])
def test_an_acknowledgement_is_later_than_what_it_answers(at: int, is_told: bool) -> None:
    """And not yet said when a replica whose clock is ahead wrote it."""
    known = fires(OVER, told={"chat": NOW})
    assert bool(planned(known, said=ack(known, at_us=NOW + at), now_us=NOW + HOUR).letters) is is_told


# 5. Ends. 6. Backups.


def test_an_end_is_told_at_once_to_whoever_was_told_and_to_nobody_else() -> None:
    """No group waits, and a channel of which the route knows nothing any more has its end too."""
    known = fires(REFUSING, told={"hook": NOW})
    found = planned(
        ended=[known, fires(REFUSING, CREATE)], groups={f"hook {REFUSING} finance": NOW + HOUR - 1}
    )
    assert told(found) == [("hook", "resolved", [known.id])]
    assert found.letters[0].backup == ()


def test_ends_of_a_group_are_one_letter() -> None:
    """As their beginnings were."""
    ended = [fires(OVER, told={"chat": NOW}), fires(OVER, CREATE, told={"chat": NOW})]
    assert [len(ids) for *_, ids in told(planned(ended=ended))] == [2]


def test_a_beginning_has_the_backup_of_its_route_and_nothing_else_has() -> None:
    """An end that also went there would be the second, or one without a beginning."""
    found = planned(fires(REFUSING), now_us=NOW + HOUR)
    assert {(made.backup, made.backup_us) for made in found.letters} == {(("hook",), NOW + HOUR + MINUTE)}
    known = fires(REFUSING, told={"pager": NOW})
    others = planned(
        known,
        ended=[fires(REFUSING, CREATE, told={"chat": NOW})],
        now_us=NOW + REPEAT,
        said=ack(known, at_us=NOW + 1),
    )
    assert {made.kind for made in others.letters} == {Kind.FIRING, Kind.ACKNOWLEDGED, Kind.RESOLVED}
    assert all(made.backup == () for made in others.letters if made.kind is not Kind.FIRING)


def test_a_backup_that_is_told_anyway_is_none() -> None:
    """It would hear the same twice."""
    routes = tuple(replace(route, backup=("chat", "hook")) for route in ALERTING.routes)
    found = planned(fires(REFUSING), desk=Desk(alerting=replace(ALERTING, routes=routes)))
    assert {made.backup for made in found.letters} == {("hook",)}


# Ids.


def test_replicas_that_cannot_talk_to_each_other_give_a_letter_the_same_id() -> None:
    """A receiver that knows ids shows it once, though each of three replicas sends it a second or two apart."""
    at = NOW - NOW % SAME_OUTAGE_US
    down = [fires("BreakerStoreDown:critical", "", team="", at_us=at + skew * SECOND) for skew in (0, 2)]
    one = replace(DESK, episode="7")
    ids = [
        {made.channel: made.id for made in planned(known, desk=one, now_us=known.fired_us + WAIT).letters}
        for known in down
    ]
    assert ids[0] == ids[1]
    assert len({*ids[0].values()}) == len(ids[0]) == 2
    other_words = [
        planned(down[0], desk=replace(one, episode="8"), now_us=NOW + WAIT),
        planned(ended=[replace(down[0], told={"pager": NOW})], desk=one, now_us=NOW + WAIT),
        planned(fires("BreakerStoreRefusesWrites:critical", "", at_us=at), desk=one, now_us=NOW + WAIT),
        planned(
            fires("BreakerStoreDown:critical", "", team="", at_us=at + SAME_OUTAGE_US),
            desk=one,
            now_us=at + SAME_OUTAGE_US + WAIT,
        ),
    ]
    assert not {made.id for found in other_words for made in found.letters} & {*ids[0].values()}


def test_who_speaks_for_all_gives_each_message_another_id() -> None:
    """The next incident of the same kind is not taken for the first one's message."""
    first, second = planned(fires(OVER)), planned(fires(OVER, at_us=NOW + HOUR), now_us=NOW + 2 * HOUR)
    assert first.letters[0].id != second.letters[0].id
    assert first.letters[0].id == planned(fires(OVER)).letters[0].id
    assert all(made.id.startswith("alert-") and len(made.id) == 30 for made in first.letters)


# All of it, over random histories.

MOMENTS = st.sampled_from([SECOND, WAIT - 1, WAIT, INTERVAL, KEEP, REPEAT])
DEEDS = st.sampled_from(["over", "fine", "worse", "better", "ack", "silence", "speak", "nothing"])


@given(st.lists(st.tuples(MOMENTS, DEEDS), max_size=30))
def test_each_channel_hears_one_beginning_and_then_one_end(steps: list[tuple[int, str]]) -> None:
    """Whatever fires, ends, is acknowledged or silenced: nobody hears an end without its beginning, or one twice."""
    now, living, groups = NOW, dict[str, Incident](), dict[str, int]()
    said, levels = Said(), {OVER: LOW, RISK: LOW}
    heard: dict[tuple[str, str], str] = {}
    for pause, deed in steps:
        now += pause
        match deed:
            case "over" | "fine":
                levels[OVER] = HIGH if deed == "over" else LOW
            case "worse" | "better":
                levels[RISK] = HIGH if deed == "worse" else LOW
            case "ack":
                said = replace(said, acks={id_: Ack(since_us=known.since_us, author="a", reason="", at_us=now) for id_, known in living.items()})  # fmt: skip
            case "silence":
                said = replace(said, silences=silence_of(now))
            case "speak":
                said = replace(said, silences=())
            case _:
                pass
        found = move(living, [read(level, alert, for_us=0) for alert, level in levels.items()], now)
        made = plan(found, groups, said, DESK, now)
        for letter in made.letters:
            for known in letter.incidents:
                before = heard.get((letter.channel, known.id), "resolved")
                assert (before == "resolved") is (letter.kind is Kind.FIRING)
                heard[letter.channel, known.id] = str(letter.kind)
        assert_all_ends_are_told(found, heard)
        living, groups = dict(made.living), dict(made.groups)


def silence_of(now: int) -> list[Silence]:
    return [
        Silence(id="1", alert="*", operation="*", author="a", reason="", from_us=now, until_us=now + HOUR)
    ]


def assert_all_ends_are_told(found: Moved, heard: Mapping[tuple[str, str], str]) -> None:
    firing = {id_ for id_, known in found.living.items() if known.stage is Stage.FIRING}
    assert all(word == "resolved" or id_ in firing for (_, id_), word in heard.items())


@pytest.mark.parametrize(("ago", "is_told"), [(TRUE_US - 1, True), (TRUE_US, False)])
def test_what_is_only_kept_lest_it_flap_is_not_begun(ago: int, is_told: bool) -> None:
    """A promise at risk ends, and being over capacity, which it hid, had ended before: nobody needs to hear of that now."""
    found = planned(fires(REFUSING, true_us=NOW + HOUR - ago))
    assert bool(told(found)) is is_told


@pytest.mark.parametrize(("after", "is_told"), [(INTERVAL - 1, False), (INTERVAL, True)])
def test_the_watchdog_is_said_again_with_every_interval(after: int, is_told: bool) -> None:
    """A dead man's switch counts minutes, not hours."""
    found = planned(fires(WATCHDOG, "", told={"am": NOW}), now_us=NOW + after)
    assert bool(told(found)) is is_told
