"""Jobs by hand, one at a time: list, show, cancel, move, resolve."""

from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import quote

import pytest

from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, Reason
from breaker.gateway.vault import Vault
from breaker.web import admin_listing
from tests.web.admin_scene import CHARGE, LOOK_UP, REFUND, Scene, admin_scene

NOBODY = f"{CHARGE}~{'0' * 26}"


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def listed(scene: Scene, query: str) -> list[str]:
    """Ids of all pages."""
    found: list[str] = []
    after = ""
    while True:
        page = await scene.get(f"jobs?{query}" + (f"&after={quote(after)}" if after else ""))
        found += [job["id"] for job in page["jobs"]]
        after = page["next"]
        if not after:
            return found


async def test_pages_together_hold_each_job_once(scene: Scene) -> None:
    """Whatever the size of a page, over operations and states."""
    dead = await scene.dead(3)
    unknown = [await scene.accept(REFUND)]
    await scene.run(Fate.UNKNOWN, Reason.AMBIGUOUS, REFUND)
    queued = [await scene.accept(band=band) for band in (Band.LOW, Band.CRITICAL, Band.NORMAL)]
    later = [await scene.accept(not_before_us=scene.capacity.clock.now_us() + 60_000_000)]
    all_of_them = sorted(dead + unknown + queued + later)
    for limit in (1, 2, 3, 1_000):
        assert sorted(await listed(scene, f"limit={limit}")) == all_of_them
    assert await listed(scene, f"operation={CHARGE}&state=queued") == [queued[1], queued[2], queued[0]]
    assert await listed(scene, "state=scheduled") == later
    assert await listed(scene, f"operation={REFUND}") == unknown
    assert await listed(scene, "state=running") == []


async def test_a_filter_finds_its_jobs_and_no_others(scene: Scene) -> None:
    """Each field by itself, and all together."""
    acme, globex = await scene.accept(tenant="acme"), await scene.accept(tenant="globex", band=Band.HIGH)
    other = await scene.accept(tenant="acme", caller="shop")
    assert await listed(scene, "tenant=globex") == [globex]
    assert await listed(scene, "band=normal") == [acme, other]
    assert await listed(scene, "caller=shop") == [other]
    assert await listed(scene, "tenant=acme&band=normal&caller=crm") == [acme]
    assert await listed(scene, "tenant=nobody") == []
    await scene.run(Fate.DEAD, Reason.CALLER)
    poisoned = await scene.dead(1, Reason.POISON)
    assert await listed(scene, "reason=poison") == poisoned
    assert len(await listed(scene, "state=dead&reason=caller")) == 3


async def test_ages_and_moments_bound_what_is_found(scene: Scene) -> None:
    """Before and since meet without a gap and without an overlap."""
    first, second = await scene.accept(), await scene.accept()
    records = [await scene.desk.show(CHARGE, job.partition("~")[2]) for job in (first, second)]
    accepted = [record.head.accepted_us for record in records if record]
    assert await listed(scene, "before=1h") == []
    assert await listed(scene, "since=1h") == [first, second]
    assert await listed(scene, "before=2000-01-01T00:00:00Z") == []
    assert await listed(scene, f"since={quote('2000-01-01T00:00:00+01:00')}") == [first, second]
    only = admin_listing.Filter(before_us=accepted[1])
    since = admin_listing.Filter(since_us=accepted[1])
    heads = [record.head for record in records if record]
    assert [only.passes(head) for head in heads] == [True, False]
    assert [since.passes(head) for head in heads] == [False, True]


async def test_the_age_of_a_dead_job_is_that_of_its_death(scene: Scene) -> None:
    """`--since 1h` finds what died in the last hour, whenever it was accepted."""
    (id_,) = await scene.dead(1)
    record = await scene.desk.show(CHARGE, id_.partition("~")[2])
    assert record is not None
    between = (record.head.accepted_us + record.head.since_us) // 2 + 1
    assert admin_listing.Filter(since_us=between).passes(record.head)
    assert not admin_listing.Filter(before_us=between).passes(record.head)


