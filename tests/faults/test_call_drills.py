"""
Call drills: direct calls over some gateways, and something that dies, stops or is ill meanwhile.

Each call is made once, and the checker holds the gateways to what they told its caller. Rows: `docs/faults.md`.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from breaker.store.server_binary import find_server
from tests.faults import offers
from tests.faults.call_drill import ANSWER_MAX, DEGRADED_LIMITS, LIMITS, TIMEOUT_S, CallDrill, call_drill
from tests.faults.calls import Told, words
from tests.faults.checker import LEASE_S
from tests.faults.circuit_view import samples
from tests.faults.ills import Ill
from tests.store.replicas import Server, until

pytestmark = pytest.mark.timeout(180)

RELOAD_OK = "breaker_config_reload_ok"
# The same in each run, but for `make faults`, which tells another one; printed with the verdict.
SEED = int(os.environ.get("BREAKER_SEED", "20261122"))
MOST = 0.9  # of calls that find everything well; a busy machine may miss the 100 ms of the store now and then
SOON_S = 2.0  # of what takes milliseconds, on a busy machine


@pytest.fixture(scope="module")
def calm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nobody kills this one."""
    server = Server(asyncio.run(find_server()), tmp_path_factory.mktemp("store"))
    yield server
    server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(calm_server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CallDrill]:
    """Gateways for all drills that leave them as they were: starting them takes longer than the drill."""
    folder = tmp_path_factory.mktemp("shared")
    async with call_drill(folder, calm_server, seed=SEED, gateways=3, service_ms=5) as scene:
        yield scene


on_shared = pytest.mark.asyncio(loop_scope="module")


def forwarded(told: list[Told]) -> int:
    return sum(each.status == 200 for each in told)


async def all_is_well(scene: CallDrill) -> None:
    """By itself, and soon: then each call is served again."""
    numbers = iter(range(10_000))

    async def is_served() -> bool:
        return (await scene.callers.call("read", f"back-{scene.seed}-{next(numbers)}")).status == 200

    await until(is_served, seconds=10)
    told = await scene.callers.drive(["read", "other"], seconds=1, per_second=80, name=f"after-{scene.seed}")
    assert forwarded(told) > MOST * len(told)
    for operation in ("read", "other"):
        await scene.until_free(operation, seconds=LEASE_S)


@pytest.mark.drill
async def test_a_store_that_is_killed_and_restarted_leaves_no_slot_behind_and_no_lie(
    server: Server, tmp_path: Path
) -> None:
    """Row 1: what was refused meanwhile was not executed, what ran is given back later, and nobody waits long."""
    async with call_drill(tmp_path, server, seed=SEED, store_timeout="100ms", service_ms=20) as scene:
        load = asyncio.ensure_future(
            scene.callers.drive(["read", "other"], seconds=3, per_second=120, name=f"k{SEED}")
        )
        await asyncio.sleep(1.2)
        killed = time.monotonic()
        server.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(server.start)
        told = await load
        await all_is_well(scene)
        violations = await scene.verdict(limits=DEGRADED_LIMITS)

    assert violations == []
    before = [each for each in told if each.began < killed - 0.5]
    assert forwarded(before) > MOST * len(before) > 50
    assert max(each.took_s for each in told) < SOON_S


@pytest.mark.drill
async def test_a_store_that_stands_still_for_twelve_seconds_admits_nothing_when_it_wakes(
    server: Server, tmp_path: Path
) -> None:
    """Row 3: what was sent into the pause is still in its socket; no slot may be held for those callers."""
    async with call_drill(tmp_path, server, seed=SEED, store_timeout="100ms", service_ms=20) as scene:
        load = asyncio.ensure_future(
            scene.callers.drive(["read", "other"], seconds=14, per_second=80, name=f"p{SEED}")
        )
        await asyncio.sleep(1.5)
        server.pause()
        await asyncio.sleep(12)
        server.resume()
        await load
        await all_is_well(scene)
        violations = await scene.verdict(limits=DEGRADED_LIMITS)

    assert violations == []


