"""The store is paused, killed, emptied and made ill: what the gate answers, and what is in the store afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.errors import StoreError
from breaker.core.events import (
    DegradedBegan,
    DegradedEnded,
    LeasesLost,
    OverAdmitted,
    StoreFailed,
    StoreReset,
)
from breaker.core.job_policy import Effects
from breaker.core.model import Operation
from breaker.core.verdict import Admitted, Refused
from breaker.gateway.call import Kind, Refusal
from breaker.store.server_binary import find_server
from tests.gateway.gate_scene import GateReplica, gate_replica, until, until_it
from tests.store.replicas import Server, an_operation, rate, slots

TIMEOUT_S = 0.1
NOISE_S = 0.15  # a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(asyncio.run(find_server()), tmp_path_factory.mktemp("store"))
    yield server
    server.close()


def narrow(number: int, when: WhenStoreDown = WhenStoreDown.LOCAL_SHARE, **more: Any) -> Operation:
    return replace(an_operation(limits=slots(number)), when_store_down=when, **more)


@asynccontextmanager
async def paused(server: Server) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@asynccontextmanager
async def killed(server: Server) -> AsyncIterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


async def timed(one: GateReplica) -> tuple[float, Any]:
    began = time.monotonic()
    answer = await one.ask()
    return time.monotonic() - began, answer


async def test_only_the_first_call_waits_for_a_frozen_store(server: Server, cluster: str) -> None:
    """Its caller waits 100 ms; the next is decided here at once, also before the store counts as down."""
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        await one.ask()
        await until(lambda: one.keeper.health.is_usable)  # on a busy machine that may have been late, too
        async with paused(server):
            first, answer = await timed(one)
            assert isinstance(answer, Admitted)
            assert TIMEOUT_S * 0.9 < first < TIMEOUT_S + NOISE_S
            rest = sorted([await timed(one) for _ in range(200)], key=lambda found: found[0])
            assert all(isinstance(answer, Admitted) for _, answer in rest)
            assert rest[100][0] < 0.001
            await one.until(DegradedBegan)
            # Not `refused`: on-call would be told that the store answers.
            assert one.told(DegradedBegan)[0].kind in ("timeout", "connection")
        await one.until(DegradedEnded)
        await one.until(OverAdmitted)
        look = await one.store.look(one.work.lane.operation)
        assert (look.started, look.in_use) == (1 + 201, 0)
        assert sum(event.started for event in one.told(OverAdmitted)) >= 201
        assert len(one.told(DegradedBegan)) == len(one.told(DegradedEnded)) == 1
        assert {event.over for event in one.told(OverAdmitted)} == {0}


async def test_calls_that_were_asked_together_are_all_answered_within_one_deadline(
    server: Server, cluster: str
) -> None:
    """Not one round trip after the other: the second batch stands behind the one that hangs."""
    async with gate_replica(server.url, cluster, narrow(1_000)) as one:
        async with paused(server):
            began = time.monotonic()
            early = [asyncio.ensure_future(one.ask()) for _ in range(20)]
            await asyncio.sleep(0.02)
            late = [asyncio.ensure_future(one.ask()) for _ in range(20)]
            answers = await asyncio.gather(*early, *late)
            assert time.monotonic() - began < TIMEOUT_S + 0.02 + NOISE_S
        assert all(isinstance(answer, Admitted) for answer in answers)
        await until_it(lambda: stands_at(one, 0))
        await asyncio.sleep(0.3)  # nothing that was on its way adds to it
        assert await stands_at(one, 0)


async def test_one_slow_answer_is_no_episode(server: Server, cluster: str) -> None:
    """A fork of 150 ms: calls are answered, nobody is paged, and what was started here is counted there."""
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        async with paused(server):
            assert isinstance(await one.ask(), Admitted)
            await asyncio.sleep(0.03)
        await until(lambda: one.keeper.health.is_usable)
        await one.until(OverAdmitted)
        assert one.told(DegradedBegan) == []
        assert (await one.store.look(one.work.lane.operation)).started == 1


async def test_the_local_share_is_kept_and_what_runs_is_held_in_the_store_afterwards(
    server: Server, cluster: str
) -> None:
    """Two of 10 slots are the store's; 8 of 10 are this replica's share, those two included."""
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        before = [await one.hold() for _ in range(2)]
        async with killed(server):
            here = [await one.hold() for _ in range(6)]
            assert isinstance(await one.ask(), Refused)
            one.end(before.pop())
            here.append(await one.hold())
            assert isinstance(await one.ask(), Refused)
            await one.until(DegradedBegan)
        await one.until(DegradedEnded)
        await until_it(lambda: stands_at(one, 8))
        both = [await one.hold() for _ in range(2)]
        assert isinstance(await one.ask(), Refused), "the store knows of all of them"
        for held in (*before, *here, *both):
            one.end(held)
        await until_it(lambda: stands_at(one, 0))
        assert one.told(LeasesLost) == []
        assert one.work.lane.held == {}


async def test_what_ended_before_the_store_came_back_is_never_held_there(
    server: Server, cluster: str
) -> None:
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        async with killed(server):
            for _ in range(50):
                assert isinstance(await one.ask(), Admitted)
            await one.until(DegradedBegan)
        await one.until(OverAdmitted)
        assert await stands_at(one, 0)


@pytest.mark.parametrize("mode", [WhenStoreDown.LOCAL_SHARE, WhenStoreDown.ALLOW, WhenStoreDown.REFUSE])
async def test_what_must_happen_once_is_refused_in_every_mode(
    server: Server, cluster: str, mode: WhenStoreDown
) -> None:
    """Whether it was done before stands in the store alone."""
    async with gate_replica(server.url, cluster, narrow(10, mode, effects=Effects.ONCE)) as one:
        async with killed(server):
            refusal = await one.ask()
            assert isinstance(refusal, Refusal)
            assert refusal.kind is Kind.DEGRADED
            await one.until(DegradedBegan)
        await one.until(DegradedEnded)
        assert isinstance(await one.ask(), Admitted)
        assert one.told(OverAdmitted) == []


async def test_each_mode_does_what_it_says(server: Server, cluster: str) -> None:
    async with (
        gate_replica(server.url, cluster + "a", narrow(1, WhenStoreDown.ALLOW)) as allows,
        gate_replica(server.url, cluster + "r", narrow(1, WhenStoreDown.REFUSE)) as refuses,
    ):
        async with killed(server):
            held = [await allows.hold() for _ in range(5)]
            refusal = await refuses.ask()
            assert isinstance(refusal, Refusal)
            assert refusal.kind is Kind.DEGRADED
            assert refusal.retry_after_us
            await allows.until(DegradedBegan)
        await allows.until(OverAdmitted)
        assert allows.told(OverAdmitted) == [OverAdmitted(allows.work.operation.name, 5, 4)]
        await until_it(lambda: stands_at(allows, 5))
        assert isinstance(await allows.ask(), Refused), "they count against those that come now"
        for one in held:
            allows.end(one)
        await until_it(lambda: stands_at(allows, 0))


async def test_a_call_that_waits_in_the_store_goes_on_waiting_here(server: Server, cluster: str) -> None:
    """Its caller said how long it may take, and not where."""
    async with gate_replica(server.url, cluster, narrow(1)) as one:
        running = await one.hold()
        waits = asyncio.ensure_future(one.hold(wait_s=20))
        await until(lambda: bool(one.work.lane.waiters))
        async with killed(server):
            await one.until(DegradedBegan)
            await until(lambda: not one.work.lane.waiters)
            assert not waits.done()
            one.end(running)
            turn = await asyncio.wait_for(waits, 1)
            assert turn[1].delayed
        await one.until(DegradedEnded)
        await until_it(lambda: stands_at(one, 1))
        one.end(turn)
        await until_it(lambda: stands_at(one, 0))


async def test_a_call_that_waits_here_goes_on_waiting_in_the_store(server: Server, cluster: str) -> None:
    async with gate_replica(server.url, cluster, narrow(1)) as one:
        running = await one.hold()
        async with killed(server):
            waits = asyncio.ensure_future(one.hold(wait_s=20))
            await one.until(DegradedBegan)
        await one.until(DegradedEnded)
        await until(lambda: bool(one.work.lane.waiters))
        one.end(running)
        turn = await asyncio.wait_for(waits, 2)
        assert turn[1].delayed
        assert await stands_at(one, 1)
        one.end(turn)
        await until_it(lambda: stands_at(one, 0))
        assert one.gate._again == {}


ILL = {
    "out-of-memory": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "read-only": (("REPLICAOF", "127.0.0.1", "9"), ("REPLICAOF", "NO", "ONE")),
    "no-replicas": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
}


@pytest.mark.parametrize("illness", ILL)
async def test_a_store_that_takes_no_writes_is_lost_and_comes_back_by_itself(
    server: Server, cluster: str, illness: str
) -> None:
    """It answers each time, so that only what it answers tells."""
    makes_ill, mends = ILL[illness]
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        held = await one.hold()
        server.client.execute_command(*makes_ill)  # type: ignore[no-untyped-call]
        try:
            assert isinstance(await one.ask(), Admitted)
            await one.until(DegradedBegan)
            assert one.told(DegradedBegan)[0].kind == "refused"
            assert isinstance(await one.ask(), Admitted)
            one.end(held)
            if illness == "out-of-memory":
                await until_it(lambda: stands_at(one, 0))  # what goes back needs no memory
                assert one.told(DegradedEnded) == [], "which does not mean that it takes what needs some"
        finally:
            server.client.execute_command(*mends)  # type: ignore[no-untyped-call]
        await one.until(DegradedEnded)
        await until_it(lambda: stands_at(one, 0))
        assert len(one.told(DegradedBegan)) == 1


async def test_a_busy_store_is_lost_and_comes_back_by_itself(server: Server, cluster: str) -> None:
    """Somebody runs a script that does not end; the store answers BUSY to everybody else."""
    server.client.config_set("busy-reply-threshold", 10)
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        await one.ask()
        script = asyncio.ensure_future(
            asyncio.to_thread(pytest.raises, ResponseError, server.client.eval, "while true do end", 0)
        )
        await asyncio.sleep(0.05)
        assert isinstance(await one.ask(), Admitted)
        await one.until(DegradedBegan)
        server.client.script_kill()
        await script
        await one.until(DegradedEnded)
        assert isinstance(await one.ask(), Admitted)


async def test_after_a_flush_the_share_holds_until_all_replicas_have_said_what_they_hold(
    server: Server, cluster: str
) -> None:
    """The flushed store would grant all of the limit again, on top of what runs."""
    operation = narrow(10)
    async with (
        gate_replica(server.url, cluster, operation, live=2, timeout_ms=300) as one,
        gate_replica(server.url, cluster, operation, live=2, timeout_ms=300) as two,
    ):
        held = [await one.hold() for _ in range(4)] + [await one.hold() for _ in range(4)]
        server.client.flushall()
        began = time.monotonic()
        verdicts = [await two.ask() for _ in range(5)]
        assert all(isinstance(verdict, Admitted) for verdict in verdicts)
        kept = [await two.hold() for _ in range(4)]
        assert isinstance(await two.ask(), Refused), "its share is 4 of 10"
        await two.until(DegradedBegan)
        assert two.told(DegradedBegan)[0].kind == "reset"
        # Nothing was asked of it since: its beat finds another epoch (store/members.py).
        one.keeper.listen(StoreReset("another epoch"))
        await until_it(lambda: stands_at(two, 12))
        assert two.told(DegradedEnded) == [], "they are registered first, and it is asked a renewal later"
        await two.until(DegradedEnded)
        assert time.monotonic() - began > 3.2
        assert await stands_at(two, 12)
        assert isinstance(await two.ask(), Refused), "and now it knows of all"
        for one_held in held:
            one.end(one_held)
        for two_held in kept:
            two.end(two_held)
        await until_it(lambda: stands_at(two, 0))


async def test_one_operation_with_a_broken_key_does_not_take_the_store_from_the_others(
    server: Server, cluster: str
) -> None:
    """Its calls are decided here; the store takes writes, so nobody is paged, and nothing hangs."""
    async with gate_replica(server.url, cluster, narrow(10)) as one:
        rate_key = f"brk:{cluster}:{{{one.work.operation.name}}}:rate"
        server.client.delete(rate_key)
        server.client.lpush(rate_key, "not a hash")
        for _ in range(8):
            assert isinstance(await one.ask(), Admitted)
        await until(lambda: one.keeper.health.is_usable)
        assert one.told(DegradedBegan) == []
        assert {event.kind for event in one.told(StoreFailed)} == {"refused"}
        server.client.delete(rate_key)


async def test_a_replica_may_start_before_its_store(server: Server, cluster: str) -> None:
    server.kill()
    async with gate_replica(server.url, cluster, narrow(10), is_needed=False) as one:
        held = [await one.hold() for _ in range(8)]
        assert isinstance(await one.ask(), Refused)
        server.start()
        await one.until(DegradedEnded)
        await until_it(lambda: stands_at(one, 8))
        more = [await one.hold() for _ in range(2)]
        assert isinstance(await one.ask(), Refused)
        for one_held in held + more:
            one.end(one_held)
        await until_it(lambda: stands_at(one, 0))


async def test_what_was_started_here_is_told_when_the_gateway_stops_too(server: Server, cluster: str) -> None:
    """A deployment in the middle of an episode: the quota must not be given out again."""
    async with gate_replica(server.url, cluster, narrow(10)) as other:
        async with gate_replica(server.url, cluster, narrow(10)) as one:
            one.keeper.health.on_doubt()  # nobody tries the store before it stops
            for _ in range(7):
                await one.ask()
        assert (await other.store.look(one.work.lane.operation)).started == 7


async def test_a_paced_call_waits_for_its_turn_without_the_store(server: Server, cluster: str) -> None:
    """40 of 50 a second, and no burst at the start."""
    async with gate_replica(server.url, cluster, an_operation(limits=rate(50, burst=10))) as one:
        async with killed(server):
            await one.ask(wait_s=1)
            began = time.monotonic()
            verdicts = await asyncio.gather(*(one.ask(wait_s=5) for _ in range(40)))
            assert all(isinstance(verdict, Admitted) for verdict in verdicts)
            assert 0.75 < time.monotonic() - began < 1.8
        await one.until(DegradedEnded)


async def stands_at(one: GateReplica, number: int) -> bool:
    try:
        return (await one.store.look(one.work.lane.operation)).in_use == number
    except StoreError:
        return False