async def test_a_filter_that_few_pass_makes_short_steps_and_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request looks at a million jobs, however rare what it seeks."""
    monkeypatch.setattr(admin_listing, "STEP", 2)
    monkeypatch.setattr(admin_listing, "LOOK_MAX", 5)
    ids = [await scene.accept(tenant=f"t{number % 4}") for number in range(17)]
    page = await scene.get("jobs?tenant=nobody")
    assert (page["jobs"], page["looked_at"]) == ([], 5)
    assert page["next"]
    assert await listed(scene, "tenant=t3") == ids[3::4]
    assert await listed(scene, "tenant=nobody") == []
    monkeypatch.setattr(admin_listing, "STEP", 100)
    monkeypatch.setattr(admin_listing, "LOOK_MAX", 1_000)
    page = await scene.get("jobs?tenant=t0&limit=2")
    assert [job["id"] for job in page["jobs"]] == [ids[0], ids[4]]
    assert await listed(scene, "tenant=t0&limit=2") == ids[::4]


async def test_a_list_goes_on_where_it_was_when_jobs_leave_meanwhile(scene: Scene) -> None:
    """Whoever cancels what the first page showed must not skip the head of the second."""
    ids = [await scene.accept() for _ in range(4)]
    page = await scene.get("jobs?limit=2")
    for job in page["jobs"]:
        await scene.post(f"jobs/{job['id']}/cancel")
    page = await scene.get(f"jobs?limit=2&after={quote(page['next'])}")
    assert [job["id"] for job in page["jobs"]] == ids[2:]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("state=succeeded", 422, "'state': 'succeeded' is none of running, queued"),
        ("band=urgent", 422, "'band': 'urgent' is none of critical, high, normal, low"),
        ("reason=bad", 422, "'reason'"),
        ("limit=0", 422, "'limit'"),
        ("limit=1001", 422, "'limit'"),
        ("before=yesterday", 422, "'before': 'yesterday' is neither"),
        ("before=2026-01-01T00:00:00", 422, "its zone"),
        ("tennant=acme", 422, "unknown field 'tennant' (did you mean 'tenant'?)"),
        ("after=x/y/z", 422, "'after' is not a cursor"),
        (f"after={CHARGE}/queued/zz", 422, "'after' is not a cursor"),
        ("operation=billing.chrage", 404, "did you mean 'billing.charge'?"),
        (f"operation={LOOK_UP}", 409, "has no queue"),
    ],
)
async def test_a_question_that_is_not_understood_is_refused_by_the_field(
    scene: Scene, query: str, status: int, words: str
) -> None:
    """An ignored filter would show, or cancel, everybody's jobs."""
    found, detail = await scene.refused("GET", f"jobs?{query}")
    assert (found, words in detail) == (status, True), detail


async def test_a_job_is_shown_with_its_history_and_without_its_payload(scene: Scene) -> None:
    """All that on-call needs; what a customer wrote, only on request."""
    await scene.accept()
    (id_,) = await scene.dead(1)
    found = await scene.get(f"jobs/{id_}")
    assert (found["id"], found["state"], found["reason"], found["attempts"]) == (id_, "dead", "budget", 1)
    assert found["timeline"][-1] == {"attempt": 1, "fate": "dead"}
    assert "payload" not in found
    assert "secret" not in str(found)
    assert await scene.audited() == []


async def test_a_waiting_job_says_how_many_are_ahead_and_whether_it_is_held(scene: Scene) -> None:
    """`held` is how a queued job of a paused operation is told."""
    await scene.accept()
    second = await scene.accept()
    later = await scene.accept(not_before_us=scene.capacity.clock.now_us() + 60_000_000)
    found = await scene.get(f"jobs/{second}")
    assert (found["state"], found["ahead"], found["depth"], found["due"]) == ("queued", 1, 3, None)
    found = await scene.get(f"jobs/{later}")
    assert (found["state"], found["due"] is not None) == ("scheduled", True)
    await scene.post(f"operations/{CHARGE}/pause")
    assert (await scene.get(f"jobs/{second}"))["state"] == "held"
    assert (await scene.get(f"jobs/{later}"))["state"] == "scheduled"


async def test_a_payload_is_shown_on_request_and_that_is_written_down(scene: Scene) -> None:
    """Who looked at a customer's data, at which, and why."""
    id_ = await scene.accept(body=b"iban")
    found = await scene.get(f"jobs/{id_}?payload=1&reason=ticket+7")
    assert found["payload"]["request"]["body"] == "iban"
    (row,) = await scene.audited()
    assert (row["action"], row["job"], row["reason"], row["outcome"]) == (
        "jobs.payload", id_, "ticket 7", "shown",
    )  # fmt: skip
    assert "payload" not in await scene.get(f"jobs/{id_}?payload=0")


async def test_a_payload_is_what_was_sent_and_what_came_back(scene: Scene) -> None:
    """Of a dead job both; of one that succeeded the answer alone is kept."""
    request = {
        "method": "POST", "target": "/charge?x=1", "headers": [["Accept", "*/*"]], "request_id": None, "body": "iban",
    }  # fmt: skip
    answer = {
        "status": 422, "headers": [["Content-Type", "text/plain"]], "kept": "whole", "reason": "caller",
        "detail": None, "body_base64": "/25v",
    }  # fmt: skip
    id_ = await scene.accept(body=b"iban")
    assert (await scene.get(f"jobs/{id_}?payload=1"))["payload"] == {"request": request, "answer": None}
    await scene.run(Fate.DEAD, Reason.CALLER)
    assert (await scene.get(f"dead/{id_}?payload=1"))["payload"] == {"request": request, "answer": answer}
    id_ = await scene.accept()
    await scene.run(Fate.SUCCEEDED)
    found = (await scene.get(f"jobs/{id_}?payload=1"))["payload"]
    assert found == {"request": None, "answer": {**answer, "reason": None}}