@on_shared
async def test_no_call_fails_when_the_store_forgets_its_scripts(shared: CallDrill) -> None:
    """Row 4: the cache is empty after each restart, and after SCRIPT FLUSH of somebody who tidies up."""
    load = asyncio.ensure_future(
        shared.callers.drive(["read", "keyed"], seconds=2, per_second=80, name=f"s{SEED}")
    )
    while not load.done():
        await asyncio.sleep(0.2)
        shared.server.client.script_flush()
    told = await load
    assert await shared.verdict(told) == []
    assert {each.status for each in told} <= {200, 202}


@pytest.mark.drill
async def test_slots_of_a_gateway_that_was_killed_are_back_within_one_lease(
    server: Server, tmp_path: Path
) -> None:
    """Row 10: its calls cannot be settled by anybody, and nobody else may wait longer for them."""
    async with call_drill(tmp_path, server, seed=SEED, service_ms=800) as scene:
        calls = [asyncio.ensure_future(scene.callers.call("read", f"d{number}")) for number in range(8)]
        while scene.slots("read") < LIMITS["read"]:
            await asyncio.sleep(0.01)
        await scene.fleet.replicas[0].kill()
        told = await asyncio.gather(*calls)
        took_s = await scene.until_free("read", seconds=LEASE_S + 1)
        violations = await scene.verdict(may_break=True)

    assert violations == []
    assert words(told) == {"200 forwarded": 4, "ServerDisconnectedError": 4}
    assert took_s > LEASE_S / 2, "they were held until their leases ran out"


@pytest.mark.drill
async def test_no_call_fails_when_gateways_are_restarted_one_by_one(server: Server, tmp_path: Path) -> None:
    """Row 11: SIGTERM under load, behind a balancer that asks who is ready."""
    async with call_drill(tmp_path, server, seed=SEED, service_ms=40) as scene:
        load = asyncio.ensure_future(
            scene.callers.drive(["read", "other"], seconds=8, per_second=60, name=f"r{SEED}")
        )
        for replica in scene.fleet.replicas:
            await asyncio.sleep(0.3)
            assert await replica.stop() == 0
            replica.start()
            await replica.ready()
            await asyncio.sleep(0.3)
        told = await load
        violations = await scene.verdict()

    assert violations == []
    assert words(told) == {"200 forwarded": len(told)}


@on_shared
async def test_an_operation_whose_downstream_is_ill_harms_no_other(shared: CallDrill) -> None:
    """Row 13: a deadline, a free slot, a cap, and never half an answer that looks like a whole one."""
    for ill in (Ill.HANGS, Ill.DRIPS, Ill.CUT, Ill.HUGE):
        memory = sum(replica.memory for replica in shared.fleet.replicas)
        await shared.judge.ill("read", ill)
        ill_told, well_told = await asyncio.gather(
            shared.callers.drive(["read"], seconds=1.5, per_second=10, name=f"{ill}{SEED}"),
            shared.callers.drive(["other"], seconds=1.5, per_second=60, name=f"beside-{ill}{SEED}"),
        )
        await shared.judge.ill("read", Ill.NONE)
        await shared.until_free("read", seconds=TIMEOUT_S + SOON_S)
        # A visible break is the honest end of half an answer.
        assert await shared.verdict([*ill_told, *well_told], may_break=True) == []
        assert words(well_told) == {"200 forwarded": len(well_told)}
        assert forwarded(ill_told) == 0
        assert max(each.took_s for each in ill_told) < TIMEOUT_S + SOON_S
        assert sum(replica.memory for replica in shared.fleet.replicas) - memory < 60 * ANSWER_MAX
        if ill is Ill.HANGS:
            assert set(words(ill_told)) <= {"504 downstream-timeout", "503 over-capacity"}


