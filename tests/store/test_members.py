"""
Who lives, whose configuration holds, and who is the steward: on a real store, at given times.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import pytest
from redis import Redis

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreRefusedError
from breaker.core.events import Event, ReplicasSeen, StewardChanged, StoreFailed, StoreReset
from breaker.store import members as module
from breaker.store.members import Members
from breaker.store.steward import Chore, Steward, Stewardship

SECOND = 1_000_000
START = 1_800_000_000 * SECOND
GONE, LEASE = 5 * SECOND, 3 * SECOND

T = TypeVar("T")


class Joined(Members):
    """One replica, with what it emitted and was told."""

    def __init__(self, url: str, cluster: str, name: str) -> None:
        self.events: list[Event] = []
        self.bugs: list[BaseException] = []
        super().__init__(
            StoreSettings(url=url),
            cluster=cluster,
            replica=name,
            emit=self.events.append,
            on_bug=self.bugs.append,
        )

    def all_of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def own_term(self) -> int | None:
        return self.steward.stewardship.term if self.steward.stewardship else None


Join = Callable[..., Joined]


@pytest.fixture
async def join(store_url: str, cluster: str) -> AsyncIterator[Join]:
    """Makes replicas of this test's cluster, by name and version; they beat when they are told to."""
    async with AsyncExitStack() as stack:

        def made(name: str, version: str = "v1", operations: tuple[str, ...] = ()) -> Joined:
            one = Joined(store_url, cluster, name)
            one.says(version, operations)
            stack.push_async_callback(one.close)
            return one

        yield made


# Who lives.


async def test_a_replica_is_gone_five_seconds_after_its_last_beat_and_not_before(join: Join) -> None:
    """The share that each takes while the store is away hangs on how many live."""
    one, other = join("ONE"), join("OTHER")
    await one.beat(START)
    await other.beat(START)
    await one.beat(START + GONE - 1)
    assert one.live == 2
    await one.beat(START + GONE)
    assert one.live == 1
    assert one.all_of(ReplicasSeen) == [
        ReplicasSeen(1, 0, "v1"),
        ReplicasSeen(2, 0, "v1"),
        ReplicasSeen(1, 0, "v1"),
    ]


async def test_a_replica_that_stops_is_gone_at_once_and_the_next_is_steward(join: Join) -> None:
    """A rolling upgrade waits for no lease."""
    one, other = join("ONE"), join("OTHER")
    await one.beat(START)
    await other.beat(START + 1)
    first = one.own_term()
    assert first is not None
    assert other.own_term() is None
    await one.close()
    await other.beat(START + 2)
    assert (other.live, other.own_term()) == (1, first + 1)


async def test_replicas_are_listed_as_they_told_of_themselves(join: Join) -> None:
    """A person looks here first when two replicas disagree."""
    one, other = join("ONE"), join("OTHER", "v2")
    await one.beat(START)
    await other.beat(START + SECOND)
    await one.beat(START + 2 * SECOND)
    first, second = await one.listed()
    assert (first.id, first.version, first.is_steward, first.pid) == ("ONE", "v1", True, os.getpid())
    assert (first.started_us, first.beat_us, first.format) == (START, START + 2 * SECOND, 1)
    assert (second.id, second.version, second.is_steward) == ("OTHER", "v2", False)


async def test_a_process_that_ended_without_a_word_on_this_machine_does_not_count(join: Join) -> None:
    """A gateway that is killed and started again with other files is alone: what it says holds at once."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        dead = join("DEAD", "v1")
        dead._facts |= {"pid": ended.pid, "born": module.born(ended.pid)}
        await dead.beat(START)
        living = join("LIVING", "v1")
        await living.beat(START)
        assert living.live == 2, "it still runs"
    finally:
        ended.communicate(b"\n")
    await living.close()
    again = join("AGAIN", "v2")
    await again.beat(START + SECOND)
    assert (again.live, again.standing.is_in_force, again.own_term() is None) == (1, True, False)


async def test_a_process_with_the_number_of_a_dead_one_is_not_it(join: Join) -> None:
    """Numbers of processes come again: in a container it is always 1."""
    before = join("BEFORE")
    before._facts |= {"born": "1"}
    await before.beat(START)
    after = join("AFTER")
    await after.beat(START)
    assert after.live == 1


async def test_after_the_store_was_away_nobody_takes_itself_for_the_only_one(join: Join) -> None:
    """Nobody could beat; who is first back must neither take all capacity nor bring its own files into force."""
    one, two, three = join("ONE", "v2"), join("TWO", "v2"), join("THREE", "v1")
    for member in (one, two, three):
        await member.beat(START)
    assert three.standing.version == "v2"
    later = START + 600 * SECOND
    await three.beat(later)
    assert (three.live, three.standing.version) == (3, "v2")
    await three.beat(later + GONE)
    assert three.live == 1, "the others did not come back"


async def test_a_beat_from_before_the_clock_went_back_lapses(join: Join) -> None:
    """A store's clock that was an hour ahead leaves no ghosts for an hour."""
    one, other = join("ONE"), join("OTHER")
    await one.beat(START + 3_600 * SECOND)
    first = one.own_term()
    assert first is not None
    await other.beat(START)
    await other.beat(START + 1)
    assert (other.live, other.own_term()) == (1, first + 1)


