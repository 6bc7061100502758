"""Limits by hand over the admin API: set for a while, ended early, and written down."""

from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

import pytest

from breaker.core.config import Operator, Role
from breaker.core.errors import StoreError
from breaker.core.model import Capacity, Cost, Limits, Rate
from tests.web.admin_scene import CHARGE, LOOK_UP, Scene, admin_scene

PATH = f"operations/{CHARGE}/override"
MINE = {"reason": "month end", "expires_in": "1h"}
TWENTY = Limits(rate=Rate(limit=20, period_us=1_000_000, burst=40), concurrency=8)


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        found.operations[CHARGE] = replace(found.operations[CHARGE], capacity=Capacity(limits=TWENTY))
        await found.capacity.publish(found.operations, "2")
        yield found


async def test_limits_are_set_for_a_while_and_shown_with_whose_they_are(scene: Scene) -> None:
    """What on-call changed at 3 a.m. is what the morning shift sees, and until when."""
    status, found = await scene.ask(
        "PUT", PATH, {"rate": "40/s", "concurrency": 12, **MINE}, headers={"Breaker-Author": "ann"}
    )
    assert status == 200
    limits, change = found["limits"], found["change"]
    assert change["before"]["words"] == "20/s, burst 40, concurrency 8"
    assert change["after"]["words"] == "40/s, burst 40, concurrency 12"
    assert (change["after"]["per_second"], change["dry_run"]) == (40.0, False)
    assert (limits["source"], limits["stated"], limits["in_force"]) == (
        "override", change["after"], change["after"],
    )  # fmt: skip
    assert limits["file"] == change["before"]
    assert (limits["override"]["author"], limits["override"]["reason"]) == ("ann", "month end")
    assert limits["override"]["until"] == change["until"]
    assert found["queue"]["promise_ms"] == 60_000
    listed = (await scene.get("operations"))["operations"]
    assert [row["limits"]["source"] for row in listed] == ["override", "file", "file"]
    assert listed[1]["limits"]["override"] is None
    (row,) = await scene.audited()
    assert (row["author"], row["action"], row["reason"]) == ("ann", "operations.set", "month end")
    assert row["asked"] == {"rate": "40/s", "concurrency": 12, "until": change["until"]}
    assert row["outcome"] == "20/s, burst 40, concurrency 8 -> 40/s, burst 40, concurrency 12"


async def test_limits_are_ended_early_once(scene: Scene) -> None:
    """Ending what has ended is no error: two people may do it in the same minute."""
    await scene.ask("PUT", PATH, {"burst": 80, **MINE})
    for by_body, outcome in ((True, "20/s, burst 80, concurrency 8 -> 20/s, burst 40, concurrency 8"),
                             (False, "nobody had set limits")):  # fmt: skip
        # Not every proxy passes on the body of a DELETE.
        where = PATH if by_body else PATH + "?reason=over"
        status, found = await scene.ask("DELETE", where, {"reason": "over"} if by_body else None)
        assert status == 200
        assert (found["limits"]["source"], found["limits"]["override"]) == ("file", None)
        assert (found["change"]["after"], found["change"]["until"]) == (found["limits"]["file"], None)
        assert found["change"]["changed"] is by_body
        row = (await scene.audited())[0]
        assert (row["action"], row["reason"], row["outcome"]) == ("operations.unset", "over", outcome)


async def test_a_dry_run_shows_both_sides_and_changes_nothing(scene: Scene) -> None:
    """It needs no reason, and nobody has to read of it in the audit stream."""
    status, found = await scene.ask("PUT", PATH, {"rate": "0/s", "expires_in": "5m", "dry_run": True})
    assert status == 200
    assert found["change"]["after"]["words"] == "closed, concurrency 8"
    assert (found["change"]["dry_run"], found["change"]["changed"]) == (True, False)
    assert (await scene.capacity.look(CHARGE)).source == "file"
    assert await scene.audited() == []


