"""`breaker jobs`, `dead` and `ops` against a real admin listener with a real store."""

import asyncio
import os
import pty
import signal
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from breaker.core.config import Operator, Role
from breaker.core.jobs import Fate, JobState, Reason
from breaker.web import admin_listing, admin_stream
from tests.cli.command import breaker, start
from tests.web.admin_scene import CHARGE, LOOK_UP, REFUND, Scene, admin_scene

WHY = ("--reason", "month end")


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def test_jobs_are_listed_in_columns_that_a_program_can_cut(scene: Scene) -> None:
    """`breaker jobs list | awk '{print $1}'` must give whole ids, however wide the terminal is said to be."""
    ids = [await scene.accept(tenant="a-tenant-with-a-rather-long-name") for _ in range(2)]
    said = await breaker(scene, "jobs", "list", COLUMNS="40")
    lines = said.out.splitlines()
    assert (said.status, said.err) == (0, "")
    assert lines[0].split() == [
        "ID",
        "STATE",
        "BAND",
        "TENANT",
        "CALLER",
        "ATTEMPTS",
        "ACCEPTED",
        "SINCE",
        "FAILURE",
    ]
    assert [line.split()[:4] for line in lines[1:]] == [
        [id_, "queued", "normal", "a-tenant-with-a-rather-long-name"] for id_ in ids
    ]
    assert "\x1b" not in said.out


async def test_a_list_is_as_long_as_was_asked_for_and_says_where_it_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few jobs a page of the gateway holds."""
    monkeypatch.setattr(admin_listing, "LOOK_MAX", 2)
    ids = [await scene.accept() for _ in range(7)]
    first = (await breaker(scene, "jobs", "list", "--json", "--limit", "5")).json
    assert [job["id"] for job in first["jobs"]] == ids[:5]
    said = await breaker(scene, "jobs", "list", "--limit", "5")
    assert f"--after '{first['next']}'" in said.err
    rest = (await breaker(scene, "jobs", "list", "--json", "--after", first["next"])).json
    assert ([job["id"] for job in rest["jobs"]], rest["next"]) == (ids[5:], None)


async def test_each_filter_of_the_command_line_reaches_the_gateway(scene: Scene) -> None:
    """One that is lost on the way would show, or cancel, everybody's."""
    id_ = await scene.accept()
    (dead,) = await scene.dead(1, Reason.POISON, operation=REFUND)
    for fits, not_so in (
        (("--tenant", "acme"), ("--tenant", "x")), (("--band", "normal"), ("--band", "low")),
        (("--caller", "crm"), ("--caller", "x")), (("--since", "1h"), ("--before", "1h")),
        (("--operation", CHARGE), ("--operation", REFUND)), (("--state", "queued"), ("--state", "running")),
    ):  # fmt: skip
        base = ("jobs", "list", "--json") + (() if fits[0] == "--state" else ("--state", "queued"))
        assert [job["id"] for job in (await breaker(scene, *base, *fits)).json["jobs"]] == [id_], fits
        assert (await breaker(scene, *base, *not_so)).json["jobs"] == [], not_so
    for failure, found in (("poison", [dead]), ("caller", [])):
        said = await breaker(scene, "dead", "list", "--json", "--failure", failure)
        assert [job["id"] for job in said.json["jobs"]] == found


async def test_a_job_is_shown_with_its_payload_only_when_asked(scene: Scene) -> None:
    """And whoever asks stands in the audit stream."""
    (id_,) = await scene.dead(1)
    for group in ("jobs", "dead"):
        said = await breaker(scene, group, "show", id_)
        assert said.status == 0
        assert "secret" not in said.out
        assert '{"attempt": 1, "fate": "dead"}' in said.out
        assert (await breaker(scene, group, "show", id_, "--json")).json["id"] == id_
        said = await breaker(scene, group, "show", id_, "--payload", *WHY, "--json")
        assert said.json["payload"]["request"]["body"] == "secret"
        (row, *_) = await scene.audited()
        assert (row["author"], row["reason"]) == ("ann", "month end")


async def test_jobs_are_cancelled_by_their_ids_and_one_that_cannot_be_stops_no_other(scene: Scene) -> None:
    """The exit status says that not all was done, stderr which and why."""
    runs = await scene.accept()
    await scene.lease()
    first, second = await scene.accept(), await scene.accept()
    said = await breaker(scene, "jobs", "cancel", first, runs, second, *WHY)
    assert (said.status, said.out) == (1, f"{first}  cancelled\n{second}  cancelled\n")
    assert f"'{runs}' is running" in said.err
    assert await scene.states([runs, first, second]) == ["running", "cancelled", "cancelled"]
    said = await breaker(scene, "jobs", "cancel", runs, *WHY, "--json")
    assert (said.status, said.json["jobs"], said.json["problems"][0]["id"]) == (1, [], runs)


