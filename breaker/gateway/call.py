"""
A call on its way: what the edge found out about it, and how it is answered.

`web/` makes calls and implements `Body` and `Reply`; `path.py` decides.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from breaker.core.events import Outcome
from breaker.core.job_policy import Band
from breaker.core.jobs import Offer
from breaker.core.promise import Eta
from breaker.core.state import Ask
from breaker.core.trace import Span
from breaker.core.verdict import Admitted, Policy, Room
from breaker.gateway.job_payload import JobResult
from breaker.gateway.tenants import Tenants
from breaker.gateway.work import Work


class Kind(StrEnum):
    """Why a call was not forwarded, or has no answer of the downstream: the problem types."""

    UNKNOWN_OPERATION = "unknown-operation"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    BAD_REQUEST = "bad-request"
    REQUEST_TIMEOUT = "request-timeout"
    PAYLOAD_TOO_LARGE = "payload-too-large"
    CONTRACT = "contract"
    TOO_COSTLY = "too-costly"
    TENANT_LIMIT = "tenant-limit"
    OVER_CAPACITY = "over-capacity"
    QUEUE_FULL = "queue-full"
    PAUSED = "paused"
    DRAINING = "draining"
    CIRCUIT_OPEN = "circuit-open"
    IDEMPOTENCY_KEY_MISSING = "idempotency-key-missing"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    IN_PROGRESS = "in-progress"
    DURABILITY_NOT_MET = "durability-not-met"
    JOB_NOT_FOUND = "job-not-found"
    RESULT_EXPIRED = "result-expired"
    NOT_CANCELLABLE = "not-cancellable"
    DEGRADED = "degraded"
    DEADLINE = "deadline"
    OUTCOME_UNKNOWN = "outcome-unknown"
    DOWNSTREAM_UNREACHABLE = "downstream-unreachable"
    DOWNSTREAM_TIMEOUT = "downstream-timeout"


@dataclass(slots=True, kw_only=True)
class Refusal:
    """
    An answer of ours.

    Attributes:
        detail: One sentence for a person: what, and the way out.
        outcome: What it means for the call: refused, failed, or not known.
        policy: The limit that refused.
        retry_after_us: When to come back; None when coming back does not help.
        extra: Members of the problem besides the standard ones.
        headers: Further header lines, such as `Allow`.

    """

    kind: Kind
    detail: str
    outcome: Outcome = Outcome.REFUSED
    policy: Policy | None = None
    retry_after_us: int | None = None
    room: Room = Room()
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """
    What a caller asks of an operation with a queue, beside the work itself.

    Attributes:
        key: Its idempotency key, or empty.
        is_async: Queue it, also when it could start now (`Prefer: respond-async`).
        wait_s: Hold the connection so long for the result (`Prefer: wait=N`); None did not say.
        not_before_us: Microseconds since 1970; 0 is now.
        expires_in_ms: Of its own; None did not say.
        band: If it may name one.
        callback: Where its end is told, or empty.

    """

    key: str = ""
    is_async: bool = False
    wait_s: float | None = None
    not_before_us: int = 0
    expires_in_ms: int | None = None
    band: Band | None = None
    callback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """
    What a caller is told of a job.

    Attributes:
        job: The whole id.
        state: A state of core/jobs.py, or `held`.
        position: Jobs that may start before it; None when it does not wait.
        eta: None when it is not known.
        deadline_us, expiry_us, due_us: Microseconds since 1970; 0 is none.
        durability: What its acceptance reached; empty when it is not known any more.
        preference: `Preference-Applied`, or empty.
        is_known: The same key had made it a job before.
        why: The limit that had no room; None when it asked to be queued.
        held: Why nothing of the operation starts now; None when something may.

    """

    job: str
    state: str
    band: Band
    position: int | None
    eta: Eta | None
    deadline_us: int
    expiry_us: int = 0
    due_us: int = 0
    durability: str = ""
    preference: str = ""
    is_known: bool = False
    why: Policy | None = None
    held: Policy | None = None


class CallerError(Exception):
    """What the caller sends cannot be had or passed on; `kind` says how."""

    def __init__(self, kind: Kind, detail: str) -> None:
        self.kind, self.detail = kind, detail
        super().__init__(detail)


class Body(Protocol):
    """
    What the caller sends.

    Attributes:
        length: Bytes by its Content-Length; None when it is chunked.

    """

    length: int | None

    async def read(self, most: int | None, seconds: float) -> bytes:
        """All of it as it was sent. Raises CallerError: too large, too slow, broken off."""

    def decoded(self, raw: bytes, most: int | None) -> bytes:
        """The same without its `Content-Encoding`. Raises CallerError: unknown, broken, or a bomb."""

    def whole(self, most: int | None = None) -> bytes | None:
        """All of it as it was sent, if it is here already; else None. Raises CallerError: too large."""

    def pieces(self, most: int | None, seconds: float) -> AsyncIterator[bytes]:
        """As it was sent, piece by piece, each within `seconds`. Raises CallerError."""


class Reply(Protocol):
    """
    How the caller is answered. Exactly one of `refuse`, `whole` and `start` is called once.

    Attributes:
        is_gone: The caller has hung up.
        status: What was sent; 0 before.

    """

    status: int

    @property
    def is_gone(self) -> bool: ...

    def refuse(self, call: "Call", refusal: Refusal) -> None:
        """Our own answer."""

    def whole(self, status: int, reason: str, lines: bytes, body: bytes) -> None:
        """An answer whose body is here; `lines` are complete header lines without framing."""

    def start(self, status: int, reason: str, lines: bytes, length: int | None) -> None:
        """The head of an answer whose body follows in pieces."""

    async def piece(self, data: bytes, deadline: float) -> None:
        """
        One piece; waits while the caller reads slower than we write.

        Raises:
            TimeoutError: It still does at the deadline, loop seconds.
        """

    def end(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """The body ends here, and must not look complete."""

    def accepted(self, call: "Call", receipt: Receipt) -> None:
        """202: it is a job."""

    def kept(self, call: "Call", result: JobResult, outcome: Outcome, lines: bytes) -> None:
        """The downstream's answer that was kept; `lines` are further header lines."""

    async def drain(self) -> None:
        """Wait until the caller has taken what was written, as far as that is bounded."""


