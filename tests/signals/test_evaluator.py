"""
Incidents from their first reading to the last letter, over changes of the steward and exchanges that are lost.

A real store, with two replicas that judge; time, sights and who is the steward are the test's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from redis import Redis

from breaker.core.alert_policy import Channel, ChannelType
from breaker.core.alerts import Reading
from breaker.core.circuit import CircuitState
from breaker.core.events import Action, AlertMoved, JobsLost, LetterEnded, Outcome, StoreFailed
from breaker.core.model import Overflow
from breaker.core.notify import Ack, Kind, Silence
from breaker.signals import conditions
from breaker.signals.channels import Later, Never
from breaker.signals.evidence import LONG_EVERY_S
from breaker.store.tallies import WINDOWS
from tests.signals.evaluator_scene import (
    BACKUP,
    CHARGE,
    HOOK,
    MINUTE,
    REFUND,
    SECOND,
    Judge,
    Receiver,
    Wire,
    World,
    alerting,
    judges,
    sight,
)
from tests.signals.scene import ended, named

OPEN = f"BreakerCircuitOpen:warning:{CHARGE}"
LONG_OPEN = f"BreakerCircuitOpen:critical:{CHARGE}"
UNACCOUNTED = f"BreakerJobsUnaccounted:critical:{CHARGE}"
KEEP_S = 300
LATER = Later("answered 503")


@pytest.fixture
def world(redis: Redis, cluster: str) -> World:
    return World(redis, cluster)


@pytest.fixture
async def both(world: World, store_url: str) -> AsyncIterator[list[Judge]]:
    """Two replicas, of which the first is the steward."""
    async with judges(world, store_url, Wire(), Wire()) as made:
        world.elect(made[0])
        yield made


@pytest.fixture
def one(both: list[Judge]) -> Judge:
    return both[0]


@pytest.fixture
def other(both: list[Judge]) -> Judge:
    return both[1]


def ack(judge: Judge, incident: str) -> Ack:
    world = judge.world
    return Ack(
        since_us=judge.evaluator.living[incident].since_us, author="ann", reason="on it", at_us=world.now_us
    )


def silence(world: World, alert: str, seconds: float) -> Silence:
    return Silence(
        id="5f1e", alert=alert, operation="*", author="ann", reason="migration", from_us=world.now_us,
        until_us=world.now_us + round(seconds * SECOND),
    )  # fmt: skip


# From beginning to end.


async def test_an_incident_is_told_once_and_its_end_once(world: World, one: Judge) -> None:
    """One page, one all-clear, and nothing that stays behind in the store."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0, 5, 5)
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    assert one.firing() == {OPEN}
    world.see()
    await one.passes(5, KEEP_S - 6)
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    await one.passes(1)
    assert world.hook.told == [(Kind.FIRING, OPEN), (Kind.RESOLVED, OPEN)]
    await one.passes(5, MINUTE / SECOND)
    assert len(world.hook.got) == 2
    assert set(world.written("alerts")) == {"BreakerWatchdog:none"}
    assert world.written("outbox") == {}
    moves = [event for event in one.events if isinstance(event, AlertMoved) and event.operation]
    assert [(event.incident, event.is_firing) for event in moves] == [(OPEN, True), (OPEN, False)]


async def test_what_does_not_last_is_never_told(world: World, one: Judge) -> None:
    """Fifty-nine seconds of what takes a minute to be an incident."""
    world.see(unaccounted=3)
    await one.passes(0, 59)
    assert UNACCOUNTED in one.evaluator.living
    world.see()
    await one.passes(1)
    assert UNACCOUNTED not in one.evaluator.living
    assert (world.hook.got, set(world.written("alerts"))) == ([], {"BreakerWatchdog:none"})


async def test_who_is_not_the_steward_tells_what_it_saw_and_judges_nothing(
    world: World, one: Judge, other: Judge
) -> None:
    """Three replicas that judge are three pages."""
    world.see(circuit=CircuitState.OPEN)
    other.noted.listen(JobsLost(CHARGE, 4))
    await other.passes(0, 5)
    assert (world.hook.got, world.written("alerts"), other.evaluator.living) == ([], {}, {})
    await one.passes(0)
    lost = f"BreakerJobsLost:critical:{CHARGE}"
    assert one.firing() == {OPEN, lost}
    assert one.evaluator.living[lost].values == {"count": "4"}


