"""
Webhooks: how the receiver of a callback or of an alert knows that it is ours, recent, and not seen before.

Standard Webhooks 1.0 with symmetric signatures: HMAC-SHA256 over `id.timestamp.body`, in the header
`webhook-signature` as `v1,<base64>`, one for each secret: while a secret is rotated the receiver may know
either. The id stays the same over attempts, the timestamp is that of the attempt. What receivers have to do
is in `docs/callbacks.md`.
"""

import base64
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache

SECRET_PREFIX = "whsec_"  # noqa: S105 - announces a secret, is none
SECRET_BYTES = range(24, 65)  # of the specification: 192 to 512 bits

# No full stop: `id.timestamp.body` must be read in one way only ("Signature scheme" of the specification).
_ID = re.compile(r"[A-Za-z0-9_~-]{1,128}")


@lru_cache(maxsize=1_024)
def secret_of(text: str) -> bytes:
    """
    The key that `whsec_<base64>` stands for.

    Raises:
        ValueError: It is not of that form, or not of 24 to 64 bytes. The message does not quote it.

    """
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"a webhook secret starts with {SECRET_PREFIX!r}; this one does not")
    try:
        # Some tools leave the padding away.
        digits = text.removeprefix(SECRET_PREFIX)
        secret = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as exc:
        raise ValueError(f"a webhook secret is base64 behind {SECRET_PREFIX!r}; this one is not") from exc
    if len(secret) not in SECRET_BYTES:
        raise ValueError(
            f"a webhook secret has {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes; this one has {len(secret)}"
        )
    return secret


def signed_headers(
    *,
    id: str,  # noqa: A002 - the word of the specification
    timestamp_s: int,
    body: bytes,
    secrets: Sequence[str],
) -> dict[str, str]:
    """
    The three headers of one attempt.

    Args:
        id: The same for all attempts, and for nothing else; 1 to 128 of A-Z, a-z, 0-9, `_`, `~` and `-`.
        timestamp_s: When this attempt is made, seconds since 1970.
        body: The very bytes that are sent.
        secrets: `whsec_<base64>`, the newest first.

    Raises:
        ValueError: There is no secret, or one of them or the id is malformed.

    """
    if not secrets:
        raise ValueError("a webhook without a secret cannot be signed")
    if not _ID.fullmatch(id):
        raise ValueError(f"webhook id {id!r} is not 1 to 128 of A-Z, a-z, 0-9, '_', '~' and '-'")
    signed = b"%b.%d.%b" % (id.encode(), timestamp_s, body)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(_signature(signed, secret_of(secret)) for secret in secrets),
    }


def _signature(signed: bytes, secret: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
