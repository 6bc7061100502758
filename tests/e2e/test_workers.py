"""`breaker serve --workers 2`: two processes on one port, and a parent that watches them."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import orjson

from tests.e2e.load import drive
from tests.e2e.scene import Gateway, downstream, gateways, write_config
from tests.store.replicas import Server

FORWARDED = re.compile(
    r'^breaker_calls_total\{(?=[^}]*worker="(\d)")(?=[^}]*outcome="forwarded")[^}]*\} (\S+)$', re.MULTILINE
)


async def pids(gateway: Gateway) -> dict[str, int]:
    """Worker -> process id, of those that answer."""
    status: dict[str, Any] = orjson.loads((await gateway.get("/status"))[1])
    return {worker: told["pid"] for worker, told in status["workers"].items() if told}


async def served(gateway: Gateway) -> dict[str, float]:
    """Worker -> calls forwarded, from the merged page."""
    _, page = await gateway.get("/metrics")
    assert page.count("# TYPE breaker_calls_total ") == 1, "one page, not two behind each other"
    found: dict[str, float] = {}
    for worker, number in FORWARDED.findall(page):
        found[worker] = found.get(worker, 0) + float(number)
    return found


async def test_two_workers_share_a_port_and_one_that_dies_is_replaced(server: Server, tmp_path: Path) -> None:
    """One address for callers, one page for Prometheus, and nobody is woken when a process dies."""
    async with downstream() as below:
        operations = {"open": "capacity: {rate: 5000/s, burst: 5000, concurrency: 500}"}
        config = write_config(tmp_path / "config", url=below.url, store_url=server.url, operations=operations)
        async with gateways(config, tmp_path, workers=2) as (gateway,):
            load = await drive([gateway.address], "/desk/open/5", seconds=1, per_second=100, callers=40)
            assert load.counts().keys() == {"200"}
            by_worker = await served(gateway)
            assert by_worker.keys() == {"0", "1"}
            assert sum(by_worker.values()) == len(load.answers) == len(below.seen["open"].starts)

            before = await pids(gateway)
            assert before.keys() == {"0", "1"}
            os.kill(before["1"], signal.SIGKILL)

            async def is_mended() -> bool:
                now = await pids(gateway)
                return now.keys() == before.keys() and now["1"] != before["1"]

            async with asyncio.timeout(15):
                while not await is_mended():
                    await asyncio.sleep(0.1)
            assert (await pids(gateway))["0"] == before["0"], "the other one was left alone"
            load = await drive([gateway.address], "/desk/open/5", seconds=1, per_second=100, callers=40)
            assert load.counts().keys() == {"200"}
            assert (await served(gateway))["1"] > 0, "the new one serves"

            # SIGTERM: calls under way end well, then everything does.
            under_way = asyncio.create_task(
                drive([gateway.address], "/desk/open/700", seconds=0.1, per_second=200, callers=20)
            )
            while below.seen["open"].in_flight < 20:
                await asyncio.sleep(0.01)
            children = await pids(gateway)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
            assert (await under_way).counts() == {"200": 20}
            for pid in children.values():
                assert not Path(f"/proc/{pid}").exists()
