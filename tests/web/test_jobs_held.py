"""What callers are told of jobs, and of calls, while nothing goes to an ill downstream."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from breaker.store.circuit_posts import ByHand
from tests.gateway.gateway_process import Start
from tests.web.described import validator
from tests.web.job_scene import WORK, Scene, document, job_scene

MINUTE_US = 60_000_000


async def force(scene: Scene, word: ByHand) -> None:
    assert scene.served.process is not None
    await scene.served.process.store.circuits.force(WORK, word, 0, "ann", "555-1234")


async def report(scene: Scene, *, failed: int = 0, pause_us: int = 0) -> None:
    """What a replica says of the downstream: so many calls failed, or it answered 429."""
    assert scene.served.process is not None
    store = scene.served.process.store
    await store.coalescer.run(
        store.lane(WORK), "report", b"", "R0000001", 0, failed, failed, 0, failed, 0, pause_us, 500, b"", 0
    )


async def of_work(scene: Scene) -> Any:
    """The operation in the catalogue."""
    told = json.loads((await scene.own("GET", "/v1/operations")).body)
    return next(one for one in told["operations"] if one["name"] == WORK)


async def test_jobs_say_that_a_circuit_holds_them_and_go_on_when_it_does_not(start_gateway: Start) -> None:
    """A caller that polls sees why nothing moves; it need not ask on-call."""
    async with job_scene(start_gateway) as scene:
        scene.desk.open.set()
        await force(scene, ByHand.FORCED_OPEN)
        told = await scene.call("1")
        job = document(told)
        assert (told.status, job["state"], job["held"], job["eta"]) == (202, "held", "circuit", None)
        shown = await scene.job(job["id"])
        assert (shown["state"], shown["held"], shown["attempts"], shown["position"]) == (
            "held",
            "circuit",
            0,
            0,
        )
        described = json.loads((await scene.own("GET", "/openapi.json")).body)
        schema = validator(described, {"$ref": "#/components/schemas/Job"})
        assert schema.is_valid(job)
        assert schema.is_valid(shown)
        assert scene.desk.seen == []
        now = (await of_work(scene))["now"]
        assert (now["circuit"]["state"], now["circuit"]["until"]) == ("forced-open", None)
        assert now["queue"]["bands"]["normal"]["eta"] is None
        assert "555-1234" not in json.dumps(now)
        assert "ann" not in json.dumps(now["circuit"])
        await force(scene, ByHand.DISABLED)
        ended = await scene.ended(job["id"])
        assert (ended["state"], ended["attempts"], "held" in ended) == ("succeeded", 1, False)


async def test_jobs_say_that_their_downstream_asked_for_time(start_gateway: Start) -> None:
    """That is no outage, and looks like none."""
    async with job_scene(start_gateway) as scene:
        await report(scene, pause_us=MINUTE_US)
        job = document(await scene.call("1"))
        assert (job["state"], job["held"]) == ("held", "slow-down")
        now = (await of_work(scene))["now"]
        assert (now["circuit"]["state"], now["circuit"]["pause_until"] is None) == ("closed", False)
        assert now["queue"]["bands"]["normal"]["eta"] is None


async def test_a_scheduled_job_is_scheduled_whatever_its_circuit_does(start_gateway: Start) -> None:
    """It does not wait for the downstream yet."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with job_scene(start_gateway) as scene:
        await force(scene, ByHand.FORCED_OPEN)
        job = document(await scene.call("1", f"Breaker-Not-Before: {tomorrow:%Y-%m-%dT%H:%M:%SZ}"))
        assert (job["state"], "held" in job) == ("scheduled", False)


@pytest.mark.parametrize(("expires", "status"), [("1s", 503), ("1m", 202)])
async def test_a_job_that_could_not_start_in_time_is_refused_by_the_circuit(
    start_gateway: Start, expires: str, status: int
) -> None:
    """Work that would only wait for its own end is better told so at once; and the contract says so."""
    async with job_scene(start_gateway) as scene:
        await report(scene, failed=10)
        told = await scene.call("1", f"Breaker-Expires-In: {expires}")
        assert told.status == status
        if status == 503:
            assert (told.problem["type"], told.problem["policy"]) == ("/docs#circuit-open", "circuit")
            assert 3_000 < told.problem["retry_after_ms"] <= 7_000
            described = json.loads((await scene.own("GET", "/openapi.json")).body)
            given = described["paths"]["/desk/tasks/{id}"]["post"]["responses"]["503"]
            assert "`circuit-open`" in given["description"]
