"""What replicas say of a store that cannot be asked who speaks."""

from dataclasses import dataclass, field, replace

import pytest
from redis import Redis

from breaker.core.alert_policy import Alerting, Route, Severity
from breaker.core.circuit import CircuitState
from breaker.core.events import AlertMoved, Event, LetterEnded
from breaker.core.notify import Kind
from breaker.signals.channels import Later
from breaker.signals.cluster_conditions import Outage
from breaker.signals.own_voice import OwnVoice, in_memory
from tests.core.alert_world import ALERTING, KEEP, fires, pending
from tests.signals.evaluator_scene import Wire, World, judges
from tests.signals.outbox_scene import SECOND, Post, Script
from tests.signals.test_duty import Post as DutyPost

DOWN, FULL = "BreakerStoreDown:critical", "BreakerStoreRefusesWrites:critical"
AWAY, OOM = Outage(kind="timeout", detail="no answer"), Outage(kind="refused", detail="OOM")
KEEP_S = KEEP / SECOND
TO_ALL = replace(
    ALERTING, routes=(Route(severity=Severity.CRITICAL, to=("am", "pager", "chat"), backup=("hook",)),)
)


@dataclass
class Replica:
    """One of several that see the same receivers."""

    script: Script
    rank: int = 0
    episode: str = "7"
    alerting: Alerting = TO_ALL
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.post = Post(script=self.script, alerting=self.alerting, events=self.events)
        self.voice = OwnVoice(
            cluster="production", outbox=self.post.outbox, alerting=lambda: self.alerting, rank=lambda: self.rank,
            episode=lambda: self.episode, emit=self.events.append, now_us=lambda: self.post.now_us,
        )  # fmt: skip

    async def sees(self, outage: Outage | None, seconds: float) -> None:
        """The store is like that for so long; it is judged every second, and for the last time then."""
        left = seconds
        while True:
            self.voice.judge(outage)
            await self.post.after(0)
            if left <= 0:
                return
            self.post.now_us += round(min(1.0, left) * SECOND)
            left -= 1.0

    @property
    def moves(self) -> list[tuple[str, bool]]:
        return [(event.incident, event.is_firing) for event in self.events if isinstance(event, AlertMoved)]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def first(script: Script) -> Replica:
    return Replica(script)


async def test_five_seconds_without_the_store_are_worth_a_page(script: Script, first: Replica) -> None:
    """A slow fork is not; and the page comes well within fifteen."""
    await first.sees(AWAY, 4.999)
    assert (script.sent, first.moves) == ([], [])
    await first.sees(AWAY, 0.001)
    assert {channel: script.heard(channel)[0] for channel in ("am", "pager", "chat")} == dict.fromkeys(
        ("am", "pager", "chat"), ("firing", [DOWN])
    )
    assert first.moves == [(DOWN, True)]


async def test_a_store_that_comes_back_before_is_nothing(script: Script, first: Replica) -> None:
    """And nothing is left of it: the next time counts from its own beginning."""
    await first.sees(AWAY, 4)
    await first.sees(None, 1)
    await first.sees(AWAY, 4)
    assert (script.sent, first.moves) == ([], [])


async def test_all_tell_those_who_know_an_incident_and_the_others_hear_it_in_turn(script: Script) -> None:
    """PagerDuty and Alertmanager show it once. Slack would show it three times: the second speaks half a minute later."""
    replicas = [Replica(script, rank=rank) for rank in range(3)]
    for replica in replicas:
        await replica.sees(AWAY, 5)
    assert [len(script.ids(channel)) for channel in ("pager", "chat")] == [3, 1]
    assert len(set(script.ids("pager"))) == 1
    second = replicas[1]
    await second.sees(AWAY, 29)
    assert len(script.ids("chat")) == 1
    await second.sees(AWAY, 1)
    assert len(script.ids("chat")) == 2, "the first may be the one that is cut off"
    assert len(set(script.ids("chat"))) == 1, "a receiver that knows ids shows it once all the same"


async def test_the_next_outage_is_told_anew(script: Script, first: Replica) -> None:
    """Under other ids, also when the steward and so the episode is the same: this replica alone had been cut off."""
    await first.sees(AWAY, 5)
    await first.sees(None, KEEP_S + 1)
    await first.sees(None, 600)
    await first.sees(AWAY, 5)
    assert [kind for kind, _ in script.heard("pager")] == ["firing", "resolved", "firing"]
    assert len(set(script.ids("pager"))) == 3


async def test_the_end_is_told_to_whoever_was_told_under_the_episode_of_its_beginning(
    script: Script, first: Replica
) -> None:
    """The store is back and somebody else comes first by now, under another steward."""
    other = Replica(script)
    for replica, episode in ((first, "8"), (other, "9")):
        await replica.sees(AWAY, 10)
        replica.rank, replica.episode = 2, episode
        await replica.sees(None, KEEP_S - 1)
    assert [kind for kind, _ in script.heard("chat")] == ["firing", "firing"]
    for replica in (first, other):
        await replica.sees(None, 1)
        assert replica.moves == [(DOWN, True), (DOWN, False)]
        assert replica.voice.living == {}
    assert [kind for kind, _ in script.heard("chat")] == ["firing", "firing", "resolved", "resolved"]
    assert len(set(script.ids("chat"))) == 2


