"""Alerts over the admin API: what fires and why nobody is told, acknowledged and silenced by hand, and channels tested."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from breaker.core.alert_policy import Alerting, Channel, ChannelType
from breaker.core.alerts import Incident, Stage
from breaker.core.config import Operator, Role
from breaker.core.errors import StoreError
from breaker.core.notify import Ack, Kind, Letter, Silence
from breaker.signals.channels import Later, Never
from breaker.store.alert_book import (
    ALERTS,
    ANY_TERM,
    OUTBOX,
    SILENCES_MAX,
    AlertBook,
    Entry,
    text_of_entry,
    text_of_incident,
)
from breaker.web.admin_views import moment
from tests.web.admin_scene import CHARGE, HOUR_US, SECOND_US, Scene, admin_scene

AT_US = 1_800_000_000_000_000
AT_RISK = f"BreakerPromiseAtRisk:critical:{CHARGE}:normal"
OVER = f"BreakerOverCapacity:warning:{CHARGE}"
PENDING = f"BreakerCircuitOpen:critical:{CHARGE}"
WHY = {"reason": "on it"}
MIGRATION = {"alert": "BreakerOverCapacity", "reason": "migration", "expires_in": "2h"}
CHANNELS = Alerting(
    channels={name: Channel(name=name, type=ChannelType.WEBHOOK, url="http://127.0.0.1:9") for name in ("oncall", "ops")},
    runbooks="https://wiki.example.com/breaker",
)  # fmt: skip


def incident(id_: str, *, since_s: int = 0, stage: Stage = Stage.FIRING, **values: str) -> Incident:
    alert, severity, operation, about = (*id_.split(":"), "", "")[:4]
    since_us = AT_US + since_s * SECOND_US
    return Incident(
        id=id_, alert=f"{alert}:{severity}", operation=operation, about=about, team="finance" if operation else "",
        stage=stage, since_us=since_us, fired_us=since_us + SECOND_US if stage is Stage.FIRING else 0,
        true_us=since_us, values={**values, "raise": values.get("to", "?")}, told={"oncall": since_us + 2 * SECOND_US},
    )  # fmt: skip


STORE_DOWN = incident("BreakerStoreDown:critical", detail="No answer")
ALL = (
    incident(AT_RISK, since_s=60, promise="15 min", expected="28 min", to="rate=34/s"),
    incident(OVER, percent="130%", limit="rate"),
    incident(PENDING, stage=Stage.PENDING, state="open"),
    incident("BreakerWatchdog:none"),
)
ENTRY = Entry(
    letter=Letter(
        id="alert-1", channel="oncall", kind=Kind.FIRING, incidents=(ALL[0],), made_us=AT_US, backup=("ops",)
    ),
    tries=2, due_us=AT_US + SECOND_US, detail="answered 503",
)  # fmt: skip


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        found.alerting = CHANNELS
        await found.book.enter(ANY_TERM, [(ALERTS, one.id, text_of_incident(one)) for one in ALL])
        yield found


async def by_id(scene: Scene, query: str = "") -> dict[str, Any]:
    return {one["id"]: one for one in (await scene.get(f"alerts{query}"))["alerts"]}


def cut_off(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> None:
        raise StoreError("no answer from the store")

    monkeypatch.setattr(scene.book, "_hash", gone)
    monkeypatch.setattr(scene.book, "enter", gone)


# What fires.


async def test_what_fires_is_listed_the_worst_first(scene: Scene) -> None:
    """What is only pending is for whoever asks for it."""
    found = await scene.get("alerts")
    assert [one["id"] for one in found["alerts"]] == [AT_RISK, OVER, "BreakerWatchdog:none"]
    assert (found["channels"], found["outbox"], found["store"]) == (["oncall", "ops"], [], "answers")
    pending = await by_id(scene, "?pending=1")
    assert set(pending) == {one.id for one in ALL}
    assert (pending[PENDING]["stage"], pending[PENDING]["fired"]) == ("pending", None)
    status, detail = await scene.refused("GET", "alerts?pendign=1")
    assert (status, "did you mean 'pending'?" in detail) == (422, True)


async def test_an_alert_is_shown_with_all_that_on_call_is_told(scene: Scene) -> None:
    """The same words, labels and links as on the phone."""
    one = (await by_id(scene))[AT_RISK]
    assert (one["alert"], one["severity"], one["stage"]) == ("BreakerPromiseAtRisk", "critical", "firing")
    assert (one["operation"], one["team"]) == (CHARGE, "finance")
    assert (one["since"], one["fired"]) == (moment(AT_US + 60 * SECOND_US), moment(AT_US + 61 * SECOND_US))
    assert one["told"] == {"oncall": moment(AT_US + 62 * SECOND_US)}
    assert one["labels"] == {
        "alertname": "BreakerPromiseAtRisk", "severity": "critical", "cluster": "production", "operation": CHARGE,
        "team": "finance", "band": "normal",
    }  # fmt: skip
    assert "they will have waited 28 min, promised are 15 min" in one["annotations"]["summary"]
    assert one["annotations"]["runbook_url"] == "https://wiki.example.com/breaker/BreakerPromiseAtRisk.md"
    assert one["annotations"]["summary"] in " ".join(one["text"].split())
    assert (one["acknowledged"], one["silenced_by"], one["inhibited"]) == (None, None, False)
    assert (await by_id(scene))["BreakerWatchdog:none"]["operation"] is None


async def test_what_is_inhibited_says_so(scene: Scene) -> None:
    """A promise at risk says all that being over capacity would."""
    assert (await by_id(scene))[OVER]["inhibited"]


async def test_messages_that_are_not_delivered_are_shown_with_why(scene: Scene) -> None:
    """Silence may mean that all is well, or that nobody can be told."""
    await scene.book.enter(ANY_TERM, [(OUTBOX, ENTRY.letter.id, text_of_entry(ENTRY))])
    (one,) = (await scene.get("alerts"))["outbox"]
    assert one == {
        "id": "alert-1", "channel": "oncall", "kind": "firing", "incidents": [AT_RISK], "made": moment(AT_US),
        "tries": 2, "next_try": moment(AT_US + SECOND_US), "detail": "answered 503",
    }  # fmt: skip


async def test_every_replica_answers_alike(scene: Scene, store_url: str, cluster: str) -> None:
    """On-call asks whichever answers first; what is said to one is said to all."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(admin_scene(store_url, cluster))
        other.alerting = CHANNELS
        assert await other.get("alerts?pending=1") == await scene.get("alerts?pending=1")
        await other.post(f"alerts/{AT_RISK}/ack", **WHY)
        silence = await other.post("silences", **MIGRATION)
        assert await other.get("alerts") == await scene.get("alerts")
        assert (await by_id(scene))[OVER]["silenced_by"] == silence["id"]
        assert await other.get("silences") == await scene.get("silences")


