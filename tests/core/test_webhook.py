"""Webhook signatures, checked with the library that receivers use."""

import base64
import re
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from breaker.core.webhook import secret_of, signed_headers

BODY = b'{"specversion":"1.0","data":{"tenant":"\xc3\xa9cole"}}'
ID = "01JABCDEFGHJKMNPQRSTVWXYZ0_1_succeeded"
OLD = "whsec_" + base64.b64encode(bytes(24)).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(64))).decode()
GUIDE = Path(__file__).parents[2] / "docs" / "callbacks.md"


def headers(*secrets: str, body: bytes = BODY, timestamp_s: int | None = None) -> dict[str, str]:
    return signed_headers(id=ID, timestamp_s=timestamp_s or int(time.time()), body=body, secrets=secrets)


def test_example_of_the_specification_has_its_signature() -> None:
    """The bytes are those that all libraries agree on, whatever the clock says."""
    signed = signed_headers(
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
        secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert signed == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("known", [OLD, NEW])
def test_receiver_that_knows_either_secret_accepts_while_they_rotate(known: str) -> None:
    """A secret is exchanged without a callback being refused."""
    assert Webhook(known).verify(BODY, headers(NEW, OLD)) == {
        "specversion": "1.0",
        "data": {"tenant": "école"},
    }


def test_receiver_refuses_another_secret_body_and_time() -> None:
    """Only the gateway can say that a job has ended, and only now."""
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(OLD).verify(BODY, headers(NEW))
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(NEW).verify(BODY + b" ", headers(NEW))
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(NEW).verify(BODY, headers(NEW) | {"webhook-id": ID + "0"})
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(NEW).verify(BODY, headers(NEW, timestamp_s=int(time.time()) - 301))


@pytest.mark.parametrize("id_", ["", "billing.charge~01J", "a b", "a\r\nx: y", "a\n", "é", "a" * 129])
def test_ids_that_could_be_read_in_two_ways_are_not_signed(id_: str) -> None:
    """`a.1` at 2 and `a` at 1 would have one signature, and a line break would be a header more."""
    with pytest.raises(ValueError, match="webhook id"):
        signed_headers(id=id_, timestamp_s=1, body=b"", secrets=[NEW])


def test_without_a_secret_nothing_is_signed() -> None:
    """An empty signature header would look to a careless receiver as if there were nothing to check."""
    with pytest.raises(ValueError, match="without a secret"):
        headers()


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secret_is_read_with_and_without_padding(size: int) -> None:
    """Both forms are in use, and a receiver's library takes both."""
    key = bytes(range(size))
    text = "whsec_" + base64.b64encode(key).decode()
    assert secret_of(text) == secret_of(text.rstrip("=")) == key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("c3VwZXItc2VjcmV0LXN1cGVyLXNlY3JldC0=", "starts with 'whsec_'"),
        ("whsec_c3VwZXItc2VjcmV0*", "is base64"),
        ("whsec_c3VwZXItc2VjcmV0é", "is base64"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64 bytes; this one has 23"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64 bytes; this one has 65"),
        ("whsec_", "this one has 0"),
    ],
)
def test_malformed_secret_is_refused_without_being_quoted(text: str, says: str) -> None:
    """The message stands in a log that more people read than may know the secret."""
    with pytest.raises(ValueError, match=says) as caught:
        secret_of(text)
    assert text not in str(caught.value) or not text.removeprefix("whsec_")


def test_guide_for_receivers_names_the_headers_that_are_sent() -> None:
    """A receiver is written from the guide alone."""
    assert set(re.findall(r"^\| `(webhook-[a-z]+)` \|", GUIDE.read_text(), re.MULTILINE)) == set(headers(NEW))
