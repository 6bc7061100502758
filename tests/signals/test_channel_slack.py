"""The channel to Slack, against a receiver that holds the contract of its incoming webhooks."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from breaker.core.alert_policy import Alerting, Channel, ChannelType
from breaker.core.notify import Kind
from breaker.signals.channel_slack import escaped
from breaker.signals.channels import Answer, Later, Message, Never, Taken
from breaker.signals.senders import sender_of
from tests.signals.alert_scene import MINUTE_US, SINCE_US, message_of, noticed
from tests.signals.receivers import SLACK_PATH, SlackReceiver, serving, slack_throttles

PROMISE = noticed("BreakerPromiseAtRisk:critical")


@pytest.fixture
async def slack() -> AsyncIterator[SlackReceiver]:
    async with serving(SlackReceiver()) as made:
        yield made


async def send(to: SlackReceiver, message: Message) -> Answer:
    sender = sender_of(Channel(name="ops", type=ChannelType.SLACK, url=to.hook))
    try:
        return await sender.send(message)
    finally:
        await sender.close()


async def test_message_can_be_read_and_acted_on(slack: SlackReceiver) -> None:
    """What, how bad, who is hurt, and a command to copy; without leaving Slack."""
    assert await send(slack, message_of(Kind.FIRING, PROMISE)) == Taken()
    [message] = slack.messages
    assert message["blocks"] == [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": "FIRING critical: BreakerPromiseAtRisk", "emoji": False},
        },
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": "billing.charge-invoice: jobs in band normal will break their promise: "
                "they will have waited 3 h 5 min, promised are 2 h.\n"
                "216000 jobs wait. At 20/s this clears in 3 h; 34/s would keep the promise. "
                "Nothing is lost: all of them are on disk, in order.\n"
                "Impact: Whoever sent the last of them gets an answer later than was promised.",
            },
        },
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": '```breaker ops set billing.charge-invoice rate=34/s --for 1h --reason "promise at risk"```\n'
                "if the downstream can take it: breaker ops show billing.charge-invoice",
            },
        },
        {
            "type": "context",
            "elements": [
                {"type": "mrkdwn", "text": "since 14:02 UTC (3 min), team finance, cluster production"},
                {
                    "type": "mrkdwn",
                    "text": "<https://wiki.example.com/breaker/BreakerPromiseAtRisk.md|Runbook>",
                },
                {
                    "type": "mrkdwn",
                    "text": "<https://grafana.example.com/d/breaker-operation/breaker-operation"
                    "?var-operation=billing.charge-invoice|Dashboard>",
                },
            ],
        },
    ]
    assert message["text"].startswith("FIRING critical: BreakerPromiseAtRisk\nbilling.charge-invoice: ")


@pytest.mark.parametrize(("count", "more"), [(10, None), (11, "and 1 more"), (200, "and 190 more")])
async def test_many_incidents_are_one_message(slack: SlackReceiver, count: int, more: str | None) -> None:
    """A storm is counted, not posted two hundred times; Slack would refuse more than 50 blocks."""
    notices = [noticed("BreakerCircuitOpen:warning", f"a.op{number}") for number in range(count)]
    assert await send(slack, message_of(Kind.FIRING, *notices)) == Taken()
    [message] = slack.messages
    assert message["blocks"][0]["text"]["text"] == f"FIRING warning: BreakerCircuitOpen ({count})"
    shown = [block for block in message["blocks"] if block["type"] == "context"]
    assert len(shown) == 10
    last = message["blocks"][-1]
    assert (last["text"]["text"] if last["type"] == "section" else None) == more


async def test_what_others_wrote_cannot_call_everybody(slack: SlackReceiver) -> None:
    """A reason, a detail or a name with Slack's own signs is text, and nothing else."""
    evil = "<!channel> & <https://evil.example|here>\x1b[31m\n```rm```"
    notice = noticed("BreakerStoreDown:critical", detail=evil)
    notice = replace(notice, annotations={**notice.annotations, "action": f"breaker {evil}  # {evil}"})
    messages = [
        message_of(Kind.FIRING, notice),
        message_of(Kind.ACKNOWLEDGED, notice, detail=evil),
        message_of(Kind.TEST, detail=evil),
    ]
    for message in messages:
        assert await send(slack, message) == Taken(), slack.wrong
    assert "&lt;!channel&gt; &amp; &lt;https" in slack.messages[0]["blocks"][1]["text"]["text"]
    command = slack.messages[0]["blocks"][2]["text"]["text"]
    assert command.startswith("```breaker &lt;!channel&gt;")
    assert command.partition("\n")[0].count("```") == 2


def test_text_is_cut_between_signs() -> None:
    """Half of an escape would be shown as `&am`."""
    assert escaped("a&b", 7) == "a&amp;b"
    assert escaped("a&bc", 7) == "a&amp;…"
    assert escaped("ab&bc", 6) == "ab…"


async def test_texts_that_are_too_long_are_cut(slack: SlackReceiver) -> None:
    """An alert in fewer words is better than one that Slack refuses."""
    long = "&" * 20_000
    notice = replace(
        PROMISE, annotations={**PROMISE.annotations, "summary": long, "description": long, "impact": long}
    )
    assert await send(slack, message_of(Kind.FIRING, notice)) == Taken(), slack.wrong


async def test_end_is_told_without_a_command(slack: SlackReceiver) -> None:
    """There is nothing to do any more."""
    over = replace(PROMISE, ended_us=SINCE_US + 12 * MINUTE_US)
    assert await send(slack, message_of(Kind.RESOLVED, over, made_us=SINCE_US + 13 * MINUTE_US)) == Taken()
    [message] = slack.messages
    assert message["blocks"][0]["text"]["text"] == "RESOLVED critical: BreakerPromiseAtRisk"
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "context"]
    assert message["blocks"][2]["elements"][0]["text"] == (
        "resolved after 12 min, 14:02 to 14:14 UTC, team finance, cluster production"
    )


async def test_runbook_without_an_address_is_named(slack: SlackReceiver) -> None:
    """Its path in the documentation is better than nothing."""
    notice = noticed("BreakerStoreDown:critical", alerting=Alerting())
    assert await send(slack, message_of(Kind.FIRING, notice)) == Taken(), slack.wrong
    [_, path] = slack.messages[0]["blocks"][-1]["elements"]
    assert path["text"] == "Runbook: docs/runbooks/BreakerStoreDown.md"


@pytest.mark.parametrize(
    ("planned", "becomes"),
    [
        (web.Response(status=400, text="invalid_payload"), Never("answered 400: invalid_payload")),
        (web.Response(status=404, text="no_service"), Never("answered 404: no_service")),
        (web.Response(status=403, text=f"no such thing as {SLACK_PATH}"), Never("answered 403")),
        (web.Response(status=500, text="rollup_error"), Later("answered 500: rollup_error")),
        (
            web.Response(text="<html>Sign in</html>"),
            Later("answered 200, but not 'ok': is this an incoming webhook of Slack?"),
        ),
    ],
)
async def test_answer_decides(slack: SlackReceiver, planned: web.Response, becomes: Answer) -> None:
    """Slack's own words are told on, those of others may quote the address, which is a secret."""
    slack.planned = [planned]
    assert await send(slack, message_of(Kind.FIRING, PROMISE)) == becomes


async def test_slack_that_is_in_no_hurry_is_heeded(slack: SlackReceiver) -> None:
    """Who posts on is locked out for longer."""
    slack.planned = [slack_throttles("30")]
    assert await send(slack, message_of(Kind.FIRING, PROMISE)) == Later("answered 429: rate_limited", 30.0)