# Acknowledge.


async def test_an_acknowledgement_is_shown_and_written_down(scene: Scene) -> None:
    """The second person who is paged sees that the first one is at it."""
    status, found = await scene.ask("POST", f"alerts/{AT_RISK}/ack", WHY, headers={"Breaker-Author": "ann"})
    assert status == 200
    acknowledged = found["acknowledged"]
    assert (acknowledged["author"], acknowledged["reason"]) == ("ann", "on it")
    assert (await by_id(scene))[AT_RISK] == found
    ack = (await scene.book.said()).acks[AT_RISK]
    assert (ack.since_us, moment(ack.at_us)) == (AT_US + 60 * SECOND_US, acknowledged["at"])
    (row,) = await scene.audited()
    assert (row["action"], row["author"], row["operation"], row["reason"]) == (
        "alerts.ack",
        "ann",
        CHARGE,
        "on it",
    )
    assert (row["asked"], row["outcome"]) == ({"incident": AT_RISK}, "done")


async def test_an_acknowledgement_of_an_earlier_incident_is_not_shown(scene: Scene) -> None:
    """Yesterday somebody saw to it."""
    await scene.book.acknowledge(AT_RISK, Ack(since_us=1, author="ann", reason="", at_us=2))
    assert (await by_id(scene))[AT_RISK]["acknowledged"] is None


async def test_an_incident_that_is_not_there_cannot_be_acknowledged(scene: Scene) -> None:
    """It may have ended a moment ago; a name that was mistyped is told."""
    status, detail = await scene.refused("POST", f"alerts/{AT_RISK}x/ack", WHY)
    assert (status, f"did you mean '{AT_RISK}'?" in detail) == (404, True)
    status, detail = await scene.refused("POST", f"alerts/{AT_RISK}/ack", {})
    assert (status, "'reason' is missing" in detail) == (422, True)
    assert await scene.audited() == []


# Silence.


