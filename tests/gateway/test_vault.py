"""What is stored of jobs opens for the job, and the part of it, that it was stored for."""

from dataclasses import replace

import pytest

from breaker.core.job_policy import Queue
from breaker.core.model import Downstream, Match, Operation, Overflow
from breaker.gateway.job_payload import JobResult, Payload
from breaker.gateway.vault import Unreadable, Vault
from tests.gateway.leased import leased

PLAIN = Operation(
    name="billing.charge", pipeline="billing", team="t", match=Match(method="POST", template="/x"),
    downstream=Downstream(url="http://127.0.0.1:1"), overflow=Overflow.QUEUE, queue=Queue(start_within_ms=1, jobs_max=1),
)  # fmt: skip
SEALED = replace(PLAIN, queue=Queue(start_within_ms=1, jobs_max=1, encrypt=True))
HEAD = leased("01J").head
PAYLOAD = Payload(method="POST", target=b"/x", body=b"secret")
RESULT = JobResult(status=201, body=b"secret")


@pytest.mark.parametrize("operation", [PLAIN, SEALED])
def test_what_was_stored_comes_out_again(operation: Operation) -> None:
    """Whether it is sealed or not, and also when that was changed since."""
    vault = Vault([("k", b"k" * 32)])
    stored = vault.close(operation, "01J", PAYLOAD.encode())
    kept = vault.close_result(operation, "01J", RESULT)
    assert (b"secret" in stored, b"secret" in kept) == (operation is PLAIN,) * 2
    assert vault.payload(PLAIN.name, HEAD, stored) == PAYLOAD
    assert vault.result(PLAIN.name, HEAD, kept) == RESULT
    assert vault.result(PLAIN.name, HEAD, b"") is None


def test_an_answer_and_a_request_cannot_be_exchanged() -> None:
    """Who can write to the store must not have a request handed out as an answer, or an answer sent."""
    vault = Vault([("k", b"k" * 32)])
    # The same bytes, so that only the name tells them apart.
    stored = vault.close(SEALED, "01J", RESULT.encode())
    kept = vault.close_result(SEALED, "01J", RESULT)
    with pytest.raises(Unreadable, match="does not authenticate"):
        vault.result(SEALED.name, HEAD, stored)
    with pytest.raises(Unreadable, match="does not authenticate"):
        vault.payload(SEALED.name, HEAD, kept)
    for other in (leased("01K").head, replace(HEAD, id="01J/result")):
        with pytest.raises(Unreadable):
            vault.result(SEALED.name, other, kept)


def test_what_no_key_opens_says_which_is_missing() -> None:
    stored = Vault([("old", b"k" * 32)]).close(SEALED, "01J", PAYLOAD.encode())
    with pytest.raises(Unreadable, match="'old', which is not in the key ring"):
        Vault([("new", b"n" * 32)]).payload(SEALED.name, HEAD, stored)


def test_what_is_no_payload_is_not_taken_for_one() -> None:
    """A damaged value ends its job visibly, instead of the process."""
    vault = Vault([])
    for stored in (b"", b"\x00", b"\x00{}", b"\x02x"):
        with pytest.raises(Unreadable):
            vault.payload(PLAIN.name, HEAD, stored)
