"""One replica without its store: its share of the limits, by the same rules, at times that the test names."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from breaker.core.circuit import Report
from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.model import (
    Capacity,
    Cost,
    Downstream,
    Limits,
    Match,
    Operation,
    Per,
    Quota,
    Rate,
)
from breaker.core.quorum import Seen
from breaker.core.state import Ask
from breaker.core.terms import Terms
from breaker.core.verdict import Admitted, Policy, Refused, TooCostly
from breaker.gateway.local import LocalCapacity
from breaker.gateway.share import share_of_limits, share_of_terms
from breaker.store.capacity import Look
from breaker.store.lane import Lane

SECOND = 1_000_000
START = 1_800_000_000 * SECOND
NAME = "billing.charge"


def an_operation(*, when: WhenStoreDown = WhenStoreDown.LOCAL_SHARE, **capacity: Any) -> Operation:
    return Operation(
        name=NAME, pipeline="billing", team="finance", match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:9"), capacity=Capacity(**capacity), when_store_down=when,
    )  # fmt: skip


class Replica:
    """One replica, its operation, and its clock."""

    def __init__(self, operation: Operation, *, live: int = 1, expected: int = 1) -> None:
        self.operation, self.now_us, self.live = operation, START, live
        self.lane = Lane(NAME, ())
        self.local = LocalCapacity(
            replica="AAAAAAAA", now_us=lambda: self.now_us, live_replicas=lambda: self.live, expected=expected
        )
        self._number = 0

    def an_ask(self, tenant: str = "", *, cost: int = 1, wait_s: float = 0) -> Ask:
        self._number += 1
        return Ask(
            id=f"AAAAAAAA.{self._number:08}", tenant=tenant, cost=cost, wait_us=int(wait_s * SECOND)
        )  # fmt: skip

    async def ask(self, tenant: str = "", *, cost: int = 1) -> Admitted | Refused | TooCostly | None:
        return await self.local.admit(self.operation, self.lane, self.an_ask(tenant, cost=cost))

    async def starts(self, tenant: str = "", *, cost: int = 1) -> bool:
        return isinstance(await self.ask(tenant, cost=cost), Admitted)

    async def started_of(self, number: int, tenant: str = "") -> int:
        return sum([await self.starts(tenant) for _ in range(number)])

    async def hold(self) -> Ask:
        ask = self.an_ask()
        assert isinstance(await self.local.admit(self.operation, self.lane, ask), Admitted)
        return ask

    def end(self, ask: Ask, linger: str = "") -> Ask | None:
        return self.local.ended(self.lane, ask, linger=linger, service_us=1_000)

    def after(self, seconds: float) -> "Replica":
        self.now_us = START + int(seconds * SECOND)
        return self


@pytest.mark.parametrize(
    ("slots", "replicas", "share"),
    [(10, 1, 8), (10, 2, 4), (10, 3, 2), (5, 1, 4), (4, 4, 1), (1, 1, 1), (1, 100, 1), (0, 3, 0), (None, 3, None)],
)  # fmt: skip
def test_four_fifths_of_the_slots_are_divided_by_the_replicas(
    slots: int | None, replicas: int, share: int | None
) -> None:
    """Never none of what there is, and nothing of what is closed."""
    assert share_of_limits(Limits(concurrency=slots), replicas, 1).concurrency == share


def test_a_small_rate_becomes_a_long_interval() -> None:
    """One start an hour over two replicas is one in two and a half hours, not none and not one each."""
    hour = 3_600 * SECOND
    share = share_of_limits(Limits(rate=Rate(limit=1, period_us=hour)), 2, 1).rate
    assert share is not None
    assert share.interval_us == 5 * hour // 2
    closed = share_of_limits(Limits(rate=Rate(limit=0, period_us=hour)), 2, 1).rate
    assert closed is not None
    assert (closed.limit, closed.interval_us) == (0, 0)


def test_everything_that_is_limited_is_shared() -> None:
    """Tenants' limits, exceptions, the calendar and the waiting line are limits, too."""
    ten = Limits(concurrency=10)
    terms = Terms(
        limits=ten, per_tenant=ten, tenants={"vip": ten}, calendar=((5, ten),), quota=100, waiting_max=50
    )
    share = share_of_terms(terms, 2, 1, None)
    four = Limits(concurrency=4)
    assert share == replace(
        terms, limits=four, per_tenant=four, tenants={"vip": four}, calendar=((5, four),), quota=40, waiting_max=20
    )  # fmt: skip
    assert share_of_terms(terms, 2, 1, 10).quota == 4, "of what was left"
    assert share_of_terms(terms, 2, 5, 10).quota == 0, "less than one call may cost is none"


