"""Gateways that know of each other: one is killed, files change on one after the other, an operation is removed."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

from tests.e2e.scene import Gateway, downstream, gateways, write_config
from tests.store.replicas import Server

NARROW, WIDE = "capacity: {concurrency: 3}, max_wait: 0s", "capacity: {concurrency: 5}, max_wait: 0s"


async def status(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await gateway.get("/status"))[1])
    return found


async def slots_of(gateway: Gateway) -> int:
    found: int = (await gateway.look("desk.narrow"))["limits"]["concurrency"]
    return found


async def until(gateway: Gateway, **expected: Any) -> float:
    """Until this gateway says so of the replicas; how many seconds that took."""
    began = time.monotonic()
    while True:
        found = (await status(gateway))["replicas"]
        if all(found[name] == value for name, value in expected.items()):
            return time.monotonic() - began
        assert time.monotonic() - began < 10, found
        await asyncio.sleep(0.05)


async def test_a_steward_that_is_killed_is_replaced_within_five_seconds(
    server: Server, tmp_path: Path
) -> None:
    """Calendars and alerts must not wait for a person; nor does anybody have to say that it is dead."""
    config = write_config(
        tmp_path / "config", url="http://127.0.0.1:9", store_url=server.url, operations={"narrow": NARROW}
    )
    async with gateways(config, tmp_path, 2) as made:
        steward_id = (await status(made[0]))["replicas"]["steward"]
        ids = {(await status(gateway))["replica"]: gateway for gateway in made}
        steward = ids.pop(steward_id)
        other_id, other = ids.popitem()
        await until(other, live=2, steward=steward_id)
        listed = json.loads((await other.get("/admin/v1/replicas"))[1])["replicas"]
        assert {row["replica"]: row["steward"] for row in listed} == {steward_id: True, other_id: False}
        steward.signal(signal.SIGKILL)
        await steward.ended()
        assert await until(other, steward=other_id) < 5
        await until(other, live=1)


async def test_files_that_change_on_one_gateway_after_the_other_change_the_limits_once(
    server: Server, tmp_path: Path
) -> None:
    """A rolling deploy: the old limits hold for all, then the new ones; and a straggler brings nothing back."""
    async with downstream() as below:
        folders = [
            write_config(tmp_path / name, url=below.url, store_url=server.url, operations={"narrow": NARROW})
            for name in ("one", "two")
        ]
        async with gateways(folders[0], tmp_path) as (one,), gateways(folders[1], tmp_path) as (two,):
            await until(one, live=2, differing=0)
            write_config(folders[0], url=below.url, store_url=server.url, operations={"narrow": WIDE})
            one.signal(signal.SIGHUP)
            await until(one, differing=1, is_in_force=False)
            assert await slots_of(two) == 3
            write_config(folders[1], url=below.url, store_url=server.url, operations={"narrow": WIDE})
            two.signal(signal.SIGHUP)
            await until(two, differing=0, is_in_force=True)
            assert await slots_of(one) == 5
            write_config(folders[1], url=below.url, store_url=server.url, operations={"narrow": NARROW})
            two.signal(signal.SIGTERM)
            assert await two.ended() == 0
            async with gateways(folders[1], tmp_path) as (old,):
                await until(one, live=2, differing=1, is_in_force=True)
                await until(old, is_in_force=False)
                assert await slots_of(old) == 5


async def test_a_gateway_does_not_start_on_keys_of_a_newer_format(server: Server, tmp_path: Path) -> None:
    """An old version that is started by mistake would misread what the new one wrote."""
    key = "brk:e2e:{cluster}:schema"
    config = write_config(
        tmp_path / "config", url="http://127.0.0.1:9", store_url=server.url, operations={"narrow": NARROW}
    )
    server.client.set(key, 2)
    try:
        gateway = Gateway(config, tmp_path)
        assert await gateway.ended() == 1
        assert "are in format 2, and this version of Breaker knows format 1 at most" in gateway.log
    finally:
        server.client.delete(key)
