"""`breaker ops set` and `unset` against a real admin listener with a real store."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from breaker.core.model import Capacity, Limits, Rate
from tests.cli.command import breaker
from tests.web.admin_scene import CHARGE, Scene, admin_scene

WHY = ("--reason", "month end")
TWENTY = Limits(rate=Rate(limit=20, period_us=1_000_000, burst=40), concurrency=8)


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        found.operations[CHARGE] = replace(found.operations[CHARGE], capacity=Capacity(limits=TWENTY))
        await found.capacity.publish(found.operations, "2")
        yield found


async def test_limits_are_tried_set_seen_and_ended(scene: Scene) -> None:
    """The one command that a page names; each step says what holds, and until when."""
    words = ("ops", "set", CHARGE, "rate=40/s", "burst=80", "concurrency=12", "--for", "1h")
    before, after = "20/s, burst 40, concurrency 8", "40/s, burst 80, concurrency 12"
    said = await breaker(scene, *words, "--dry-run")
    assert said.out.startswith(f"{CHARGE}  {before} -> {after}, until 20")
    assert said.out.endswith("Z  (nothing was changed)\n")
    assert (await scene.capacity.look(CHARGE)).source == "file"
    said = await breaker(scene, *words, *WHY)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{CHARGE}  {before} -> {after}, until 20")
    assert said.out.endswith("Z\n")
    lines = (await breaker(scene, "ops", "list")).out.splitlines()
    assert "override by ann until 20" in lines[1]
    assert lines[2].split("  ")[0] != CHARGE
    assert "override" not in lines[2]
    shown = (await breaker(scene, "ops", "show", CHARGE)).out
    assert "month end" in shown
    said = await breaker(scene, "ops", "unset", CHARGE, *WHY)
    assert (said.status, said.out) == (0, f"{CHARGE}  {after} -> {before}\n")
    said = await breaker(scene, "ops", "unset", CHARGE, *WHY)
    assert (said.status, said.out) == (0, f"{CHARGE}  {before} -> {before}  (nothing was changed)\n")
    assert [row["action"] for row in await scene.audited()] == ["operations.unset"] * 2 + ["operations.set"]
    assert {row["author"] for row in await scene.audited()} == {"ann"}


async def test_a_program_reads_what_was_set_as_json(scene: Scene) -> None:
    """One document, with what was and what is."""
    found = (await breaker(scene, "ops", "set", CHARGE, "burst=80", "--for", "5m", *WHY, "--json")).json
    assert (found["change"]["before"]["burst"], found["change"]["after"]["burst"]) == (40, 80)
    assert found["limits"]["override"]["reason"] == "month end"
    found = (await breaker(scene, "ops", "unset", CHARGE, *WHY, "--json")).json
    assert (found["limits"]["source"], found["change"]["after"]["burst"]) == ("file", 40)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("set", CHARGE, "rats=40/s", "--for", "1h", *WHY), 2, "'rats' is no limit (did you mean 'rate'?)"),
        (("set", CHARGE, "40/s", "--for", "1h", *WHY), 2, "'40/s' is no KEY=VALUE, such as rate=40/s"),
        (("set", CHARGE, "rate=", "--for", "1h", *WHY), 2, "'rate=' is no KEY=VALUE"),
        (("set", CHARGE, "burst=1", "burst=2", "--for", "1h", *WHY), 2, "'burst' is said twice"),
        (("set", CHARGE, "rate=40/s", *WHY), 2, "--for is missing: say for how long"),
        (("set", CHARGE, "rate=40/s", "--for", "1h"), 2, "--reason is missing"),
        (("set", CHARGE, "rate=40/sec", "--for", "1h", *WHY), 2, "did you mean '40/s'?"),
        (
            ("set", CHARGE, "concurrency=some", "--for", "1h", *WHY),
            2,
            "'concurrency': 'some' is no whole number",
        ),
        (("set", CHARGE, "rate=40/s", "--for", "31d", *WHY), 2, "at most 30d"),
        (("set", "billing.chrage", "rate=40/s", "--for", "1h", *WHY), 1, "did you mean 'billing.charge'?"),
        (("unset", CHARGE), 2, "--reason is missing"),
        (("unset", "billing.chrage", *WHY), 1, "did you mean 'billing.charge'?"),
    ],
)
async def test_what_is_wrong_is_named_and_the_limits_stay(
    scene: Scene, words: tuple[str, ...], status: int, message: str
) -> None:
    """At 3 a.m. a typing mistake must say what was meant, and open nothing."""
    said = await breaker(scene, "ops", *words)
    assert (said.status, said.out, message in said.err) == (status, "", True), said.err
    assert (await scene.capacity.look(CHARGE)).source == "file"
