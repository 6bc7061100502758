"""What the admin listener says of replicas, and of operations that none of them names any more."""

import os
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from breaker.cli.ops import row_of
from breaker.store.keys import cluster_key
from tests.web.admin_scene import CHARGE, REFUND, Scene, admin_scene


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def test_replicas_are_listed_with_what_they_run(scene: Scene) -> None:
    """Which of them runs the old files, and where is it?"""
    found = await scene.get("replicas")
    assert found["versions"] == {"1": 1}
    (row,) = found["replicas"]
    assert (row["replica"], row["version"], row["pid"]) == (scene.capacity.replica, "1", os.getpid())
    assert (row["steward"], row["format"]) == (True, 1)
    assert row["started"] <= row["last_beat"]


async def test_an_operation_that_no_file_names_is_listed_with_its_jobs(
    scene: Scene, redis: Redis, cluster: str
) -> None:
    """Its jobs were promised to somebody: on-call finds them where it finds all others."""
    await scene.accept()
    scene.operations = {name: one for name, one in scene.operations.items() if name == REFUND}
    redis.zadd(cluster_key(cluster, "named"), {CHARGE: 1, REFUND: 1})
    rows = (await scene.get("operations"))["operations"]
    assert [(row["operation"], row["configured"], row["removed"]) for row in rows] == [
        (REFUND, True, False), (CHARGE, False, True),
    ]  # fmt: skip
    assert rows[1]["queue"]["waiting"]["normal"] == 1
    assert row_of(rows[1])[-1] == "removed: no file names it"
    (job,) = (await scene.get(f"jobs?operation={CHARGE}&state=queued"))["jobs"]
    assert (await scene.post(f"jobs/{job['id']}/cancel"))["state"] == "cancelled"
