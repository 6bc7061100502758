"""
Circuit drills: a downstream that is down for all, or for one gateway alone, and how it is come back to.

What reached the downstream is judged by when it came there. Rows: `docs/faults.md`.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults import circuit_view, offers
from tests.faults.call_drill import LIMITS, CallDrill, call_drill
from tests.faults.callers import Callers, Wanted, follow
from tests.faults.calls import statuses, words
from tests.faults.ills import Ill
from tests.faults.proxy import address_of, proxy
from tests.store.replicas import Server

pytestmark = pytest.mark.timeout(420)

IS_FULL = bool(os.environ.get("BREAKER_FULL"))  # as `make faults` says
DOWN_S, JOBS, RAMP_S = (60, 2_000, 30) if IS_FULL else (8, 300, 5)
PROBES, RATE, BURST = 3, 100, 10
SLACK_S = 0.3  # between the moment in which something was decided and the one in which it came there
CIRCUIT: dict[str, Any] = {
    "min_calls": 10, "window": "10s", "open": "1s", "open_max": "4s", "probes": PROBES, "ramp": f"{RAMP_S}s",
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "keyed": {
        "capacity": {"rate": f"{RATE}/s", "burst": BURST, "concurrency": LIMITS["keyed"]}, "circuit": CIRCUIT,
        "retry": {"for": "10m", "base": "100ms", "cap": "1s"},
        "queue": {"start_within": "5m", "max_jobs": 10_000, "durability": "fsync"},
    },
    "read": {"circuit": CIRCUIT}, "other": {"circuit": CIRCUIT},
}  # fmt: skip
ILL = ("keyed", "read")
# A third of all calls are over this: but for the quorum, one bad node would open it for all.
EASILY = {"read": {"circuit": {**CIRCUIT, "failure_rate": 0.2}}}


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


async def are_open(scene: CallDrill) -> bool:
    return all([set(await circuit_view.states(scene, operation)) == {"open"} for operation in ILL])


async def test_a_downstream_that_was_down_is_probed_and_not_stampeded(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """Row 14: its queue holds and burns no attempts, and the queue is not itself the next overload."""
    async with call_drill(tmp_path, server, seed=seed, gateways=3, service_ms=20, changes=CHANGES) as scene:
        callers = Callers(scene.fleet.urls, scene.session)
        orders = [Wanted(operation="keyed", order=f"job-{seed}-{number}") for number in range(JOBS)]
        for operation in ILL:
            await scene.judge.ill(operation, Ill.FAILS)
        down = time.monotonic()
        load = asyncio.ensure_future(callers.drive(orders, per_second=JOBS / 2, patience_s=60))
        calls = asyncio.ensure_future(
            scene.callers.drive(["read", "keyed"], seconds=DOWN_S, per_second=30, name=f"d{seed}")
        )
        opened = await circuit_view.seen(lambda: are_open(scene), seconds=10)
        await load
        told = await calls
        await asyncio.sleep(down + DOWN_S - time.monotonic())
        # What is on trial when the downstream comes back may end either way: it comes back in a pause.
        await circuit_view.seen(lambda: are_open(scene), seconds=20)
        seen = await scene.judge.report()
        probed = {name: (await circuit_view.moves(scene, name))["half-open"] for name in ILL}
        while_open = {name: sum(at > opened + SLACK_S for at in seen[name].starts) for name in ILL}
        healed = time.monotonic()
        for operation in ILL:
            await scene.judge.ill(operation, Ill.NONE)

        accepted = [each.job for each in callers.notes.accepted]
        jobs = await follow(scene.session, scene.fleet.urls, accepted, seconds=60 + RAMP_S)
        for held in [each.order for each in told if each.status == offers.ACCEPTED]:
            await circuit_view.seen(lambda order=held: is_done(scene, order), seconds=20)  # type: ignore[misc]
        after = (await scene.judge.report())["keyed"]
        violations = await scene.verdict()
        print(f"probes {probed}, calls while open {while_open}; {dict(words(told))}")

    assert violations == []
    for operation in ILL:
        assert 1 <= while_open[operation] <= PROBES * probed[operation], "only probes reach it"
    assert callers.notes.gave_up == []
    assert {job.state if job else "lost" for job in jobs.values()} == {"succeeded"}
    assert len(jobs) == JOBS
    # Each attempt is a call that came: none was used up by waiting, and none by a circuit that refused.
    for wanted in callers.notes.accepted:
        job = jobs[wanted.job]
        assert job
        assert job.attempts == after.orders[wanted.order].requests
    well = [at for at in after.starts if at > healed]
    beyond = circuit_view.beyond_the_ramp(
        well, well[PROBES - 1] - SLACK_S, rate=RATE, spare=BURST + PROBES, ramp_s=RAMP_S
    )
    assert beyond <= 0
    assert statuses(told).keys() <= {"500", "503 circuit-open", "202 queued"}


async def is_done(scene: CallDrill, order: str) -> bool:
    found = (await scene.judge.report())["keyed"].orders.get(order)
    return found is not None and found.effects == 1


async def test_one_gateway_that_is_cut_off_opens_itself_alone(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """One bad node must not cut off the good ones, and on-call is told which it is."""
    async with (
        proxy("", seed=seed) as way,
        call_drill(
            tmp_path, server, seed=seed, gateways=3, service_ms=5, changes=EASILY, downstream=f"http://{way.address}"
        ) as scene,
    ):  # fmt: skip
        way.upstream = address_of(scene.judge.url)
        bad, *good = scene.fleet.replicas
        before = await scene.callers.drive(["other"], seconds=1, per_second=60, name=f"b{seed}")
        way.cut_off(bad.has_port)
        numbers = iter(range(10_000))

        async def is_lone() -> bool:
            await scene.callers.drive(["read"], seconds=0.3, per_second=60, name=f"l{seed}-{next(numbers)}")
            return await circuit_view.lone(scene, "read") == [1, 0, 0]

        await circuit_view.seen(is_lone, seconds=10)
        told = await scene.callers.drive(["read"], seconds=2, per_second=60, name=f"a{seed}")
        lone = await circuit_view.lone(scene, "read")
        for_all = await circuit_view.states(scene, "read")
        way.heal()

        async def is_well() -> bool:
            again = await scene.callers.drive(
                ["read"], seconds=0.3, per_second=30, name=f"w{seed}-{next(numbers)}"
            )
            return {each.status for each in again} == {200}

        await circuit_view.seen(is_well, seconds=20)
        ended = await circuit_view.lone(scene, "read")
        violations = await scene.verdict()
        print(f"{dict(words(before))}, cut off {dict(words(told))}; alone {lone}, then {ended}; {for_all}")

    assert violations == []
    assert statuses(before) == {"200": len(before)}
    assert (lone, ended) == ([1, 0, 0], [0, 0, 0])
    assert for_all == ["closed"] * 3
    assert [('"lone_replica"' in each.log) for each in (bad, *good)] == [True, False, False]
    assert statuses(told)["200"] >= len(told) * 2 // 3, "two of three go on"
    refused = statuses(told).keys() - {"200"}
    assert refused <= {"503 circuit-open", "502 downstream-unreachable", "504 outcome-unknown"}
