"""One of three nodes is lost: its operations do what their files say, and nobody else notices."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.errors import StoreError
from breaker.core.events import DegradedBegan, DegradedEnded, LeasesLost, OverAdmitted, StoreFailed
from breaker.core.model import Limits
from breaker.core.verdict import Admitted, Refused
from breaker.gateway.call import Kind, Refusal
from breaker.store.carry import PROBE
from breaker.store.server_binary import find_server
from tests.gateway.gate_scene import GateReplica, gate_replica, until, until_it
from tests.store.job_servers import StoreServer, wait_until
from tests.store.replicas import an_operation, rate, slots
from tests.store.topologies import ClusterStore, command

TIMEOUT_S = 0.1
NOISE_S = 0.15  # a busy machine
RENEWAL_S = 3.2


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStore]:
    """Three nodes that tests leave as they found them."""
    made = ClusterStore(
        asyncio.run(find_server()), tmp_path_factory.mktemp("three"),
        "--appendonly", "yes", "--appendfsync", "always",
    )  # fmt: skip
    yield made
    made.close()


@asynccontextmanager
async def a_gate(
    store: ClusterStore,
    cluster: str,
    limits: Limits,
    when: WhenStoreDown = WhenStoreDown.LOCAL_SHARE,
    *,
    timeout_ms: int = 300,
    node: int = 1,
) -> AsyncIterator[GateReplica]:
    """A replica with an operation on each node; the first that it has is on the node which will fail."""
    wait_until(store.is_well)
    operations = [
        replace(an_operation(name, limits=limits), when_store_down=when) for name in store.operations()
    ]
    fails = operations.pop(node)
    async with gate_replica(store.url, cluster, fails, *operations, timeout_ms=timeout_ms) as one:
        yield one


@asynccontextmanager
async def killed(node: StoreServer) -> AsyncIterator[None]:
    node.kill()
    try:
        yield
    finally:
        node.start()


@asynccontextmanager
async def paused(node: StoreServer) -> AsyncIterator[None]:
    node.pause()
    try:
        yield
    finally:
        node.resume()


def others(one: GateReplica) -> list[str]:
    return [name for name in one.works if name != one.work.operation.name]


def was_alone(one: GateReplica, operation: str) -> bool:
    """Whether any call of it was ever decided without the store."""
    return operation in one.local._stations and bool(one.local._stations[operation].whole)


async def stands_at(one: GateReplica, number: int) -> bool:
    try:
        return (await one.store.look(one.work.operation.name)).in_use == number
    except StoreError:
        return False


async def test_a_node_that_dies_takes_its_own_operations_along_and_they_come_back(
    three: ClusterStore, cluster: str
) -> None:
    """
    A third of the operations goes by its share; its slots are known there before anybody is admitted again.

    What it started is told once. The others are decided by the store all the time, and nobody is paged for it.
    """
    async with a_gate(three, cluster, slots(10)) as one:
        name = one.work.operation.name
        before = [await one.hold() for _ in range(2)]
        async with killed(three.nodes[1]):
            here = [await one.hold() for _ in range(6)]
            assert isinstance(await one.ask(), Refused), "8 of 10 are its share"
            for _ in range(100):
                for other in others(one):
                    assert isinstance(await one.ask(of=other), Admitted)
            await one.until(DegradedBegan)
            assert one.keeper.health.is_usable
        await one.until(DegradedEnded)
        await until_it(lambda: stands_at(one, 8))
        both = [await one.hold() for _ in range(2)]
        assert isinstance(await one.ask(), Refused), "its node knows of all of them"
        await one.until(OverAdmitted)
        look = await one.store.look(name)
        assert (look.started, look.in_use) == (2 + 6 + 2, 10)
        for held in (*before, *here, *both):
            one.end(held)
        await until_it(lambda: stands_at(one, 0))
        for other in others(one):
            assert not was_alone(one, other)
            assert (await one.store.look(other)).started == 100
        assert [event.operation for event in one.told(DegradedBegan)] == [name]
        assert [event.operation for event in one.told(DegradedEnded)] == [name]
        assert [(event.operation, event.started) for event in one.told(OverAdmitted)] == [(name, 6)]
        assert {(event.operation, event.is_partial) for event in one.told(StoreFailed)} == {(name, True)}
        assert one.told(LeasesLost) == []


async def test_only_its_first_call_waits_for_a_node_that_hangs(three: ClusterStore, cluster: str) -> None:
    """Its caller waits for at most 100 ms; the next ones, and those of other nodes, do not wait at all."""
    async with a_gate(three, cluster, rate(100_000, burst=1_000), timeout_ms=100) as one:
        async with paused(three.nodes[1]):
            began = time.monotonic()
            assert isinstance(await one.ask(wait_s=0.05), Admitted | Refused)
            assert time.monotonic() - began < TIMEOUT_S + NOISE_S
            took: dict[str, list[float]] = {name: [] for name in one.works}
            for _ in range(100):
                for name in one.works:
                    began = time.monotonic()
                    await one.ask(of=name)
                    took[name].append(time.monotonic() - began)
            middle = {name: sorted(times)[50] for name, times in took.items()}
            assert middle.pop(one.work.operation.name) < 0.001
            assert max(middle.values()) < 0.02
            await one.until(DegradedBegan)
        await one.until(DegradedEnded)
        for other in others(one):
            assert not was_alone(one, other)
        assert [event.operation for event in one.told(DegradedBegan)] == [one.work.operation.name]


async def test_calls_that_stand_behind_a_node_that_hangs_are_still_decided_in_time(
    three: ClusterStore, cluster: str
) -> None:
    """They share the exchange with it, or come while it is under way: it is over before their time is."""
    async with a_gate(three, cluster, slots(100), timeout_ms=400) as one:
        other = others(one)[0]
        async with paused(three.nodes[1]):
            hung = asyncio.ensure_future(one.ask())
            with_it = asyncio.ensure_future(one.ask(of=other))
            await asyncio.sleep(0.02)
            behind = asyncio.ensure_future(one.ask(of=other))
            answers = await asyncio.gather(hung, with_it, behind)
            assert [type(answer) for answer in answers] == [Admitted] * 3
            assert not was_alone(one, other)
            assert was_alone(one, one.work.operation.name)


@pytest.mark.parametrize("when", [WhenStoreDown.REFUSE, WhenStoreDown.ALLOW])
async def test_each_mode_does_what_it_says(three: ClusterStore, cluster: str, when: WhenStoreDown) -> None:
    async with a_gate(three, cluster, slots(1), when) as one:
        async with killed(three.nodes[1]):
            answers = [await one.ask() for _ in range(3)]
            if when is WhenStoreDown.ALLOW:
                held = [await one.hold() for _ in range(3)]
                for one_held in held:
                    one.end(one_held)
                assert [type(answer) for answer in answers] == [Admitted] * 3
            else:
                assert [isinstance(answer, Refusal) and answer.kind for answer in answers] == [
                    Kind.DEGRADED
                ] * 3
            assert [type(await one.ask(of=other)) for other in others(one)] == [Admitted] * 2
            await one.until(DegradedBegan)
        await one.until(DegradedEnded)
        assert isinstance(await one.ask(), Admitted)


async def test_a_call_that_waits_goes_on_waiting_here_and_there(three: ClusterStore, cluster: str) -> None:
    """Its caller said how long it may take; which node is ill is nothing to it."""
    async with a_gate(three, cluster, slots(1)) as one:
        running = await one.hold()
        waits = asyncio.ensure_future(one.hold(wait_s=20))
        await until(lambda: bool(one.work.lane.waiters))
        async with killed(three.nodes[1]):
            await one.until(DegradedBegan)
            await until(lambda: not one.work.lane.waiters)
            one.end(running)
            turn = await asyncio.wait_for(waits, 1)
            waits = asyncio.ensure_future(one.hold(wait_s=20))
        await one.until(DegradedEnded)
        await until(lambda: bool(one.work.lane.waiters))
        one.end(turn)
        one.end(await asyncio.wait_for(waits, 2))
        await until_it(lambda: stands_at(one, 0))


ILL = {
    "out-of-memory": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "no-replicas": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
}


@pytest.mark.parametrize("illness", ILL)
async def test_a_node_that_takes_no_writes_is_lost_to_its_own_operations(
    three: ClusterStore, cluster: str, illness: str
) -> None:
    """It answers, and what it answers is no reason to doubt the others."""
    makes_ill, mends = ILL[illness]
    async with a_gate(three, cluster, slots(10)) as one:
        command(three.nodes[1], *makes_ill)
        try:
            for _ in range(20):
                assert [type(await one.ask(of=name)) for name in one.works] == [Admitted] * 3
            await one.until(DegradedBegan)
        finally:
            command(three.nodes[1], *mends)
        await one.until(DegradedEnded)
        await one.until(OverAdmitted)
        assert (await one.store.look(one.work.operation.name)).started == 20
        assert [event.operation for event in one.told(DegradedBegan)] == [one.work.operation.name]
        assert not any(was_alone(one, other) for other in others(one))


async def test_a_node_that_forgot_its_operations_is_careful_with_them_alone(
    three: ClusterStore, cluster: str
) -> None:
    """What other replicas hold there is told within one renewal; operations elsewhere need not wait for that."""
    async with a_gate(three, cluster, slots(10)) as one:
        held = [await one.hold() for _ in range(4)]
        began = time.monotonic()
        command(three.nodes[1], "FLUSHALL")
        here = [await one.hold() for _ in range(4)]
        assert isinstance(await one.ask(), Refused), "its share is 8 of 10"
        for other in others(one):
            assert isinstance(await one.ask(of=other), Admitted)
            assert not was_alone(one, other)
        assert [(event.kind, event.operation) for event in one.told(DegradedBegan)] == [
            ("reset", one.work.operation.name)
        ]
        await one.until(DegradedEnded)
        assert time.monotonic() - began > RENEWAL_S
        assert await stands_at(one, 8)
        for one_held in held + here:
            one.end(one_held)
        await until_it(lambda: stands_at(one, 0))


async def test_a_node_that_comes_back_empty_is_not_asked_for_one_renewal(
    three: ClusterStore, cluster: str
) -> None:
    """That is found out before its first question, not by it."""
    async with a_gate(three, cluster, slots(10)) as one:
        held = [await one.hold() for _ in range(4)]
        three.nodes[1].kill()
        assert isinstance(await one.ask(), Admitted)
        await one.until(DegradedBegan)
        one.work.lane.gone.clear()  # what is told late would find it out, too
        shutil.rmtree(three.nodes[1].folder / "appendonlydir")
        three.nodes[1].start()
        began = time.monotonic()
        await one.until(DegradedEnded)
        assert time.monotonic() - began > RENEWAL_S
        assert await stands_at(one, 4)
        assert isinstance(await one.ask(), Admitted)
        assert len(one.told(DegradedBegan)) == 1
        for one_held in held:
            one.end(one_held)


async def test_when_all_nodes_are_lost_the_store_is_and_one_that_stays_away_keeps_no_other(
    tmp_path: Path, cluster: str
) -> None:
    """
    A power cut, after which two of three machines start: their operations must not wait for the third.

    That no other node is there is found out without a call for any of them.
    """
    store = ClusterStore(
        await find_server(), tmp_path / "c", "--appendonly", "yes", "--appendfsync", "always"
    )
    away = store.owner(PROBE)
    try:
        async with a_gate(store, cluster, slots(10), node=store.nodes.index(away)) as one:
            held = await one.hold()
            for node in store.nodes:
                node.kill()
            assert isinstance(await one.ask(), Admitted)
            await until(lambda: any(event.operation == "" for event in one.told(DegradedBegan)))
            assert not any(one.keeper.is_usable(name) for name in one.works)
            for node in store.nodes:
                if node is not away:
                    node.start()
            await until(lambda: all(one.keeper.is_usable(other) for other in others(one)), 15)
            for other in others(one):
                assert isinstance(await one.ask(of=other), Admitted)
                assert one.keeper.is_usable(other)
            assert isinstance(await one.ask(), Admitted), "here"
            away.start()
            await until(lambda: one.keeper.is_usable(one.work.operation.name), 15)
            await until_it(lambda: stands_at(one, 1), 15)
            one.end(held)
            await until_it(lambda: stands_at(one, 0), 15)
    finally:
        store.close()
