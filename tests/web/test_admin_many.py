"""Work on many jobs: its scope, its progress, and how it stops."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from breaker.core.errors import StoreError
from breaker.core.job_policy import Band
from breaker.core.jobs import JobState
from breaker.web import admin_listing, admin_stream
from tests.web.admin_scene import CHARGE, LOOK_UP, REFUND, Scene, admin_scene


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out, and a step is two jobs."""
    monkeypatch.setattr(admin_stream, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(admin_listing, "STEP", 2)


@pytest.mark.usefixtures("every_line")
async def test_cancelling_many_tells_how_far_it_is(scene: Scene) -> None:
    """Somebody sits before it and wonders whether to wait."""
    await asyncio.gather(*(scene.accept() for _ in range(5)))
    lines = await scene.post("jobs/cancel", operation=CHARGE, filter={})
    assert [(line["stage"], line["done"], line["total"]) for line in lines] == [
        ("counting", 0, 2), ("counting", 0, 4), ("counting", 0, 5), ("counting", 0, 5),
        ("cancelling", 2, 5), ("cancelling", 4, 5), ("cancelling", 5, 5), ("cancelling", 5, 5), ("done", 5, 5),
    ]  # fmt: skip
    look = await scene.desk.look_queue(CHARGE)
    assert (look.cancelled, look.queued, look.unaccounted) == (5, 0, 0)


async def test_only_what_passes_the_filter_is_cancelled(scene: Scene) -> None:
    """One customer's jobs, and nobody else's, and no other operation's."""
    ids = [await scene.accept(tenant=tenant) for tenant in ("acme", "globex", "acme")]
    other = await scene.accept(REFUND, tenant="acme")
    later = await scene.accept(tenant="acme", not_before_us=scene.capacity.clock.now_us() + 60_000_000)
    lines = await scene.post("jobs/cancel", operation=CHARGE, filter={"tenant": "acme"}, state="queued")
    assert lines[-1] == {"stage": "done", "done": 2, "skipped": 0, "total": 2}
    assert await scene.states([*ids, other, later]) == [
        "cancelled", "queued", "cancelled", "queued", "scheduled",
    ]  # fmt: skip
    lines = await scene.post("jobs/cancel", operation=CHARGE, filter={"tenant": "acme"})
    assert await scene.states([later]) == ["cancelled"]
    (second, first) = await scene.audited()
    assert first["asked"] == {"filter": {"tenant": "acme"}, "state": "queued"}
    assert first["outcome"] == "done: done 2, skipped 0, total 2"
    assert second["operation"] == CHARGE


async def test_a_dry_run_counts_and_touches_nothing(scene: Scene) -> None:
    """Not the jobs, and not the audit stream; it needs no reason."""
    ids = [*(await scene.dead(3)), *[await scene.accept(tenant="globex") for _ in range(2)]]
    before = await scene.states(ids)
    for path, more, total in (
        ("jobs/cancel", {}, 2), ("jobs/move", {"band": "low"}, 2), ("dead/purge", {}, 3), ("dead/redrive", {}, 3),
    ):  # fmt: skip
        body = {"operation": CHARGE, "filter": {}, "dry_run": True, **more}
        status, lines = await scene.ask("POST", path, body)
        assert status == 200
        assert lines[-1] == {"stage": "counted", "done": 0, "total": total}
    assert await scene.states(ids) == before
    assert await scene.audited() == []


@pytest.mark.usefixtures("every_line")
async def test_a_job_is_moved_once_though_it_comes_by_again_in_its_new_band(scene: Scene) -> None:
    """High goes to low, where the walk has yet to come."""
    ids = [await scene.accept(band=band) for band in (Band.HIGH, Band.NORMAL, Band.LOW, Band.HIGH)]
    lines = await scene.post("jobs/move", operation=CHARGE, filter={}, band="low")
    assert lines[-1] == {"stage": "done", "done": 3, "skipped": 0, "total": 3}
    assert {(await scene.get(f"jobs/{id_}"))["band"] for id_ in ids} == {"low"}
    assert (await scene.audited())[0]["asked"]["band"] == "low"


@pytest.mark.parametrize("path", ["jobs/cancel", "jobs/move", "dead/redrive", "dead/purge"])
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"filter": {}, "reason": "x"}, 422, "'operation' is missing"),
        ({"operation": "", "filter": {}, "reason": "x"}, 422, "'operation' is missing"),
        ({"operation": "*", "filter": {}, "reason": "x"}, 422, "is no operation"),
        ({"operation": CHARGE, "reason": "x"}, 422, "'filter' is missing"),
        ({"operation": CHARGE, "filter": [], "reason": "x"}, 422, "'filter' is to be an object"),
        ({"operation": CHARGE, "filter": {}}, 422, "'reason' is missing"),
        ({"operation": CHARGE, "filter": {}, "reason": "x", "dry_run": 1}, 422, "'dry_run'"),
        ({"operation": CHARGE, "filter": {"tenent": "a"}, "reason": "x"}, 422, "did you mean 'tenant'?"),
        ({"operation": CHARGE, "filter": {"before": 5}, "reason": "x"}, 422, "'before'"),
        ({"operation": "billing.chrage", "filter": {}, "reason": "x"}, 404, "unknown operation"),
        ({"operation": LOOK_UP, "filter": {}, "reason": "x"}, 409, "no queue"),
    ],
)
async def test_a_scope_that_is_not_said_is_refused_and_nothing_is_done(
    scene: Scene, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    """Half a command must not empty a queue."""
    (dead,), waits = await scene.dead(1), await scene.accept()
    more = {"band": "low"} if path == "jobs/move" else {}
    found, detail = await scene.refused("POST", path, {**body, **more})
    assert (found, words in detail) == (status, True), detail
    assert await scene.states([dead, waits]) == ["dead", "queued"]
    assert (await scene.get(f"jobs/{waits}"))["band"] == "normal"


@pytest.mark.usefixtures("every_line")
async def test_a_connection_that_ends_stops_the_work_where_it_is(scene: Scene) -> None:
    """What is done stays done, the rest is as it was, and asking again goes on with the rest."""
    ids = [await scene.accept() for _ in range(6)]
    cancel, cancelled, go_on = scene.desk.cancel, asyncio.Event(), asyncio.Event()

    async def slowly(operation: str, job: str) -> JobState | None:
        if job == ids[2].partition("~")[2]:
            cancelled.set()
            await go_on.wait()
        return await cancel(operation, job)

    scene.desk.cancel = slowly  # type: ignore[method-assign]
    body = {"operation": CHARGE, "filter": {}, "reason": "x"}
    async with aiohttp.ClientSession() as session:
        answer = await session.post(f"{scene.url}/admin/v1/jobs/cancel", json=body)
        await cancelled.wait()
        answer.close()
    await scene.until_hung_up()
    go_on.set()
    while (await scene.audited())[0]["outcome"].startswith("not recorded"):
        await asyncio.sleep(0.005)
    assert await scene.states(ids) == ["cancelled"] * 4 + ["queued"] * 2
    (row,) = await scene.audited()
    assert row["outcome"] == "stopped: done 4, skipped 0, total 6 (the connection ended)"
    lines = await scene.post("jobs/cancel", operation=CHARGE, filter={})
    assert lines[-1]["done"] == 2


@pytest.mark.usefixtures("every_line")
async def test_a_store_that_is_lost_midway_ends_the_stream_with_a_word(scene: Scene) -> None:
    """A stream that just ends would look as if all were done."""
    for _ in range(4):
        await scene.accept()
    cancel, done = scene.desk.cancel, 0

    async def until_lost(operation: str, job: str) -> JobState | None:
        nonlocal done
        done += 1
        if done > 2:
            raise StoreError("gone")
        return await cancel(operation, job)

    scene.desk.cancel = until_lost  # type: ignore[method-assign]
    lines = await scene.post("jobs/cancel", operation=CHARGE, filter={})
    assert (lines[-1]["stage"], lines[-1]["done"]) == ("stopped", 2)
    assert "gone" in lines[-1]["detail"]
    assert (await scene.audited())[0]["outcome"].startswith("stopped: done 2")


@pytest.mark.usefixtures("every_line")
async def test_a_gateway_that_stops_ends_the_work_between_two_steps(scene: Scene) -> None:
    """A rolling deployment does not wait for a redrive of an hour, and says where it stopped."""
    ids = [await scene.accept() for _ in range(6)]
    cancel, app, is_stopping = scene.desk.cancel, scene.app, False
    assert app is not None

    async def and_stop(operation: str, job: str) -> JobState | None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            await app.shutdown()
        return await cancel(operation, job)

    scene.desk.cancel = and_stop  # type: ignore[method-assign]
    lines = await scene.post("jobs/cancel", operation=CHARGE, filter={})
    assert (lines[-1]["stage"], lines[-1]["done"]) == ("stopped", 2)
    assert "stopping" in lines[-1]["detail"]
    assert await scene.states(ids) == ["cancelled"] * 2 + ["queued"] * 4


async def test_lines_that_come_faster_than_anybody_reads_are_left_out(scene: Scene) -> None:
    """A million jobs are ten thousand steps; a terminal needs five lines a second, and the last one."""
    for _ in range(3):
        await scene.accept()
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{scene.url}/admin/v1/jobs/cancel", json={"operation": CHARGE, "filter": {}, "reason": "x"}
        ) as answer,
    ):
        assert answer.content_type == "application/x-ndjson"
        lines = [orjson.loads(line) for line in (await answer.read()).splitlines()]
    assert [line["stage"] for line in lines] == ["counting", "done"]
