"""
Verdicts: what admission answers, and which policy decided.

    Admitted    start now (perhaps over capacity, perhaps only because a limit is in shadow)
    Waiting     wait for your turn; you will be woken
    Refused     come back with this ticket
    TooCostly   can never fit: the caller's mistake
"""

from dataclasses import dataclass
from enum import StrEnum


class Policy(StrEnum):
    """The limit that decided; also the names in RateLimit fields and problems."""

    RATE = "rate"
    SLOTS = "slots"
    QUOTA = "quota"
    TENANT_RATE = "tenant"
    TENANT_SLOTS = "tenant-slots"
    CLOSED = "closed"
    WAITING = "waiting"
    JOBS = "jobs"
    BYTES = "bytes"
    TENANT_JOBS = "tenant-jobs"
    TENANT_BYTES = "tenant-bytes"
    DRAINING = "draining"
    PAUSED = "paused"
    CIRCUIT = "circuit"
    SLOW_DOWN = "slow-down"
    TENANT_SLOW_DOWN = "tenant-slow-down"

    @property
    def is_tenants_own(self) -> bool:
        """The caller's own limit (429), not the shared capacity (503)."""
        return self in _TENANTS_OWN

    @property
    def is_full(self) -> bool:
        """A bound of the queue, not a limit on starts."""
        return self in _FULL


_TENANTS_OWN = (
    Policy.TENANT_RATE, Policy.TENANT_SLOTS, Policy.TENANT_JOBS, Policy.TENANT_BYTES, Policy.TENANT_SLOW_DOWN,
)  # fmt: skip
_FULL = (Policy.JOBS, Policy.BYTES, Policy.TENANT_JOBS, Policy.TENANT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """
    What is left of the tightest rate after a verdict, for the RateLimit field.

    Attributes:
        policy: Whose numbers these are; None when nothing is limited.
        remaining: Starts that could follow at once.
        reset_us: Until one more start is possible, or all of the burst is free again.

    """

    policy: Policy | None = None
    remaining: int = 0
    reset_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """
    The call may start.

    Attributes:
        over: The policy that had no room, when `overflow: alert` let the call through.
        shadow: The policy that would have refused, were it enforced.
        leased: A slot is held and must be settled.
        delayed: It waited for its turn first.
        is_probe: It tries whether the downstream is well again.
        generation: Of the circuit when it was admitted.

    """

    room: Room = Room()
    over: Policy | None = None
    shadow: Policy | None = None
    leased: bool = False
    delayed: bool = False
    is_probe: bool = False
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The call stands in the waiting line; `policy` is what it waits for."""

    policy: Policy
    room: Room = Room()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The call may not start; `retry_after_us` is its own ticket."""

    policy: Policy
    retry_after_us: int
    room: Room = Room()


@dataclass(frozen=True, slots=True, kw_only=True)
class TooCostly:
    """The cost exceeds what `policy` allows at any time."""

    policy: Policy


Verdict = Admitted | Waiting | Refused | TooCostly