async def test_a_round_and_what_happens_each_second_make_one_letter(world: World, one: Judge) -> None:
    """They may meet, and both see that it is time."""
    world.alerting = replace(world.alerting, group_wait_ms=10_000)
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    assert world.hook.got == []
    world.now_us += 10 * SECOND
    await asyncio.gather(
        one.evaluator.on_pass(world.sights), one.evaluator.tell(), one.evaluator.tell(), one.evaluator.tell()
    )
    await one.deliver()
    assert world.hook.told == [(Kind.FIRING, OPEN)]


async def test_the_first_of_a_group_is_told_between_two_passes(world: World, one: Judge) -> None:
    """Its wait is over when it is over, not at the next look."""
    world.alerting = replace(world.alerting, group_wait_ms=7_000)
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    await one.tell(6.9)
    assert world.hook.got == []
    await one.tell(0.1)
    assert world.hook.told == [(Kind.FIRING, OPEN)]


# Changes of the steward.


async def test_what_is_pending_goes_on_under_the_next_steward(world: World, one: Judge, other: Judge) -> None:
    """A failover must not win the trouble another minute."""
    world.see(unaccounted=3)
    await one.passes(0, 30)
    world.elect(other, one)
    await other.passes(29)
    assert world.hook.got == []
    await other.passes(1)
    assert world.hook.told == [(Kind.FIRING, UNACCOUNTED)]


async def test_what_fires_is_not_told_again_by_the_next_steward_and_its_end_is(
    world: World, one: Judge, other: Judge
) -> None:
    """Neither a second page, nor an incident that stays open for ever at the receiver."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    world.elect(other, one)
    await other.passes(5, 5)
    await one.passes(0)
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    world.see()
    world.elect(one, other)
    await one.passes(KEEP_S - 5, 5)
    await other.passes(0)
    assert world.hook.told == [(Kind.FIRING, OPEN), (Kind.RESOLVED, OPEN)]


async def test_a_letter_that_was_not_taken_is_brought_by_the_next_steward(
    world: World, one: Judge, other: Judge
) -> None:
    """Under the same id, so that a receiver that had it all the same knows it again."""
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER, LATER]
    await one.passes(0, 5)
    assert (len(world.hook.got), world.hook.told) == (2, [])
    world.elect(other, one)
    await one.passes(60)
    assert len(world.hook.got) == 2
    await other.tell()
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    assert len({message.id for message in world.hook.got}) == 1
    assert world.written("outbox") == {}


async def test_an_acknowledgement_is_told_once_over_a_change_of_the_steward(
    world: World, one: Judge, other: Judge
) -> None:
    """Nobody is told twice that somebody sees to it, nor again that it fires; the end is told."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    world.now_us += SECOND
    await other.book.acknowledge(OPEN, ack(one, OPEN))
    await one.tell(1)
    told = [(Kind.FIRING, OPEN), (Kind.ACKNOWLEDGED, OPEN)]
    assert world.hook.told == told
    assert world.hook.got[-1].detail == "ann: on it"
    world.elect(other, one)
    await other.passes(1)
    await other.passes(world.alerting.repeat_ms / 1_000)
    assert [kind for kind, id_ in world.hook.told if id_ == OPEN] == [Kind.FIRING, Kind.ACKNOWLEDGED]
    world.see()
    await other.passes(1, KEEP_S)
    assert world.hook.count(Kind.RESOLVED, OPEN) == 1
    assert world.written("acks") == {}


async def test_an_acknowledgement_before_the_next_steward_is_told_by_that_one(
    world: World, one: Judge, other: Judge
) -> None:
    """It was said to the store, not to a replica."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    world.now_us += SECOND
    await one.book.acknowledge(OPEN, ack(one, OPEN))
    world.elect(other, one)
    await other.tell(1)
    assert world.hook.told == [(Kind.FIRING, OPEN), (Kind.ACKNOWLEDGED, OPEN)]


async def test_who_was_deposed_brings_nothing_from_that_moment(
    world: World, one: Judge, other: Judge
) -> None:
    """Before its next pass, too: a letter that waits is the next steward's."""
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER]
    await one.passes(0)
    world.elect(other, one)
    world.now_us += MINUTE
    await one.deliver()
    assert len(world.hook.got) == 1
    await one.tell()
    assert (one.evaluator.living, one.evaluator.outbox.entries) == ({}, {})


