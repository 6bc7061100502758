"""The channel to a webhook, checked by the library that receivers use."""

import base64
import json
from dataclasses import replace

import pytest

from breaker.core.alert_policy import Channel, ChannelType
from breaker.core.notify import Kind
from breaker.signals.alert_text import text_of
from breaker.signals.channels import Answer, Message, Never, Taken
from breaker.signals.senders import sender_of
from tests.signals.alert_scene import MINUTE_US, SINCE_US, message_of, noticed
from tests.signals.receivers import WebhookReceiver, serving

OLD, NEW, FOREIGN = ("whsec_" + base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2, 3))
PROMISE = noticed("BreakerPromiseAtRisk:critical")


async def send(to: WebhookReceiver, message: Message, *secrets: str) -> Answer:
    sender = sender_of(
        Channel(name="hook", type=ChannelType.WEBHOOK, url=f"{to.url}/hook?token=s3cret", secrets=secrets)
    )
    try:
        return await sender.send(message)
    finally:
        await sender.close()


async def test_body_is_as_documented() -> None:
    """Whoever writes a receiver relies on each of these names."""
    async with serving(WebhookReceiver()) as there:
        over = replace(PROMISE, ended_us=SINCE_US + 12 * MINUTE_US)
        message = message_of(Kind.RESOLVED, over, made_us=SINCE_US + 12 * MINUTE_US)
        assert await send(there, message) == Taken()
    assert there.messages == [
        {
            "id": "alert-0123456789abcdef01234567",
            "cluster": "production",
            "kind": "resolved",
            "detail": "",
            "made_at": "2026-01-06T14:14:00.000Z",
            "alerts": [
                {
                    "id": "BreakerPromiseAtRisk:critical:billing.charge-invoice:normal",
                    "labels": dict(PROMISE.labels),
                    "annotations": dict(PROMISE.annotations),
                    "starts_at": "2026-01-06T14:02:00.000Z",
                    "ends_at": "2026-01-06T14:14:00.000Z",
                }
            ],
            "text": text_of(message),
        }
    ]
    [(request, body)] = there.requests
    assert (request.method, request.query["token"]) == ("POST", "s3cret")
    assert request.headers["Content-Type"] == "application/json"
    assert "webhook-signature" not in request.headers
    assert json.loads(body)["alerts"][0]["labels"]["severity"] == "critical"


@pytest.mark.parametrize("known", [OLD, NEW])
async def test_receiver_with_either_secret_takes_it_while_they_are_exchanged(known: str) -> None:
    """A secret is exchanged without a night in which nobody is told."""
    async with serving(WebhookReceiver(secret=known)) as there:
        assert await send(there, message_of(Kind.FIRING, PROMISE), NEW, OLD) == Taken()
    [message] = there.messages
    assert message["alerts"][0]["ends_at"] is None


async def test_receiver_with_another_secret_refuses_it() -> None:
    """It is ours, or it is nobody's."""
    async with serving(WebhookReceiver(secret=FOREIGN)) as there:
        assert await send(there, message_of(Kind.FIRING, PROMISE), NEW, OLD) == Never("answered 401")
    assert not there.messages


async def test_message_that_is_sent_again_is_known_by_its_id() -> None:
    """An answer that got lost does not wake anybody twice."""
    async with serving(WebhookReceiver(secret=NEW)) as there:
        for _ in range(2):
            assert await send(there, message_of(Kind.FIRING, PROMISE), NEW) == Taken()
    assert (len(there.requests), len(there.messages)) == (2, 1)
    [(_, first), (_, second)] = there.requests
    assert first == second


async def test_test_says_so() -> None:
    """It has no alerts, and a text all the same."""
    async with serving(WebhookReceiver(secret=NEW)) as there:
        assert await send(there, message_of(Kind.TEST, detail="jane tries it"), NEW) == Taken()
    [message] = there.messages
    assert (message["kind"], message["alerts"], message["detail"]) == ("test", [], "jane tries it")
    assert message["text"].startswith("TEST of the way to on-call\njane tries it\n")


def test_malformed_secret_is_an_error_before_the_first_alert() -> None:
    """Not on the night when somebody should have been told; and it is not quoted."""
    with pytest.raises(ValueError, match="whsec_") as caught:
        sender_of(Channel(name="h", type=ChannelType.WEBHOOK, url="http://127.0.0.1/", secrets=("s3cret",)))
    assert "s3cret" not in str(caught.value)
