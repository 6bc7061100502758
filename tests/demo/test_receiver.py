"""
The receiver of alerts, over HTTP, and as a process.

For who watches the demonstration: what is shown as arrived is what came.
"""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.demo.arrivals import ALERTMANAGER, GATEWAY, Arrivals, arrival_of
from breaker.demo.receiver import ALERTS_MAX, KEPT_MAX, LINE_MAX, LINES_MAX, Pager
from breaker.signals.channel_webhook import body_of
from breaker.signals.channels import Message
from tests.demo.served import ENVIRONMENT

COMMAND = 'breaker ops set support.create-ticket rate=9/s --for 1h --reason "over capacity"'
LABELS = {
    "alertname": "BreakerOverCapacity", "severity": "warning", "cluster": "demo", "team": "support-operations",
    "operation": "support.create-ticket",
}  # fmt: skip
SAID = {
    "summary": "support.create-ticket is asked for 130% of what its rate allows.",
    "description": "Demand would use 8/s, allowed are 6/s.",
    "impact": "Calls beyond the limit wait.",
    "action": f"{COMMAND}  # if the downstream can take it",
    "runbook_url": "docs/runbooks/BreakerOverCapacity.md",
}


@pytest.fixture
async def pager() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(Pager().app())) as client:
        yield client


def own(id_: str = "letter-1", kind: Kind = Kind.FIRING, **labels: str) -> bytes:
    """As the gateway's webhook channel sends it."""
    ended_us = 1_796_020_200_000_000 if kind is Kind.RESOLVED else None
    notice = Notice(
        id="incident", key="breaker:demo:incident", labels={**LABELS, **labels}, annotations=SAID,
        since_us=1_796_020_100_000_000, ended_us=ended_us,
    )  # fmt: skip
    message = Message(id=id_, cluster="demo", kind=kind, notices=(notice,), made_us=1_796_020_200_000_000)
    return body_of(message)


def alertmanager(status: str = "firing", version: str = "4", **labels: str) -> dict[str, Any]:
    """As Alertmanager 0.25 sends it."""
    return {
        "receiver": "demonstration", "status": status, "version": version, "groupKey": "{}:{}", "truncatedAlerts": 0,
        "externalURL": "http://127.0.0.1:9093", "groupLabels": {}, "commonLabels": LABELS, "commonAnnotations": SAID,
        "alerts": [
            {
                "status": status, "labels": {**LABELS, **labels}, "annotations": SAID, "fingerprint": "6c2e6f1d9a0b3c4d",
                "startsAt": "2026-11-30T06:28:20.123456789Z", "generatorURL": "http://127.0.0.1:9090/graph",
                "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2026-11-30T06:38:20.123456789Z",
            },
        ],
    }  # fmt: skip


async def received(pager: TestClient[Any, Any], after: int = 0) -> dict[str, Any]:
    async with pager.get(f"/received?after={after}") as answer:
        assert answer.status == 200
        shown: dict[str, Any] = await answer.json()
        return shown