# The steward.


async def test_the_steward_is_followed_when_its_lease_has_run_out_and_not_before(join: Join) -> None:
    """Killed, it is replaced within its lease and one beat: 4 s."""
    one, other = join("ONE"), join("OTHER")
    await one.beat(START)
    term = one.own_term()
    assert term is not None
    await other.beat(START + LEASE - 1)
    assert (other.own_term(), other.steward_id) == (None, "ONE")
    await other.beat(START + LEASE)
    assert (other.own_term(), other.steward_id) == (term + 1, "OTHER")
    assert other.all_of(StewardChanged) == [StewardChanged(is_steward=True, term=term + 1)]
    await one.beat(START + LEASE)
    assert one.own_term() is None, "it was deposed while it was away"
    assert one.all_of(StewardChanged) == [
        StewardChanged(is_steward=True, term=term), StewardChanged(is_steward=False, term=term)
    ]  # fmt: skip


async def test_a_steward_that_beats_stays_it(join: Join) -> None:
    """Its chores are not begun anew every second."""
    one, other = join("ONE"), join("OTHER")
    for second in range(10):
        await one.beat(START + second * SECOND)
        await other.beat(START + second * SECOND)
    assert len(one.all_of(StewardChanged)) == 1
    assert other.all_of(StewardChanged) == []


