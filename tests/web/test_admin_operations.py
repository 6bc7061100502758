"""What the admin listener says of operations, and pause, drain and resume."""

import re
from collections.abc import AsyncIterator

import pytest

from breaker.core.errors import StoreError
from breaker.core.events import StoreFailed
from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, Reason
from tests.web.admin_scene import CHARGE, LOOK_UP, REFUND, Scene, admin_scene

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def test_an_operation_shows_its_limits_and_what_is_where(scene: Scene) -> None:
    """One look at 3 a.m.: what holds, what waits, since when, what died."""
    await scene.dead(2)
    await scene.accept()
    await scene.run(Fate.UNKNOWN, Reason.AMBIGUOUS)
    await scene.accept()
    await scene.lease()
    await scene.accept(band=Band.HIGH)
    await scene.accept(not_before_us=scene.capacity.clock.now_us() + 60_000_000)
    found = await scene.get(f"operations/{CHARGE}")
    assert found["limits"]["in_force"]["words"] == "no limit"
    assert (found["limits"]["source"], found["team"], found["overflow"]) == ("file", "finance", "queue")
    queue = found["queue"]
    assert queue["waiting"] == {"critical": 0, "high": 1, "normal": 0, "low": 0}
    assert queue["oldest_ms"]["high"] >= 0
    assert (queue["scheduled"], queue["running"], queue["dead"], queue["unknown"]) == (1, 1, 2, 1)
    assert (queue["ledger"]["accepted"], queue["ledger"]["unaccounted"], queue["held"]) == (6, 0, None)


async def test_all_operations_are_listed_in_the_order_of_the_files(scene: Scene) -> None:
    """One without a queue has no queue to show."""
    rows = (await scene.get("operations"))["operations"]
    assert [(row["operation"], row["queue"] is None) for row in rows] == [
        (CHARGE, False), (REFUND, False), (LOOK_UP, True),
    ]  # fmt: skip


@pytest.mark.parametrize(("verb", "state"), [("pause", "paused"), ("drain", "draining")])
async def test_a_hold_says_who_why_and_until_when_and_resume_ends_it(
    scene: Scene, verb: str, state: str
) -> None:
    """Whoever finds a queue standing still must not have to ask around."""
    found = await scene.post(f"operations/{CHARGE}/{verb}", reason="month end", expires_in="2h")
    held = found["queue"]["held"]
    assert (held["state"], held["author"], held["reason"]) == (state, "local", "month end")
    look = await scene.desk.look_queue(CHARGE)
    assert look.held == state
    assert look.held_until_us - look.held_since_us == pytest.approx(7_200_000_000, abs=2_000_000)
    assert MOMENT.fullmatch(held["until"])
    assert (await scene.desk.look_queue(REFUND)).held == ""
    found = await scene.post(f"operations/{CHARGE}/resume", reason="done")
    assert found["queue"]["held"] is None
    assert [(row["action"], row["outcome"], row["reason"]) for row in await scene.audited()] == [
        ("operations.resume", "resumed", "done"), (f"operations.{verb}", state, "month end"),
    ]  # fmt: skip


async def test_a_hold_without_a_length_lasts_until_it_is_resumed(scene: Scene) -> None:
    """Null is not a moment that has passed."""
    found = await scene.post(f"operations/{CHARGE}/pause")
    assert found["queue"]["held"]["until"] is None
    assert (await scene.audited())[0]["asked"] == {"until": None}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'reason' is missing"),
        ({"reason": "  "}, "'reason' is missing"),
        ({"reason": 7}, "'reason' is to be a text"),
        ({"reason": "x", "expires_in": "2 fortnights"}, "'expires_in'"),
        ({"reason": "x", "expires": "2h"}, "unknown field 'expires' (did you mean 'expires_in'?)"),
        ([], "a JSON object"),
    ],
)
async def test_a_hold_that_is_not_said_right_is_refused_by_the_field(
    scene: Scene, body: object, words: str
) -> None:
    """A misspelt length must not become a pause for ever."""
    status, detail = await scene.refused("POST", f"operations/{CHARGE}/pause", body)
    assert status == 422
    assert words in detail
    assert (await scene.desk.look_queue(CHARGE)).held == ""
    assert await scene.audited() == []


