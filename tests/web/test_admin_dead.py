"""Dead letters by hand: list, show, purge, and redrive over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from breaker.core.jobs import Fate, Reason
from breaker.gateway import redrive
from breaker.web import admin_listing
from tests.web.admin_scene import CHARGE, Scene, admin_scene


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def while_it_runs(
    scene: Scene, fate: Fate, reason: Reason | str, work: Callable[[], Awaitable[list[Any]]]
) -> list[Any]:
    """Do this while somebody runs all that can start, to this end."""

    async def run() -> None:
        while True:
            await scene.run(fate, reason)
            await asyncio.sleep(0.002)

    running = asyncio.create_task(run())
    try:
        return await work()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_dead_letters_are_listed_and_shown_with_their_cause(scene: Scene) -> None:
    """Only they: what waits is another list."""
    (first,) = await scene.dead(1, Reason.CALLER, tenant="acme")
    (second,) = await scene.dead(1, Reason.BUDGET, tenant="globex")
    waits = await scene.accept()
    rows = (await scene.get("dead"))["jobs"]
    assert [(row["id"], row["reason"]) for row in rows] == [(first, "caller"), (second, "budget")]
    assert [row["id"] for row in (await scene.get("dead?tenant=globex"))["jobs"]] == [second]
    assert (await scene.get(f"dead/{first}"))["reason"] == "caller"
    assert (await scene.refused("GET", f"dead/{waits}"))[0] == 409
    assert (await scene.refused("GET", "dead?state=queued"))[0] == 422


async def test_purged_dead_letters_are_counted_as_discarded(scene: Scene) -> None:
    """Let go of, and still in the ledger."""
    ids = [*(await scene.dead(2, tenant="acme")), *(await scene.dead(1, tenant="globex"))]
    lines = await scene.post("dead/purge", operation=CHARGE, filter={"tenant": "acme"})
    assert lines[-1] == {"stage": "done", "done": 2, "skipped": 0, "total": 2}
    assert await scene.states(ids) == ["discarded", "discarded", "dead"]
    look = await scene.desk.look_queue(CHARGE)
    assert (look.discarded, look.dead, look.unaccounted) == (2, 1, 0)
    (row,) = await scene.audited()
    assert (row["action"], row["outcome"]) == ("dead.purge", "done: done 2, skipped 0, total 2")


async def test_a_redrive_runs_what_its_filter_finds_and_tells_how_it_went(scene: Scene) -> None:
    """The last line, and the audit stream, hold the result."""
    budget = await scene.dead(5, Reason.BUDGET)
    caller = await scene.dead(2, Reason.CALLER)
    lines = await while_it_runs(
        scene, Fate.SUCCEEDED, "",
        lambda: scene.post(
            "dead/redrive", operation=CHARGE, filter={"reason": "budget"}, rate="1000/s", reason="mended"
        ),
    )  # fmt: skip
    last = lines[-1]
    assert (last["stage"], last["done"], last["succeeded"], last["total"]) == ("done", 5, 5, 5)
    assert await scene.states([*budget, *caller]) == ["succeeded"] * 5 + ["dead"] * 2
    (row,) = await scene.audited()
    assert row["asked"] == {"filter": {"reason": "budget"}, "state": None, "rate": "1000/s"}
    assert row["outcome"].startswith("done: done 5")


async def test_a_redrive_that_meets_the_same_wall_stops_and_says_so(scene: Scene) -> None:
    """One more attempt was lost, not nine."""
    await scene.dead(9, Reason.BUDGET)
    lines = await while_it_runs(
        scene, Fate.DEAD, Reason.BUDGET,
        lambda: scene.post("dead/redrive", operation=CHARGE, filter={}, rate="1000/s"),
    )  # fmt: skip
    last = lines[-1]
    assert (last["stage"], last["done"], last["failed"], last["total"]) == ("stopped", 1, 1, 9)
    assert "budget" in last["detail"]
    assert last["detail"] in (await scene.audited())[0]["outcome"]


async def test_what_dies_again_of_another_cause_is_not_taken_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redrive ends, also when all that it runs comes back dead."""
    monkeypatch.setattr(admin_listing, "STEP", 1)
    await scene.dead(3, Reason.BUDGET)
    lines = await while_it_runs(
        scene, Fate.DEAD, Reason.CALLER,
        lambda: scene.post("dead/redrive", operation=CHARGE, filter={}, rate="1000/s"),
    )  # fmt: skip
    assert (lines[-1]["stage"], lines[-1]["done"], lines[-1]["failed"]) == ("done", 3, 3)


async def test_a_paused_operation_is_not_redriven(scene: Scene) -> None:
    """Its jobs would wait, and tell nothing of their cause; who holds it stands in the answer."""
    await scene.dead(1)
    await scene.post(f"operations/{CHARGE}/pause", reason="month end")
    body = {"operation": CHARGE, "filter": {}, "reason": "x"}
    status, detail = await scene.refused("POST", "dead/redrive", body)
    assert status == 409
    assert "paused by local (month end)" in detail
    assert len((await scene.get("dead"))["jobs"]) == 1
    await scene.post(f"operations/{CHARGE}/drain")
    lines = await while_it_runs(
        scene, Fate.SUCCEEDED, "", lambda: scene.post("dead/redrive", operation=CHARGE, filter={})
    )
    assert lines[-1]["done"] == 1


@pytest.mark.parametrize(("rate", "words"), [("0/s", "never"), ("fast", "a rate is"), ("10", "a rate is")])
async def test_a_rate_that_is_none_is_refused(scene: Scene, rate: str, words: str) -> None:
    """Nothing is redriven at a speed that nobody meant."""
    body = {"operation": CHARGE, "filter": {}, "reason": "x", "rate": rate}
    status, detail = await scene.refused("POST", "dead/redrive", body)
    assert (status, words in detail) == (422, True)


async def test_a_redrive_goes_at_ten_a_second_unless_told_otherwise(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rate that was asked for is the one that is used."""
    seen: list[float] = []
    run = redrive.Redrive.__init__

    def watched(self: redrive.Redrive, *given: Any, rate: float) -> None:
        seen.append(rate)
        run(self, *given, rate=rate)

    monkeypatch.setattr(redrive.Redrive, "__init__", watched)
    await scene.post("dead/redrive", operation=CHARGE, filter={})
    await scene.post("dead/redrive", operation=CHARGE, filter={}, rate="120/min")
    assert seen == [10.0, 2.0]
