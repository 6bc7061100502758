"""
Sealing: stored payloads that only a holder of the key can read, or change unnoticed.

AES-256-GCM (NIST SP 800-38D) with a ring of keys. A stored blob begins with a byte that says what follows:

    00  the payload as it is
    01  length of the key id (1 byte), key id, nonce (12 bytes), ciphertext and tag

1. The newest key encrypts, any key of the ring decrypts: a key is rotated by putting a new one first, and
   removed when nothing is stored any more that it has sealed.
2. Operation, job and key id are authenticated, each with its length before it: a blob that was moved to
   another job does not open, and no two triples read the same.
3. Both kinds open, whatever is switched on now: encryption can be switched while jobs wait. So whoever can
   write to the store can plant a plain payload; sealing keeps payloads from being read, and sealed ones
   from being changed or moved.
4. Nonces are random, which is safe for 2^32 payloads with one key (section 8.3): 49 days at 1,000 a second.
   Rotate well before.
"""

import os
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
KEY_ID = re.compile(r"[a-z0-9-]{1,32}")

_PLAIN = b"\x00"
_SEALED = b"\x01"
_NONCE = 12
_TAG = 16


class Undecryptable(Exception):  # noqa: N818 - the name says what happened, as those of the downstream do
    """
    A stored payload cannot be read: it must not run, and needs a person.

    Attributes:
        reason: What is wrong, in words; never anything of the payload or of a key.

    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def plain(body: bytes) -> bytes:
    """`body` as it is stored when its operation does not encrypt."""
    return _PLAIN + body


class KeyRing:
    """
    The keys of stored payloads.

    Args:
        keys: (id, key) with the newest first. An empty ring opens plain payloads only.

    Raises:
        ValueError: A key is not of 32 bytes, or an id is not of the closed form or stands twice.

    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        for key_id, key in keys:
            if not KEY_ID.fullmatch(key_id):
                raise ValueError(f"key id {key_id!r} is not 1 to 32 of a-z, 0-9 and '-'")
            if len(key) != KEY_BYTES:
                raise ValueError(f"key {key_id!r} has {len(key)} bytes, not {KEY_BYTES}")
            if key_id.encode() in self._ciphers:
                raise ValueError(f"key id {key_id!r} stands twice in the ring")
            self._ciphers[key_id.encode()] = AESGCM(key)
        self._newest = next(iter(self._ciphers), b"")

    def seal(self, plain: bytes, operation: str, job: str) -> bytes:
        """
        Encrypt with the newest key, for this job of this operation alone.

        Raises:
            ValueError: The ring is empty. Nothing is ever stored readable because a key is missing.

        """
        key_id = self._newest
        if not key_id:
            raise ValueError("the key ring is empty: there is nothing to encrypt with")
        nonce = os.urandom(_NONCE)
        text = self._ciphers[key_id].encrypt(nonce, plain, _bound_to(operation, job, key_id))
        return b"%b%c%b%b%b" % (_SEALED, len(key_id), key_id, nonce, text)

    def unseal(self, blob: bytes, operation: str, job: str) -> bytes:
        """
        The payload of a stored blob, sealed or plain.

        Raises:
            Undecryptable: No key of the ring opens it, or it is not what was sealed for this job.

        """
        kind = blob[:1]
        if kind == _PLAIN:
            return blob[1:]
        if kind != _SEALED:
            raise Undecryptable(
                f"stored in a form that is not known here (first byte {kind.hex() or 'missing'})"
            )
        start = 2 + blob[1] if len(blob) > 1 else 0
        key_id = blob[2:start]
        if len(blob) < start + _NONCE + _TAG or not KEY_ID.fullmatch(key_id.decode("latin-1")):
            raise Undecryptable("cut short, or its key id was overwritten")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Undecryptable(f"sealed with key {key_id.decode()!r}, which is not in the key ring")
        try:
            return cipher.decrypt(
                blob[start : start + _NONCE], blob[start + _NONCE :], _bound_to(operation, job, key_id)
            )
        except InvalidTag as exc:
            raise Undecryptable(
                f"does not authenticate with key {key_id.decode()!r}: changed, moved to another job, "
                "or another key under the same id"
            ) from exc


def _bound_to(operation: str, job: str, key_id: bytes) -> bytes:
    name, id_ = operation.encode(), job.encode()
    return b"%d:%b%d:%b%d:%b" % (len(name), name, len(id_), id_, len(key_id), key_id)
