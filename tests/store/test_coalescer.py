"""The coalescer: shared round trips, their bounds, and what a failed one does to whom."""

import asyncio

import pytest
from redis import Redis

from breaker.core.errors import StoreRefusedError, StoreResetError
from breaker.core.events import ClockJumped, LeasesLost, RoundTripEnded, StoreFailed
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused
from breaker.store import coalescer
from breaker.store.clock import monotonic_us
from breaker.store.keys import Keys
from breaker.store.lane import Lane
from breaker.store.parts import SettlePart
from breaker.store.replies import error_in, time_told
from breaker.store.scripts import load_scripts
from tests.store.replicas import Replica, an_operation, commands, rate, replica, slots, until

HOUR_US = 3_600_000_000


async def test_calls_that_ask_together_share_round_trips(store_url: str, redis: Redis, cluster: str) -> None:
    """The store under load: five hundred decisions cost four exchanges, not five hundred."""
    async with replica(store_url, cluster, an_operation(limits=slots(300))) as one:
        before = one.seen(RoundTripEnded)
        with commands(redis, cluster) as sent:
            verdicts = await asyncio.gather(*(one.admit() for _ in range(500)))
        assert sum(isinstance(verdict, Admitted) for verdict in verdicts) == 300
        assert sent.sent == ["admit"] * 4
        assert one.seen(RoundTripEnded) - before == 4