@pytest.mark.parametrize(
    ("live", "expected", "slots"), [(1, 1, 8), (4, 1, 2), (1, 4, 2), (2, 4, 2), (0, 0, 8)]
)
async def test_the_share_goes_by_who_lives_and_by_who_should(live: int, expected: int, slots: int) -> None:
    """All replicas restart while the store is away: each of them believes to be alone."""
    replica = Replica(an_operation(limits=Limits(concurrency=10)), live=live, expected=expected)
    assert await replica.started_of(20) == slots


async def test_buckets_start_empty_and_fill_at_the_shares_pace() -> None:
    """A burst saved up by every replica at the moment of the loss would be many bursts."""
    replica = Replica(an_operation(limits=Limits(rate=Rate(limit=10, period_us=SECOND, burst=10))), live=2)
    assert await replica.started_of(5) == 0
    assert await replica.after(0.249).started_of(5) == 0
    assert await replica.after(0.25).started_of(5) == 1
    assert await replica.after(60).started_of(20) == 4, "the burst is shared as well"


async def test_a_tenant_who_comes_later_finds_what_has_refilled_since_the_loss() -> None:
    per_tenant = Limits(rate=Rate(limit=10, period_us=SECOND, burst=5))
    replica = Replica(an_operation(per_tenant=per_tenant))
    assert await replica.started_of(9, "acme") == 0
    assert await replica.after(60).started_of(9, "other") == 4
    assert await replica.started_of(9, "acme") == 4


async def test_a_cost_that_fits_the_limit_is_not_called_too_much() -> None:
    """4xx says `never`: only the store is away."""
    limits = Limits(rate=Rate(limit=10, period_us=SECOND, burst=10))
    replica = Replica(an_operation(limits=limits, cost=Cost(header="Cost", max=20)), live=5)
    assert isinstance(await replica.ask(cost=10), Refused)
    assert isinstance(await replica.after(60).ask(cost=10), Admitted)
    assert isinstance(await replica.ask(cost=11), TooCostly), "that it never is"


async def test_slots_that_the_store_gave_us_count_until_they_go_back() -> None:
    """At the loss a replica may hold all of the limit; its share must not come on top."""
    replica = Replica(an_operation(limits=Limits(concurrency=5)))
    asks = [replica.an_ask() for _ in range(4)]
    replica.lane.held |= {ask.id: ("", 0.0) for ask in asks}
    assert not await replica.starts()
    del replica.lane.held[asks[0].id]
    assert replica.end(asks[0]) is None, "it was not ours to give back"
    assert await replica.started_of(5) == 1


async def test_long_calls_keep_their_slots() -> None:
    """A lease lives 10 s, and nobody but the next decision renews it here."""
    replica = Replica(an_operation(limits=Limits(concurrency=5)))
    running = [await replica.hold() for _ in range(4)]
    for minutes in range(1, 4):
        assert not await replica.after(60 * minutes).starts()
    own = replica.end(running[0])
    assert own is not None
    assert own.id == running[0].id + "-local"
    assert await replica.started_of(3) == 1


async def test_an_abandoned_call_keeps_its_slot_while_it_lingers() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=1)))
    replica.end(await replica.hold(), linger="2000000")
    assert not await replica.after(1.9).starts()
    assert await replica.after(2).starts()


