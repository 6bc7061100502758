"""
Lane: one operation's work for the next round trip, and what this replica knows of it.

The items are what somebody asked for; `parts.py` and `job_parts.py` make commands of them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from breaker.core.circuit import CircuitState
from breaker.core.errors import StoreClockError, StoreResetError
from breaker.core.jobs import Accepted, Ack, Leases, Offer
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Policy, Refused, Verdict
from breaker.store.keys import OPERATION_KEYS

if TYPE_CHECKING:
    from breaker.store.parts import OtherPart

POLICIES = (
    None, Policy.RATE, Policy.SLOTS, Policy.QUOTA, Policy.TENANT_RATE, Policy.TENANT_SLOTS,
    Policy.CLOSED, Policy.WAITING, Policy.JOBS, Policy.BYTES, Policy.TENANT_JOBS, Policy.TENANT_BYTES,
    Policy.DRAINING, Policy.PAUSED, Policy.CIRCUIT, Policy.SLOW_DOWN, Policy.TENANT_SLOW_DOWN,
)  # fmt: skip
KEY_COUNT = str(len(OPERATION_KEYS)).encode()
CIRCUIT_STATES = tuple(CircuitState)  # by their code in the scripts
PROBE = 2  # `is leased` of a call that tries whether the downstream is well again
GONE_MAX = 10_000


@dataclass(slots=True)
class AskItem:
    """A call that wants to start, and who waits for the answer (None: it had been withdrawn)."""

    ask: Ask
    answer: asyncio.Future[Verdict | None]
    is_retried: bool = False


@dataclass(frozen=True, slots=True)
class SettleItem:
    """A slot to give back; `linger` as in settle.lua."""

    id: str
    tenant: str
    linger: str
    service_us: int


@dataclass(slots=True)
class WithdrawItem:
    """A call that gives up; nobody waits for the answer when it is `gone`."""

    ask: Ask
    answer: asyncio.Future[Admitted | Refused] | None


@dataclass(slots=True)
class AcceptItem:
    """A call that may start or become a job, and who waits for the answer (None: it had been withdrawn)."""

    offer: Offer
    answer: asyncio.Future[Accepted | None]
    is_retried: bool = False


@dataclass(slots=True)
class RevokeItem:
    """An offer that is taken back; whether that came in time is told to whoever waits for it."""

    offer: Offer
    answer: asyncio.Future[bool] | None = None


@dataclass(slots=True)
class LeaseRequest:
    """A dispatcher that asks for so many jobs; `is_idle`: nothing runs on this replica."""

    want: int
    is_idle: bool
    answer: asyncio.Future[Leases]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepItem:
    """A direct call with a key has ended; `outcome` as keep.lua takes it."""

    job: str
    lease_id: str
    caller: str
    tenant: str
    key: str
    outcome: str
    result: bytes = b""


@dataclass(slots=True)
class Lane:
    """
    One operation's work for the next round trip, and what is known of its waiting calls.

    Attributes:
        gone: Calls that left without waiting for an answer. Bounded: leases and waiters lapse anyway.
        held: Leases of this replica: id -> (tenant, when taken or renewed, loop seconds).
        waiters: Calls of this replica that wait for their turn, to be told when it comes.
        waiting: How many wait over all replicas, as last heard.
        limits_text: The operation's limits in force, as last heard.
        service_us: How long a call takes on average, as last heard; 0 when not known.
        wants_grant: The next round trip looks whose turn it is.
        queued: Jobs that wait over all replicas, as last heard.
        asked, heard: Numbers of its last question for jobs, and of the last whose answer came.
        on_jobs: Told when what was given back may let a waiting job start.
        circuit, generation: State of the operation's circuit, and how often it moved, as last heard.
        paused_us: Until when the downstream asked for time, as last heard.
        override_until_us: When limits of a person end, as last heard; 0 without any.
        on_circuit: Told when that changes: the state before, and whether a step of ours moved it.
        running: Jobs of this replica: id -> (attempt, tenant, slot, when leased or renewed, loop seconds).

    """

    operation: str
    keys: tuple[bytes, ...]
    asks: deque[AskItem] = field(default_factory=deque)
    settles: deque[SettleItem] = field(default_factory=deque)
    withdraws: deque[WithdrawItem] = field(default_factory=deque)
    gone: deque[Ask] = field(default_factory=lambda: deque(maxlen=GONE_MAX))
    others: deque["OtherPart"] = field(default_factory=deque)
    held: dict[str, tuple[str, float]] = field(default_factory=dict)
    waiters: dict[str, asyncio.Future[Admitted]] = field(default_factory=dict)
    waiting: int = 0
    limits_text: str = ""
    service_us: int = 0
    wants_grant: bool = False
    grant_timer: asyncio.TimerHandle | None = None
    accepts: deque[AcceptItem] = field(default_factory=deque)
    revokes: deque[RevokeItem] = field(default_factory=deque)
    acks: deque[Ack] = field(default_factory=deque)
    keeps: deque[KeepItem] = field(default_factory=deque)
    lease: LeaseRequest | None = None
    queued: int = 0
    asked: int = 0
    heard: int = 0
    on_jobs: Callable[[], None] | None = None
    running: dict[str, tuple[int, str, str, float]] = field(default_factory=dict)
    circuit: CircuitState = CircuitState.CLOSED
    generation: int = 0
    paused_us: int = 0
    override_until_us: int = 0
    on_circuit: Callable[[CircuitState, bool], None] | None = None

    def heard_circuit(self, generation: int, code: int, *, moved: bool) -> None:
        """What a reply says of the operation's circuit."""
        state, was = CIRCUIT_STATES[code], self.circuit
        if state is was and generation == self.generation and not moved:
            return
        self.circuit, self.generation = state, generation
        if self.on_circuit:
            self.on_circuit(was, moved)

    @property
    def is_idle(self) -> bool:
        return not (
            self.asks or self.settles or self.withdraws or self.gone or self.others or self.wants_grant
            or self.accepts or self.revokes or self.acks or self.keeps or self.lease
        )  # fmt: skip


def check(reply: list[Any]) -> None:
    """
    The head of every reply: did the step happen?

    Raises:
        StoreClockError: Not now: late, or the clocks disagree. Nothing was written.
        StoreResetError: The store does not know the operation.

    """
    match reply[0]:
        case 0:
            return
        case 3:
            raise StoreResetError("the store has no policy for this operation: it was flushed or replaced")
        case 1:
            raise StoreClockError("the store was asked in time and heard of it too late; nothing was written")
        case _:
            raise StoreClockError("the store's clock and ours disagree; nothing was written")