async def test_an_operation_without_limits_is_given_some(scene: Scene) -> None:
    """Where nobody ever stated a limit is where one is needed at 3 a.m."""
    status, found = await scene.ask("PUT", f"operations/{LOOK_UP}/override", {"concurrency": 3, **MINE})
    assert (status, found["change"]["before"]["words"]) == (200, "no limit")
    assert (found["limits"]["in_force"]["words"], found["queue"]) == ("concurrency 3", None)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (MINE, "state one or more of rate, burst, concurrency"),
        ({"rate": "40/s", "expires_in": "1h"}, "'reason' is missing"),
        ({"rate": "40/s", "reason": "x"}, "'expires_in' is missing: say for how long"),
        ({"rate": "40/s", "reason": "x", "expires_in": "0s"}, "more than 0s and at most 30d"),
        ({"rate": "40/s", "reason": "x", "expires_in": "31d"}, "at most 30d: what holds longer belongs into"),
        ({"rate": "40/s", "reason": "x", "expires_in": "soon"}, "'expires_in': 'soon'"),
        ({"rate": 40, **MINE}, "'rate': 40 has no unit; a rate is a whole number per s"),
        ({"rate": "40/sec", **MINE}, "did you mean '40/s'?"),
        ({"burst": 0, **MINE}, "'burst': '0' is no whole number from 1"),
        ({"concurrency": -1, **MINE}, "'concurrency': '-1' is no whole number from 0"),
        ({"concurrency": 1.5, **MINE}, "'concurrency': '1.5'"),
        ({"concurrency": True, **MINE}, "'concurrency': 'True'"),
        ({"rats": "40/s", **MINE}, "unknown field 'rats' (did you mean 'rate'?)"),
        (
            {"rate": "1/week", "burst": 2_000, **MINE},
            "'burst': so many at a rate of 1/week reach more than 31",
        ),
        ({"rate": "40/s", **MINE, "dry_run": "perhaps"}, "'dry_run'"),
    ],
)
async def test_what_is_not_said_right_changes_nothing_and_is_not_written_down(
    scene: Scene, body: object, words: str
) -> None:
    """A limit that nobody meant, or that never ends, is worse than the one before."""
    status, detail = await scene.refused("PUT", PATH, body)
    assert (status, words in detail) == (422, True), detail
    assert (await scene.capacity.look(CHARGE)).source == "file"
    assert await scene.audited() == []


async def test_the_longest_time_is_taken(scene: Scene) -> None:
    """The other side of the bound."""
    assert (await scene.ask("PUT", PATH, {"burst": 80, "reason": "x", "expires_in": "30d"}))[0] == 200


async def test_limits_into_which_a_cost_never_fits_are_refused(scene: Scene) -> None:
    """Every such call would be told that it is its own mistake."""
    capacity = Capacity(cost=Cost(header="Cost", max=50))
    scene.operations[CHARGE] = replace(scene.operations[CHARGE], capacity=capacity)
    await scene.capacity.publish(scene.operations, "3")
    status, detail = await scene.refused("PUT", PATH, {"rate": "40/s", "burst": 49, **MINE})
    assert (status, "a cost of 50 never fits into a burst of 49: say 50 or more" in detail) == (422, True)
    status, detail = await scene.refused("PUT", PATH, {"burst": 60, **MINE})
    assert (status, "'burst' without a rate limits nothing" in detail) == (422, True)
    status, found = await scene.ask("PUT", PATH, {"rate": "40/s", **MINE})
    assert (status, found["change"]["after"]["burst"]) == (200, 50)


async def test_a_name_that_nobody_knows_is_refused(scene: Scene) -> None:
    """The store takes a name that it does not know for a sign that it was emptied."""
    for method, body in (("PUT", {"burst": 80, **MINE}), ("DELETE", {"reason": "x"})):
        status, detail = await scene.refused(method, "operations/billing.chrage/override", body)
        assert (status, "did you mean 'billing.charge'?" in detail) == (404, True)
    assert await scene.audited() == []


async def test_viewers_look_and_operators_change(scene: Scene) -> None:
    """As for all that is done by hand; the author is the operator, whatever a header says."""
    scene.operators = tuple(
        Operator(id=name, key_hashes=(sha256(name.encode()).hexdigest(),), role=role)
        for name, role in (("vic", Role.VIEWER), ("olga", Role.OPERATOR))
    )
    body = {"burst": 80, **MINE}
    assert (await scene.ask("PUT", PATH, body, key="vic"))[0] == 403
    assert (await scene.ask("DELETE", PATH, {"reason": "x"}, key="vic"))[0] == 403
    status, found = await scene.ask("PUT", PATH, body, key="olga", headers={"Breaker-Author": "eve"})
    assert (status, found["limits"]["override"]["author"]) == (200, "olga")


async def test_limits_that_cannot_be_written_down_are_not_set(scene: Scene) -> None:
    """Nobody could ever find out who opened the gate."""

    async def lost(*_: object) -> None:
        raise StoreError("gone")

    scene.audit.write = lost  # type: ignore[method-assign,assignment]
    status, _ = await scene.refused("PUT", PATH, {"burst": 80, **MINE})
    assert status == 503
    assert (await scene.capacity.look(CHARGE)).source == "file"


async def test_how_long_a_job_waits_stands_beside_its_promise(scene: Scene) -> None:
    """Whether a promise holds is the first question; while it is paused nobody can say."""
    await scene.accept()
    await scene.ask("PUT", PATH, {"concurrency": 0, **MINE})
    queue = (await scene.get(f"operations/{CHARGE}"))["queue"]
    assert (queue["promise_ms"], queue["eta_ms"]["normal"]) == (60_000, 2_000)
    await scene.post(f"operations/{CHARGE}/pause")
    queue = (await scene.get(f"operations/{CHARGE}"))["queue"]
    assert set(queue["eta_ms"].values()) == {None}
