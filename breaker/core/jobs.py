"""
Jobs: calls that were accepted into the durable queue, as values.

    scheduled -> queued -> running -> succeeded | dead | unknown
                   ^          |
                   +--retry---+          waiting: -> expired | cancelled      dead -> discarded (purged)

`held` is how a queued job is reported while nothing of its operation may start; nothing moves.
A job's id is `<operation>~<ULID>`: it names its operation, and sorts by age. Inside the operation's
keys only the ULID stands.
"""

from dataclasses import dataclass
from enum import StrEnum

from breaker.core.job_policy import BANDS, Band
from breaker.core.verdict import Admitted, Policy, Refused, TooCostly


class JobState(StrEnum):
    """Where a job is; the names callers and operators see."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"

    @property
    def is_ended(self) -> bool:
        return self not in (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING)

    @property
    def keeps_payload(self) -> bool:
        """It ended, and a person may still let it run again."""
        return self in (JobState.DEAD, JobState.UNKNOWN)


class Reason(StrEnum):
    """Why a job is dead, unknown or waits again."""

    CALLER = "caller"  # the downstream, or the contract, says that the request is wrong
    BUDGET = "budget"  # the time or number of its retries is used up
    POISON = "poison"  # its replica died twice while it ran alone
    UNDECRYPTABLE = "undecryptable"  # no key of the ring opens it
    TOLD = "told"  # the downstream said `Breaker-Retry: never`
    AMBIGUOUS = "ambiguous"  # sent, and the outcome is not known
    LOST = "lost"  # its replica died while it ran
    DOWNSTREAM = "downstream"  # the downstream failed
    SLOW_DOWN = "slow_down"  # the downstream asked for time


# The first character of a stored job, see lua/queue.lua. `c` is a call that was admitted directly and kept
# for its idempotency key.
STATE_CODES = {
    "w": JobState.SCHEDULED, "q": JobState.QUEUED, "r": JobState.RUNNING, "s": JobState.SUCCEEDED,
    "x": JobState.DEAD, "u": JobState.UNKNOWN, "e": JobState.EXPIRED, "k": JobState.CANCELLED,
    "p": JobState.DISCARDED, "c": JobState.SUCCEEDED,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHead:
    """
    What the scripts know of a job; all times are the store's microseconds, 0 is never.

    Attributes:
        id: The ULID.
        attempt: How often it was leased; the fencing token of the running attempt.
        failures: Attempts that failed and count against its retries.
        lost: Leases that were lost while it ran alone.
        is_suspect: A lease of it was lost, so that it runs alone.
        first_us: When its first attempt started: its retry budget counts from here.
        since_us: When it came into its present state.
        deadline_us: When the promise says that it starts.
        expiry_us: When it ends as expired unless it has started.
        size: Bytes stored.
        line: Its tenant, with `~` and a digest of the batch key behind it where there is one.
        key: Its idempotency key, or empty.
        callback: Where its end is told, or empty.
        reason: Why it is dead or unknown; empty otherwise.

    """

    id: str
    state: JobState
    band: Band
    attempt: int
    failures: int
    lost: int
    is_suspect: bool
    first_us: int
    since_us: int
    accepted_us: int
    deadline_us: int
    expiry_us: int
    cost: int
    size: int
    caller: str
    tenant: str
    line: str
    key: str
    callback: str
    reason: str = ""


def head_of(id_: str, text: str) -> JobHead:
    """Read the first line of a stored job; the counterpart of `head` in lua/queue.lua."""
    (
        state, band, attempt, failures, lost, suspect, first, since, reason, accepted, deadline, expiry, cost,
        size, caller, tenant, line, key, callback,
    ) = text.split(" ")  # fmt: skip
    return JobHead(
        id=id_, state=STATE_CODES[state], band=BANDS[int(band)], attempt=int(attempt), failures=int(failures),
        lost=int(lost), is_suspect=suspect != "0", first_us=int(first), since_us=int(since),
        reason=REASON_CODES[reason], accepted_us=int(accepted), deadline_us=int(deadline), expiry_us=int(expiry),
        cost=int(cost), size=int(size), caller=caller, tenant=tenant, line=line,
        key="" if key == "-" else key, callback="" if callback == "-" else callback,
    )  # fmt: skip


REASON_CODES = {
    "-": "", "c": Reason.CALLER, "b": Reason.BUDGET, "p": Reason.POISON, "n": Reason.UNDECRYPTABLE,
    "t": Reason.TOLD, "a": Reason.AMBIGUOUS, "l": Reason.LOST, "d": Reason.DOWNSTREAM, "s": Reason.SLOW_DOWN,
}  # fmt: skip
CODE_OF_REASON = {reason: code for code, reason in REASON_CODES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """
    A call that may start now or else becomes a job.

    Attributes:
        lease_id: Of the slot that it holds when it starts now.
        job: The ULID that it gets when it is queued (and under which its result is kept when it has a key).
        key, fingerprint: Idempotency key, or empty; digest of method, path and body.
        line: Its tenant, with `~` and a digest of its batch key.
        is_async: Queue it, also when it could start now.
        not_before_us: Queue it until then; 0 is now.
        payload: What the dispatcher will need; opaque to the scripts.
        watches: Its caller waits here: tell this replica when the job has ended.
        wakes_others: This replica will not run it, so that the others are told that there is work.

    """

    lease_id: str
    job: str
    tenant: str
    cost: int
    caller: str
    key: str
    fingerprint: str
    band: Band
    line: str
    is_async: bool
    not_before_us: int
    deadline_us: int
    expiry_us: int
    callback: str
    payload: bytes
    watches: bool = False
    wakes_others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """
    How fast the queue moves, as last measured while work was waiting; microseconds per job.

    Attributes:
        mean_us, spread_us: Mean and mean absolute deviation; 0 when not known.
        service_us: How long a job holds its slot; 0 when not known.
        limits_text: The limits in force, see store/policy.py.

    """

    mean_us: int = 0
    spread_us: int = 0
    service_us: int = 0
    limits_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """
    The call is a job now, or was already (`is_known`: the same key and the same request).

    Attributes:
        job: Its ULID.
        ahead: Jobs that may start before it: those in the same and in higher bands.
        fair, late, own: Jobs that should start before it by the fair order; if nobody's line runs dry meanwhile;
            and of its own tenant.
        depth: Jobs waiting in the operation.
        held: Why nothing of the operation starts now; None when something may.
        reach: What the write was seen to reach: fsynced here, replicas; None when it was not asked.
        durability: The same in words, for the 202.
        why: The limit that had no room; None when it asked to be queued.

    """

    job: str
    ahead: int
    depth: int
    pace: Pace
    fair: int = 0
    late: int = 0
    own: int = 0
    held: Policy | None = None
    is_known: bool = False
    reach: tuple[bool, int] | None = None
    durability: str = ""
    why: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InProgress:
    """The same key is being worked on by a direct call; come back when that has ended."""

    retry_after_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReused:
    """The key was used for another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptResult:
    """The work of this key has ended; its record is `job`'s (a direct call's, or a job's)."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeUnknown:
    """A direct call with this key may have had its effect; nobody knows."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DurabilityNotMet:
    """The write reached too little (`durability` says what); the job was withdrawn and will not run."""

    durability: str


