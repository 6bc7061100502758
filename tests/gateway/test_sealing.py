"""Sealing: what is stored can be read by a holder of the key, for the job it was stored for."""

import os

import pytest

from breaker.gateway.sealing import KeyRing, Undecryptable, plain

OPERATION, JOB = "billing.charge-invoice", "01JABCDEFGHJKMNPQRSTVWXYZ0"
BODY = b'{"card": "4111 1111 1111 1111", "amount": 1900}'
OLD, NEW = ("2026-01", bytes(range(32))), ("2026-07", bytes(range(32, 64)))


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x01", BODY, os.urandom(262_144)])
def test_what_was_sealed_opens_and_cannot_be_read_without(body: bytes) -> None:
    """A copy of the store's disk must not give away a customer's invoice, and the invoice must still be sent."""
    blob = KeyRing([NEW]).seal(body, OPERATION, JOB)
    assert KeyRing([NEW]).unseal(blob, OPERATION, JOB) == body
    assert len(body) < 8 or body not in blob


def test_newest_key_seals_and_older_ones_still_open() -> None:
    """A key is rotated while jobs wait that the old one has sealed."""
    before, during, after = KeyRing([OLD]), KeyRing([NEW, OLD]), KeyRing([NEW])
    waiting, later = before.seal(BODY, OPERATION, JOB), during.seal(BODY, OPERATION, JOB)
    assert during.unseal(waiting, OPERATION, JOB) == BODY
    assert after.unseal(later, OPERATION, JOB) == BODY
    with pytest.raises(
        Undecryptable, match="sealed with key '2026-01', which is not in the key ring"
    ) as caught:
        after.unseal(waiting, OPERATION, JOB)
    assert "not in the key ring" in caught.value.reason


def test_same_payload_looks_different_each_time() -> None:
    """A nonce used twice would give the key stream away."""
    ring = KeyRing([NEW])
    assert len({ring.seal(BODY, OPERATION, JOB) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("operation", "job"),
    [
        (OPERATION, JOB[:-1] + "1"),
        ("billing.refund-invoice", JOB),
        # The same text in another division, which joining them without lengths would not tell apart.
        (OPERATION + JOB[0], JOB[1:]),
        (OPERATION[:-1], OPERATION[-1] + JOB),
        (OPERATION, JOB + NEW[0]),
    ],
)
def test_blob_moved_to_another_job_does_not_open(operation: str, job: str) -> None:
    """Whoever can write to the store must not make job B charge what job A was to charge."""
    ring = KeyRing([NEW])
    blob = ring.seal(BODY, OPERATION, JOB)
    with pytest.raises(Undecryptable, match="does not authenticate with key '2026-07'"):
        ring.unseal(blob, operation, job)


def test_key_id_is_bound_to_the_payload() -> None:
    """Two ids of one key are two keys: else an attacker could choose by which name a payload opens."""
    ring = KeyRing([("a-1", NEW[1]), ("a-2", NEW[1])])
    blob = ring.seal(BODY, OPERATION, JOB)
    with pytest.raises(Undecryptable, match="a-2"):
        ring.unseal(blob.replace(b"a-1", b"a-2"), OPERATION, JOB)


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    """A changed amount must never reach the downstream, whatever was changed, and never as another error."""
    ring = KeyRing([NEW])
    blob = ring.seal(BODY, OPERATION, JOB)
    # The first byte says whether the rest is sealed at all; what it may say is tested below.
    changed = [
        blob[:at] + bytes([blob[at] ^ 1 << bit]) + blob[at + 1 :]
        for at in range(1, len(blob))
        for bit in range(8)
    ]
    cut = [blob[:length] for length in range(len(blob))]
    for wrong in [*changed, *cut, blob + b"\x00"]:
        with pytest.raises(Undecryptable):
            ring.unseal(wrong, OPERATION, JOB)


def test_other_key_under_a_known_id_does_not_open() -> None:
    """Somebody restored the wrong key file: the jobs end visibly, not as garbage sent downstream."""
    blob = KeyRing([NEW]).seal(BODY, OPERATION, JOB)
    with pytest.raises(Undecryptable, match="another key under the same id"):
        KeyRing([(NEW[0], OLD[1])]).unseal(blob, OPERATION, JOB)


@pytest.mark.parametrize("ring", [KeyRing([]), KeyRing([NEW])])
@pytest.mark.parametrize("body", [b"", b"\x01", BODY])
def test_plain_payload_opens_with_and_without_keys(ring: KeyRing, body: bytes) -> None:
    """Encryption is switched on and off while jobs wait."""
    assert ring.unseal(plain(body), OPERATION, JOB) == body


def test_ring_without_keys_seals_nothing_and_names_the_key_it_lacks() -> None:
    """A lost key file must neither store payloads in the clear nor look like a broken payload."""
    with pytest.raises(ValueError, match="key ring is empty"):
        KeyRing([]).seal(BODY, OPERATION, JOB)
    with pytest.raises(Undecryptable, match="2026-07"):
        KeyRing([]).unseal(KeyRing([NEW]).seal(BODY, OPERATION, JOB), OPERATION, JOB)


@pytest.mark.parametrize(("blob", "says"), [(b"", "missing"), (b"\x02abc", "02"), (b'{"a":1}', "7b")])
def test_unknown_form_is_undecryptable(blob: bytes, says: str) -> None:
    """A newer version wrote it: the job ends visibly instead of being sent with a byte too many."""
    with pytest.raises(Undecryptable, match=f"first byte {says}"):
        KeyRing([NEW]).unseal(blob, OPERATION, JOB)


@pytest.mark.parametrize("key_id", ["", "A", "a_b", "a b", "a\n", "k" * 33, "é"])
def test_key_ids_are_of_a_closed_form(key_id: str) -> None:
    """They are shown to people and stored in one byte of length."""
    with pytest.raises(ValueError, match="1 to 32 of a-z"):
        KeyRing([(key_id, NEW[1])])


def test_longest_key_id_works() -> None:
    ring = KeyRing([("k" * 32, NEW[1])])
    assert ring.unseal(ring.seal(BODY, OPERATION, JOB), OPERATION, JOB) == BODY


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_keys_are_of_32_bytes(size: int) -> None:
    """A key of 16 bytes would quietly be AES-128; the message must not show the key."""
    with pytest.raises(ValueError, match=f"'short' has {size} bytes, not 32$"):
        KeyRing([("short", bytes(size))])


def test_key_id_stands_once() -> None:
    """Which of two would open what the other has sealed?"""
    with pytest.raises(ValueError, match="'2026-07' stands twice"):
        KeyRing([NEW, OLD, (NEW[0], OLD[1])])
