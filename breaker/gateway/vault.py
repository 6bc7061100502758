"""
Vault: how the payloads and results of jobs go into the store and come out again.

Operations with `encrypt` are sealed for their job; what was stored before that was switched on or off
can be read all the same. A payload and a result are sealed under names of their own, so that whoever can
write to the store cannot give out the one as the other.
"""

from collections.abc import Sequence

from breaker.core.jobs import JobHead
from breaker.core.model import Operation
from breaker.gateway.job_payload import BrokenPayloadError, JobResult, Payload
from breaker.gateway.sealing import KeyRing, Undecryptable, plain

__all__ = ["Unreadable", "Vault"]

RESULT = "/result"  # behind the id of the job; no id has a slash


class Unreadable(Exception):  # noqa: N818 - the name says what happened
    """No key opens it, or it was damaged; the message says which."""


class Vault:
    """The key ring in force, for all operations."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._ring = KeyRing(keys)

    def close(self, operation: Operation, job: str, payload: bytes) -> bytes:
        """What is stored of a request; the id is the ULID."""
        if operation.queue and operation.queue.encrypt:
            return self._ring.seal(payload, operation.name, job)
        return plain(payload)

    def close_result(self, operation: Operation, job: str, result: JobResult) -> bytes:
        """What is stored of an answer; likewise."""
        return self.close(operation, job + RESULT, result.encode())

    def payload(self, operation: str, head: JobHead, stored: bytes) -> Payload:
        """
        A job's request.

        Raises:
            Unreadable: It cannot be read.

        """
        try:
            return Payload.decode(self._open(operation, head.id, stored))
        except BrokenPayloadError as exc:
            raise Unreadable(str(exc)) from exc

    def result(self, operation: str, head: JobHead, stored: bytes) -> JobResult | None:
        """
        A job's result; None when it has none.

        Raises:
            Unreadable: It cannot be read.

        """
        if not stored:
            return None
        try:
            return JobResult.decode(self._open(operation, head.id + RESULT, stored))
        except BrokenPayloadError as exc:
            raise Unreadable(str(exc)) from exc

    def _open(self, operation: str, name: str, stored: bytes) -> bytes:
        try:
            return self._ring.unseal(stored, operation, name)
        except Undecryptable as exc:
            raise Unreadable(str(exc)) from exc