async def test_a_message_of_the_gateway_is_kept_as_a_person_reads_it(
    pager: TestClient[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The path is the configuration's affair."""
    for path in ("/alerts", "/any/other"):
        assert (await pager.post(path, data=own(id_=path))).status == 204
    shown = await received(pager)
    assert shown["count"] == 2
    first = arrival_of(shown["messages"][0])
    assert (first.number, first.way, first.kind) == (1, GATEWAY, "firing")
    assert first.text.startswith("FIRING warning: BreakerOverCapacity\n")
    assert f"Do: {COMMAND}" in first.text
    assert first.alerts[0].action == COMMAND
    assert first.text in capsys.readouterr().out


async def test_a_message_of_an_alertmanager_reads_the_same(pager: TestClient[Any, Any]) -> None:
    """Whichever way it came, on-call sees the same words at the same places."""
    assert (await pager.post("/alerts", data=own())).status == 204
    assert (await pager.post("/alertmanager", json=alertmanager())).status == 204
    mine, other = (arrival_of(each) for each in (await received(pager))["messages"])
    assert (other.number, other.way, other.kind) == (2, ALERTMANAGER, "firing")
    assert other.alerts == mine.alerts

    def undated(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("Since ")]

    assert undated(other.text) == undated(mine.text)


async def test_the_end_of_an_alert_arrives_by_both_ways(pager: TestClient[Any, Any]) -> None:
    """Who was called must know when it is over."""
    arrivals = Arrivals()
    for kind, status in ((Kind.FIRING, "firing"), (Kind.RESOLVED, "resolved")):
        await pager.post("/alerts", data=own(id_=kind, kind=kind))
        await pager.post("/alertmanager", json=alertmanager(status))
        arrivals.take(map(arrival_of, (await received(pager, after=arrivals.count))["messages"]))
        assert [state.is_firing for state in arrivals.states.values()] == [kind is Kind.FIRING]
    (state,) = arrivals.states.values()
    assert state.numbers == {GATEWAY: (1, 3), ALERTMANAGER: (2, 4)}


async def test_a_group_of_which_a_part_has_ended_is_told_by_what_still_fires(
    pager: TestClient[Any, Any],
) -> None:
    """As an Alertmanager sends it, all in one."""
    body = alertmanager()
    body["alerts"] += alertmanager("resolved", operation="billing.charge-invoice")["alerts"]
    await pager.post("/alertmanager", json=body)
    told = arrival_of((await received(pager))["messages"][0])
    assert (told.kind, [alert.operation for alert in told.alerts]) == ("firing", ["support.create-ticket"])


async def test_a_second_attempt_is_the_same_message(pager: TestClient[Any, Any]) -> None:
    """Its sender did not hear the first answer; nobody is to read it twice."""
    for id_ in ("letter-1", "letter-1", "letter-2"):
        assert (await pager.post("/alerts", data=own(id_=id_))).status == 204
    assert (await received(pager))["count"] == 2


async def test_only_what_is_newer_is_told(pager: TestClient[Any, Any]) -> None:
    for number in range(3):
        await pager.post("/alerts", data=own(id_=f"letter-{number}"))
    numbers = [each["number"] for each in (await received(pager, after=2))["messages"]]
    assert numbers == [3]
    async with pager.get("/received?after=-1") as answer:
        assert answer.status == 400


async def test_what_is_kept_is_bounded(pager: TestClient[Any, Any]) -> None:
    """A demonstration that stays up for a week does not fill the machine."""
    body = json.loads(own())
    body |= {"text": "\n".join(["x" * 1_000] * 100), "alerts": body["alerts"] * 100}
    for number in range(KEPT_MAX + 1):
        assert (await pager.post("/alerts", json={**body, "id": f"{number}"})).status == 204
    shown = await received(pager)
    assert (shown["count"], len(shown["messages"])) == (KEPT_MAX + 1, KEPT_MAX)
    newest = shown["messages"][-1]
    assert len(newest["alerts"]) == ALERTS_MAX
    assert len(newest["text"]) < LINES_MAX * (LINE_MAX + 1)
    assert (await pager.post("/alerts", data=io.BytesIO(b"0" * 2_000_000))).status == 413


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/alerts", b"no JSON"),
        ("/alerts", b"[]"),
        ("/alerts", b'{"kind": "firing", "alerts": []}'),
        ("/alertmanager", b"{}"),
        ("/alertmanager", json.dumps(alertmanager(version="3")).encode()),
        ("/alertmanager", json.dumps({**alertmanager(), "alerts": []}).encode()),
        ("/alertmanager", json.dumps({**alertmanager(), "alerts": [7]}).encode()),
    ],
)
async def test_what_is_not_understood_is_refused_and_not_counted(
    pager: TestClient[Any, Any], path: str, body: bytes
) -> None:
    """A sender that is wired wrongly learns of it, instead of being taken for an alert."""
    assert (await pager.post(path, data=body)).status == 400
    assert (await received(pager))["count"] == 0


async def test_nothing_that_arrives_can_paint_the_terminal(pager: TestClient[Any, Any]) -> None:
    """Anybody on this machine may send."""
    await pager.post("/alerts", json={**json.loads(own()), "text": "red \x1b[31m\r\nsecond"})
    assert (await received(pager))["messages"][0]["text"] == "red [31m\nsecond"


async def test_it_runs_as_a_process_on_several_addresses_and_ends_with_status_0() -> None:
    """`up` starts it where the channels of the configuration send to."""
    command = [sys.executable, "-m", "breaker.demo.receiver", "--port", "0", "--also", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready, name, url = (await asyncio.to_thread(process.stdout.readline)).split()
        assert (ready, name) == ("ready", "receiver")
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/alerts", data=own()) as answer:
                assert answer.status == 204
            async with session.get(f"{url}/received") as answer:
                assert (await answer.json())["count"] == 1
    finally:
        process.terminate()
        out, err = await asyncio.to_thread(process.communicate, timeout=10)
    assert (process.returncode, err) == (0, "")
    assert COMMAND in out