async def test_who_was_not_told_hears_no_end(script: Script) -> None:
    """It was over before the third had its turn."""
    third = Replica(script, rank=2)
    await third.sees(AWAY, 30)
    await third.sees(None, KEEP_S + 1)
    assert script.heard("chat") == []
    assert [kind for kind, _ in script.heard("pager")] == ["firing", "resolved"]


async def test_a_store_that_flaps_is_one_outage(script: Script, first: Replica) -> None:
    """For ten minutes, away and back every 20 s: one page, and one end."""
    for _ in range(15):
        await first.sees(AWAY, 20)
        await first.sees(None, 20)
    await first.sees(None, KEEP_S)
    assert [kind for kind, _ in script.heard("pager")] == ["firing", "resolved"]
    assert [kind for kind, _ in script.heard("chat")] == ["firing", "resolved"]


async def test_a_store_that_refuses_writes_is_told_as_such(script: Script, first: Replica) -> None:
    """Out of memory is another runbook; and what it was before is not told beside it."""
    await first.sees(OOM, 5)
    assert script.heard("pager") == [("firing", [FULL])]
    await first.sees(AWAY, 60)
    assert script.heard("pager") == [("firing", [FULL])], "while that is told, it inhibits"


async def test_alertmanager_is_told_again_as_long_as_it_fires(script: Script, first: Replica) -> None:
    """It forgets after five minutes."""
    await first.sees(AWAY, 185)
    kinds = [kind for kind, _ in script.heard("am")]
    assert (kinds[0], kinds.count("repeated")) == ("firing", 3)


async def test_a_letter_that_is_not_taken_is_tried_again_from_memory(script: Script, first: Replica) -> None:
    """The network was away together with the store."""
    script.answers["pager"] = [Later("no connection")] * 3
    await first.sees(AWAY, 5 + 1 + 2 + 4)
    assert [kind for kind, _ in script.heard("pager")] == ["firing"] * 4
    assert len(set(script.ids("pager"))) == 1


async def test_a_backup_hears_the_end_as_well_and_in_turn(script: Script) -> None:
    """Nobody can be reached from here: somebody else is woken, by one replica after the other."""
    script.always |= dict.fromkeys(("am", "pager", "chat"), Later("no connection"))
    first, second = Replica(script), Replica(script, rank=1)
    await first.sees(AWAY, 70)
    await second.sees(AWAY, 70)
    assert script.heard("hook") == [("firing", [DOWN])]
    await second.sees(AWAY, 30)
    assert len(script.heard("hook")) == 2
    await first.sees(None, KEEP_S + 1)
    assert script.heard("hook")[2:] == [("resolved", [DOWN])]
    assert first.post.outbox.backed == []


async def test_without_channels_it_is_said_in_the_log_alone(script: Script) -> None:
    """`AlertMoved` is written by every log."""
    alone = Replica(script, alerting=Alerting())
    await alone.sees(AWAY, 5)
    await alone.sees(None, KEEP_S + 1)
    assert (script.sent, alone.moves) == ([], [(DOWN, True), (DOWN, False)])
    await in_memory({})


async def test_nothing_is_judged_of_a_store_that_is_well(script: Script, first: Replica) -> None:
    """Every second, for years."""
    await first.sees(None, 5)
    assert (first.voice.living, script.sent, first.events) == ({}, [], [])
    assert not [event for event in first.events if isinstance(event, LetterEnded)]


async def test_what_we_tell_by_ourselves_inhibits_what_is_judged_for_all(
    redis: Redis, cluster: str, store_url: str
) -> None:
    """The store is back and its alert still fires: its consequences for each operation are not told beside it."""
    world = World(redis, cluster)
    async with judges(world, store_url, Wire()) as (one,):
        world.elect(one)
        world.see(circuit=CircuitState.OPEN)
        one.evaluator.elsewhere = lambda: frozenset({"BreakerStoreDown"})
        await one.passes(0, 5)
        assert world.hook.told == []
        one.evaluator.elsewhere = frozenset
        await one.passes(5)
        assert [kind for kind, _ in world.hook.told] == [Kind.FIRING]


async def test_the_steward_of_a_replica_hears_what_that_tells_by_itself(store_url: str, cluster: str) -> None:
    """One that is only pending may be nothing."""
    made = DutyPost(store_url, cluster)
    down, full = fires(DOWN, "", team=""), pending(fires(FULL, "", team=""))
    made.duty.voice.living = {known.id: known for known in (down, full)}
    assert made.duty.evaluator.elsewhere() == {"BreakerStoreDown"}
    await made.client.aclose()


@pytest.mark.parametrize(("outage", "is_over"), [(None, True), (AWAY, False)])
async def test_who_ends_says_that_it_is_over_where_nobody_would_later(
    script: Script, first: Replica, outage: Outage | None, *, is_over: bool
) -> None:
    """A page without an end is looked into for nothing; one that is true goes on."""
    await first.sees(AWAY, 5)
    await first.sees(outage, 1)
    first.voice.judge(outage, is_last=True)
    await first.post.after(0)
    assert [kind for kind, _ in script.heard("pager")] == ["firing", "resolved"][: 1 + is_over]