async def test_who_does_not_know_yet_that_it_was_deposed_writes_nothing(
    world: World, one: Judge, other: Judge
) -> None:
    """It may have been cut off; the store refuses it by its term, and it gives up."""
    await one.passes(0)
    stale = one.stewardship
    world.elect(other, one)
    await other.passes(5)
    one.stewardship = stale
    before = {name: world.written(name) for name in ("alerts", "groups", "outbox")}
    world.see(circuit=CircuitState.OPEN)
    await one.passes(1, 1)
    await one.tell(1)
    assert {name: world.written(name) for name in ("alerts", "groups", "outbox")} == before
    assert (world.hook.got, one.evaluator.living) == ([], {})
    await other.passes(1)
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    await one.passes(1)
    assert one.evaluator.outbox.entries == {}
    assert len(world.hook.got) == 1


async def test_who_was_deposed_while_it_brought_a_letter_leaves_the_book_alone(
    world: World, one: Judge
) -> None:
    """What became of it is refused, too; the next steward tries it again in its own time."""
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER, LATER]
    await one.passes(0)
    world.now_us += SECOND
    before = world.written("outbox")
    world.term += 1
    world.redis.hset(world._key("steward"), "term", world.term)
    await one.deliver()
    assert len(world.hook.got) == 2
    assert (world.written("outbox"), one.evaluator.living) == (before, {})


async def test_a_replica_that_is_elected_again_reads_the_book_anew(world: World, one: Judge) -> None:
    """Its lease ran out and nobody took it: what it knew may be old."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    world.elect(one)
    await one.passes(5)
    assert (world.hook.told, one.firing()) == ([(Kind.FIRING, OPEN)], {OPEN})


# Exchanges that are lost.

ROUNDS = 26  # exchanges with the store at least, in the story below


@pytest.mark.parametrize("loses_answers", [False, True])
async def test_whichever_exchange_is_lost_all_is_told_once(
    redis: Redis, cluster: str, store_url: str, *, loses_answers: bool
) -> None:
    """One after the other is cut, with and without being done; the next round makes good what was lost."""
    number, is_over = 0, False
    while not is_over:
        number += 1
        world = World(redis, f"{cluster}n{number}")
        wire = Wire(number=number, loses_answers=loses_answers)
        async with judges(world, store_url, wire) as (judge,):
            world.elect(judge)
            world.see(circuit=CircuitState.OPEN)
            world.hook.answers = [LATER]
            await judge.passes(0, 1)
            await judge.tell(2)
            world.see()
            await judge.passes(KEEP_S, 1)
            await judge.tell(1)
            is_over = wire.count < number
            told = [kind for kind, id_ in world.hook.told if id_ == OPEN]
            assert told == [Kind.FIRING, Kind.RESOLVED], (number, told)
            assert len({message.id for message in world.hook.got}) == 2, number
            assert judge.evaluator.outbox.entries == {}
            await judge.passes(1)
            assert world.written("outbox") == {}, number
            assert set(world.written("alerts")) == {"BreakerWatchdog:none"}, number
            moves = [
                event.is_firing for event in judge.events if isinstance(event, AlertMoved) and event.operation
            ]
            assert moves == [True, False], number
    assert number > ROUNDS


async def test_what_became_of_a_letter_is_written_when_the_store_is_back(
    world: World, one: Judge, other: Judge
) -> None:
    """Else the next steward brings it a second time."""
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER]
    await one.passes(0)
    one.book.wire.count, one.book.wire.number = 0, 1
    await one.passes()  # not due yet: nothing is brought
    one.book.wire.count, one.book.wire.number = 0, 1
    world.now_us += SECOND
    await one.deliver()
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    assert len(world.written("outbox")) == 1
    await one.tell()
    assert world.written("outbox") == {}
    world.elect(other, one)
    await other.passes(1)
    assert len(world.hook.got) == 2


async def test_the_last_word_of_a_letter_stands_in_the_book(world: World, one: Judge) -> None:
    """An attempt that could not be written down must not bring back a letter that was taken since."""
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER]
    await one.evaluator.on_pass(world.sights)
    one.book.wire.count, one.book.wire.number = 0, 1
    one.evaluator.deliver()
    await one.evaluator.outbox.finish()
    world.now_us += SECOND
    await one.deliver()
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    await one.tell()
    await one.passes(5)
    assert world.written("outbox") == {}


async def test_a_letter_that_was_taken_does_not_come_back_with_the_book(world: World, one: Judge) -> None:
    """Two exchanges in a row are lost: that it was taken is known, and not written yet, when the book is read again."""
    world.see(circuit=CircuitState.OPEN)
    await one.evaluator.on_pass(world.sights)
    wire = one.book.wire
    wire.count, wire.number = 0, 1
    await one.deliver()
    assert world.hook.told == [(Kind.FIRING, OPEN)]
    wire.count, wire.number = 0, 3  # two hashes of what people said, then what is owed
    await one.tell()
    await one.tell(1)
    assert (wire.count, len(world.hook.got), world.written("outbox")) == (3 + 5 + 2 + 1, 1, {})


async def test_when_nothing_has_changed_nothing_is_written(world: World, one: Judge) -> None:
    """What was owed and has been written is not written each second from then on."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    one.book.wire.count = 0
    await one.tell(1)
    assert one.book.wire.count == 2  # what people said


