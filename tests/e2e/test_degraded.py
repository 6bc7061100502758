"""Gateways lose their store under load: what callers see, and what the downstream sees beyond its limits."""

import asyncio
import json
import re
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.e2e.load import drive
from tests.e2e.scene import Gateway, Seen, downstream, gateways, write_config
from tests.store.replicas import Server

SLOTS, RATE, BURST = 10, 20, 5
NARROW = f"capacity: {{concurrency: {SLOTS}}}, max_wait: 0s"
KEPT = "capacity: {concurrency: 4}, when_store_down: refuse"
QUEUED = "capacity: {concurrency: 4}, overflow: queue, queue: {max_jobs: 100, start_within: 1m}"


def says(gateway: Gateway, event: str) -> bool:
    return event in gateway.log


def in_use(gateway: Gateway, operation: str) -> int:
    found: int | None = json.loads(gateway._get("/status")[1])["operations"][operation].get("in_use")
    return -1 if found is None else found


async def test_two_gateways_that_lose_their_store_keep_their_shares(server: Server, tmp_path: Path) -> None:
    """
    Each takes two fifths. Nobody gets a 500, a 202, or an answer that takes much longer than the store's deadline;
    afterwards no slot is held for nobody.
    """
    async with downstream() as below:
        config = write_config(
            tmp_path / "config", url=below.url, store_url=server.url, timeout="100ms",
            operations={"narrow": NARROW, "kept": KEPT, "queued": QUEUED},
        )  # fmt: skip
        async with gateways(config, tmp_path, 2) as two:
            addresses = [gateway.address for gateway in two]
            load = asyncio.ensure_future(
                drive(addresses, "/desk/narrow/100", seconds=5, per_second=300, callers=60)
            )
            await asyncio.sleep(1)
            narrow = below.seen["narrow"]
            assert narrow.peak == SLOTS
            server.kill()
            await asyncio.sleep(0.5)
            # What the store had given goes on, and a replica that held less than its share fills it up.
            assert narrow.peak <= SLOTS + SLOTS * 2 // 5
            narrow.peak = narrow.in_flight
            for operation in ("kept", "queued"):
                refused = await drive(
                    addresses, f"/desk/{operation}/1", seconds=0.3, per_second=50, callers=4
                )
                assert set(refused.counts()) == {"503 degraded"}
            assert narrow.peak == SLOTS * 4 // 5
            assert [(await gateway.get("/readyz"))[0] for gateway in two] == [200, 200]
            server.start()
            found = await load
            assert found.failed == {}
            assert max(answer.seconds for answer in found.answers) < 1
            for gateway in two:
                await gateway.until(partial(says, gateway, "degraded_ended"))
            await two[0].until(lambda: in_use(two[0], "desk.narrow") == 0)


def most_over(seen: Seen) -> float:
    """By how many calls the worst of all windows exceeds `rate * t + burst`, as the downstream counted."""
    starts = sorted(seen.starts)
    level, most = 0.0, 0.0
    for earlier, now in pairwise([starts[0], *starts]):
        level = max(0.0, level - (now - earlier) * RATE) + 1
        most = max(most, level)
    return most - BURST


async def test_how_far_all_went_over_the_limit_is_what_the_downstream_saw(
    server: Server, tmp_path: Path
) -> None:
    """Whoever allowed it learns what it cost: told once, and summed over the replicas."""
    async with downstream() as below:
        config = write_config(
            tmp_path / "config", url=below.url, store_url=server.url, timeout="100ms",
            operations={"free": f"capacity: {{rate: {RATE}/s, burst: {BURST}}}, when_store_down: allow"},
        )  # fmt: skip
        async with gateways(config, tmp_path, 2) as two:
            addresses = [gateway.address for gateway in two]
            began = time.monotonic()
            server.kill()
            found = await drive(addresses, "/desk/free/1", seconds=3, per_second=150, callers=30)
            assert set(found.counts()) == {"200"}
            server.start()
            for gateway in two:
                await gateway.until(partial(says, gateway, "over_admitted"))
            told = sum([await over_admitted(gateway) for gateway in two])
            seen = below.seen["free"]
            # A replica compares from its last look on, at most 5 s before, until it tells.
            longest_s = time.monotonic() - began + 5.5
            assert len(seen.starts) - RATE * longest_s - BURST <= told <= most_over(seen) + 2
            assert (await two[0].look("desk.free"))["started"] == len(seen.starts)
            await asyncio.sleep(0.5)
            assert sum([await over_admitted(gateway) for gateway in two]) == told


async def over_admitted(gateway: Gateway) -> float:
    page = (await gateway.get("/metrics"))[1]
    return sum(
        float(value) for value in re.findall(r"^breaker_over_admitted_total\{.*\} (\S+)$", page, re.MULTILINE)
    )


async def test_a_gateway_may_start_without_its_store_and_takes_it_when_it_comes(
    server: Server, tmp_path: Path
) -> None:
    """After a power cut nobody knows who comes up first."""
    async with downstream() as below:
        config = write_config(
            tmp_path / "config", url=below.url, store_url=server.url, timeout="100ms",
            operations={"short": NARROW, "queued": QUEUED},
        )  # fmt: skip
        file = config / "gateway.yaml"
        file.write_text(
            file.read_text().replace("timeout: 100ms}", "timeout: 100ms, needed_at_start: false}")
        )
        server.kill()
        async with gateways(config, tmp_path) as (gateway,):
            found = await drive([gateway.address], "/desk/short/20", seconds=1, per_second=200, callers=20)
            assert found.failed == {}
            assert found.counts()["200"] > 100
            assert below.seen["short"].peak <= SLOTS * 4 // 5
            refused = await drive([gateway.address], "/desk/queued/1", seconds=0.2, per_second=20, callers=2)
            assert set(refused.counts()) == {"503 degraded"}
            server.start()
            await gateway.until(lambda: "degraded_ended" in gateway.log)
            taken = await drive([gateway.address], "/desk/queued/1", seconds=0.2, per_second=20, callers=2)
            assert set(taken.counts()) == {"200"}
            await gateway.until(lambda: in_use(gateway, "desk.short") == 0)
            assert (await gateway.look("desk.short"))["started"] == len(below.seen["short"].starts)
            assert json.loads((await gateway.get("/status"))[1])["store"]["name"] not in (
                None,
                "not reached yet",
            )
            assert '"exception"' not in gateway.log


async def test_a_gateway_none_of_whose_operations_goes_on_alone_leaves_the_load_balancer(
    server: Server, tmp_path: Path
) -> None:
    """Only then: a replica that answers some calls is better than none."""
    async with downstream() as below:
        config = write_config(
            tmp_path / "config", url=below.url, store_url=server.url, timeout="100ms",
            operations={"kept": KEPT, "queued": QUEUED},
        )  # fmt: skip
        async with gateways(config, tmp_path) as (gateway,):
            server.pause()
            try:
                await drive([gateway.address], "/desk/kept/1", seconds=0.2, per_second=20, callers=2)
                await gateway.until(lambda: gateway._get("/readyz")[0] == 503)
                assert gateway._get("/livez")[0] == 200
            finally:
                server.resume()
            await gateway.until(lambda: gateway._get("/readyz")[0] == 200)
