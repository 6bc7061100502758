"""
Clock drills: the store's clock jumps by an hour, under load. Row 8: `docs/faults.md`.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from breaker.core.model import RENEW_US
from breaker.store.server_binary import find_server
from tests.faults.call_drill import LIMITS, call_drill
from tests.faults.calls import words
from tests.faults.checker import LEASE_S
from tests.faults.shifted_store import ShiftedServer

pytestmark = pytest.mark.timeout(120)

HOUR_S = 3_600
RENEWAL_S = RENEW_US / 1e6
SERVICE_S = 0.6
SLOTS = LIMITS["read"]


@pytest.fixture
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShiftedServer]:
    server = ShiftedServer(asyncio.run(find_server()), tmp_path_factory.mktemp("store"))
    yield server
    server.close()


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


@pytest.mark.drill
async def test_a_store_whose_clock_jumps_by_an_hour_frees_nothing_and_holds_nothing(
    shifted: ShiftedServer, tmp_path: Path, seed: int
) -> None:
    """Forward all leases look as if they had run out; back they look as if they lived for another hour."""
    async with call_drill(tmp_path, shifted, seed=seed, service_ms=SERVICE_S * 1_000) as scene:
        before_s = shifted.client.time()[0]
        load = asyncio.ensure_future(
            scene.callers.drive(["read"], seconds=4.5, per_second=40, name=f"j{seed}")
        )
        jumps = []
        for shift_s in (HOUR_S, 0, -HOUR_S):
            await asyncio.sleep(1.2)
            jumps.append(time.monotonic())
            shifted.shift(shift_s)
        assert before_s - shifted.client.time()[0] > HOUR_S / 2, "its clock goes by what it is told"
        told = await load
        took_s = await scene.until_free("read", seconds=LEASE_S)

        # What a dead gateway held looks as if it were held for another hour.
        orphans = [asyncio.ensure_future(scene.callers.call("read", f"o{number}")) for number in range(SLOTS)]
        while scene.slots("read") < SLOTS:
            await asyncio.sleep(0.01)
        await scene.fleet.replicas[0].kill()
        shifted.shift(-2 * HOUR_S)
        await asyncio.gather(*orphans)
        await asyncio.sleep(LEASE_S + 1)
        again = await asyncio.gather(*(scene.callers.call("read", f"a{number}") for number in range(SLOTS)))
        violations = await scene.verdict(limits=dict.fromkeys(LIMITS, 1_000), may_break=True)
        over = (await scene.judge.report())["read"].over
        print(
            f"over the limit: {[(round(at - jumps[0], 2), number) for at, number, _ in over]}; free after {took_s:.2f} s"
        )

    assert violations == []
    assert {each.status for each in told} <= {200, 503}
    assert sum(each.status == 200 for each in told) > 20
    assert words(again) == {"200 forwarded": SLOTS}, "a slot is held for two hours"
    for at, in_flight, _ in over:
        assert in_flight <= 2 * SLOTS
        assert min(abs(at - jump) for jump in jumps) < RENEWAL_S
