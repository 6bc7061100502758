"""`breaker alerts` against a real admin listener with a real store."""

from collections.abc import AsyncIterator

import pytest

from breaker.core.alert_policy import Alerting
from breaker.signals.channels import Later, Never
from breaker.store.alert_book import ALERTS, ANY_TERM, OUTBOX, text_of_entry, text_of_incident
from tests.cli.command import breaker
from tests.web.admin_scene import CHARGE, Scene, admin_scene
from tests.web.test_admin_alerts import ALL, AT_RISK, CHANNELS, ENTRY, OVER, PENDING, STORE_DOWN, cut_off

WHY = ("--reason", "on it")
HEADS = ["INCIDENT", "SINCE", "TOLD", "STATE", "SUMMARY"]


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        found.alerting = CHANNELS
        await found.book.enter(ANY_TERM, [(ALERTS, one.id, text_of_incident(one)) for one in ALL])
        yield found


async def table(scene: Scene, *words: str) -> list[list[str]]:
    """The list as rows; columns are two spaces apart."""
    said = await breaker(scene, "alerts", "list", *words)
    assert said.status == 0, said.err
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in said.out.splitlines()]


async def test_what_fires_is_listed_with_who_was_told_and_why_not(scene: Scene) -> None:
    """The first command of the night: what is it, since when, and who knows."""
    heads, *rows = await table(scene)
    assert heads == HEADS
    assert [(row[0], row[2], row[3]) for row in rows] == [
        (AT_RISK, "oncall", "firing"), (OVER, "oncall", "inhibited"), ("BreakerWatchdog:none", "oncall", "firing"),
    ]  # fmt: skip
    assert rows[0][4].endswith("they will have waited 28 min, promised are 15 min.")
    assert PENDING not in [row[0] for row in rows]
    pending = {row[0]: row[3] for row in (await table(scene, "--pending"))[1:]}
    assert pending[PENDING] == "pending"


async def test_what_people_said_stands_in_the_list(scene: Scene) -> None:
    """Who is paged second sees whether there is anything left to do."""
    said = await breaker(scene, "alerts", "ack", AT_RISK, *WHY)
    assert (said.status, said.out) == (0, f"{AT_RISK}  acknowledged by ann\n")
    said = await breaker(scene, "alerts", "silence", "--alert", "BreakerOverCapacity", "--for", "2h", *WHY)
    id_, _, words = said.out.partition("  ")
    assert words.startswith("BreakerOverCapacity of * is silenced until 20")
    states = {row[0]: row[3] for row in (await table(scene))[1:]}
    assert states == {
        AT_RISK: "acknowledged by ann", OVER: f"silenced by {id_}", "BreakerWatchdog:none": "firing",
    }  # fmt: skip
    said = await breaker(scene, "alerts", "silences")
    heads, row = (line.split() for line in said.out.splitlines())
    assert heads == ["SILENCE", "ALERT", "OPERATION", "UNTIL", "AUTHOR", "REASON"]
    assert (row[:3], row[4:]) == ([id_, "BreakerOverCapacity", "*"], ["ann", "on", "it"])
    said = await breaker(scene, "alerts", "unsilence", id_, *WHY)
    assert (said.status, said.out) == (0, f"{id_}  ended\n")
    assert [row["action"] for row in await scene.audited()] == [
        "alerts.unsilence", "alerts.silence", "alerts.ack",
    ]  # fmt: skip


async def test_one_alert_is_shown_as_on_call_is_told(scene: Scene) -> None:
    """The same words as on the phone, on a screen where they can be copied from."""
    said = await breaker(scene, "alerts", "show", AT_RISK)
    assert said.status == 0
    assert said.out.startswith("FIRING critical: BreakerPromiseAtRisk\n")
    assert "breaker ops set billing.charge" in said.out
    said = await breaker(scene, "alerts", "show", PENDING, "--json")
    assert (said.json["id"], said.json["stage"]) == (PENDING, "pending")
    said = await breaker(scene, "alerts", "show", AT_RISK + "x")
    assert (said.status, said.out) == (1, "")
    assert f"did you mean '{AT_RISK}'?" in said.err


