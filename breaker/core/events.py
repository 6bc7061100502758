"""
Events: what happened, as data. Metrics, log lines and the alert evaluator only listen.

The gateway and the store emit, `signals/` listens; they never import each other. Not frozen: one
is made for each call, and a frozen dataclass costs three times as much to make.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from breaker.core.trace import Span
from breaker.core.verdict import Policy


class Outcome(StrEnum):
    """Whose answer a call got; the header `Breaker-Outcome`, and the metric's label."""

    FORWARDED = "forwarded"
    QUEUED = "queued"
    REPLAYED = "replayed"
    DELAYED = "delayed"
    OVER_CAPACITY = "over_capacity"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"


class Result(StrEnum):
    """What the downstream made of a call."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECT_ERROR = "connect_error"
    SLOW_DOWN = "slow_down"
    ABANDONED = "abandoned"


class Action(StrEnum):
    """What was done with a call that had no capacity."""

    QUEUED = "queued"
    DELAYED = "delayed"
    REFUSED = "refused"
    LET_THROUGH = "let_through"


@dataclass(slots=True)
class CallEnded:
    """
    A call got its one outcome.

    Attributes:
        operation: `_unknown` when no operation matches.
        reason: Problem type or limit that explains the outcome; empty for a plain forward.
        status: What the caller was sent; 0 when it had gone.
        duration_s, admission_s, downstream_s: Seconds; downstream 0 when it was not reached.
        result: None when the downstream was not reached.
        action: Set when the call went over capacity.
        shadow: The limit in shadow that would have refused.
        span: None when it is not sampled.

    """

    operation: str
    outcome: Outcome
    reason: str
    status: int
    caller: str
    tenant: str
    decision: str
    request_id: str
    trace_id: str
    duration_s: float
    admission_s: float
    downstream_s: float
    result: Result | None
    action: Action | None
    shadow: Policy | None
    span: Span | None = None


@dataclass(slots=True)
class RoundTripEnded:
    """A batch of decisions went to the store and came back."""

    seconds: float
    calls: int


@dataclass(slots=True)
class StoreFailed:
    """
    An exchange with the store failed; `kind` is that of the StoreError.

    Attributes:
        operation: Whose step it was; empty when all of the exchange failed.
        is_partial: Only what one node of a Cluster has is concerned.

    """

    kind: str
    detail: str
    operation: str = ""
    is_partial: bool = False


@dataclass(slots=True)
class StoreRecovered:
    """The store answers again."""

    seconds: float


@dataclass(slots=True)
class ClockJumped:
    """The store's clock contradicts our estimate by this much."""

    jumped_us: int


@dataclass(slots=True)
class LeasesLost:
    """Leases that we hold were gone from the store and have been taken again."""

    operation: str
    count: int


@dataclass(slots=True)
class AcksLate:
    """Attempts ended after their lease was lost; what they said was ignored."""

    operation: str
    count: int


@dataclass(slots=True)
class JobAccepted:
    """A call became a job, and its caller was told so."""

    operation: str
    job: str
    band: str
    reason: str


@dataclass(slots=True)
class JobStarted:
    """
    An attempt of a job began.

    Attributes:
        wait_s: Since it was accepted, or was due; 0 and not counted for later attempts.

    """

    operation: str
    band: str
    attempt: int
    wait_s: float


@dataclass(slots=True)
class JobAttempted:
    """
    An attempt of a job ended.

    Attributes:
        fate, reason: As in core/jobs.py.
        duration_s: Of its request, whatever came of it, also when it was shared with others; 0 when none was sent.
        is_ended: The job has come to its end.
        dropped: Its result was not kept, because the store is short of memory.
        span: None when its call was not sampled.

    """

    operation: str
    job: str
    attempt: int
    fate: str
    reason: str
    status: int
    duration_s: float
    result: Result | None
    trace_id: str
    is_ended: bool
    dropped: bool
    span: Span | None = None


@dataclass(slots=True)
class JobsReclaimed:
    """
    What a question for work found.

    Attributes:
        lost: Attempts whose replica died; by the operation's `effects` their jobs wait again or are unknown.
        expired: Jobs that did not start in time, and have ended.

    """

    operation: str
    lost: int
    expired: int


@dataclass(slots=True)
class BatchSent:
    """Jobs went downstream together."""

    operation: str
    items: int


@dataclass(slots=True)
class JobsLost:
    """The store knows of fewer accepted jobs than this replica was given: by this many more than before."""

    operation: str
    count: int