async def test_a_silence_is_made_shown_and_ended_and_all_of_it_written_down(scene: Scene) -> None:
    """Who silenced what, until when and why: the first question after something was missed."""
    now_us = scene.capacity.clock.now_us()
    status, made = await scene.ask("POST", "silences", MIGRATION, headers={"Breaker-Author": "ann"})
    assert status == 200
    assert (made["alert"], made["operation"], made["author"], made["reason"]) == (
        "BreakerOverCapacity", "*", "ann", "migration",
    )  # fmt: skip
    (silence,) = (await scene.book.said()).silences
    assert silence.until_us - silence.from_us == 2 * HOUR_US
    assert now_us <= silence.from_us
    assert (await scene.get("silences"))["silences"] == [made]
    shown = await by_id(scene)
    assert (shown[OVER]["silenced_by"], shown[AT_RISK]["silenced_by"]) == (made["id"], None)
    status, found = await scene.ask("DELETE", f"silences/{made['id']}?reason=done")
    assert (status, found) == (200, {"id": made["id"], "ended": True})
    assert (await scene.get("silences"))["silences"] == []
    ended, asked = await scene.audited()
    assert (ended["action"], ended["asked"], ended["reason"]) == (
        "alerts.unsilence", {"silence": made["id"]}, "done",
    )  # fmt: skip
    assert (asked["action"], asked["author"], asked["operation"]) == ("alerts.silence", "ann", "")
    assert asked["asked"] == {
        "alert": "BreakerOverCapacity", "operation": "*", "silence": made["id"], "until": made["until"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "covered"),
    [
        ({"operation": CHARGE}, {AT_RISK, OVER}),
        ({"operation": "billing.*"}, {AT_RISK, OVER}),
        ({"alert": "Breaker*Risk"}, {AT_RISK}),
        ({"alert": "BreakerOverCapacity", "operation": CHARGE}, {OVER}),
        ({"alert": "BreakerOverCapacity", "operation": "billing.refund"}, set()),
        ({"alert": "BreakerStoreDown"}, set()),
    ],
)
async def test_a_silence_covers_what_its_words_name(
    scene: Scene, body: dict[str, str], covered: set[str]
) -> None:
    """No more than that: a silence that is too wide is how outages are missed."""
    await scene.post("silences", expires_in="1h", **body)
    found = await by_id(scene)
    assert {id_ for id_, one in found.items() if one["silenced_by"]} == covered


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"reason": "x", "expires_in": "1h"}, 422, "everything at once cannot be silenced"),
        (
            {"alert": "*", "operation": "*", "reason": "x", "expires_in": "1h"},
            422,
            "everything at once cannot be silenced",
        ),
        ({**MIGRATION, "alert": "BreakerOverCapacty"}, 422, "did you mean 'BreakerOverCapacity'?"),
        ({**MIGRATION, "operation": "billing.chrage"}, 422, "did you mean 'billing.charge'?"),
        ({**MIGRATION, "alert": "Breaker" + "*" * 194}, 422, "200 characters at most"),
        ({**MIGRATION, "expires_in": None}, 422, "a silence always ends, after 30d at most"),
        ({**MIGRATION, "expires_in": "0s"}, 422, "a silence always ends"),
        ({**MIGRATION, "expires_in": "31d"}, 422, "after 30d at most"),
        ({**MIGRATION, "expires_in": "soon"}, 422, "'expires_in': 'soon'"),
        ({**MIGRATION, "reason": ""}, 422, "'reason' is missing"),
        ({**MIGRATION, "until": "tomorrow"}, 422, "unknown field 'until'"),
    ],
)
async def test_a_silence_that_is_not_said_right_is_not_made(
    scene: Scene, body: object, status: int, words: str
) -> None:
    """What nobody meant to silence is the one that is missed."""
    found, detail = await scene.refused("POST", "silences", body)
    assert (found, words in detail) == (status, True), detail
    assert (await scene.get("silences"))["silences"] == []
    assert await scene.audited() == []


async def test_the_longest_silence_and_the_longest_name_are_taken(scene: Scene) -> None:
    """The other side of the bounds."""
    made = await scene.post("silences", alert="Breaker" + "*" * 193, expires_in="30d")
    assert len(made["alert"]) == 200


async def test_silences_are_bounded(scene: Scene) -> None:
    """A script that silences in a loop must not fill the store."""
    ended = Silence(id="", alert="x", operation="*", author="", reason="", from_us=0, until_us=1)
    for number in range(SILENCES_MAX - 1):
        await scene.book.silence(replace(ended, id=str(number)))
    await scene.post("silences", **MIGRATION)
    status, detail = await scene.refused("POST", "silences", MIGRATION)
    assert (status, "there are 1000 silences: end some first" in detail) == (409, True)
    assert len((await scene.get("silences"))["silences"]) == 1  # the others have ended


async def test_a_silence_that_is_not_there_cannot_be_ended(scene: Scene) -> None:
    """It may have ended by itself."""
    made = await scene.post("silences", **MIGRATION)
    status, detail = await scene.refused("DELETE", "silences/nothing?reason=x")
    assert (status, detail.startswith("no silence 'nothing'")) == (404, True)
    status, detail = await scene.refused("DELETE", f"silences/{made['id']}")
    assert (status, "'reason' is missing" in detail) == (422, True)
    assert len((await scene.get("silences"))["silences"]) == 1


# Test the channels.


