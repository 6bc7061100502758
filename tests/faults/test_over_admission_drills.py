"""
Over-admission drill: one gateway is cut off from the store, the others are not; what they start together is counted. Rows:
`docs/faults.md`.
"""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.faults.call_drill import LIMITS, call_drill
from tests.faults.checker import LEASE_S
from tests.faults.circuit_view import seen, total
from tests.faults.proxy import Poison, address_of, proxy
from tests.store.replicas import Server

pytestmark = pytest.mark.timeout(120)

RATE, BURST = 20, 4
CUT_OFF_S = LEASE_S + 2  # the others have taken the slots of the one that is cut off
BACK_S = 15.0
USED_S = (
    6.0  # a replica compares from its last look on, at most 5 s before: until then all of the rate is used
)
SHARE = LIMITS["other"] * 4 // 5 // 2  # of one of two gateways


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


@pytest.mark.drill
async def test_what_a_gateway_that_is_cut_off_adds_is_bounded_and_counted(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """One of two goes by its share, two fifths; how far all went over the limits is what the downstream saw."""
    changes = {"read": {"capacity": {"rate": f"{RATE}/s", "burst": BURST}}}
    most = {**LIMITS, "read": 1_000, "other": LIMITS["other"] + SHARE}
    async with (
        proxy(address_of(server.url), seed=seed) as way,
        call_drill(
            tmp_path, server, seed=seed, store_timeout="100ms", service_ms=300, changes=changes,
            stores={0: f"redis://{way.address}"},
        ) as scene,
    ):  # fmt: skip
        alone = scene.fleet.replicas[0]
        load = asyncio.ensure_future(
            # In pairs: callers go round the two gateways.
            scene.callers.drive(
                ["read", "read", "other", "other"],
                seconds=USED_S + CUT_OFF_S + 3,
                per_second=120,
                name=f"over{seed}",
            )
        )
        await asyncio.sleep(USED_S)
        cut_off = time.monotonic()
        way.poison(Poison(is_black_hole=True))
        await asyncio.sleep(CUT_OFF_S)
        way.heal()

        async def is_counted() -> bool:
            return alone.log.count('"over_admitted"') + alone.log.count('"degraded_counted"') >= 2

        counted = await seen(is_counted, seconds=BACK_S)
        await load
        judged = await scene.judge.report()
        told = {name: await total(scene, "breaker_over_admitted_total", name) for name in ("read", "other")}
        violations = await scene.verdict(limits=most)
        # At its worst: once it is counted, it is a debt, and everybody waits for a moment.
        starts = [at for at in judged["read"].starts if cut_off <= at <= counted]
        beyond = max(number - RATE * (at - cut_off) for number, at in enumerate(starts, 1))
        print(f"beyond the rate {beyond:.0f}, told {told}; in flight {judged['other'].in_flight_max}")

    assert violations == []
    # Its share of the rate came on top, and what is told is what came, but for what a bucket holds.
    assert 0.3 * RATE * CUT_OFF_S < beyond <= 0.4 * RATE * (counted - cut_off) + 2 * BURST
    assert abs(told["read"] - beyond) <= 2 * BURST
    assert LIMITS["other"] < judged["other"].in_flight_max, "and of the slots"
    assert told["other"] <= judged["other"].in_flight_max - LIMITS["other"]
