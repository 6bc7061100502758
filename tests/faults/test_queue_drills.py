"""
Queue drills: thousands of jobs, three gateways, and something that dies, stops or fails meanwhile.

Each ends with the verdict of the checker: what was promised with each 202 has been kept.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.faults.callers import Wanted
from tests.faults.checker import LEASE_S
from tests.faults.drill import LOSSY_TERMS, TERMS, drill, orders
from tests.store.replicas import Server

# Two of them run with all tests, all of them with `make faults`.
pytestmark = pytest.mark.timeout(240)

KILLS, ORDERS = (6, 2_000) if os.environ.get("BREAKER_FULL") else (3, 1_000)
SETTLE_S = 3 * LEASE_S  # a lost lease, a lost lease of the one who took it over, and the work itself


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


async def test_every_promise_holds_when_a_gateway_is_killed_every_two_seconds(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """Machines die without a word. What they had promised is kept by the others."""
    async with drill(tmp_path, server, seed=seed, service_ms=10) as scene:
        load = scene.load(orders(seed, ORDERS), per_second=160)
        for number in range(KILLS):
            await asyncio.sleep(2)
            await scene.kill(number)
        await load
        violations = await scene.verdict(LOSSY_TERMS, seconds=SETTLE_S)

    assert violations == []
    assert scene.callers.notes.gave_up == []
    assert len(scene.callers.notes.accepted) >= 0.95 * ORDERS


async def test_every_202_is_there_after_the_store_was_killed(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """`durability: fsync` is told in the 202: the reply must follow the disk, and the store starts from it."""
    async with drill(tmp_path, server, seed=seed, service_ms=10) as scene:
        load = scene.load(orders(seed, 1_600), per_second=250)
        for _ in range(2):
            await asyncio.sleep(2.5)
            server.kill()
            await asyncio.sleep(0.7)
            await asyncio.to_thread(server.start)
        await load
        violations = await scene.verdict(LOSSY_TERMS, seconds=SETTLE_S)

    assert violations == []
    assert scene.callers.notes.gave_up == []
    assert {each.durability for each in scene.callers.notes.accepted} == {"fsync"}


@pytest.mark.drill
async def test_a_store_that_stood_still_for_twelve_seconds_did_nothing_twice(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """Longer than every lease; and what was sent into the pause is still in its socket when it wakes."""
    async with drill(tmp_path, server, seed=seed, service_ms=10) as scene:
        load = scene.load(orders(seed, 1_500), per_second=250)
        await asyncio.sleep(2)
        server.pause()
        await asyncio.sleep(12)
        server.resume()
        await load
        violations = await scene.verdict(LOSSY_TERMS, seconds=SETTLE_S - 12)

    assert violations == []
    assert scene.callers.notes.gave_up == []


@pytest.mark.drill
async def test_a_rolling_restart_changes_no_end(server: Server, tmp_path: Path, seed: int) -> None:
    """An upgrade at noon: no attempt is cut off, so even `effects: once` knows each outcome."""
    async with drill(tmp_path, server, seed=seed, service_ms=30) as scene:
        load = scene.load(orders(seed, 2_000), per_second=200)
        for replica in scene.fleet.replicas:
            await asyncio.sleep(1.5)
            assert await replica.stop() == 0
            replica.start()
            await replica.ready()
        await load
        violations = await scene.verdict(TERMS, seconds=SETTLE_S)

    assert violations == []
    assert scene.callers.notes.gave_up == []


@pytest.mark.drill
async def test_a_downstream_that_fails_and_hangs_gets_no_order_twice(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """A fifth fails, a hundredth never answers although it was done: the worst month-end of billing."""
    faults = {"fail_share": 0.2, "hang_share": 0.01}
    async with drill(tmp_path, server, seed=seed, service_ms=10, **faults) as scene:
        await scene.load(orders(seed, 2_000), per_second=200)
        violations = await scene.verdict(LOSSY_TERMS, seconds=SETTLE_S)
        judged = await scene.judge.report()

    assert violations == []
    assert scene.callers.notes.gave_up == []
    assert sum(order.failures for order in judged["keyed"].orders.values()) > 100, "the faults were real"


@pytest.mark.drill
async def test_a_gateway_that_was_frozen_longer_than_its_leases_changes_no_end(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """Its jobs were given to others; what it says of them when it wakes is too late, and must be ignored."""
    async with drill(tmp_path, server, seed=seed, service_ms=50) as scene:
        load = scene.load(orders(seed, 1_800), per_second=150)
        await asyncio.sleep(2)
        frozen = scene.fleet.replicas[0]
        frozen.freeze()
        await asyncio.sleep(LEASE_S + 2)
        frozen.thaw()
        await load
        violations = await scene.verdict(LOSSY_TERMS, seconds=SETTLE_S)

    assert violations == []
    assert scene.callers.notes.gave_up == []


@pytest.mark.drill
async def test_a_job_that_kills_its_gateways_ends_alone(server: Server, tmp_path: Path, seed: int) -> None:
    """Dead after two leases lost alone; whoever ran beside it is innocent, and succeeds."""
    poison = Wanted(operation="keyed", order=f"poison-{seed}", body={"do": "alarm"})
    async with drill(tmp_path, server, seed=seed, service_ms=20) as scene:
        scene.guilty[poison.order] = "dead poison"

        async def kill_whoever_asks() -> None:
            heard = 0
            while True:
                for alarm in await scene.judge.alarms(heard):
                    heard += 1
                    killer = scene.fleet.with_port(alarm.port)
                    assert killer is not None, "an alarm without its gateway proves nothing"
                    await scene.kill(scene.fleet.replicas.index(killer))

        async with asyncio.TaskGroup() as group:
            killing = group.create_task(kill_whoever_asks())
            innocent = orders(seed, 1_000)
            await scene.load([*innocent[:200], poison, *innocent[200:]], per_second=100)
            violations = await scene.verdict(LOSSY_TERMS, seconds=4 * LEASE_S)
            killing.cancel()

    assert violations == []
    assert 2 <= len(scene.kills) <= 3, "a suspect after the first, dead after two more at the most"