Accepted = (
    Admitted
    | Refused
    | TooCostly
    | Queued
    | InProgress
    | KeyReused
    | KeptResult
    | OutcomeUnknown
    | DurabilityNotMet
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """
    A job that this replica is to run.

    Attributes:
        slot: Id of the lease that it holds; all jobs of a batch hold the same.
        payload: As offered.
        generation: Of the circuit when it was leased.
        is_probe: It tries whether the downstream is well again.

    """

    head: JobHead
    slot: str
    payload: bytes
    generation: int = 0
    is_probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """
    The answer to a dispatcher that asks for work.

    Attributes:
        jobs: To run now, in this order; all of them one batch if the operation has batches.
        waiting: Jobs that wait, scheduled ones included.
        next_us: Microseconds until it makes sense to ask again; -1: nothing is due, wait to be woken.
        wants_alone: A suspect waits for this replica to be idle.
        is_alone: The one job in `jobs` is a suspect: run nothing beside it.
        has_more: More could start at once than was asked for.
        lost, expired: Leases that ran out and jobs that expired, found by this look.

    """

    jobs: tuple[LeasedJob, ...]
    waiting: int
    next_us: int
    wants_alone: bool = False
    is_alone: bool = False
    has_more: bool = False
    lost: int = 0
    expired: int = 0


class Fate(StrEnum):
    """What becomes of a job after an attempt; the words of ack.lua."""

    SUCCEEDED = "succeeded"
    DEAD = "dead"
    UNKNOWN = "unknown"
    RETRY = "retry"  # the attempt failed: again after `delay_us`
    LATER = "later"  # it was asked to slow down: again after `delay_us`, and no attempt was used
    BACK = "back"  # it did not run: to the front at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """
    How one attempt of a job ended.

    Attributes:
        attempt: The fencing token; an ack of a lost lease is counted and ignored.
        tenant: Its own slots are given back too.
        delay_us: Of `RETRY` and `LATER`.
        result: Kept as the job's record when it has ended; opaque to the scripts. Empty keeps only the head.
        note: A line of its history (JSON), kept when not empty.
        service_us: How long the downstream took; 0 teaches nothing.
        probe_us: For `UNKNOWN`: ask the downstream after so long; 0 does not ask.

    """

    job: str
    attempt: int
    tenant: str
    slot: str
    fate: Fate
    reason: str = ""
    delay_us: int = 0
    result: bytes = b""
    note: bytes = b""
    service_us: int = 0
    probe_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where a queued job stands, and how the queue moves.

    Attributes:
        ahead: Jobs that should start before it by the fair order.
        late: If nobody's line runs dry meanwhile. own: Of its own tenant.
        held: As in `Queued`.

    """

    ahead: int
    late: int
    own: int
    depth: int
    pace: Pace
    held: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """
    A job as it is stored.

    Attributes:
        body: The payload of a job that may run (again); the result of one that has ended (may be empty).
        answer: The last answer of a dead or unknown job; empty otherwise.
        place: Of a queued one.
        due_us: When a scheduled one is due; 0 otherwise.
        notes: Its history, oldest first (JSON lines).

    """

    head: JobHead
    body: bytes
    answer: bytes = b""
    place: Place | None = None
    due_us: int = 0
    notes: tuple[bytes, ...] = ()