async def test_what_keeps_people_from_being_told_is_said(scene: Scene) -> None:
    """An empty list must not look as if all were well."""
    await scene.book.enter(ANY_TERM, [(OUTBOX, ENTRY.letter.id, text_of_entry(ENTRY))])
    said = await breaker(scene, "alerts", "list")
    assert "1 messages are not delivered yet; breaker alerts list --json shows them" in said.err
    scene.alerting = Alerting()
    said = await breaker(scene, "alerts", "list")
    assert "no channel is configured: nobody is told" in said.err


async def test_while_the_store_is_away_what_this_replica_says_is_listed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that it is not all there is; what people say cannot be taken then."""
    scene.own_incidents = [STORE_DOWN]
    cut_off(scene, monkeypatch)
    said = await breaker(scene, "alerts", "list")
    assert "BreakerStoreDown:critical" in said.out
    assert AT_RISK not in said.out
    assert "the store does not answer: only what this replica itself says is shown" in said.err
    said = await breaker(scene, "alerts", "ack", AT_RISK, *WHY)
    assert (said.status, said.out, "no answer from the store" in said.err) == (1, "", True)


async def test_channels_are_tested_and_a_failure_is_the_exit_status(scene: Scene) -> None:
    """So that a script can try each night whether on-call would be woken."""
    said = await breaker(scene, "alerts", "test")
    rows = [line.split() for line in said.out.splitlines()]
    assert (said.status, rows) == (
        0, [["CHANNEL", "RESULT", "DETAIL"], ["oncall", "delivered", "-"], ["ops", "delivered", "-"]],
    )  # fmt: skip
    scene.answers = {"oncall": Never("answered 403"), "ops": Later("no answer within 10 s")}
    said = await breaker(scene, "alerts", "test")
    assert said.status == 1
    assert "refused" in said.out
    assert "answered 403" in said.out
    assert (await breaker(scene, "alerts", "test", "--channel", "ops", "--json")).json == {
        "channels": {"ops": {"result": "not delivered", "detail": "no answer within 10 s"}}
    }


async def test_a_program_reads_all_of_it_as_json(scene: Scene) -> None:
    """One document each."""
    found = (await breaker(scene, "alerts", "list", "--json")).json
    assert [one["id"] for one in found["alerts"]] == [AT_RISK, OVER, "BreakerWatchdog:none"]
    found = (await breaker(scene, "alerts", "ack", AT_RISK, *WHY, "--json")).json
    assert found["acknowledged"]["author"] == "ann"
    made = (
        await breaker(scene, "alerts", "silence", "--operation", CHARGE, "--for", "5m", *WHY, "--json")
    ).json
    assert (made["alert"], made["operation"]) == ("*", CHARGE)
    assert (await breaker(scene, "alerts", "silences", "--json")).json == {"silences": [made]}
    ended = (await breaker(scene, "alerts", "unsilence", made["id"], *WHY, "--json")).json
    assert ended == {"id": made["id"], "ended": True}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("ack", AT_RISK), 2, "--reason is missing"),
        (("ack", AT_RISK + "x", *WHY), 1, f"did you mean '{AT_RISK}'?"),
        (("silence", "--alert", "BreakerOverCapacity", "--for", "2h"), 2, "--reason is missing"),
        (("silence", "--alert", "BreakerOverCapacity", *WHY), 2, "a silence always ends, after 30d at most"),
        (
            ("silence", "--alert", "BreakerOverCapacity", "--for", "31d", *WHY),
            2,
            "a silence always ends, after 30d",
        ),
        (("silence", "--for", "2h", *WHY), 2, "everything at once cannot be silenced"),
        (
            ("silence", "--alert", "BreakerOverCapacty", "--for", "2h", *WHY),
            2,
            "did you mean 'BreakerOverCapacity'?",
        ),
        (
            ("silence", "--operation", "billing.chrage", "--for", "2h", *WHY),
            2,
            "did you mean 'billing.charge'?",
        ),
        (("unsilence", "5f1e"), 2, "--reason is missing"),
        (("unsilence", "5f1e", *WHY), 1, "no silence '5f1e'"),
        (("test", "--channel", "onkall"), 1, "did you mean 'oncall'?"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_changes(
    scene: Scene, words: tuple[str, ...], status: int, message: str
) -> None:
    """At 3 a.m. a typing mistake must say what was meant, and silence nothing."""
    said = await breaker(scene, "alerts", *words)
    assert (said.status, said.out, message in said.err) == (status, "", True), said.err
    found = await scene.book.said()
    assert (found.acks, found.silences, await scene.audited()) == ({}, (), [])