async def test_what_the_store_does_not_take_is_told_next_time(one: Judge) -> None:
    """Calls that were counted while it was away."""
    one.tally.listen(ended())
    one.tallies.cut = (CHARGE,)
    await one.passes(0)
    one.tallies.cut = ()
    one.tally.listen(ended())
    await one.passes(5)
    assert (await one.tallies.read(CHARGE, is_long=False)).recent["all"] == 2


async def test_the_calls_of_an_operation_that_was_taken_away_are_not_told(world: World, one: Judge) -> None:
    """Else each of them would make a key that nobody removes for days."""
    one.tally.listen(ended(operation="billing.gone"))
    await one.passes(0)
    assert not world.redis.keys(f"*{world.cluster}*billing.gone*")


async def test_one_operation_that_cannot_be_read_silences_no_other(world: World, one: Judge) -> None:
    """Its node of a Cluster is away, and that is when the others must be heard."""
    world.operations = named(queues=(CHARGE, REFUND))
    ill = sight(circuit=CircuitState.OPEN)
    world.sights = replace(world.sights, operations={CHARGE: ill, REFUND: ill})
    one.tallies.cut = (CHARGE,)
    await one.passes(0)
    assert one.firing() == {f"BreakerCircuitOpen:warning:{REFUND}"}
    one.tallies.cut = ()
    await one.passes(5)
    assert one.firing() == {f"BreakerCircuitOpen:warning:{REFUND}", OPEN}


