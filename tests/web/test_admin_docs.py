"""The manual of the admin API is that of the admin API."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from breaker.gateway import redrive
from breaker.web import admin_jobs, admin_listing, admin_stream
from tests.web.admin_scene import Scene, admin_scene

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text(encoding="utf-8")


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


def paths_of(app: web.Application) -> set[str]:
    """`METHOD path` of each route below `/admin/v1`."""
    found = set()
    for route in app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if route.method != "HEAD" and path.startswith("/admin/v1/"):
            found.add(f"{route.method} {path.removeprefix('/admin/v1/')}")
    return found


async def test_every_path_is_documented_and_exists(scene: Scene) -> None:
    """On-call reads the manual when the console is what does not work."""
    assert scene.app is not None
    documented = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [a-z/{}]+)` \|", PAGE, re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == paths_of(scene.app)


def test_the_words_and_bounds_of_the_manual_are_those_of_the_code() -> None:
    """A filter that the manual forgot is never used; a bound that it gets wrong is believed."""
    assert set(re.findall(r"`(\w+)`", PAGE.partition("**The filter** is ")[2].partition(":")[0])) == set(
        admin_listing.FILTER
    )
    states = PAGE.partition("`state` (")[2].partition(")")[0]
    assert set(re.findall(r"`(\w+)`", states)) == {str(state) for state in admin_listing.LISTED}
    hows = PAGE.partition("`how` says")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", hows)) == set(admin_jobs.How)
    stages = PAGE.partition("of the last line is ")[2].partition("with a `detail`")[0]
    assert set(re.findall(r"`(\w+)`", stages)) - {"dry_run"} == set(admin_stream.LAST)
    for bound in (
        f"looks at {admin_listing.LOOK_MAX:,} jobs", f"steps of {admin_listing.STEP} jobs",
        f"up to {redrive.WAVE_MAX},", f"`rate` (`{redrive.RATE:.0f}/s`)", f"within {redrive.WAVE_WAIT_S / 60:.0f} minutes",
        f"the last `limit` ({admin_jobs.PAGE})",
    ):  # fmt: skip
        assert bound in PAGE