async def test_allow_lets_everything_through_and_still_counts_it() -> None:
    """For reads; how far it went over the limit is told when the store is back."""
    replica = Replica(an_operation(when=WhenStoreDown.ALLOW, limits=Limits(concurrency=1)))
    assert await replica.started_of(50) == 50
    _, episode = replica.local.reopen()[0]
    assert (episode.started, episode.wanted, episode.peak) == (50, 50, 50)


async def test_an_operation_that_a_person_paused_stays_paused() -> None:
    """They work on the downstream, and do not know that the store is away. Also where nothing is limited then."""
    for when in (WhenStoreDown.LOCAL_SHARE, WhenStoreDown.ALLOW):
        replica = Replica(an_operation(when=when, limits=Limits(concurrency=5)))
        replica.local.heard(replica.lane, Refused(policy=Policy.PAUSED, retry_after_us=0))
        verdict = await replica.ask()
        assert isinstance(verdict, Refused)
        assert verdict.policy is Policy.PAUSED
        replica.local.reopen()
        replica.local.heard(replica.lane, Admitted())
        assert await replica.starts()


async def test_a_circuit_that_opened_here_stays_open_in_the_next_episode() -> None:
    """The store comes and goes; the downstream is as ill as before."""
    replica = Replica(an_operation(limits=Limits(concurrency=5)))
    assert await replica.starts()
    seen = Seen(calls=10, failed=10, streak=10)
    assert replica.local.told(
        replica.lane, lambda generation: Report(replica="AAAAAAAA", generation=generation, seen=seen)
    )
    for _ in range(2):
        verdict = await replica.ask()
        assert isinstance(verdict, Refused)
        assert verdict.policy is Policy.CIRCUIT
        replica.local.reopen()


def a_look(**what: Any) -> Look:
    known: dict[str, Any] = {
        "limits": Limits(concurrency=1), "stated": Limits(concurrency=2), "configured": Limits(concurrency=10), "source": "override", "version": "v1",
        "in_use": 0, "waiting": 0, "started": 70, "wanted": 80, "service_us": 0, "quota_limit": None, "quota_used": 0,
        "override_until_us": START + 60 * SECOND,
    }  # fmt: skip
    return Look(**(known | what))


async def test_limits_that_a_person_set_hold_here_as_they_were_last_seen() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=10)))
    replica.local.looked(replica.lane, a_look())
    assert await replica.started_of(9) == 1
    replica = Replica(an_operation(limits=Limits(concurrency=10)))
    replica.local.looked(replica.lane, a_look(source="schedule"))
    assert await replica.started_of(9) == 8


@pytest.mark.parametrize(("after", "started"), [(59, 1), (60, 8)])
async def test_limits_that_a_person_set_end_also_while_the_store_is_away(after: int, started: int) -> None:
    """'A thousand a second until six' must not go on until morning because nobody can be asked."""
    replica = Replica(an_operation(limits=Limits(concurrency=10)))
    replica.local.looked(replica.lane, a_look())
    assert await replica.after(after).started_of(9) == started


async def test_limits_that_a_person_set_end_in_the_middle_of_an_outage() -> None:
    """The outage began before their end, and calls go on without anybody who could be asked."""
    replica = Replica(an_operation(limits=Limits(concurrency=10)))
    replica.local.looked(replica.lane, a_look())
    assert await replica.after(59).started_of(9) == 1
    assert await replica.after(60).started_of(9) == 7  # of 8 one is held


async def test_the_store_hears_of_slots_that_only_a_persons_limits_count() -> None:
    """The file states no concurrency: calls that run must count all the same when the store is back."""
    for look, number in ((a_look(), 1), (a_look(source="file"), 0)):
        replica = Replica(an_operation())
        replica.local.looked(replica.lane, look)
        await replica.hold()
        assert len(replica.local.leases()) == number


@pytest.mark.parametrize(("after", "policy"), [(59, Policy.PAUSED), (60, None)])
async def test_a_pause_ends_also_while_the_store_is_away(after: int, policy: Policy | None) -> None:
    """What was paused for a minute would else be refused for as long as the store is away."""
    replica = Replica(an_operation(limits=Limits(concurrency=10)))
    until_us = START + 60 * SECOND
    replica.local.looked(replica.lane, a_look(source="file", held="paused", held_until_us=until_us))
    verdict = await replica.after(after).ask()
    assert (verdict.policy if isinstance(verdict, Refused) else None) is policy