async def test_a_payload_that_no_key_opens_says_so(scene: Scene) -> None:
    """Whoever asks wants to know why it cannot run; that is no failure of the page."""
    sealing = Vault([("old", b"k" * 32)])
    operation = scene.operations[CHARGE]
    assert operation.queue
    scene.operations[CHARGE] = replace(operation, queue=replace(operation.queue, encrypt=True))
    scene.vault = sealing
    id_ = await scene.accept(body=b"iban")
    assert (await scene.get(f"jobs/{id_}?payload=1"))["payload"]["request"]["body"] == "iban"
    scene.vault = Vault([])
    found = (await scene.get(f"jobs/{id_}?payload=1"))["payload"]
    assert (found["request"], "'old'" in found["unreadable"]) == (None, True)


async def test_a_job_that_waits_is_cancelled_and_one_that_does_not_is_left(scene: Scene) -> None:
    """The answer says which of the two it was; so does the audit stream."""
    waits = await scene.accept()
    assert await scene.post(f"jobs/{waits}/cancel") == {"id": waits, "state": "cancelled"}
    assert await scene.state(waits) == "cancelled"
    runs = await scene.accept()
    await scene.lease()
    status, detail = await scene.refused("POST", f"jobs/{runs}/cancel", {"reason": "x"})
    assert (status, detail.startswith(f"'{runs}' is running")) == (409, True)
    assert (await scene.refused("POST", f"jobs/{NOBODY}/cancel", {"reason": "x"}))[0] == 404
    rows = await scene.audited()
    assert [row["outcome"].partition(":")[0] for row in rows] == ["failed", "failed", "cancelled"]
    assert [row["job"] for row in rows] == [NOBODY, runs, waits]


async def test_a_job_that_waits_is_moved_to_another_band(scene: Scene) -> None:
    """A customer on the phone goes before; a running job cannot."""
    id_ = await scene.accept()
    later = await scene.accept(not_before_us=scene.capacity.clock.now_us() + 60_000_000)
    for job in (id_, later):
        assert (await scene.post(f"jobs/{job}/move", band="critical"))["band"] == "critical"
        assert (await scene.get(f"jobs/{job}"))["band"] == "critical"
    assert (await scene.audited())[0]["asked"] == {"band": "critical"}
    await scene.lease()
    assert (await scene.refused("POST", f"jobs/{id_}/move", {"reason": "x", "band": "low"}))[0] == 409
    for body in ({"reason": "x"}, {"reason": "x", "band": "urgent"}):
        assert (await scene.refused("POST", f"jobs/{later}/move", body))[0] == 422


@pytest.mark.parametrize(
    ("how", "state"),
    [("happened", "succeeded"), ("did-not", "queued"), ("again", "queued"), ("give-up", "dead")],
)
async def test_an_unknown_job_becomes_what_a_person_found_out(scene: Scene, how: str, state: str) -> None:
    """No machine may guess whether a card was charged."""
    id_ = await scene.accept()
    await scene.run(Fate.UNKNOWN, Reason.AMBIGUOUS)
    assert await scene.post(f"jobs/{id_}/resolve", how=how) == {"id": id_, "state": state}
    assert await scene.state(id_) == state
    (row,) = await scene.audited()
    assert (row["asked"], row["outcome"]) == ({"how": how}, f"{how}: {state}")
    assert (await scene.desk.look_queue(CHARGE)).unaccounted == 0


async def test_only_an_unknown_job_is_resolved(scene: Scene) -> None:
    """`again` for a dead one would be a redrive without its canary."""
    (id_,) = await scene.dead(1)
    for how in ("happened", "did-not", "again", "give-up"):
        status, detail = await scene.refused("POST", f"jobs/{id_}/resolve", {"reason": "x", "how": how})
        assert (status, "is dead" in detail) == (409, True)
    assert await scene.state(id_) == "dead"
    for body in ({"reason": "x"}, {"reason": "x", "how": "maybe"}, {"how": "again"}):
        assert (await scene.refused("POST", f"jobs/{id_}/resolve", body))[0] == 422
    assert (await scene.refused("POST", f"jobs/{NOBODY}/resolve", {"reason": "x", "how": "again"}))[0] == 404


@pytest.mark.parametrize("id_", ["x", f"{CHARGE}", f"{CHARGE}~", f"{CHARGE}~123", f"..~{'0' * 26}", NOBODY])
async def test_what_is_no_job_is_not_found(scene: Scene, id_: str) -> None:
    """An id that was cut off by a terminal is told as such, and touches nothing."""
    assert (await scene.refused("GET", f"jobs/{id_}"))[0] == 404
    assert (await scene.refused("GET", f"dead/{id_}"))[0] == 404
    for verb, more in (("cancel", {}), ("move", {"band": "low"}), ("resolve", {"how": "again"})):
        status, _ = await scene.refused("POST", f"jobs/{id_}/{verb}", {"reason": "x", **more})
        assert status == 404