async def test_jobs_are_cancelled_by_a_filter(scene: Scene) -> None:
    """First counted, then done; what was counted is what is done."""
    ids = [await scene.accept(tenant=tenant) for tenant in ("acme", "globex", "acme")]
    scope = ("jobs", "cancel", "--operation", CHARGE, "--tenant", "acme")
    said = await breaker(scene, *scope, "--dry-run")
    assert (said.status, said.out) == (0, "2 jobs would be cancelled\n")
    assert await scene.states(ids) == ["queued"] * 3
    said = await breaker(scene, *scope, *WHY)
    assert (said.status, said.out, said.err) == (0, "2 of 2 jobs cancelled\n", "")
    assert await scene.states(ids) == ["cancelled", "queued", "cancelled"]
    said = await breaker(scene, "jobs", "cancel", "--operation", CHARGE, "--all", *WHY, "--json")
    assert said.json == {"stage": "done", "done": 1, "skipped": 0, "total": 1}


async def test_jobs_are_moved_by_id_and_by_filter(scene: Scene) -> None:
    """The band that is meant, and the band in which they are, are two things."""
    first, second = await scene.accept(), await scene.accept()
    said = await breaker(scene, "jobs", "move", first, "--to", "high", *WHY)
    assert (said.status, said.out) == (0, f"{first}  high\n")
    said = await breaker(
        scene, "jobs", "move", "--operation", CHARGE, "--band", "normal", "--to", "low", *WHY
    )
    assert (said.status, said.out) == (0, "1 of 1 jobs moved\n")
    assert [(await scene.get(f"jobs/{id_}"))["band"] for id_ in (first, second)] == ["high", "low"]


async def test_an_unknown_job_is_resolved(scene: Scene) -> None:
    """What a person found out, several at once."""
    ids = [await scene.accept() for _ in range(2)]
    await scene.run(Fate.UNKNOWN, Reason.AMBIGUOUS)
    said = await breaker(scene, "jobs", "resolve", *ids, "--how", "happened", *WHY)
    assert (said.status, await scene.states(ids)) == (0, ["succeeded"] * 2)


async def test_dead_letters_are_redriven_and_purged(scene: Scene) -> None:
    """The exit status of a redrive that stopped is its own: nothing broke, and not all was done."""
    await scene.dead(3, Reason.BUDGET)

    async def run(fate: Fate, reason: str) -> None:
        while True:
            await scene.run(fate, reason)
            await asyncio.sleep(0.002)

    scope = ("--operation", CHARGE, "--failure", "budget")
    said = await breaker(scene, "dead", "redrive", *scope, "--dry-run")
    assert said.out == "3 jobs would be redriven\n"
    running = asyncio.create_task(run(Fate.DEAD, Reason.BUDGET))
    said = await breaker(scene, "dead", "redrive", *scope, "--rate", "1000/s", *WHY)
    assert (said.status, said.out) == (3, "1 of 3 jobs redriven, 1 failed\n")
    assert "stopped before the end" in said.err
    assert "budget" in said.err
    running.cancel()
    running = asyncio.create_task(run(Fate.SUCCEEDED, ""))
    said = await breaker(scene, "dead", "redrive", *scope, "--tenant", "acme", "--rate", "1000/s", *WHY)
    running.cancel()
    assert (said.status, said.out) == (0, "3 of 3 jobs redriven, 3 succeeded\n")
    await scene.dead(2)
    said = await breaker(scene, "dead", "purge", "--operation", CHARGE, "--all", *WHY)
    assert (said.status, said.out) == (0, "2 of 2 jobs purged\n")