async def test_a_steward_whose_beats_fail_stops_by_itself(
    join: Join, redis: Redis, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that another is elected, it must know that it is not it any more."""
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    monkeypatch.setattr(module, "LEASE_S", 0.2)
    one = join("ONE")
    await one.beat()
    one.start()
    assert one.own_term() is not None
    redis.set(f"brk:{cluster}:{{cluster}}:replicas", "not a set: every beat is refused")
    async with asyncio.timeout(5):
        while one.own_term() is not None:
            await asyncio.sleep(0.005)
    assert [event.is_steward for event in one.all_of(StewardChanged)] == [True, False]
    assert {event.kind for event in one.all_of(StoreFailed)} == {"refused"}
    assert one.live == 1, "what was known stays"


async def test_chores_run_where_the_steward_is_and_with_its_term(join: Join) -> None:
    """What is to be done once is done once, and fenced."""
    ran: list[tuple[str, int]] = []
    one, other = join("ONE"), join("OTHER")
    done = asyncio.Event()

    def chore_of(name: str) -> Chore:
        async def run(stewardship: Stewardship) -> None:
            ran.append((name, stewardship.term))
            done.set()

        return Chore(name="note", every_s=3_600, run=run)

    for member in (one, other):
        member.steward.add(chore_of(member._replica))
        await member.beat(START)
    await asyncio.wait_for(done.wait(), 5)
    term = one.own_term()
    assert term is not None
    assert ran == [("ONE", term)]
    done.clear()
    await one.close()
    await other.beat(START + 1)
    await asyncio.wait_for(done.wait(), 5)
    assert ran == [("ONE", term), ("OTHER", term + 1)]


async def test_a_chore_that_fails_is_tried_again_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away for a moment, or our own mistake, leaves calendars to run out otherwise."""
    monkeypatch.setattr("breaker.store.steward.AGAIN_S", 0.01)
    bugs: list[BaseException] = []
    steward = Steward(bugs.append)
    calls: list[str] = []
    done = asyncio.Event()

    async def away(_: Stewardship) -> None:
        calls.append("away")
        if calls.count("away") == 1:
            raise StoreError("away")
        if calls.count("wrong") >= 2:
            done.set()

    async def wrong(_: Stewardship) -> None:
        calls.append("wrong")
        raise RuntimeError("a mistake")

    steward.add(Chore(name="wrong", every_s=0.01, run=wrong))
    steward.add(Chore(name="away", every_s=3_600, run=away))
    steward.elected(Stewardship(term=1, since_us=START))
    await asyncio.wait_for(done.wait(), 5)
    await steward.close()
    assert isinstance(bugs[0], RuntimeError)


# Whose configuration holds.


async def test_the_configuration_of_most_replicas_holds(join: Join) -> None:
    """During a rolling change the old limits hold until half of the replicas have the new ones, and then for good."""
    one, two, three = join("ONE"), join("TWO"), join("THREE")
    for member in (one, two, three):
        await member.beat(START)
    first = one.standing.edition
    one.says("v2", ())
    await one.beat(START + 1)
    assert (one.standing.version, one.standing.is_in_force, one.differing) == ("v1", False, 1)
    two.says("v2", ())
    await two.beat(START + 2)
    assert (two.standing.version, two.standing.is_in_force, two.standing.edition) == ("v2", True, first + 1)
    await three.beat(START + 3)
    assert (three.standing.is_in_force, three.differing) == (False, 1)
    assert three.all_of(ReplicasSeen)[-1] == ReplicasSeen(3, 1, "v2")


async def test_of_two_that_are_run_by_as_many_the_one_that_held_goes_on(join: Join) -> None:
    """Two replicas, one of them restarted with what it had on its disk: nothing changes for anybody."""
    one, two = join("ONE", "v2"), join("TWO", "v1")
    await one.beat(START)
    await two.beat(START)
    assert (two.standing.version, two.standing.is_in_force) == ("v2", False)
    for version in ("v0", "v3"):  # neither does the order of their names decide
        two.says(version, ())
        await two.beat(START + 1)
        assert two.standing.version == "v2"


async def test_what_a_single_replica_says_holds_at_once(join: Join) -> None:
    """A reload of the only gateway is not a vote."""
    one = join("ONE")
    await one.beat(START)
    before = one.standing.edition
    one.says("v2", ())
    await one.beat(START)
    assert (one.standing.is_in_force, one.standing.edition) == (True, before + 1)


async def test_a_dead_replica_counts_until_its_beat_lapses(join: Join) -> None:
    """For 5 s nobody can know that it will not come back."""
    dead, other = join("DEAD", "v2"), join("OTHER", "v1")
    await dead.beat(START)
    await other.beat(START + GONE - 1)
    assert other.standing.version == "v2"
    await other.beat(START + GONE)
    assert (other.standing.version, other.standing.is_in_force) == ("v1", True)


async def test_a_change_that_a_beat_finds_is_told(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first replica of a rolling change publishes when the second has followed, by itself."""
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    one, two, three = join("ONE", "v2"), join("TWO"), join("THREE")
    for member in (two, three, one):
        await member.beat()
    told = asyncio.Event()
    one.on_standing = told.set
    one.start()
    await asyncio.sleep(0)
    assert not told.is_set()
    two.says("v2", ())
    await two.beat()
    await asyncio.wait_for(told.wait(), 5)
    assert one.standing.is_in_force


# The store itself.


async def test_a_store_that_was_flushed_is_noticed_by_all_and_told(
    join: Join, redis: Redis, cluster: str
) -> None:
    """It is never silently made anew: somebody lost quotas, and perhaps jobs."""
    one, other = join("ONE"), join("OTHER")
    resets: list[str] = []
    one.on_reset = lambda: resets.append("ONE")
    other.on_reset = lambda: resets.append("OTHER")
    await one.beat(START)
    await other.beat(START)
    await one.beat(START + 1)
    assert resets == []
    for key in redis.scan_iter(f"brk:{cluster}:*"):
        redis.delete(key)
    await one.beat(START + 2)
    assert resets == ["ONE"]
    assert "gone" in one.all_of(StoreReset)[0].detail
    assert one.live == 2, "the other had no time to beat yet"
    await other.beat(START + 3)
    assert resets == ["ONE", "OTHER"]
    assert "another" in other.all_of(StoreReset)[0].detail
    await one.beat(START + 4)
    await other.beat(START + 4)
    assert resets == ["ONE", "OTHER"], "once each"


async def test_terms_and_editions_never_repeat_after_a_loss(join: Join, redis: Redis, cluster: str) -> None:
    """Policies in other slots of a Cluster remember the old ones, and would refuse whatever is lower."""
    one = join("ONE")
    await one.beat(START)
    term, edition = one.own_term(), one.standing.edition
    assert term is not None
    for key in redis.scan_iter(f"brk:{cluster}:*"):
        redis.delete(key)
    await one.beat(START + 2 * SECOND)
    again = one.own_term()
    assert again is not None
    assert again > term
    assert one.standing.edition > edition


async def test_a_format_that_is_newer_than_ours_is_left_alone(join: Join, redis: Redis, cluster: str) -> None:
    """An old version that is started on the keys of a new one would misread them."""
    redis.set(f"brk:{cluster}:{{cluster}}:schema", 2)
    one = join("ONE")
    with pytest.raises(
        StoreRefusedError, match=r"are in format 2, and .* knows format 1 at most: run the version"
    ):
        await one.beat(START)
    assert list(redis.scan_iter(f"brk:{cluster}:*")) == [f"brk:{cluster}:{{cluster}}:schema".encode()]


async def test_the_format_is_raised_when_all_that_live_know_the_new_one(
    join: Join, redis: Redis, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New code writes what old code can read until there is none."""

    def written() -> int:
        return int(redis.get(f"brk:{cluster}:{{cluster}}:schema") or 0)

    old = join("OLD")
    await old.beat(START)
    assert written() == 1
    monkeypatch.setattr(module, "FORMAT", 2)
    new = join("NEW")
    await new.beat(START + LEASE)
    assert new.own_term() is not None
    assert written() == 1, "the old one lives"
    await new.beat(START + GONE)
    assert written() == 2
