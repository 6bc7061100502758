"""Gateways that die, drain and reload, and a store that is killed: under load, seen from outside."""

import asyncio
import signal
import time
from pathlib import Path

from tests.e2e.load import Address, Answer, Caller, Load, drive
from tests.e2e.scene import Gateway, downstream, gateways, write_config
from tests.store.replicas import Server

LEASE_S = 10.0


async def metric(gateway: Gateway, name: str) -> float:
    """A metric without further labels, summed over its lines."""
    _, page = await gateway.get("/metrics")
    found = [
        float(line.split(" ")[1]) for line in page.splitlines() if line.split("{")[0].split(" ")[0] == name
    ]
    assert found, f"{name} is not on the page"
    return sum(found)


async def in_use_is(gateway: Gateway, operation: str, number: int, seconds: float) -> float:
    """Until so many slots are in use; how long that took."""
    began = time.monotonic()
    while (await gateway.look(operation))["in_use"] != number:
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def begin(address: Address, path: str) -> "asyncio.Task[Answer]":
    """One call, under way; its caller hangs up when it has its answer."""

    async def call() -> Answer:
        caller = Caller([address])
        try:
            return await caller.call("POST", path)
        finally:
            caller.close()

    return asyncio.get_running_loop().create_task(call())


async def test_a_killed_gateway_gives_its_slots_back_within_one_lease_and_changes_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    """Bound meanwhile: the dead one's calls still count, because the downstream works on them."""
    async with downstream() as below:
        operations = {"long": "capacity: {concurrency: 4}, max_wait: 0s"}
        config = write_config(tmp_path / "config", url=below.url, store_url=server.url, operations=operations)
        async with gateways(config, tmp_path, 2) as (doomed, other):
            lost = [begin(doomed.address, "/desk/long/released") for _ in range(2)]
            kept = begin(other.address, "/desk/long/released")
            await in_use_is(other, "desk.long", 3, 5)
            doomed.signal(signal.SIGKILL)
            killed = time.monotonic()
            assert {answer.status for answer in await asyncio.gather(*lost)} == {0}
            one_more = await begin(other.address, "/desk/long/1")
            assert one_more.status == 200, "there were four slots"
            filler = begin(other.address, "/desk/long/released")
            await in_use_is(other, "desk.long", 4, 5)
            assert (await begin(other.address, "/desk/long/1")).kind == "over-capacity"
            await in_use_is(other, "desk.long", 2, LEASE_S + 2)
            assert time.monotonic() - killed < LEASE_S + 2
            assert not kept.done(), "the living one's call is renewed and goes on"
            assert not filler.done()
            below.released.set()
            assert [(await kept).status, (await filler).status] == [200, 200]
            await in_use_is(other, "desk.long", 0, 5)


async def test_a_gateway_that_is_told_to_stop_fails_no_call(server: Server, tmp_path: Path) -> None:
    """A rolling upgrade in the middle of the day: callers go to the next one when they are refused."""
    async with downstream() as below:
        operations = {"open": "capacity: {rate: 5000/s, burst: 5000, concurrency: 500}"}
        config = write_config(tmp_path / "config", url=below.url, store_url=server.url, operations=operations)
        async with gateways(config, tmp_path, 2) as (leaving, staying):
            load = asyncio.create_task(
                drive(
                    [leaving.address, staying.address], "/desk/open/30", seconds=4, per_second=150, callers=30
                )
            )
            await asyncio.sleep(1.5)
            leaving.signal(signal.SIGTERM)
            assert await leaving.ended() == 0
            before = len(below.seen["open"].starts)
            assert (await load).counts() == {"200": len(below.seen["open"].starts)}
            assert len(below.seen["open"].starts) > before + 50, "the other one served on"
            assert (await staying.look("desk.open"))["in_use"] == 0


async def test_a_reload_fails_no_call_and_a_bad_file_changes_nothing(server: Server, tmp_path: Path) -> None:
    """SIGHUP under load: the new limit is in force; a bad file is said aloud, and the old one stays."""
    async with downstream() as below:
        folder = tmp_path / "config"

        def write(rate: str) -> Path:
            operations = {"paced": f"capacity: {{rate: {rate}, burst: 500, concurrency: 100}}"}
            return write_config(folder, url=below.url, store_url=server.url, operations=operations)

        async with gateways(write("1000/s"), tmp_path) as (gateway,):
            load = asyncio.create_task(
                drive([gateway.address], "/desk/paced/20", seconds=4, per_second=100, callers=20)
            )
            await asyncio.sleep(0.5)
            write("900/s")
            gateway.signal(signal.SIGHUP)
            await gateway.until(lambda: "is in force" in gateway.log)
            assert (await gateway.look("desk.paced"))["limits"]["rate"]["limit"] == 900
            answer = await begin(gateway.address, "/desk/paced/1")
            assert '"rate";q=900;w=1' in answer.headers["ratelimit-policy"]
            assert await metric(gateway, "breaker_config_reload_ok") == 1

            write("nine hundred")
            gateway.signal(signal.SIGHUP)
            await gateway.until(lambda: "the old configuration stays in force" in gateway.log)
            assert "desk.yaml:5:" in gateway.log, "the person is told the file and the line"
            assert "nine hundred" in gateway.log
            assert await metric(gateway, "breaker_config_reload_ok") == 0
            assert (await gateway.look("desk.paced"))["limits"]["rate"]["limit"] == 900
            assert (await load).counts().keys() == {"200"}


async def test_a_store_that_is_killed_degrades_at_once_and_leaks_nothing(
    server: Server, tmp_path: Path
) -> None:
    """Two seconds without a store: refusals that say so, soon; then all is as before, without a person."""
    async with downstream() as below:
        operations = {
            "narrow": "capacity: {concurrency: 3, rate: 500/s, burst: 500}, max_wait: 100ms, when_store_down: refuse"
        }
        config = write_config(
            tmp_path / "config", url=below.url, store_url=server.url, operations=operations, timeout="100ms"
        )
        async with gateways(config, tmp_path, 2) as two:
            addresses = [gateway.address for gateway in two]
            task = asyncio.create_task(
                drive(addresses, "/desk/narrow/20", seconds=7, per_second=100, callers=20)
            )
            await asyncio.sleep(1.5)
            server.kill()
            lost = time.monotonic()
            await asyncio.sleep(2)
            started = time.monotonic()
            await asyncio.to_thread(server.start)
            back = time.monotonic()
            judge_outage(await task, lost, started, back)
            assert below.seen["narrow"].peak <= 3
            await in_use_is(two[0], "desk.narrow", 0, 2)  # before any lease could have expired
            assert sum([await metric(gateway, "breaker_store_up") for gateway in two]) == 2


def judge_outage(load: Load, lost: float, started: float, back: float) -> None:
    """Before, during and after: who was served, and how soon the others knew."""
    degraded = [answer for answer in load.answers if answer.kind == "degraded"]
    assert set(load.failed) <= {"503 degraded"}
    during = [answer for answer in load.answers if lost < answer.began and answer.ended < started]
    assert len(during) > 100
    assert {answer.kind for answer in during} == {"degraded"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in degraded)
    slow = max(answer.seconds for answer in degraded)
    assert slow < 0.3 + 0.2, "300 ms, and 200 for a busy machine"
    afterwards = [
        answer for answer in load.answers if answer.began > back + 2
    ]  # it is tried every 1 to 1.25 s
    assert len(afterwards) > 50
    assert any(answer.status == 200 for answer in afterwards)
    assert not [answer for answer in afterwards if answer.kind == "degraded"]