async def test_channels_are_tested_for_real_and_each_answer_is_told(scene: Scene) -> None:
    """Whether on-call would be woken is known before it has to be."""
    scene.answers = {"oncall": Never("answered 403"), "ops": Later("no answer within 10 s")}
    status, found = await scene.ask("POST", "alerts/test", {}, headers={"Breaker-Author": "ann"})
    assert (status, found["channels"]) == (
        200,
        {
            "oncall": {"result": "refused", "detail": "answered 403"},
            "ops": {"result": "not delivered", "detail": "no answer within 10 s"},
        },
    )
    scene.answers = {}
    found = await scene.post("alerts/test", channel="ops")
    assert found["channels"] == {"ops": {"result": "delivered", "detail": None}}
    second, first = await scene.audited()
    assert (first["action"], first["author"], first["reason"]) == ("alerts.test", "ann", "a test")
    assert first["asked"] == {"channels": ["oncall", "ops"]}
    assert first["outcome"] == "oncall: refused, ops: not delivered"
    assert (second["asked"], second["outcome"]) == ({"channels": ["ops"]}, "ops: delivered")


async def test_a_channel_that_nobody_configured_cannot_be_tested(scene: Scene) -> None:
    """Nor can any, where there is none."""
    status, detail = await scene.refused("POST", "alerts/test", {"channel": "onkall"})
    assert (status, detail) == (404, "unknown channel 'onkall' (did you mean 'oncall'?)")
    scene.alerting = Alerting()
    status, detail = await scene.refused("POST", "alerts/test", {})
    assert (status, "see `alerts.channels` in gateway.yaml" in detail) == (409, True)
    assert await scene.audited() == []


# Who may, and a store that is away.


async def test_viewers_look_and_operators_change(scene: Scene) -> None:
    """As for all that is done by hand; the author is the operator, whatever a header says."""
    scene.operators = tuple(
        Operator(id=name, key_hashes=(sha256(name.encode()).hexdigest(),), role=role)
        for name, role in (("vic", Role.VIEWER), ("olga", Role.OPERATOR))
    )
    changes: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("POST", f"alerts/{AT_RISK}/ack", WHY), ("POST", "silences", MIGRATION), ("POST", "alerts/test", {}),
        ("DELETE", "silences/x", {"reason": "x"}),
    )  # fmt: skip
    for path in ("alerts", "silences"):
        assert (await scene.ask("GET", path, key="vic"))[0] == 200
        assert (await scene.ask("GET", path))[0] == 401
    for method, path, body in changes:
        assert (await scene.ask(method, path, body, key="vic"))[0] == 403
    for method, path, body in changes[:3]:
        status, found = await scene.ask(method, path, body, key="olga", headers={"Breaker-Author": "eve"})
        assert status == 200
        if "author" in found:
            assert found["author"] == "olga"
    assert (await by_id_of(scene, "olga"))[AT_RISK]["acknowledged"]["author"] == "olga"


async def by_id_of(scene: Scene, key: str) -> dict[str, Any]:
    _, found = await scene.ask("GET", "alerts", key=key)
    return {one["id"]: one for one in found["alerts"]}


async def test_what_cannot_be_written_down_is_not_done(scene: Scene) -> None:
    """Nobody could ever find out who silenced it."""

    async def lost(*_: object) -> None:
        raise StoreError("gone")

    scene.audit.write = lost  # type: ignore[method-assign,assignment]
    assert (await scene.refused("POST", f"alerts/{AT_RISK}/ack", WHY))[0] == 503
    assert (await scene.refused("POST", "silences", MIGRATION))[0] == 503
    said = await scene.book.said()
    assert (said.acks, said.silences) == ({}, ())


async def test_while_the_store_is_away_a_replica_shows_what_it_says_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the alert which matters then; and it says that it is not all there is."""
    scene.own_incidents = [STORE_DOWN]
    assert "BreakerStoreDown:critical" in await by_id(scene)
    cut_off(scene, monkeypatch)
    found = await scene.get("alerts")
    assert [one["id"] for one in found["alerts"]] == ["BreakerStoreDown:critical"]
    assert (found["outbox"], found["store"]) == (
        None, "does not answer: only what this replica itself says is shown",
    )  # fmt: skip
    for method, path, body in (
        ("POST", f"alerts/{AT_RISK}/ack", WHY), ("GET", "silences", None), ("POST", "silences", MIGRATION),
        ("DELETE", "silences/x", {"reason": "x"}),
    ):  # fmt: skip
        status, detail = await scene.refused(method, path, body)
        assert (status, "no answer from the store" in detail) == (503, True), detail


async def test_a_book_by_another_name_is_another_cluster_s(scene: Scene, cluster: str) -> None:
    """Two clusters may share a store."""
    other = AlertBook(scene.book._client, f"{cluster}x")
    assert (await other.load()).living == {}