NOT_ASKED = Ask(id="")
NO_WISHES = Wishes()


@dataclass(slots=True, kw_only=True)
class Call:
    """
    One HTTP request from a caller for an operation.

    Attributes:
        work: The operation and all that serves it.
        id: Of the lease that it will hold.
        tenant: By header or by default; a JSON pointer may still replace it.
        ask: What the store is asked, once that is known.
        method, target: As sent; the target without the pipeline.
        headers: As sent, in order.
        span: None when it is not sampled.
        peer_lines: `Forwarded` and `X-Forwarded-*` header lines.
        deadline: Loop seconds at which the caller stops waiting; inf when it did not say.
        started: Loop seconds at which it arrived.
        task: Cancelled when the caller hangs up while `ends_on_hang_up`.
        is_ended: It was counted; no second time.
        paused: Seconds after `admitted` in which no attempt was under way.
        sent_body: What was read to look at it, and goes downstream.
        wishes: Of an operation with a queue.
        offer: What the store was offered, of an operation with a queue.
        batch_value, band_word: What the body says at the pointers of the batch key and the band.

    """

    work: Work
    id: str
    cost: int
    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    peer_lines: bytes
    body: Body
    reply: Reply
    caller: str
    tenants: Tenants
    tenant: str
    decision: str
    request_id: str
    trace_id: str
    deadline: float
    started: float
    span: Span | None = None
    ask: Ask = NOT_ASKED
    task: asyncio.Task[Any] | None = None
    ends_on_hang_up: bool = True
    sent_body: bytes | None = None
    asked: float = 0.0
    admitted: float = 0.0
    paused: float = 0.0
    verdict: Admitted | None = None
    wishes: Wishes = NO_WISHES
    offer: Offer | None = None
    batch_value: Any = None
    band_word: str | None = None
    is_ended: bool = False