async def test_calls_that_arrive_during_a_round_trip_share_the_next_one(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """No timer: whoever comes first goes at once, the others with the next exchange."""
    async with replica(store_url, cluster, an_operation(limits=slots(300))) as one:
        with commands(redis, cluster) as sent:
            first = asyncio.create_task(one.admit())
            await under_way(one)
            await asyncio.gather(first, *(one.admit() for _ in range(50)))
        assert sent.sent == ["admit", "admit"]


async def test_slots_that_come_back_travel_with_what_asks(store_url: str, redis: Redis, cluster: str) -> None:
    """Giving back costs no round trip of its own, and what asks finds the slots."""
    async with replica(store_url, cluster, an_operation(limits=slots(10))) as one:
        held = [await one.hold() for _ in range(10)]
        before = one.seen(RoundTripEnded)
        with commands(redis, cluster) as sent:
            asked = [asyncio.create_task(one.admit()) for _ in range(10)]
            await asyncio.sleep(0)  # they have asked, and nothing has been sent yet
            for ask in held:
                one.settle(ask)
            verdicts = await asyncio.gather(*asked)
        assert all(isinstance(verdict, Admitted) for verdict in verdicts)
        assert sent.sent == ["settle", "admit"]
        assert one.seen(RoundTripEnded) - before == 1


async def test_a_call_too_many_before_the_store_is_refused_at_once(
    store_url: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of the gateway; the others are decided, and afterwards there is room again."""
    monkeypatch.setattr(coalescer, "PENDING_MAX", 300)
    async with replica(store_url, cluster, an_operation(limits=slots(10))) as one:
        for _ in range(2):
            asked = [asyncio.ensure_future(one.admit()) for _ in range(301)]
            await asyncio.sleep(0)
            with pytest.raises(StoreRefusedError, match="300 decisions") as refused:
                await asked.pop()
            assert refused.value.is_partial, "the store is as well as before, for everybody else"
            assert len(await asyncio.gather(*asked)) == 300


@pytest.mark.parametrize(("said", "jumps"), [(1, 0), (2, 1)])
async def test_a_question_that_waited_in_line_is_no_jump_of_the_clock(
    store_url: str, cluster: str, said: int, jumps: int
) -> None:
    """On-call is told of clocks; accepts that stood behind a long WAIT come too late by any clock."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        sent = monotonic_us()
        reply = [said, one.store.clock.now_us() + 400_000]
        store_us, is_off = time_told([[None], reply]) or (0, False)
        one.store.coalescer._take_clock(store_us, sent, monotonic_us(), is_off=is_off)
        assert sum(isinstance(event, ClockJumped) for event in one.events) == jumps


async def test_a_flood_of_one_operation_delays_another_by_a_round_trip(store_url: str, cluster: str) -> None:
    """Billing's month end must not be support's outage."""
    flooded, quiet = (
        an_operation("billing.charge", limits=slots(1)),
        an_operation("support.ticket", limits=slots(1)),
    )
    async with replica(store_url, cluster, flooded, quiet) as one:
        flood = [asyncio.create_task(one.admit()) for _ in range(3_000)]
        await asyncio.sleep(0)
        verdict = await one.store.admit(one.store.lane("support.ticket"), one.an_ask())
        assert isinstance(verdict, Admitted)
        assert sum(task.done() for task in flood) <= 256
        await asyncio.gather(*flood)


async def test_an_empty_script_cache_fails_no_call(store_url: str, redis: Redis, cluster: str) -> None:
    """A store that was restarted, or a person who typed SCRIPT FLUSH."""
    async with replica(store_url, cluster, an_operation(limits=slots(50))) as one:
        held = await one.hold()
        for _ in range(3):
            redis.script_flush()
            one.settle(held)
            verdicts = await asyncio.gather(*(one.admit() for _ in range(5)))
            assert all(isinstance(verdict, Admitted) for verdict in verdicts)
            held = await one.hold()
        assert one.seen(StoreFailed) == 0


async def test_a_script_error_fails_its_own_operation_only(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A key that somebody overwrote by hand breaks one operation, and the error says which key type it met."""
    sane, broken = (
        an_operation("support.ticket", limits=slots(5)),
        an_operation("billing.charge", limits=slots(5)),
    )
    async with replica(store_url, cluster, sane, broken) as one:
        redis.set(Keys(cluster, "billing.charge").named("slots"), "not a sorted set")
        lane = one.store.lane("billing.charge")
        good, bad = await asyncio.gather(
            one.admit(), one.store.admit(lane, one.an_ask()), return_exceptions=True
        )
        assert isinstance(good, Admitted)
        assert isinstance(bad, StoreRefusedError)
        assert "WRONGTYPE" in str(bad)
        redis.delete(Keys(cluster, "billing.charge").named("slots"))
        assert isinstance(await one.store.admit(lane, one.an_ask()), Admitted)


async def test_a_reply_that_nobody_understands_is_not_quoted(cluster: str) -> None:
    """It may be a customer's payload, and the message is logged and told to callers."""
    lane = Lane("billing.charge", Keys(cluster, "billing.charge").all)
    part = SettlePart(lane, load_scripts()["settle"], [])
    error = error_in(part, [0, 1, b"4111 1111", b"4111 1111"])
    assert isinstance(error, StoreRefusedError)
    assert "SettlePart of 4 parts (TypeError)" in str(error)
    assert "4111" not in str(error)


async def test_a_store_that_forgot_everything_is_told_the_limits_again(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Flushed by mistake: said aloud with the first call, never silently re-made, and mended at once."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        await one.hold()
        redis.delete(*redis.scan_iter(f"brk:{cluster}:*"))
        with pytest.raises(StoreResetError):
            await one.admit()
        assert [event.kind for event in one.events if isinstance(event, StoreFailed)] == ["reset"]

        async def decides() -> bool:
            return isinstance(await one.admit(), Admitted | Refused)

        await until(decides)


async def test_limits_that_were_not_all_taken_are_taken_back(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """A reload that failed half-way: the old configuration stays in force, in the store too."""
    one_of, other = an_operation("billing.charge", limits=slots(1)), an_operation("support.ticket")
    new = an_operation("billing.charge", limits=slots(7))
    async with replica(store_url, cluster, one_of, other) as one:
        redis.delete(Keys(cluster, "support.ticket").named("policy"))
        redis.set(Keys(cluster, "support.ticket").named("policy"), "not a hash")
        with pytest.raises(StoreRefusedError):
            await one.store.publish({new.name: new, other.name: other}, "v2")
        await until(lambda: is_in_force(one, "v1", 1))
        redis.delete(Keys(cluster, "support.ticket").named("policy"))
        await one.store.publish({new.name: new, other.name: other}, "v2")
        assert await is_in_force(one, "v2", 7)


async def is_in_force(one: Replica, version: str, number: int) -> bool:
    look = await one.store.look("billing.charge")
    return (look.version, look.limits) == (version, slots(number))


@pytest.mark.parametrize("jumped_us", [HOUR_US, -HOUR_US, 3_000_000])
@pytest.mark.parametrize("first", ["an ask", "a settle"])
async def test_a_store_clock_that_jumped_is_noticed_and_fails_no_call(
    store_url: str, cluster: str, jumped_us: int, first: str
) -> None:
    """
    A clock that was set by hand: leases are renewed at once, so that none expires and none stays.

    Moving our estimate looks to us as if the store's clock had moved the other way.
    """
    async with replica(store_url, cluster, an_operation(limits=slots(9))) as one:
        held, ends = await one.hold(), await one.hold()
        one.store.clock._offset_us -= jumped_us
        if first == "a settle":
            one.settle(ends)
        assert isinstance(await one.admit(), Admitted)
        jumps = [event.jumped_us for event in one.events if isinstance(event, ClockJumped)]
        assert len(jumps) == 1
        assert abs(jumps[0] - jumped_us) < 1_000_000
        renewed = one.lane.held[held.id][1]

        async def is_renewed() -> bool:
            return one.lane.held[held.id][1] > renewed

        assert await until(is_renewed) < 2
        assert one.seen(StoreFailed) <= 1


async def test_a_lease_that_was_lost_is_taken_again_and_told(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """The call is running, so it counts; on-call learns how many were lost."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        await one.hold()
        redis.delete(Keys(cluster, "billing.charge").named("slots"))
        assert await one.in_use() == 0
        one.store._renew_soon()
        await until(lambda: in_use_is(one, 1))
        assert [event for event in one.events if isinstance(event, LeasesLost)] == [
            LeasesLost(operation="billing.charge", count=1)
        ]


@pytest.mark.parametrize("rounds", [range(12), range(12, 24), range(24, 40)])
async def test_a_caller_that_hangs_up_at_any_point_leaks_no_slot(
    store_url: str, cluster: str, rounds: range
) -> None:
    """Cancelled before, while and after the store is asked: the slot goes back at once, not with its lease."""
    async with replica(store_url, cluster, an_operation(limits=slots(50))) as one:
        for turns in rounds:
            for company in (0, 3):
                asks = [one.an_ask() for _ in range(1 + company)]
                calls = [asyncio.create_task(call_to_its_end(one, ask)) for ask in asks]
                for _ in range(turns):
                    await asyncio.sleep(0)
                calls[0].cancel()
                await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: in_use_is(one, 0), seconds=3)
        assert one.lane.held == {}
        assert one.lane.waiters == {}


async def test_a_crowd_that_hangs_up_before_it_was_asked_for_strands_nobody_behind_it(
    store_url: str, cluster: str
) -> None:
    """A load balancer that dies takes hundreds of calls with it; the one behind them is decided."""
    async with replica(store_url, cluster, an_operation(limits=slots(50))) as one:
        crowd = [asyncio.create_task(one.admit()) for _ in range(2 * coalescer.SHARE_MAX)]
        behind = asyncio.create_task(one.admit())
        await asyncio.sleep(0)
        for call in crowd:
            call.cancel()
        async with asyncio.timeout(2):
            assert isinstance(await behind, Admitted)
        assert await one.in_use() == 1


async def call_to_its_end(one: Replica, ask: Ask) -> None:
    """As the path does it: what was admitted is held, and settled on every exit."""
    verdict = await one.admit(ask)
    assert isinstance(verdict, Admitted)
    one.store.hold(one.lane, ask)
    try:
        await asyncio.sleep(0)
    finally:
        one.settle(ask)


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 10, 20, 40])
async def test_a_waiting_caller_that_hangs_up_at_any_point_leaks_no_slot(
    store_url: str, cluster: str, turns: int
) -> None:
    """Also in the very moment in which its turn comes."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        running = await one.hold()
        turn = await one.wait(one.an_ask(wait_s=8))
        await asyncio.sleep(0)
        one.settle(running)
        for _ in range(turns):
            await asyncio.sleep(0)
        turn.cancel()
        (ended,) = await asyncio.gather(turn, return_exceptions=True)
        assert isinstance(ended, Admitted | asyncio.CancelledError)
        await until(lambda: in_use_is(one, 1 if isinstance(ended, Admitted) else 0), seconds=3)
        assert one.lane.waiters == {}


async def test_a_call_that_had_hung_up_before_its_answer_costs_no_token(store_url: str, cluster: str) -> None:
    """What an abandoned call had been given goes back: the slot, and the rate it took."""
    operation = an_operation(limits=rate(1, burst=2), per_tenant=slots(9))
    async with replica(store_url, cluster, operation) as one:
        gone = asyncio.create_task(one.admit(one.an_ask("acme")))
        await under_way(one)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await until(lambda: in_use_is(one, 0), seconds=3)
        verdicts = [await one.admit(one.an_ask("acme")) for _ in range(3)]
        assert [type(verdict) for verdict in verdicts] == [Admitted, Admitted, Refused]


async def under_way(one: Replica) -> None:
    """Until the ask that was just made has been sent, and not been answered."""
    while not one.lane.asks:
        await asyncio.sleep(0)
    while one.lane.asks:
        await asyncio.sleep(0)


async def in_use_is(one: Replica, number: int) -> bool:
    return await one.in_use() == number
