"""The channel to PagerDuty, against a receiver that holds the contract of its Events API v2."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from breaker.core.alert_policy import Alerting, Channel, ChannelType
from breaker.core.notify import Kind
from breaker.signals.channel_pagerduty import dedup_key
from breaker.signals.channels import Answer, Later, Message, Never, Taken
from breaker.signals.senders import sender_of
from tests.signals.alert_scene import MINUTE_US, SINCE_US, message_of, noticed
from tests.signals.receivers import ROUTING_KEY, PagerDutyReceiver, pagerduty_throttles, serving

PROMISE = noticed("BreakerPromiseAtRisk:critical")
KEY = "breaker:production:BreakerPromiseAtRisk:critical:billing.charge-invoice:normal"


@pytest.fixture
async def pagerduty() -> AsyncIterator[PagerDutyReceiver]:
    async with serving(PagerDutyReceiver()) as made:
        yield made


async def send(to: PagerDutyReceiver, *messages: Message, routing_key: str = ROUTING_KEY) -> list[Answer]:
    sender = sender_of(
        Channel(name="pd", type=ChannelType.PAGERDUTY, url=f"{to.url}/v2/enqueue", secrets=(routing_key,))
    )
    try:
        return [await sender.send(message) for message in messages]
    finally:
        await sender.close()


async def test_page_says_what_is_broken_and_links_to_what_helps(pagerduty: PagerDutyReceiver) -> None:
    """Whoever is woken reads the summary on a locked screen; the rest is one touch away."""
    assert await send(pagerduty, message_of(Kind.FIRING, PROMISE)) == [Taken()]
    [event] = pagerduty.events
    assert event == {
        "routing_key": ROUTING_KEY,
        "event_action": "trigger",
        "dedup_key": KEY,
        "payload": {
            "summary": "billing.charge-invoice: jobs in band normal will break their promise: "
            "they will have waited 3 h 5 min, promised are 2 h.",
            "source": "breaker production",
            "severity": "critical",
            "timestamp": "2026-01-06T14:02:00.000Z",
            "component": "billing.charge-invoice",
            "group": "finance",
            "class": "BreakerPromiseAtRisk",
            "custom_details": {**PROMISE.labels, **PROMISE.annotations},
        },
        "links": [
            {"href": "https://wiki.example.com/breaker/BreakerPromiseAtRisk.md", "text": "Runbook"},
            {
                "href": "https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.charge-invoice",
                "text": "Dashboard",
            },
        ],
    }


async def test_incident_is_one_from_its_page_to_its_end(pagerduty: PagerDutyReceiver) -> None:
    """Told, told again, seen by somebody, over: the same incident all the time."""
    states = []
    for kind in (Kind.FIRING, Kind.REPEATED, Kind.ACKNOWLEDGED, Kind.RESOLVED):
        notice = replace(PROMISE, ended_us=SINCE_US + MINUTE_US) if kind is Kind.RESOLVED else PROMISE
        assert await send(pagerduty, message_of(kind, notice, id=f"alert-{kind}")) == [Taken()]
        states.append(dict(pagerduty.incidents))
    assert states == [{KEY: state} for state in ("triggered", "triggered", "acknowledged", "resolved")]


async def test_each_operation_has_an_incident_of_its_own(pagerduty: PagerDutyReceiver) -> None:
    """One may be over while the other goes on."""
    notices = [noticed("BreakerCircuitOpen:warning", f"a.op{number}") for number in range(20)]
    assert await send(pagerduty, message_of(Kind.FIRING, *notices)) == [Taken()]
    assert len(pagerduty.incidents) == len(pagerduty.events) == 20


async def test_test_opens_an_incident_and_closes_it(pagerduty: PagerDutyReceiver) -> None:
    """It is seen to arrive, and nobody has to clean up."""
    assert await send(pagerduty, message_of(Kind.TEST, detail="jane tries it")) == [Taken()]
    assert [event["event_action"] for event in pagerduty.events] == ["trigger", "resolve"]
    assert pagerduty.events[0]["payload"]["severity"] == "info"
    assert list(pagerduty.incidents) == ["breaker:production:test:alert-0123456789abcdef01234567"]


@pytest.mark.parametrize("runbooks", ["", "https://wiki.example.com"])
async def test_only_what_can_be_opened_is_a_link(pagerduty: PagerDutyReceiver, runbooks: str) -> None:
    """Without an address for runbooks there is a path, which a telephone cannot open."""
    notice = noticed("BreakerStoreDown:critical", alerting=Alerting(runbooks=runbooks))
    await send(pagerduty, message_of(Kind.FIRING, notice))
    [event] = pagerduty.events
    assert len(event.get("links", [])) == (1 if runbooks else 0)
    assert (event["payload"]["component"], "group" in event["payload"]) == ("gateway", False)


@pytest.mark.parametrize("length", [254, 255, 256, 300])
async def test_key_and_summary_of_any_length_fit(pagerduty: PagerDutyReceiver, length: int) -> None:
    """An operation with a long name is not without alerts."""
    notice = replace(
        PROMISE, key="k" * length, annotations={**PROMISE.annotations, "summary": "s" * (length * 5)}
    )
    assert await send(pagerduty, message_of(Kind.FIRING, notice)) == [Taken()]
    assert (dedup_key("k" * length) == "k" * length) == (length <= 255)
    assert pagerduty.events[0]["payload"]["summary"].endswith("s" if length * 5 <= 1_024 else "…")


def test_long_keys_that_differ_at_their_end_stay_apart() -> None:
    """Two incidents must not become one because only the beginning counts."""
    first, second = (dedup_key("k" * 255 + end) for end in "ab")
    assert first != second
    assert len(first) == len(second) == 255


async def test_refused_event_is_told_without_the_routing_key(pagerduty: PagerDutyReceiver) -> None:
    """A key that was copied wrongly never becomes right; the log says what PagerDuty says of it."""
    assert await send(pagerduty, message_of(Kind.FIRING, PROMISE), routing_key="R0UT1NG") == [
        Never("answered 400: Length of 'routing_key' is incorrect (should be 32 characters)")
    ]
    quoting = web.json_response(
        {"status": "invalid event", "errors": [f"{ROUTING_KEY} is unknown"]}, status=400
    )
    pagerduty.planned = [quoting]
    assert await send(pagerduty, message_of(Kind.FIRING, PROMISE)) == [
        Never("answered 400: (routing key) is unknown")
    ]


async def test_refused_incident_costs_no_other(pagerduty: PagerDutyReceiver) -> None:
    """One bad event of a batch does not keep the other pages from people."""
    bad = replace(PROMISE, key="", id="bad")
    notices = [noticed("BreakerCircuitOpen:warning", f"a.op{number}") for number in range(10)]
    [answer] = await send(pagerduty, message_of(Kind.FIRING, bad, *notices))
    assert isinstance(answer, Never)
    assert "'dedup_key'" in answer.detail
    assert len(pagerduty.events) == 10


async def test_message_that_was_throttled_goes_on_where_it_stopped(pagerduty: PagerDutyReceiver) -> None:
    """Otherwise a hundred incidents would never get through, as each attempt began anew."""
    notices = [noticed("BreakerCircuitOpen:warning", f"a.op{number}") for number in range(12)]
    pagerduty.planned = [*[None] * 10, pagerduty_throttles("7"), None]
    message = message_of(Kind.FIRING, *notices)
    throttled, taken = await send(pagerduty, message, message)
    assert throttled == Later("answered 429: Enhance Your Calm.", 7.0)
    assert taken == Taken()
    assert (len(pagerduty.events), len(pagerduty.incidents), len(pagerduty.requests)) == (12, 12, 13)


async def test_next_message_about_the_same_incident_is_sent(pagerduty: PagerDutyReceiver) -> None:
    """What was taken of one message says nothing about another."""
    first, second = (message_of(Kind.FIRING, PROMISE, id=f"alert-{number}") for number in range(2))
    assert await send(pagerduty, first, second) == [Taken(), Taken()]
    assert len(pagerduty.events) == 2
