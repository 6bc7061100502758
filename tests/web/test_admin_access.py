"""Who may use `/admin/v1`, from where, and under which name."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Self

import aiohttp
import pytest
from aiohttp import web

from breaker.core.config import Operator, Role
from breaker.web.admin import AdminListener, admin_app
from breaker.web.listener import bind
from breaker.workers import worker_sockets
from tests.web.admin_scene import CHARGE, Process, Scene, admin_scene

ANN = Operator(id="ann", key_hashes=(sha256(b"ann-key").hexdigest(),), role=Role.OPERATOR)
BOB = Operator(id="bob", key_hashes=("0" * 64, sha256(b"bob-key").hexdigest().upper()), role=Role.VIEWER)
PAUSE = f"operations/{CHARGE}/pause"
WHY = {"reason": "month end"}


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


@pytest.fixture
async def beyond(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    """The same on an address that others can reach."""
    async with admin_scene(store_url, cluster, is_loopback=False) as found:
        yield found


async def test_without_operators_whoever_is_on_this_machine_may(scene: Scene) -> None:
    """The first evening with it must not begin with keys."""
    await scene.post(PAUSE)
    assert (await scene.audited())[0]["author"] == "local"


async def test_without_operators_a_change_has_the_author_who_says_so(scene: Scene) -> None:
    """Two people on one machine are still two."""
    status, _ = await scene.ask("POST", PAUSE, WHY, headers={"Breaker-Author": " ann "})
    assert status == 200
    assert (await scene.audited())[0]["author"] == "ann"


async def test_beyond_loopback_nothing_is_there_without_operators(beyond: Scene) -> None:
    """An open port that can pause billing is not a default."""
    for method, path in (("GET", "operations"), ("POST", PAUSE), ("POST", "reload"), ("GET", "nothing")):
        status, detail = await beyond.refused(method, path, WHY if method == "POST" else None)
        assert status == 404
        assert "`operators`" in detail


@pytest.mark.parametrize("path", ["metrics", "livez", "readyz", "startupz", "status"])
async def test_machines_need_no_key(beyond: Scene, path: str) -> None:
    """Scrapers and probes have none, with operators or without."""
    for operators in ((), (ANN,)):
        beyond.operators = operators
        async with aiohttp.ClientSession() as session, session.get(f"{beyond.url}/{path}") as answer:
            assert answer.status == 200


async def test_with_operators_a_key_is_needed_on_loopback_too(scene: Scene) -> None:
    """Whoever runs something on the gateway's machine is not by that an operator of billing."""
    scene.operators = (ANN, BOB)
    for key in ("", "wrong", "ann-key-and-more"):
        for method, path in (("GET", "operations"), ("POST", PAUSE), ("POST", "reload"), ("GET", "nothing")):
            status, problem = await scene.ask(method, path, key=key)
            assert (status, problem["title"]) == (401, "Unauthorized")
    async with aiohttp.ClientSession() as session, session.get(f"{scene.url}/admin/v1/audit") as answer:
        assert answer.headers["WWW-Authenticate"].startswith("Breaker-Key")
        assert answer.content_type == "application/problem+json"


async def test_an_operator_may_change_and_is_the_author_whatever_they_say(scene: Scene) -> None:
    """The audit stream names the key's owner, not a header."""
    scene.operators = (ANN, BOB)
    status, _ = await scene.ask("POST", PAUSE, WHY, key="ann-key", headers={"Breaker-Author": "bob"})
    assert status == 200
    _, found = await scene.ask("GET", "audit", key="ann-key")
    assert found["audit"][0]["author"] == "ann"


async def test_a_viewer_looks_and_changes_nothing(scene: Scene) -> None:
    """A dashboard's key in the wrong hands pauses nothing, and shows no customer's data."""
    scene.operators = (ANN, BOB)
    job = await scene.accept()
    for path in ("operations", f"operations/{CHARGE}", "jobs", f"jobs/{job}", "dead", "audit"):
        assert (await scene.ask("GET", path, key="bob-key"))[0] == 200, path
    changes = [PAUSE, "reload", "jobs/cancel", "dead/redrive", "dead/purge", f"jobs/{job}/cancel"]
    for method, path in (*(("POST", path) for path in changes), ("GET", f"jobs/{job}?payload=1")):
        status, problem = await scene.ask(method, path, WHY if method == "POST" else None, key="bob-key")
        assert (status, problem["title"]) == (403, "Forbidden"), path
        assert "'bob' is a viewer" in problem["detail"]
    assert await scene.state(job) == "queued"
    assert (await scene.ask("GET", "audit", key="bob-key"))[1]["audit"] == []


