"""What the admin listener says of circuits, and opening, closing and handing them back."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

import pytest

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, CircuitPolicy
from breaker.core.config import Operator, Role
from breaker.core.errors import StoreError
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.store.capacity import CircuitLook
from breaker.web.admin import status_of
from breaker.web.admin_views import circuit_view
from tests.web.admin_scene import CHARGE, LOOK_UP, REFUND, Scene, admin_scene

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PATH = f"operations/{CHARGE}/circuit"
SECOND = 1_000_000


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def test_a_forced_circuit_says_who_why_and_until_when(scene: Scene) -> None:
    """Whoever finds a downstream cut off must not have to ask around."""
    found = (await scene.post(PATH, state="forced-open", reason="INC-7", expires_in="2h"))["circuit"]
    assert (found["mode"], found["state"], found["author"], found["reason"]) == (
        "enforce", "forced-open", "local", "INC-7",
    )  # fmt: skip
    assert MOMENT.fullmatch(found["until"])
    assert MOMENT.fullmatch(found["since"])
    look = (await scene.capacity.look(CHARGE)).circuit
    assert look.until_us - look.since_us == pytest.approx(7_200 * SECOND, abs=2 * SECOND)
    assert (await scene.get(PATH))["circuit"] == found
    assert (await scene.get(f"operations/{CHARGE}"))["circuit"] == found
    states = {
        row["operation"]: row["circuit"]["state"] for row in (await scene.get("operations"))["operations"]
    }
    assert states == {CHARGE: "forced-open", REFUND: "closed", LOOK_UP: "closed"}


async def test_the_status_page_shows_the_same(scene: Scene) -> None:
    """It needs no key, and is what is open on the wall."""
    found = (await scene.post(PATH, state="forced-open", reason="INC-7"))["circuit"]
    look, now_us = await scene.capacity.look(CHARGE), scene.capacity.clock.now_us()
    told = status_of(scene.operations[CHARGE], look, None, now_us)
    assert told is not None
    assert (told["circuit"], told["in_use"], told["queue"]) == (found, 0, None)
    assert status_of(scene.operations[CHARGE], None, None, now_us) is None


async def test_what_was_done_stands_in_the_audit_stream(scene: Scene) -> None:
    """Before and after, and with what came of it."""
    await scene.post(PATH, state="disabled", reason="false alarm")
    await scene.post(PATH, state="automatic", reason="done")
    later, earlier = await scene.audited()
    assert (earlier["action"], earlier["operation"], earlier["reason"]) == (
        "operations.circuit", CHARGE, "false alarm",
    )  # fmt: skip
    assert (earlier["asked"], earlier["outcome"]) == (
        {"state": "disabled", "until": None}, "closed -> disabled",
    )  # fmt: skip
    assert (later["asked"]["state"], later["outcome"]) == ("automatic", "disabled -> closed")


async def test_a_forced_circuit_holds_jobs_and_refuses_calls(scene: Scene) -> None:
    """The word of a person reaches the downstream's side, and a disabled circuit lets through again."""
    lane = scene.capacity.lane(LOOK_UP)
    for path in (PATH, f"operations/{LOOK_UP}/circuit"):
        await scene.post(path, state="forced-open")
    job = await scene.accept()
    assert await scene.lease() == ()
    shown = await scene.get(f"jobs/{job}")
    assert (shown["state"], shown["held"]) == ("held", "circuit")
    verdict = await scene.capacity.admit(lane, Ask(id="AAAAAAAA.00000001"))
    assert isinstance(verdict, Refused)
    assert verdict.policy is Policy.CIRCUIT
    for path in (PATH, f"operations/{LOOK_UP}/circuit"):
        await scene.post(path, state="disabled")
    shown = await scene.get(f"jobs/{job}")
    assert (shown["state"], shown["held"]) == ("queued", None)
    assert [f"{CHARGE}~{leased.head.id}" for leased in await scene.lease()] == [job]
    assert isinstance(await scene.capacity.admit(lane, Ask(id="AAAAAAAA.00000002")), Admitted)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"state": "forced-open"}, "'reason' is missing"),
        ({"reason": "x"}, "'state' is missing: one of forced-open, disabled, automatic"),
        ({"state": "open", "reason": "x"}, "'state': 'open' is none of forced-open"),
        ({"state": "forced-open", "reason": "x", "expires": "1h"}, "did you mean 'expires_in'?"),
        ({"state": "forced-open", "reason": "x", "expires_in": "soon"}, "'expires_in': 'soon'"),
        ({"state": "forced-open", "reason": "x", "expires_in": "0s"}, "more than 0s"),
        ({"state": "automatic", "reason": "x", "expires_in": "1h"}, "'expires_in'"),
    ],
)
async def test_a_word_that_is_not_said_right_changes_nothing(scene: Scene, body: object, words: str) -> None:
    """A misspelt length must not cut a downstream off for ever."""
    status, detail = await scene.refused("POST", PATH, body)
    assert status == 422
    assert words in detail
    assert (await scene.capacity.look(CHARGE)).circuit.generation == 0