@dataclass(slots=True)
class CallbackEnded:
    """A callback was delivered, will be tried again, or was given up (`ok`, `retry`, `failed`)."""

    operation: str
    job: str
    result: str
    detail: str


@dataclass(slots=True)
class CircuitMoved:
    """
    A circuit changed its state; told by the replica whose step changed it.

    Attributes:
        was, state: States of core/circuit.py.
        detail: Why, for a person: the failing share, or who forced it and the reason.

    """

    operation: str
    was: str
    state: str
    generation: int
    detail: str


@dataclass(slots=True)
class CircuitSeen:
    """A replica heard of the state of a circuit, whoever changed it."""

    operation: str
    state: str


@dataclass(slots=True)
class LoneReplica:
    """Whether one replica, ours, sees failures that the others do not."""

    operation: str
    is_lone: bool
    detail: str


@dataclass(slots=True)
class SlowedDown:
    """The downstream asked for time; `tenant` is empty when the whole operation pauses."""

    operation: str
    tenant: str
    seconds: float


@dataclass(slots=True)
class CallRetried:
    """A direct call failed and will be tried again; `reason` is the Result of the attempt."""

    operation: str
    reason: Result


@dataclass(slots=True)
class OverrideChanged:
    """
    A person set limits of an operation for a while, or ended that early; told by the replica that was asked.

    Attributes:
        until_us: When they end, store time; 0: they were ended.
        words: The limits that are stated from now on.

    """

    operation: str
    author: str
    reason: str
    until_us: int
    words: str


@dataclass(slots=True)
class DegradedBegan:
    """
    The store cannot be used: operations do what their configuration says; `kind` is that of the StoreError.

    Attributes:
        operation: The only one, when others go on: its node of a Cluster cannot be used; else empty.

    """

    kind: str
    detail: str
    operation: str = ""


@dataclass(slots=True)
class DegradedEnded:
    """The store is used again, by this operation or (empty) by all."""

    seconds: float
    operation: str = ""


@dataclass(slots=True)
class OverAdmitted:
    """
    What this replica started of an operation while it was degraded, and how far all went over the limit.

    Attributes:
        started: Cost that this replica started by itself.
        over: By how much more than before all replicas together went over what the limits would have allowed.

    """

    operation: str
    started: int
    over: int


@dataclass(slots=True)
class StewardChanged:
    """Whether our replica does the chores of the cluster from now on; `term` fences them."""

    is_steward: bool
    term: int


@dataclass(slots=True)
class ReplicasSeen:
    """How many replicas live, and how many run another configuration than the one that holds."""

    live: int
    differing: int
    version: str


@dataclass(slots=True)
class StoreReset:
    """The store has lost what it knew (flushed, restored, another instance): its epoch is not the one we knew."""

    detail: str


@dataclass(slots=True)
class TenantsExceeded:
    """A caller names more tenants at a time than it may; the rest share one."""

    caller: str


@dataclass(slots=True)
class AlertMoved:
    """
    An incident fires, or has ended; told by the replica that judged it.

    Attributes:
        summary: In words.

    """

    incident: str
    alert: str
    severity: str
    operation: str
    is_firing: bool
    summary: str


@dataclass(slots=True)
class LetterEnded:
    """
    An attempt to tell a channel ended.

    Attributes:
        result: `ok`, `retry`, or `failed`: it is not tried again.
        kind: What the letter says, as in core/notify.py.
        incident: The first that it is about; empty of a test.

    """

    channel: str
    result: str
    kind: str
    incident: str
    detail: str


@dataclass(slots=True)
class ConfigLoaded:
    """A configuration is in force (`ok`), or was refused and the old one stays."""

    version: str
    ok: bool
    detail: str


Event = (
    CallEnded
    | RoundTripEnded
    | StoreFailed
    | StoreRecovered
    | ClockJumped
    | LeasesLost
    | AcksLate
    | JobAccepted
    | JobStarted
    | JobAttempted
    | JobsReclaimed
    | BatchSent
    | JobsLost
    | CallbackEnded
    | CircuitMoved
    | CircuitSeen
    | LoneReplica
    | SlowedDown
    | CallRetried
    | OverrideChanged
    | DegradedBegan
    | DegradedEnded
    | OverAdmitted
    | StewardChanged
    | ReplicasSeen
    | StoreReset
    | TenantsExceeded
    | AlertMoved
    | LetterEnded
    | ConfigLoaded
)
Listener = Callable[[Event], None]