@on_shared
@pytest.mark.parametrize(("operation", "goes_on"), [("read", True), ("brief", False)])
async def test_callers_who_hang_up_leave_no_slot_behind(
    shared: CallDrill, operation: str, goes_on: bool
) -> None:
    """Row 17: what runs goes on or is cancelled, as the operation says, and counts as long as it runs."""
    await shared.judge.change(service_ms=300)
    told = await shared.callers.drive(
        [operation], seconds=1.5, per_second=20, name=f"h{SEED}", patience_s=0.15
    )
    await shared.until_free(operation, seconds=LEASE_S / 2)
    judged = (await shared.judge.report())[operation]
    served = await shared.callers.call(operation, f"after-hang-up-{SEED}")
    await shared.judge.change(service_ms=5)

    assert words(told)["hung up"] >= 10
    assert set(words(told)) <= {"hung up", "503 over-capacity"}
    assert all(order.effects <= 1 for order in judged.orders.values())
    assert served.status == 200
    if goes_on:
        assert judged.over == (), "a call that goes on keeps its slot"


@on_shared
async def test_one_key_fifty_times_at_once_is_one_execution(shared: CallDrill) -> None:
    """Row 20: over all gateways; and with another body it is another request, which is said."""
    key = {offers.KEY: f"key-{SEED}"}
    await shared.judge.change(service_ms=150)
    told = await asyncio.gather(
        *(shared.callers.call("keyed", f"one-{SEED}", headers=key) for _ in range(50))
    )
    repeated = await shared.callers.call("keyed", f"one-{SEED}", headers=key)
    other = await shared.callers.call("keyed", f"another-{SEED}", headers=key)
    await shared.judge.change(service_ms=5)
    judged = (await shared.judge.report())["keyed"].orders

    assert await shared.verdict([*told, repeated]) == []
    assert (judged[f"one-{SEED}"].requests, judged[f"one-{SEED}"].effects) == (1, 1)
    assert f"another-{SEED}" not in judged
    assert words(told)["200 forwarded"] == 1
    assert {each.word for each in told} <= {"200 forwarded", "200 replayed", "409 in-progress"}
    assert (repeated.status, repeated.outcome) == (200, "replayed")
    assert (other.status, other.problem) == (422, "idempotency-key-reused")


async def version_of(session: aiohttp.ClientSession, admin_url: str) -> str:
    async with session.get(f"{admin_url}/status") as answer:
        return str((await answer.json())["config"]["version"])


async def until_reload_was(session: aiohttp.ClientSession, admin_url: str, *, ok: bool) -> None:
    async def is_so() -> bool:
        return await samples(session, admin_url, RELOAD_OK) == {("", ""): float(ok)}

    await until(is_so, seconds=10)


async def until_differing(session: aiohttp.ClientSession, admin_url: str, replicas: int) -> None:
    async def is_so() -> bool:
        return await samples(session, admin_url, "breaker_replicas_differing") == {("", ""): replicas}

    await until(is_so, seconds=10)


@pytest.mark.drill
async def test_bad_files_change_nothing_and_are_said(server: Server, tmp_path: Path) -> None:
    """Row 25: the old configuration stays in force; and two gateways that differ are seen to differ."""
    async with call_drill(tmp_path, server, seed=SEED, service_ms=5) as scene:
        first, second = (replica.admin_url for replica in scene.fleet.replicas)
        before = await version_of(scene.session, first)
        load = asyncio.ensure_future(
            scene.callers.drive(["read", "other"], seconds=2, per_second=60, name=f"c{SEED}")
        )
        file = tmp_path / "config" / "pipelines" / f"{offers.PIPELINE}.yaml"
        good = file.read_text()
        file.write_text(good.replace('"concurrency": 8', '"concurency": 8'))
        for replica in scene.fleet.replicas:
            replica.reload()
        for admin_url in (first, second):
            await until_reload_was(scene.session, admin_url, ok=False)
            assert await version_of(scene.session, admin_url) == before
        file.write_text(good.replace('"concurrency": 8', '"concurrency": 7'))
        scene.fleet.replicas[0].reload()
        await until_reload_was(scene.session, first, ok=True)
        assert await version_of(scene.session, first) != before
        assert await version_of(scene.session, second) == before
        for admin_url in (first, second):
            await until_differing(scene.session, admin_url, 1)
        scene.fleet.replicas[1].reload()
        for admin_url in (first, second):
            await until_differing(scene.session, admin_url, 0)
        told = await load
        violations = await scene.verdict()

    assert violations == []
    assert words(told) == {"200 forwarded": len(told)}
