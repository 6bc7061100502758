"""
Pressure drills: a downstream that asks for time, and callers who come back all at once when it is well again. Rows: `docs/faults.md`.
"""

import asyncio
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faults import circuit_view
from tests.faults.call_drill import LIMITS, call_drill
from tests.faults.callers import Callers, Wanted, follow
from tests.faults.calls import statuses, words
from tests.faults.ills import Ill
from tests.store.replicas import Server

pytestmark = pytest.mark.timeout(180)

SLACK_S = 0.3  # between the moment in which something was decided and the one in which it came there
RETRY: dict[str, Any] = {"for": "10m", "base": "100ms", "cap": "1s"}
BUSY = ("keyed", "read")
ASKED_S = 2
STORM, RATE, RAMP_S, AFTER_S = 10, 20, 2, 4
CIRCUIT = {
    "min_calls": 10, "window": "10s", "open": "1s", "open_max": "2s", "probes": 3, "ramp": f"{RAMP_S}s",
}  # fmt: skip


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


def waves_of(starts: Sequence[float]) -> list[list[float]]:
    """Calls that came together, by the pauses between them."""
    waves: list[list[float]] = []
    for at in starts:
        if not waves or at - waves[-1][-1] > SLACK_S:
            waves.append([])
        waves[-1].append(at)
    return waves


@pytest.mark.drill
@pytest.mark.parametrize(("status", "is_date"), [(503, False), (429, True)], ids=["503-seconds", "429-date"])
async def test_a_downstream_that_asks_for_time_gets_it(
    server: Server, tmp_path: Path, seed: int, status: int, *, is_date: bool
) -> None:
    """Row 15: all gateways leave it alone until then, no order is lost, and nobody is blamed."""
    async with call_drill(
        tmp_path, server, seed=seed, gateways=3, service_ms=20, changes={"keyed": {"retry": RETRY}},
        busy_status=status, retry_after_s=ASKED_S, retry_after_is_date=is_date,
    ) as scene:  # fmt: skip
        callers = Callers(scene.fleet.urls, scene.session)
        orders = [Wanted(operation="keyed", order=f"busy-{seed}-{number}") for number in range(60)]
        for operation in BUSY:
            await scene.judge.ill(operation, Ill.BUSY)
        direct = asyncio.ensure_future(
            scene.callers.drive(["read", "other"], seconds=5, per_second=60, name=f"s{seed}")
        )
        await callers.drive(orders, per_second=100, patience_s=60)
        told = await direct
        meanwhile = await scene.judge.report()
        for operation in BUSY:
            await scene.judge.ill(operation, Ill.NONE)
        accepted = [each.job for each in callers.notes.accepted]
        jobs = await follow(scene.session, scene.fleet.urls, accepted, seconds=30)
        opened = [(await circuit_view.moves(scene, operation))["open"] for operation in BUSY]
        waves = {name: waves_of(meanwhile[name].starts) for name in BUSY}
        violations = await scene.verdict()
        print(
            f"waves of { {name: [len(each) for each in found] for name, found in waves.items()} }; {dict(words(told))}"
        )

    assert violations == []
    assert opened == [0, 0], "to be busy is not to be ill"
    assert len(jobs) == len(orders)
    assert {job.state if job else "lost" for job in jobs.values()} == {"succeeded"}
    for operation in BUSY:
        assert len(waves[operation]) >= 2
        assert max(len(wave) for wave in waves[operation]) <= 2 * LIMITS[operation]
        for wave, following in pairwise(waves[operation]):
            # What came after the first answer was on its way already.
            assert following[0] - wave[0] >= ASKED_S
            assert wave[-1] - wave[0] <= SLACK_S
    by_operation = {
        name: statuses(each for each in told if each.operation == name) for name in ("read", "other")
    }
    assert by_operation["other"].keys() == {"200"}
    assert by_operation["read"].keys() == {f"{status}", "503 over-capacity"}


async def test_ten_times_as_many_callers_as_fit_do_not_keep_it_from_its_work(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """Row 22: they pile up while it is down, and come back all the time; each second of its limit is used."""
    changes = {"read": {"capacity": {"rate": f"{RATE}/s", "burst": 5, "concurrency": 8}, "circuit": CIRCUIT}}
    async with call_drill(tmp_path, server, seed=seed, gateways=3, service_ms=20, changes=changes) as scene:
        await scene.judge.ill("read", Ill.FAILS)
        storm = asyncio.ensure_future(
            scene.callers.drive(["read"], seconds=60, per_second=STORM * RATE, name=f"storm{seed}")
        )

        async def is_open() -> bool:
            return set(await circuit_view.states(scene, "read")) == {"open"}

        async def is_closed() -> bool:
            return (await circuit_view.moves(scene, "read"))["closed"] == 1

        await circuit_view.seen(is_open, seconds=15)
        await scene.judge.ill("read", Ill.NONE)
        closed = await circuit_view.seen(is_closed, seconds=10)
        await asyncio.sleep(RAMP_S + AFTER_S)
        storm.cancel()
        await asyncio.gather(storm, return_exceptions=True)
        starts = [at for at in (await scene.judge.report())["read"].starts if at >= closed]
        of_all = circuit_view.allowed(RAMP_S + AFTER_S, rate=RATE, ramp_s=RAMP_S)
        after = sum(closed + RAMP_S <= at <= closed + RAMP_S + AFTER_S for at in starts)
        violations = await scene.verdict()
        print(
            f"since closing {len(starts)} of {of_all:.0f}, after the ramp {after / AFTER_S:.1f}/s of {RATE}/s"
        )

    assert violations == []
    assert len(starts) >= 0.9 * of_all
    assert after >= 0.9 * RATE * AFTER_S
    assert statuses(scene.callers.told).keys() <= {"200", "500", "503 over-capacity", "503 circuit-open"}