async def test_operations_are_held_and_shown(scene: Scene) -> None:
    """Who holds it and why stands in the list, where the next person looks first."""
    said = await breaker(scene, "ops", "pause", CHARGE, "--for", "2h", *WHY)
    assert (said.status, said.out.startswith(f"{CHARGE}  paused, until 20")) == (0, True)
    lines = (await breaker(scene, "ops", "list")).out.splitlines()
    assert lines[1].startswith(CHARGE)
    assert lines[1].endswith("paused by ann: month end")
    assert lines[3].split()[:2] == [LOOK_UP, "throttle"]
    assert "author       ann" in (await breaker(scene, "ops", "show", CHARGE)).out.replace(
        "author  ", "author       "
    )
    said = await breaker(scene, "ops", "drain", CHARGE, *WHY)
    assert said.out == f"{CHARGE}  draining, until it is resumed\n"
    said = await breaker(scene, "ops", "resume", CHARGE, *WHY, "--json")
    assert said.json["queue"]["held"] is None
    assert [row["asked"].get("until") is None for row in await scene.audited()] == [True, True, False]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("jobs", "cancel", "--operation", CHARGE, "--all"), 2, "--reason is missing"),
        (("jobs", "cancel", *WHY), 2, "their ids, or --operation"),
        (("jobs", "cancel", "--tenant", "acme", *WHY), 2, "their ids, or --operation"),
        (("jobs", "cancel", "--operation", CHARGE, *WHY), 2, "or --all"),
        (("jobs", "cancel", "--operation", CHARGE, "--tenant", "a", "--all", *WHY), 2, "leave it out"),
        (("jobs", "cancel", "x", "--operation", CHARGE, *WHY), 2, "not both"),
        (("jobs", "cancel", "x", "--dry-run"), 2, "--dry-run"),
        (("jobs", "move", "x", *WHY), 2, "--to is missing"),
        (("jobs", "move", f"{CHARGE}~{'0' * 26}", "--to", "top", *WHY), 2, "'band': 'top' is none of"),
        (("jobs", "resolve", "x", *WHY), 2, "--how is missing"),
        (("jobs", "list", "--band", "top"), 2, "'band': 'top' is none of"),
        (("jobs", "show", "x"), 1, "'x' is no job id"),
        (("dead", "purge", "--operation", CHARGE, *WHY), 2, "or --all"),
        (
            ("dead", "redrive", "--operation", "billing.chrage", "--all", *WHY),
            1,
            "did you mean 'billing.charge'?",
        ),
        (("dead", "redrive", "--operation", CHARGE, "--all", "--rate", "9", *WHY), 2, "a rate is"),
        (("ops", "pause", CHARGE), 2, "--reason is missing"),
        (("ops", "pause", CHARGE, "--for", "soon", *WHY), 2, "'expires_in': 'soon'"),
        (("ops", "pause", LOOK_UP, *WHY), 1, "has no queue"),
        (("ops", "show", "billing.chrage"), 1, "did you mean 'billing.charge'?"),
    ],
)
async def test_what_is_wrong_is_named_with_the_way_out(
    scene: Scene, words: tuple[str, ...], status: int, message: str
) -> None:
    """And nothing is changed; 2 says that the command line is to be mended."""
    id_, (dead,) = await scene.accept(REFUND), await scene.dead(1)
    said = await breaker(scene, *words)
    assert (said.status, said.out, message in said.err) == (status, "", True), said.err
    assert said.err.count("\n") == 1
    assert await scene.states([id_, dead]) == ["queued", "dead"]
    assert (await scene.desk.look_queue(CHARGE)).held == ""


async def test_an_operators_key_is_read_from_its_file(scene: Scene, tmp_path: Path) -> None:
    """Not from the command line, where everybody on the machine could read it."""
    scene.operators = (Operator(id="bob", key_hashes=(sha256(b"the-key").hexdigest(),), role=Role.OPERATOR),)
    said = await breaker(scene, "jobs", "list")
    assert (said.status, "--key-file" in said.err) == (1, True)
    key = tmp_path / "key"
    key.write_text("the-key\n")
    assert (await breaker(scene, "jobs", "list", "--key-file", str(key))).status == 0
    said = await breaker(scene, "ops", "pause", CHARGE, *WHY, BREAKER_OPERATOR_KEY_FILE=str(key))
    assert said.status == 0
    assert (await scene.desk.look_queue(CHARGE)).held_author == "bob"
    for content, message in ((None, "cannot be read"), ("", "holds no key"), ("a\nb", "holds no key")):
        key.unlink(missing_ok=True)
        if content is not None:
            key.write_text(content)
        said = await breaker(scene, "jobs", "list", "--key-file", str(key))
        assert (said.status, message in said.err, str(key) in said.err) == (2, True, True)


async def test_on_a_terminal_there_is_a_table_and_no_tenant_steers_it(scene: Scene) -> None:
    """A customer who names herself with an escape sequence does not clear on-call's screen."""
    await scene.accept(tenant="evil", caller="\x1b[2J[red]x")
    ours, its = pty.openpty()
    process = await start("jobs", "list", "--admin", scene.url, stdout=its, stderr=its)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    os.close(its)
    shown = (await asyncio.to_thread(os.read, ours, 65_536)).decode()
    os.close(ours)
    assert "\x1b[1m" in shown
    assert "\x1b[2J" not in shown
    assert r"\x1b[2J[red]x" in shown


async def test_breaking_off_stops_the_work_on_the_gateway_and_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is how a person says that it was too much."""
    monkeypatch.setattr(admin_stream, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(admin_listing, "STEP", 2)
    ids = [await scene.accept() for _ in range(6)]
    cancel, at_work, go_on = scene.desk.cancel, asyncio.Event(), asyncio.Event()

    async def slowly(operation: str, job: str) -> JobState | None:
        at_work.set()
        await go_on.wait()
        return await cancel(operation, job)

    scene.desk.cancel = slowly  # type: ignore[method-assign]
    pipe = asyncio.subprocess.PIPE
    words = ("jobs", "cancel", "--operation", CHARGE, "--all", *WHY, "--admin", scene.url)
    process = await start(*words, stdout=pipe, stderr=pipe)
    await asyncio.wait_for(at_work.wait(), 30)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err.decode().startswith("breaker: broken off")) == (130, True), err
    await scene.until_hung_up()
    go_on.set()
    while (await scene.audited())[0]["outcome"].startswith("not recorded"):
        await asyncio.sleep(0.005)
    assert await scene.states(ids) == ["cancelled"] * 2 + ["queued"] * 4