async def test_a_mistake_of_ours_about_one_operation_silences_no_other(
    world: World, one: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said aloud, each time."""
    world.operations = named(queues=(CHARGE, REFUND))
    ill = sight(circuit=CircuitState.OPEN)
    world.sights = replace(world.sights, operations={CHARGE: ill, REFUND: ill})
    judged = conditions.circuit_open

    def mistaken(seen: conditions.Seen) -> Iterator[Reading]:
        if seen.operation.name == CHARGE:
            raise ZeroDivisionError
        return judged(seen)

    monkeypatch.setattr(conditions, "circuit_open", mistaken)
    await one.evaluator.on_pass(world.sights)
    assert one.firing() == {f"BreakerCircuitOpen:warning:{REFUND}"}
    assert [type(bug) for bug in one.bugs] == [ZeroDivisionError]


# What people say.


async def test_an_acknowledgement_is_told_within_a_second(world: World, one: Judge) -> None:
    """Whoever else was paged may go back to bed."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    world.now_us += SECOND
    await one.book.acknowledge(OPEN, ack(one, OPEN))
    await one.tell()
    assert world.hook.told == [(Kind.FIRING, OPEN), (Kind.ACKNOWLEDGED, OPEN)]
    await one.tell(1)
    assert len(world.hook.got) == 2


async def test_an_acknowledgement_is_of_one_incident_and_not_of_the_next(world: World, one: Judge) -> None:
    """Who saw to it yesterday does not see to it today."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    old = ack(one, OPEN)
    world.see()
    await one.passes(1, KEEP_S)
    world.see(circuit=CircuitState.OPEN)
    await one.passes(60)
    await one.book.acknowledge(OPEN, replace(old, at_us=world.now_us + 1))
    await one.tell(1)
    assert world.hook.count(Kind.ACKNOWLEDGED, OPEN) == 0
    assert world.written("acks") == {}


async def test_what_was_silenced_is_told_when_the_silence_ends(world: World, one: Judge) -> None:
    """A silence always ends, and what it covered may still be true."""
    await one.book.silence(silence(world, "BreakerCircuit*", 60))
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0, 30, 29)
    assert (one.firing(), world.hook.got) == ({OPEN}, [])
    await one.tell(0.9)
    assert (world.hook.got, set(world.written("silences"))) == ([], {"5f1e"})
    await one.tell(0.1)
    assert (world.hook.told, world.written("silences")) == ([(Kind.FIRING, OPEN)], {})


async def test_what_was_told_before_a_silence_is_told_to_have_ended(world: World, one: Judge) -> None:
    """The all-clear wakes nobody, and closes what is open."""
    world.see(circuit=CircuitState.OPEN)
    await one.passes(0)
    await one.book.silence(silence(world, "BreakerCircuitOpen", 3_600))
    world.see()
    await one.passes(1, KEEP_S)
    assert world.hook.told == [(Kind.FIRING, OPEN), (Kind.RESOLVED, OPEN)]


# Channels and reloads.


async def test_who_had_the_beginning_as_a_backup_has_the_end(world: World, one: Judge) -> None:
    """Else their screen shows it for ever."""
    world.alerting = alerting(HOOK, BACKUP, backup=("backup",))
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER] * 100
    await one.passes(0, 59)
    assert world.receivers["backup"].got == []
    await one.passes(1)
    assert world.receivers["backup"].told == [(Kind.FIRING, OPEN)]
    world.hook.answers = []
    await one.passes(60)
    world.see()
    await one.passes(1, KEEP_S)
    for receiver in (world.hook, world.receivers["backup"]):
        assert [kind for kind, id_ in receiver.told if id_ == OPEN] == [Kind.FIRING, Kind.RESOLVED]


async def test_a_backup_has_the_end_also_while_the_first_channel_is_away(
    world: World, one: Judge, other: Judge
) -> None:
    """There the end waits behind the beginning, and the steward changes meanwhile."""
    world.alerting = alerting(HOOK, BACKUP, backup=("backup",))
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER] * 1_000
    await one.passes(0, 1, 60)
    world.elect(other, one)
    world.see()
    await other.passes(1, KEEP_S, 1)
    assert [kind for kind, id_ in world.receivers["backup"].told if id_ == OPEN] == [
        Kind.FIRING,
        Kind.RESOLVED,
    ]
    assert world.hook.told == []


async def test_a_backup_does_not_hear_of_what_ended_before_it_was_asked(world: World, one: Judge) -> None:
    """A short incident, and a channel that is away for longer than that: a page about nothing, or one without an end."""
    world.alerting = replace(alerting(HOOK, BACKUP, backup=("backup",)), keep_ms=1_000)
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER] * 2
    await one.passes(0)
    world.see()
    await one.passes(1, 1)
    assert OPEN not in one.evaluator.living
    await one.passes(58, 1)
    assert world.receivers["backup"].got == []
    assert world.hook.told == [(Kind.FIRING, OPEN), (Kind.RESOLVED, OPEN)]


CHAT = Channel(name="chat", type=ChannelType.SLACK, url="http://127.0.0.1:9")


@pytest.fixture
def route_of_two(world: World) -> Receiver:
    """Criticals and warnings go to a hook and a chat, with a backup; the chat."""
    world.alerting = alerting(HOOK, CHAT, BACKUP, to=("hook", "chat"), backup=("backup",))
    world.receivers["chat"] = Receiver()
    world.see(circuit=CircuitState.OPEN)
    return world.receivers["chat"]


async def test_what_one_channel_of_a_route_has_taken_needs_no_backup(
    world: World, one: Judge, other: Judge, route_of_two: Receiver
) -> None:
    """A chat that is away for an hour must not page the backup for each alert; not even by the next steward."""
    route_of_two.answers = [LATER] * 1_000
    await one.passes(0, 1)
    world.elect(other, one)
    await other.passes(60, 60)
    assert world.hook.count(Kind.FIRING, OPEN) == 1
    assert world.receivers["backup"].got == []


async def test_what_no_channel_of_a_route_has_taken_goes_to_the_backup_once(
    world: World, one: Judge, route_of_two: Receiver
) -> None:
    """Two that are away are one page, not two; and its end comes."""
    route_of_two.answers, world.hook.answers = [LATER] * 1_000, [LATER] * 1_000
    await one.passes(0, 60, 60)
    assert world.receivers["backup"].told == [(Kind.FIRING, OPEN)]
    world.see()
    await one.passes(1, KEEP_S)
    told = [kind for kind, id_ in world.receivers["backup"].told if id_ == OPEN]
    assert told == [Kind.FIRING, Kind.RESOLVED]


@pytest.mark.parametrize("is_last_away", [False, True])
async def test_what_one_channel_will_never_take_waits_for_the_others_of_its_route(
    world: World, one: Judge, route_of_two: Receiver, *, is_last_away: bool
) -> None:
    """The backup is asked when the last of them has failed."""
    world.hook.answers, route_of_two.answers = (
        [Never("answered 403")],
        [LATER] * (1_000 if is_last_away else 1),
    )
    await one.passes(0, 59)
    assert world.receivers["backup"].got == []
    await one.passes(1)
    assert world.receivers["backup"].told == ([(Kind.FIRING, OPEN)] if is_last_away else [])


async def test_what_all_channels_of_a_route_will_never_take_goes_to_the_backup_at_once(
    world: World, one: Judge, route_of_two: Receiver
) -> None:
    """Nothing is to be waited for."""
    world.hook.answers, route_of_two.answers = [Never("answered 403")], [Never("answered 404")]
    await one.passes(0)
    assert world.receivers["backup"].told == [(Kind.FIRING, OPEN)]


async def test_a_letter_that_is_never_taken_goes_to_the_backup_and_leaves_the_book(
    world: World, one: Judge
) -> None:
    """A key that was withdrawn: the letter is given up, aloud, and does not come back with the next steward."""
    world.alerting = alerting(HOOK, BACKUP, backup=("backup",))
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [Never("answered 403")]
    await one.passes(0)
    assert world.receivers["backup"].told == [(Kind.FIRING, OPEN)]
    await one.tell(1)
    assert world.written("outbox") == {}
    assert [event.result for event in one.events if isinstance(event, LetterEnded)] == ["failed", "ok"]


async def test_a_channel_that_a_reload_takes_away_is_given_up_and_a_new_one_is_told(
    world: World, one: Judge
) -> None:
    """On-call has moved house in the middle of an incident."""
    world.see(circuit=CircuitState.OPEN)
    world.hook.answers = [LATER] * 1_000
    await one.passes(0, 30, 40, 60)
    failing = "BreakerDeliveryFailing:warning:hook"
    assert failing in one.evaluator.living
    pager = Channel(name="pager", type=ChannelType.PAGERDUTY, url="http://127.0.0.1:9", secrets=("x",))
    world.alerting = alerting(pager)
    world.receivers["pager"] = type(world.hook)()
    await one.passes(60)
    assert (Kind.FIRING, OPEN) in world.receivers["pager"].told
    assert (world.hook.told, world.written("outbox")) == ([], {})
    world.see()
    await one.passes(KEEP_S, 1)
    assert world.receivers["pager"].count(Kind.RESOLVED, OPEN) == 1
    assert set(one.evaluator.living) == {"BreakerWatchdog:none"}


async def test_an_operation_that_a_reload_takes_away_ends_its_incidents(world: World, one: Judge) -> None:
    """Nobody reads it any more; whoever was paged is told that it is over."""
    world.see(circuit=CircuitState.OPEN, unaccounted=3)
    await one.passes(0, 60)
    assert one.firing() == {OPEN, UNACCOUNTED}
    world.operations = named(queues=(REFUND,))
    world.sights = replace(world.sights, operations={REFUND: sight()})
    await one.passes(1)
    assert LONG_OPEN not in one.evaluator.living  # it was pending
    assert one.firing() == {OPEN, UNACCOUNTED}
    await one.passes(KEEP_S)
    assert one.firing() == set()
    assert (world.hook.count(Kind.RESOLVED, OPEN), world.hook.count(Kind.RESOLVED, UNACCOUNTED)) == (1, 1)


async def test_a_queue_that_a_reload_takes_away_ends_the_incidents_of_queues(
    world: World, one: Judge
) -> None:
    """The operation is still there, and so are its other incidents."""
    world.see(circuit=CircuitState.OPEN, unaccounted=3)
    await one.passes(0, 60)
    plain = replace(world.operations[CHARGE], overflow=Overflow.THROTTLE, queue=None)
    world.operations = {CHARGE: plain}
    world.sights = replace(
        world.sights, operations={CHARGE: replace(sight(circuit=CircuitState.OPEN), queue=None)}
    )
    await one.passes(1, KEEP_S)
    assert UNACCOUNTED not in one.evaluator.living
    assert OPEN in one.firing()


async def test_jobs_of_an_operation_that_no_file_names_are_an_incident_until_they_are_gone(
    world: World, one: Judge
) -> None:
    """It is asked for only now and then; in between nothing begins or ends."""
    removed = "BreakerOperationRemoved:warning:billing.gone"
    world.sights = replace(world.sights, removed={"billing.gone": 2})
    await one.passes(0, 60)
    world.sights = replace(world.sights, removed=None)
    await one.passes(KEEP_S, KEEP_S)
    assert removed in one.firing()
    world.sights = replace(world.sights, removed={})
    await one.passes(1)
    assert removed not in one.firing()
    assert world.hook.count(Kind.RESOLVED, removed) == 1


# Windows of hours.


async def test_windows_that_are_not_read_end_no_incident(world: World, one: Judge) -> None:
    """They are read twice a minute; in between, an error budget that burns is neither better nor worse."""
    burning = f"BreakerErrorBudgetBurn:critical:{CHARGE}"
    await one.tallies.add(CHARGE, {"all": 1_000, "bad": 500})
    await one.passes(0, 5, 5)
    assert one.tallies.asked == [True, False, False]
    assert not one.evaluator.living[burning].fired_us
    for _ in range(3):
        await one.passes(20, 5, 5)
    assert not one.evaluator.living[burning].fired_us
    await one.passes(20)
    assert burning in one.firing()
    assert one.tallies.asked.count(True) == 120 / LONG_EVERY_S + 1
    await one.passes(*[5] * 5)
    assert burning in one.firing()
    assert world.hook.count(Kind.FIRING, burning) == 1
    assert set((await one.tallies.read(CHARGE, is_long=True)).windows) == set(WINDOWS)


async def test_what_was_done_with_calls_reaches_the_words_of_the_alert(one: Judge, other: Judge) -> None:
    """Counted by one replica, judged by another."""
    for _ in range(20):
        other.tally.listen(ended(outcome=Outcome.REFUSED, reason="jobs", result=None, action=Action.REFUSED))
    await other.passes(0)
    await one.passes(0)
    refusing = f"BreakerRefusing:critical:{CHARGE}"
    assert refusing in one.firing()
    assert one.evaluator.living[refusing].values["refused"] == "20 calls in five minutes were"


async def test_a_book_that_cannot_be_read_is_said_aloud(world: World, one: Judge) -> None:
    """Nobody would know that nobody is told: decisions go on, and tell nothing of it."""
    world.redis.set(world._key("acks"), "written by hand")
    await one.passes(5)
    failed = [event for event in one.events if isinstance(event, StoreFailed)]
    assert failed
    assert "alerts could not be judged" in failed[0].detail
    assert all(event.is_partial for event in failed), "the store itself is well"
    world.redis.delete(world._key("acks"))
    before = len(failed)
    await one.passes(5)
    assert sum(isinstance(event, StoreFailed) for event in one.events) == before