async def test_operators_that_come_with_a_reload_count_at_once(scene: Scene) -> None:
    """A key that was taken away opens nothing any more."""
    scene.operators = (ANN,)
    assert (await scene.ask("GET", "jobs", key="ann-key"))[0] == 200
    scene.operators = (BOB,)
    assert (await scene.ask("GET", "jobs", key="ann-key"))[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8081", 200), ("localhost", 200), ("[::1]:8081", 200), ("evil.example:8081", 403), ("", 403)],
)
async def test_without_operators_a_web_page_that_points_its_name_here_is_refused(
    scene: Scene, host: str, status: int
) -> None:
    """DNS rebinding: the browser of somebody on this machine asks, for a page of somebody else's."""
    assert (await scene.ask("GET", "operations", headers={"Host": host}))[0] == status


async def test_what_a_web_page_can_send_unasked_changes_nothing(scene: Scene) -> None:
    """A form can be posted anywhere by any page, but not as JSON."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{scene.url}/admin/v1/{PAUSE}", data='{"reason": "x"}') as answer,
    ):
        assert answer.status == 415
    assert (await scene.desk.look_queue(CHARGE)).held == ""


async def test_files_that_are_wrong_are_told_on_reload(scene: Scene) -> None:
    """The old configuration stays, and the answer says what is wrong with the new one."""
    assert (await scene.ask("POST", "reload"))[1] == {"version": "abc"}
    scene.process.broken = True
    async with aiohttp.ClientSession() as session, session.post(f"{scene.url}/admin/v1/reload") as answer:
        assert answer.status == 422
        assert (await answer.json())["problems"][0]["message"] == "unknown key"


class Parent:
    """The listener of a parent, before one worker that has the scene's controls."""

    def __init__(self, app: web.Application, folder: Path) -> None:
        self._worker = AdminListener(app)
        self._folder = folder
        self.workers = [folder / "gone", folder / "0"]
        self.operators: tuple[Operator, ...] = (ANN, BOB)

    async def __aenter__(self) -> Self:
        callers, admin = worker_sockets("127.0.0.1:0", self._folder / "0")
        callers.close()
        await self._worker.start(admin)
        app = admin_app(
            Process(), is_loopback=False, operators=lambda: self.operators, workers=lambda: self.workers
        )
        self._listener = AdminListener(app)
        socket = bind("127.0.0.1:0", "admin")
        await self._listener.start(socket)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._listener.stop(), self._worker.stop())


async def test_a_parent_of_workers_asks_who_it_is_and_a_worker_does_it(scene: Scene) -> None:
    """`breaker serve --workers 4` is paused like one gateway; a worker that is gone is passed over."""
    scene.operators = (ANN, BOB)
    ids = [await scene.accept() for _ in range(3)]
    assert scene.app is not None
    with tempfile.TemporaryDirectory(prefix="brk-") as folder:
        async with Parent(scene.app, Path(folder)) as parent:
            own, scene.url = scene.url, parent.url
            assert (await scene.ask("GET", "jobs"))[0] == 401
            assert (await scene.ask("POST", PAUSE, WHY, key="bob-key"))[0] == 403
            found = (await scene.ask("GET", "jobs?tenant=acme&limit=2", key="bob-key"))[1]
            assert [job["id"] for job in found["jobs"]] == ids[:2]
            body = {"reason": "gone", "operation": CHARGE, "filter": {}}
            status, lines = await scene.ask("POST", "jobs/cancel", body, key="ann-key")
            assert (status, lines[-1]["stage"], lines[-1]["done"]) == (200, "done", 3)
            status, problem = await scene.ask("POST", f"jobs/{ids[0]}/cancel", {"reason": ""}, key="ann-key")
            assert (status, "'reason' is missing" in problem["detail"]) == (422, True)
            assert (await scene.ask("GET", "audit", key="ann-key"))[1]["audit"][0]["author"] == "ann"
            parent.workers = parent.workers[:1]
            assert (await scene.ask("GET", "jobs", key="ann-key"))[0] == 503
            scene.url = own
