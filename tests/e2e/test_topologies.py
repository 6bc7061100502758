"""`breaker serve` on a store of several servers: one line in `gateway.yaml`, and nothing else differs."""

from pathlib import Path

from tests.e2e.load import drive
from tests.e2e.scene import downstream, gateways, write_config
from tests.store.job_servers import server_with_waitaof
from tests.store.topologies import ClusterStore, SentinelStore


async def serves(url: str, name: str, folder: Path) -> None:
    """Calls of two operations go through, and `/status` knows their numbers."""
    async with downstream() as below:
        operations = dict.fromkeys(
            ("open", "wide", "deep"), "capacity: {rate: 1000/s, burst: 1000, concurrency: 100}"
        )
        config = write_config(folder / "config", url=below.url, store_url=url, operations=operations)
        async with gateways(config, folder) as (gateway,):
            for operation in operations:
                load = await drive(
                    [gateway.address], f"/desk/{operation}/5", seconds=0.3, per_second=50, callers=4
                )
                assert load.counts().keys() == {"200"}
                assert (await gateway.look(f"desk.{operation}"))["started"] == len(load.answers)
            assert name in (await gateway.get("/status"))[1]


async def test_a_gateway_serves_with_sentinels(tmp_path: Path) -> None:
    """The operator names the sentinels, never the primary."""
    store = SentinelStore(await server_with_waitaof(), tmp_path / "s", 1)
    try:
        await serves(store.url, "valkey", tmp_path)
    finally:
        store.close()


async def test_a_gateway_serves_on_a_cluster(tmp_path: Path) -> None:
    """The operator names some of the nodes."""
    store = ClusterStore(await server_with_waitaof(), tmp_path / "c")
    try:
        await serves(store.url, "Cluster of 3", tmp_path)
    finally:
        store.close()
