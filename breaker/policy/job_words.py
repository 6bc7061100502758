"""
Job words: how single values about jobs are written - durability, probes, batches, hosts, keys.

As in `words.py`, each function turns one text into one value or raises ValueError with a sentence
for the person who wrote it, and nothing here opens a file. What may be a secret is never repeated.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import NamedTuple

from breaker.core.callback_address import entry_of
from breaker.core.job_policy import Durability
from breaker.core.model import Match
from breaker.core.webhook import secret_of
from breaker.policy.words import check_header, check_template, did_you_mean, parse_match, placeholders

KEY_ID_PATTERN = r"^[a-z0-9-]{1,32}$"
REPLICAS_MAX = 16
PROBE_KEY = "idempotency_key"

_SECRETS_MAX = 4  # each signs: the old one, the new one, and room for a mistake
_PAYLOAD_KEY_BYTES = 32  # AES-256


class Durable(NamedTuple):
    """What a 202 promises; `replicas` is 0 but for `replicated`."""

    durability: Durability
    replicas: int = 0


def parse_durability(value: object) -> Durable:
    """`fsync`, `memory`, `{replicated: 2}` or, in quotes, `replicated: 2`."""
    number: object = None
    if isinstance(value, dict) and list(value) == ["replicated"]:
        number = value["replicated"]
    elif isinstance(value, str) and value in {Durability.FSYNC, Durability.MEMORY}:
        return Durable(Durability(value))
    elif isinstance(value, str) and (found := re.fullmatch(r"replicated:\s*([0-9]{1,9})", value)):
        number = int(found[1])
    elif value != Durability.REPLICATED:
        near = did_you_mean(value, [*Durability]) if isinstance(value, str) else ""
        raise ValueError(
            f"{value!r} is no durability{near}: write fsync, memory or {{replicated: N}}, N replicas"
        )
    if type(number) is not int or not 1 <= number <= REPLICAS_MAX:
        raise ValueError(f"`replicated` needs a number of replicas, 1 to {REPLICAS_MAX}: {{replicated: 1}}")
    return Durable(Durability.REPLICATED, number)


def format_durability(durability: Durability, replicas: int) -> str:
    """What `parse_durability` reads back."""
    return f"{durability}: {replicas}" if durability is Durability.REPLICATED else durability.value


def parse_probe(value: object) -> Match:
    """`GET /charges/{idempotency_key}`: how to ask whether something happened."""
    match = parse_match(value)
    if match.method != "GET":
        raise ValueError(f"{value!r} is a {match.method}: a probe only asks, so it is a GET")
    used = placeholders(match.template)
    if PROBE_KEY not in used:
        raise ValueError(
            f"{value!r} does not say which call it asks for: use {{{PROBE_KEY}}}, the key that was sent"
        )
    if others := used - {PROBE_KEY}:
        # Sent as it stands, it would be answered by a 404, which reads as "it did not happen".
        raise ValueError(f"{value!r} uses {{{min(others)}}}: only {{{PROBE_KEY}}} is known when it is asked")
    return match


def parse_batch_path(value: object) -> str:
    """The path of `POST /invoices/charge-batch`."""
    method, _, template = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if method != "POST":
        raise ValueError(f"{value!r} is not POST and a path, such as POST /invoices/charge-batch")
    path = check_template(template.strip())
    if used := placeholders(path):
        raise ValueError(
            f"{value!r} uses {{{min(used)}}}: a batch holds many calls, each with its own; write a plain path"
        )
    return path


def check_callback_host(text: str) -> str:
    """An entry of an allow-list; `core/callback_address.py` says what it covers."""
    if "@" in text:
        raise ValueError("the host carries a user or password, which do not belong in a file that is shared")
    entry_of(text)
    return text


def check_stored_header(text: str) -> str:
    """The name of a header that a job may keep, lower case."""
    name = check_header(text).lower()
    if name == "breaker-key":
        raise ValueError(f"{text!r} is the caller's own credential, which is never stored")
    return name


def check_key_id(text: str) -> str:
    if not re.fullmatch(KEY_ID_PATTERN, text):
        raise ValueError(f"{text!r} is no id of a key: 1 to 32 lower-case letters, digits and '-'")
    return text


def parse_webhook_secrets(text: str) -> tuple[str, ...]:
    """The lines of a file of `whsec_...`, the newest first."""
    secrets = tuple(text.split())
    for secret in secrets:
        try:
            secret_of(secret)
        except ValueError:
            raise ValueError("holds a line that is not whsec_ and the base64 of 24 to 64 bytes") from None
    if len(secrets) > _SECRETS_MAX:
        raise ValueError(f"holds {len(secrets)} secrets: at most {_SECRETS_MAX}, the newest first")
    if len(set(secrets)) != len(secrets):
        raise ValueError("holds one secret twice")
    return secrets


def parse_payload_key(text: str) -> bytes:
    """The 32 bytes of a key in hex or base64."""
    key = bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else _decoded(text)
    if key is None or len(key) != _PAYLOAD_KEY_BYTES:
        raise ValueError("does not hold 32 bytes in hex or base64: make one with `openssl rand -hex 32`")
    return key


def _decoded(text: str) -> bytes | None:
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)  # some tools leave the padding away
    except (Base64Error, ValueError):  # the latter where it is not ASCII
        return None
