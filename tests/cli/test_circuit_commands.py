"""`breaker circuit` against a real admin listener with a real store."""

from collections.abc import AsyncIterator

import pytest

from tests.cli.command import breaker
from tests.web.admin_scene import CHARGE, Scene, admin_scene

WHY = ("--reason", "ledger is down, INC-7")


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def test_a_circuit_is_opened_closed_and_handed_back(scene: Scene) -> None:
    """Four words at 3 a.m.; each says what holds now, and until when."""
    said = await breaker(scene, "circuit", "open", CHARGE, "--for", "1h", *WHY)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{CHARGE}  forced-open, until 20")
    lines = (await breaker(scene, "ops", "list")).out.splitlines()
    assert "forced-open" in lines[1]
    assert "forced-open" not in lines[2]
    shown = (await breaker(scene, "circuit", "show", CHARGE)).out
    assert "ledger is down, INC-7" in shown
    assert "ann" in shown
    said = await breaker(scene, "circuit", "close", CHARGE, *WHY)
    assert said.out == f"{CHARGE}  disabled, until it is handed back\n"
    said = await breaker(scene, "circuit", "auto", CHARGE, *WHY)
    assert said.out == f"{CHARGE}  closed\n"
    assert [(row["author"], row["asked"]["state"]) for row in await scene.audited()] == [
        ("ann", "automatic"), ("ann", "disabled"), ("ann", "forced-open"),
    ]  # fmt: skip


async def test_a_program_reads_a_circuit_as_json(scene: Scene) -> None:
    """One document, whether it was looked at or changed."""
    for words in (("open", CHARGE, *WHY), ("show", CHARGE)):
        found = (await breaker(scene, "circuit", *words, "--json")).json
        assert (found["operation"], found["circuit"]["state"]) == (CHARGE, "forced-open")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("open", CHARGE), 2, "--reason is missing"),
        (("close", CHARGE, "--for", "soon", *WHY), 2, "'expires_in': 'soon'"),
        (("open", "billing.chrage", *WHY), 1, "did you mean 'billing.charge'?"),
        (("show", "billing.chrage"), 1, "did you mean 'billing.charge'?"),
    ],
)
async def test_what_is_wrong_is_named_and_the_circuit_stays(
    scene: Scene, words: tuple[str, ...], status: int, message: str
) -> None:
    """A misspelt name must not open another circuit."""
    said = await breaker(scene, "circuit", *words)
    assert (said.status, said.out, message in said.err) == (status, "", True), said.err
    look = await scene.capacity.look(CHARGE)
    assert (look.circuit.state, look.circuit.generation) == ("closed", 0)