async def test_operations_without_a_circuit_say_so(scene: Scene) -> None:
    """Neither a name that nobody knows nor one that is switched off is silently taken."""
    for method, body in (("GET", None), ("POST", {"state": "disabled", "reason": "x"})):
        status, detail = await scene.refused(method, "operations/billing.chrage/circuit", body)
        assert (status, "did you mean 'billing.charge'?" in detail) == (404, True)
    scene.operations[CHARGE] = replace(scene.operations[CHARGE], circuit=CircuitPolicy(mode=CircuitMode.OFF))
    await scene.capacity.publish(scene.operations, "2")
    found = (await scene.get(PATH))["circuit"]
    assert (found["mode"], found["state"], found["since"]) == ("off", "disabled", None)
    status, detail = await scene.refused("POST", PATH, {"state": "forced-open", "reason": "x"})
    assert (status, "`circuit: off`" in detail) == (409, True)
    assert await scene.audited() == []


async def test_viewers_look_and_operators_change(scene: Scene) -> None:
    """As for all that is done by hand; the author is the operator, whatever a header says."""
    scene.operators = tuple(
        Operator(id=name, key_hashes=(sha256(name.encode()).hexdigest(),), role=role)
        for name, role in (("vic", Role.VIEWER), ("olga", Role.OPERATOR))
    )
    body = {"state": "forced-open", "reason": "x"}
    assert (await scene.ask("GET", PATH, key="vic"))[0] == 200
    assert (await scene.ask("POST", PATH, body, key="vic"))[0] == 403
    status, found = await scene.ask("POST", PATH, body, key="olga", headers={"Breaker-Author": "eve"})
    assert (status, found["circuit"]["author"]) == (200, "olga")


async def test_a_word_that_cannot_be_written_down_is_not_said(scene: Scene) -> None:
    """Nobody could ever find out who cut the downstream off."""

    async def lost(*_: object) -> None:
        raise StoreError("gone")

    scene.audit.write = lost  # type: ignore[method-assign,assignment]
    status, _ = await scene.refused("POST", PATH, {"state": "forced-open", "reason": "x"})
    assert status == 503
    assert (await scene.capacity.look(CHARGE)).circuit.state is CircuitState.CLOSED


def test_what_a_person_said_is_shown_only_while_it_holds() -> None:
    """The store remembers the last word; a circuit that opened by itself a week later is not hers."""
    look = CircuitLook(
        since_us=SECOND, until_us=9 * SECOND, author="ann", reason="INC-7", pause_until_us=5 * SECOND
    )

    def seen(
        state: CircuitState, mode: CircuitMode = CircuitMode.ENFORCE, now_s: int = 4
    ) -> dict[str, object]:
        return circuit_view(replace(look, state=state), mode, now_s * SECOND)

    first, ninth = "1970-01-01T00:00:01.000Z", "1970-01-01T00:00:09.000Z"
    for state, author, until in (
        (CircuitState.FORCED_OPEN, "ann", ninth), (CircuitState.DISABLED, "ann", ninth),
        (CircuitState.OPEN, None, ninth), (CircuitState.HALF_OPEN, None, None), (CircuitState.CLOSED, None, None),
    ):  # fmt: skip
        found = seen(state)
        assert (found["author"], found["until"], found["since"]) == (author, until, first), state
        assert (found["reason"] is None) is (author is None)
    # What ended by time did so at that moment.
    assert seen(CircuitState.HALF_OPEN, now_s=9)["since"] == ninth
    assert seen(CircuitState.CLOSED, now_s=9)["since"] == ninth
    off = seen(CircuitState.DISABLED, CircuitMode.OFF)
    assert (off["author"], off["until"], off["since"]) == (None, None, None)
    assert seen(CircuitState.CLOSED, now_s=4)["pause_until"] == "1970-01-01T00:00:05.000Z"
    assert seen(CircuitState.CLOSED, now_s=5)["pause_until"] is None
