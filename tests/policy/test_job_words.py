"""Durability, probes, batches, hosts and keys: both sides of every edge."""

import base64

import pytest

from breaker.core.job_policy import Durability
from breaker.core.model import Match
from breaker.policy import job_words as jw


def secret(length: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(length))).decode()


@pytest.mark.parametrize("value", ["fsync", "memory", "replicated: 1", {"replicated": 16}])
def test_a_durability_that_was_written_reads_back(value: object) -> None:
    """`config explain` shows what could be pasted into the file, in quotes."""
    durable = jw.parse_durability(value)
    assert jw.parse_durability(jw.format_durability(*durable)) == durable


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("fsynk", "did you mean 'fsync'"),
        (5, "5 is no durability"),
        (None, "None is no durability"),
        ([], "is no durability"),
        ({"replicated": 1, "x": 2}, "is no durability"),
        ({"fsync": 1}, "is no durability"),
        ("replicated", "needs a number of replicas"),
        ("replicated: two", "is no durability"),
        ({"replicated": True}, "needs a number of replicas"),
        ({"replicated": "2"}, "needs a number of replicas"),
        ("replicated: 0", "1 to 16"),
        ("replicated: 17", "1 to 16"),
    ],
)
def test_a_durability_that_cannot_be_read_says_why(value: object, says: str) -> None:
    """What a 202 promises must not be guessed."""
    with pytest.raises(ValueError, match=says):
        jw.parse_durability(value)


def test_replicas_are_counted_for_replicated_only() -> None:
    """A number where none is meant would be a promise."""
    assert jw.parse_durability("memory") == (Durability.MEMORY, 0)
    assert jw.parse_durability({"replicated": 3}) == (Durability.REPLICATED, 3)


def test_a_probe_asks_for_the_key_that_was_sent() -> None:
    """GET, since asking must change nothing."""
    assert jw.parse_probe("GET /c/{idempotency_key}") == Match(method="GET", template="/c/{idempotency_key}")
    for wrong, says in [("HEAD /c/{idempotency_key}", "is a HEAD"), ("GET /c", "use {idempotency_key}"), ("GET /{a}/{idempotency_key}", "uses {a}"), (5, "a method")]:  # fmt: skip
        with pytest.raises(ValueError, match=says):
            jw.parse_probe(wrong)


def test_a_batch_is_posted_to_one_path() -> None:
    """It holds calls with many different placeholders."""
    assert jw.parse_batch_path("POST /invoices/charge-batch") == "/invoices/charge-batch"
    for wrong in ["/x", "GET /x", "POST x", "POST /{id}", "POST", "", None, 5]:
        with pytest.raises(ValueError, match=r"."):
            jw.parse_batch_path(wrong)


@pytest.mark.parametrize(
    "text",
    ["hooks.example.com", "*.example.com", "https://hooks.example.com:8443", "http://127.0.0.1:9110", "10.0.0.5"],
)  # fmt: skip
def test_a_callback_host_is_taken_as_it_is_written(text: str) -> None:
    """The forms that the documents name."""
    assert jw.check_callback_host(text) == text


@pytest.mark.parametrize(
    "text", ["", "*", "*.com", "a.example:8443", "https://a.example/x", "ftp://a.example"]
)
def test_a_callback_host_that_says_too_much_or_too_little_is_refused(text: str) -> None:
    """A caller chooses the URL, so that this list is what holds it."""
    with pytest.raises(ValueError, match="allow-list entry"):
        jw.check_callback_host(text)


def test_a_secret_in_a_callback_host_is_not_repeated() -> None:
    """Messages end up in logs and tickets."""
    with pytest.raises(ValueError, match="carries a user or password") as caught:
        jw.check_callback_host("https://me:hunter2@a.example")
    assert "hunter2" not in str(caught.value)


def test_headers_to_store_are_lower_case_and_no_credential_of_ours() -> None:
    """Names of headers know no case; `Breaker-Key` is for us alone."""
    assert jw.check_stored_header("Accept-Language") == "accept-language"
    for wrong in ["Breaker-Key", "breaker-key", "a b", "Host"]:
        with pytest.raises(ValueError, match=r"."):
            jw.check_stored_header(wrong)


@pytest.mark.parametrize("text", ["a", "2026-06", "0", "-", "a" * 32])
def test_a_key_id_is_short_and_plain(text: str) -> None:
    """It stands in every sealed payload."""
    assert jw.check_key_id(text) == text


@pytest.mark.parametrize("text", ["", "A", "a_b", "a" * 33, "a\n"])
def test_a_key_id_that_is_not_plain_is_refused(text: str) -> None:
    """The other side."""
    with pytest.raises(ValueError, match="is no id of a key"):
        jw.check_key_id(text)


def test_webhook_secrets_are_lines_the_newest_first() -> None:
    """Each signs, so that receivers can change theirs one by one."""
    lines = [secret(24), secret(64), secret(32).rstrip("="), secret(33)]
    assert jw.parse_webhook_secrets("\n".join(lines)) == tuple(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (secret(23), "24 to 64 bytes"),
        (secret(65), "24 to 64 bytes"),
        (secret(24).removeprefix("whsec_"), "not whsec_"),
        ("whsec_!!", "24 to 64 bytes"),
        ("whsec_ä", "24 to 64 bytes"),
        ("\n".join(secret(length) for length in range(24, 29)), "holds 5 secrets: at most 4"),
        (f"{secret(24)}\n{secret(24)}", "holds one secret twice"),
    ],
)
def test_a_webhook_secret_that_cannot_sign_says_why_and_not_what(text: str, says: str) -> None:
    """As the specification has it; what it is stays in its file."""
    with pytest.raises(ValueError, match=says) as caught:
        jw.parse_webhook_secrets(text)
    assert not any(line in str(caught.value) for line in text.split())


def test_a_payload_key_has_32_bytes() -> None:
    """AES-256, in the two ways that tools write keys."""
    key = bytes(range(32))
    assert jw.parse_payload_key(key.hex()) == jw.parse_payload_key(base64.b64encode(key).decode()) == key
    for wrong in ["", "ab" * 31, "ab" * 33, base64.b64encode(bytes(31)).decode(), "not a key", "é" * 32]:
        with pytest.raises(ValueError, match="does not hold 32 bytes") as caught:
            jw.parse_payload_key(wrong)
        assert not wrong or wrong not in str(caught.value)