async def test_what_has_no_queue_cannot_be_held(scene: Scene) -> None:
    """A pause that stops nothing would be believed."""
    status, detail = await scene.refused("POST", f"operations/{LOOK_UP}/pause", {"reason": "x"})
    assert (status, "overflow: throttle" in detail) == (409, True)


async def test_an_operation_that_is_not_known_is_named_with_what_was_meant(scene: Scene) -> None:
    """Nothing is created by a slip of the keyboard."""
    for method, path in (("GET", "operations/billing.chrage"), ("POST", "operations/billing.chrage/pause")):
        status, detail = await scene.refused(method, path, {"reason": "x"} if method == "POST" else None)
        assert (status, "did you mean 'billing.charge'?" in detail) == (404, True)
    assert (await scene.refused("GET", "operations/charge"))[0] == 422
    # To the scripts an operation without a policy is a store that was emptied.
    assert [event for event in scene.events if isinstance(event, StoreFailed)] == []


async def test_jobs_of_an_operation_that_no_file_names_any_more_can_be_worked_on(scene: Scene) -> None:
    """A removed operation orphans nobody's work."""
    job = await scene.accept(REFUND)
    await scene.dead(1, operation=REFUND)
    del scene.operations[REFUND]
    found = await scene.get(f"operations/{REFUND}")
    assert (found["configured"], found["limits"], found["queue"]["dead"]) == (False, None, 2)
    assert (await scene.get(f"jobs/{job}"))["state"] == "dead"
    assert len((await scene.get(f"dead?operation={REFUND}"))["jobs"]) == 2
    status, detail = await scene.refused(
        "POST", "dead/redrive", {"operation": REFUND, "filter": {}, "reason": "x"}
    )
    assert (status, "would not run" in detail) == (409, True)
    lines = await scene.post("dead/purge", operation=REFUND, filter={})
    assert lines[-1]["done"] == 2


async def test_a_store_that_is_lost_is_said_and_not_made_up(scene: Scene) -> None:
    """Numbers that nobody can have are null, and a change that cannot be written down is not made."""

    async def lost(*_: object) -> None:
        raise StoreError("gone")

    scene.desk.look_queue = lost  # type: ignore[method-assign,assignment]
    assert (await scene.get(f"operations/{CHARGE}"))["queue"] is None
    status, detail = await scene.refused("POST", f"operations/{CHARGE}/pause", {"reason": "x"})
    assert (status, "gone" in detail) == (503, True)


async def test_a_change_that_cannot_be_written_down_is_not_made(scene: Scene) -> None:
    """Nobody could ever find out who did it."""

    async def lost(*_: object) -> None:
        raise StoreError("gone")

    job = await scene.accept()
    scene.audit.write = lost  # type: ignore[method-assign,assignment]
    for path, body in (
        (f"operations/{CHARGE}/pause", {}), (f"jobs/{job}/cancel", {}), (f"jobs/{job}/move", {"band": "low"}),
        ("jobs/cancel", {"operation": CHARGE, "filter": {}}),
    ):  # fmt: skip
        assert (await scene.refused("POST", path, {"reason": "x", **body}))[0] == 503
    assert (await scene.refused("GET", f"jobs/{job}?payload=1"))[0] == 503
    look = await scene.desk.look_queue(CHARGE)
    assert (look.held, look.waiting[Band.NORMAL]) == ("", 1)


async def test_a_change_of_which_the_end_was_not_written_is_shown_as_such(scene: Scene) -> None:
    """A gateway that died in between leaves a question, not a gap."""
    write, entries = scene.audit.write, 0

    async def first_only(entry: dict[str, str]) -> None:
        nonlocal entries
        entries += 1
        if entries > 1:
            raise StoreError("gone")
        await write(entry)

    scene.audit.write = first_only  # type: ignore[method-assign,assignment]
    await scene.post(f"operations/{CHARGE}/pause", reason="month end")
    (row,) = await scene.audited()
    assert row["outcome"].startswith("not recorded")


async def test_the_audit_stream_is_as_long_as_was_asked_for(scene: Scene) -> None:
    """Two entries of the stream are one change."""
    for number in range(3):
        await scene.post(f"operations/{CHARGE}/pause", reason=f"{number}")
    assert [row["reason"] for row in (await scene.get("audit?limit=2"))["audit"]] == ["2", "1"]
    for wrong in ("0", "1001", "x", "-1"):
        assert (await scene.refused("GET", f"audit?limit={wrong}"))[0] == 422
