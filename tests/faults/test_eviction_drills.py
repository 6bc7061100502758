"""
Eviction drill: a store that drops keys when its memory is full, because nobody told it not to. Row 7: `docs/faults.md`.
"""

import os
from pathlib import Path

import pytest

from tests.faults import offers
from tests.faults.call_drill import CLUSTER, CallDrill, call_drill
from tests.faults.checker import LEASE_S
from tests.faults.circuit_view import seen
from tests.store.replicas import Server

pytestmark = pytest.mark.timeout(120)

SPARE = 500_000  # bytes that are free before it drops anything
PIECE = "x" * 10_000
BACK_S = 20.0


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


def policy_key(operation: str) -> str:
    return f"brk:{CLUSTER}:{{{offers.PIPELINE}.{operation}}}:policy"


def squeeze(server: Server, operation: str) -> int:
    """Fill it until what it knows of this operation is gone; how many pieces that took."""
    client = server.client
    client.config_set("maxmemory", client.info("memory")["used_memory"] + SPARE)
    for number in range(20_000):
        if not client.exists(policy_key(operation)):
            return number
        client.set(f"ballast:{number}", PIECE)
    raise AssertionError("it kept everything")


def noticed(scene: CallDrill) -> bool:
    """By whoever met it first: an operation's limits are gone, or the epoch with them."""
    logs = [replica.log for replica in scene.fleet.replicas]
    return any('"store_reset"' in log or '"kind":"reset"' in log for log in logs)


@pytest.mark.drill
async def test_a_store_that_evicts_keys_is_loud_and_what_it_lost_is_noticed(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """The operator is told at once what to set; and limits that were dropped are not taken for no limits."""
    server.client.config_set("maxmemory-policy", "allkeys-random")
    async with call_drill(tmp_path, server, seed=seed, service_ms=20) as scene:
        for replica in scene.fleet.replicas:
            assert "maxmemory-policy is allkeys-random" in replica.log
            assert "CONFIG SET maxmemory-policy noeviction" in replica.log
        before = await scene.callers.drive(["read", "other"], seconds=0.5, per_second=60, name=f"e{seed}")
        assert server.client.exists(policy_key("read"))
        pieces = squeeze(server, "read")
        squeezed = await scene.callers.drive(["read"], seconds=3, per_second=60, name=f"s{seed}")
        server.client.config_set("maxmemory", "0")
        numbers = iter(range(10_000))

        async def is_well() -> bool:
            told = [await scene.callers.call("read", f"back-{seed}-{next(numbers)}") for _ in range(4)]
            return {each.status for each in told} == {200} and noticed(scene)

        await seen(is_well, seconds=BACK_S)
        await scene.until_free("read", seconds=LEASE_S)
        violations = await scene.verdict()
        print(f"{pieces} pieces")

    assert violations == []
    assert {each.status for each in before} == {200}
    assert {each.status for each in squeezed} <= {200, 503}