async def test_of_a_quota_only_what_was_left_is_shared_and_never_twice() -> None:
    """Each flap of the store would otherwise give the share again."""
    quota = Quota(limit=100, per=Per.MONTH, timezone="UTC")
    replica = Replica(an_operation(quota=quota))
    replica.local.looked(replica.lane, a_look(source="file", quota_limit=100, quota_used=90))
    assert await replica.started_of(20) == 8
    replica.local.reopen()
    assert await replica.started_of(20) == 1


async def test_an_episode_tells_what_was_started_and_what_was_last_seen() -> None:
    replica = Replica(an_operation(per_tenant=Limits(concurrency=50), cost=Cost(header="Cost", max=5)))
    replica.local.looked(replica.lane, a_look(source="file"))
    replica.after(3)
    await replica.started_of(2, "acme")
    await replica.starts("big", cost=5)
    (lane, episode), = replica.after(9).local.reopen()  # fmt: skip
    assert lane is replica.lane
    assert (episode.from_us, episode.looked_us, episode.counted) == (START + 3 * SECOND, START, 70)
    assert (episode.started, episode.wanted, episode.peak) == (7, 7, 3)
    assert episode.tenants == (("big", 5), ("acme", 2))
    assert replica.local.reopen() == []
    await replica.starts("acme")
    assert replica.local.reopen()[0][1].number > episode.number


async def test_leases_that_the_store_does_not_know_of_are_told_once() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=50)))
    first, second = await replica.hold(), await replica.hold()
    replica.end(first)
    assert [own.id for _, own in replica.local.leases()] == [second.id + "-local"]
    assert replica.local.leases() == []
    assert replica.local.has(replica.lane, second.id)
    assert not replica.local.has(replica.lane, first.id)


async def test_calls_without_slots_are_not_made_leases() -> None:
    """Where only the rate is limited the store holds no slots for anybody."""
    replica = Replica(an_operation(limits=Limits(rate=Rate(limit=10, period_us=SECOND))))
    replica.local.heard(replica.lane, Admitted())
    assert not await replica.starts()
    assert await replica.after(1).starts()
    assert replica.local.leases() == []


async def waiting(
    replica: Replica, wait_s: float = 30
) -> "asyncio.Task[Admitted | Refused | TooCostly | None]":
    task = asyncio.get_running_loop().create_task(
        replica.local.admit(replica.operation, replica.lane, replica.an_ask(wait_s=wait_s))
    )
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_calls_wait_here_in_order_of_arrival() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=1)))
    running = await replica.hold()
    first, second = await waiting(replica), await waiting(replica)
    replica.end(running)
    assert await first == Admitted(leased=True, delayed=True)
    assert not second.done()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_a_caller_that_hangs_up_while_it_waits_leaves_the_line_to_others() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=1)))
    running = await replica.hold()
    gone, stays = await waiting(replica), await waiting(replica)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    replica.end(running)
    assert isinstance(await stays, Admitted)


async def test_a_caller_that_hangs_up_with_its_turn_gives_it_on() -> None:
    """Granted in the same moment: the slot must not stay with nobody."""
    replica = Replica(an_operation(limits=Limits(concurrency=1)))
    running = await replica.hold()
    gone = await waiting(replica)
    replica.end(running)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await replica.starts()


async def test_who_waited_in_vain_gets_a_ticket() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=1)))
    await replica.hold()
    verdict = await (await waiting(replica, 0.01))
    assert isinstance(verdict, Refused)
    assert verdict.policy is Policy.SLOTS
    assert verdict.retry_after_us > 0


async def test_who_still_waits_when_the_store_is_back_is_sent_there() -> None:
    replica = Replica(an_operation(limits=Limits(concurrency=1)))
    await replica.hold()
    waits = await waiting(replica)
    replica.local.reopen()
    assert await waits is None
