"""
The words of the product as values: operations, what they may use, and verdicts.

`policy/` makes these from files, `store/` publishes them, `gateway/` acts on them.
Times are integer microseconds (`_us`) where the store decides, milliseconds (`_ms`) elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from breaker.core.alert_policy import AlertPolicy
from breaker.core.circuit_policy import CircuitPolicy, DirectRetry, SlowDown, WhenStoreDown
from breaker.core.job_policy import Batch, Callback, Effects, Idempotency, Queue, Retry

LEASE_US = 10_000_000  # every slot is held under a lease of 10 s ...
RENEW_US = 3_300_000  # ... and renewed by its replica every 3.3 s
WAITER_LAPSE_US = 2_000_000  # a replica that was silent for 2 s has no waiting calls any more
CLOCK_SKEW_US = 2_000_000  # a store clock further off than this is a jump, not a delay


class Overflow(StrEnum):
    """What an operation does with a call that has no capacity."""

    QUEUE = "queue"
    THROTTLE = "throttle"
    ALERT = "alert"


class Mode(StrEnum):
    """Whether a limit decides, or is only rehearsed."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class HangUp(StrEnum):
    """What happens to a call downstream when its caller has gone."""

    CANCEL = "cancel"
    FINISH = "finish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """
    Starts per time over all replicas.

    Attributes:
        limit: Starts per period. 0 means closed.
        period_us: Length of the period, microseconds.
        burst: How many may start at once. At least 1.

    """

    limit: int
    period_us: int
    burst: int = 1

    @property
    def interval_us(self) -> int:
        """GCRA's T, rounded up, so that the stated rate is never exceeded. 0 when closed."""
        return -(-self.period_us // self.limit) if self.limit else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What may be used at one moment, by an operation or by one tenant of it.

    Attributes:
        rate: None is no limit.
        concurrency: Calls in flight over all replicas; None is no limit.

    """

    rate: Rate | None = None
    concurrency: int | None = None


class Per(StrEnum):
    """The calendar period of a quota, in its own time zone."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Starts per calendar day, week (from Monday) or month of a time zone."""

    limit: int
    per: Per
    timezone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """
    How much of rate and quota a call uses.

    Attributes:
        constant: Used when no header is configured or sent. At least 1.
        header: Name of the request header that carries the cost.
        max: The most that a header may say.

    """

    constant: int = 1
    header: str | None = None
    max: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """
    Other limits at some times: weekdays or one date, between two local times.

    Attributes:
        weekdays: 0 is Monday; empty when `date` is given.
        date: ISO date `2026-12-24`, which goes before weekdays.
        start_minute, end_minute: Minutes after local midnight, end exclusive, 1440 is midnight.
        limits: Already complete: what the file did not say here comes from the operation.
        text: As the person wrote it.

    """

    weekdays: frozenset[int] = frozenset()
    date: str | None = None
    start_minute: int = 0
    end_minute: int = 1440
    limits: Limits
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Which limits hold when; `otherwise` outside all hours."""

    timezone: str
    hours: tuple[Hours, ...]
    otherwise: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """
    Everything an operation may use; all that is stated must hold.

    Attributes:
        limits: The operation's own, as the file states them.
        quota, cost: See their classes.
        per_tenant: The same for every tenant; None is no limit.
        tenants: Named exceptions to `per_tenant`, complete.
        schedule: Replaces `limits` by the calendar.
        mode: `shadow` evaluates and counts, and lets everything through.

    """

    limits: Limits = Limits()
    quota: Quota | None = None
    cost: Cost = Cost()
    per_tenant: Limits | None = None
    tenants: Mapping[str, Limits] = field(default_factory=dict)
    schedule: Schedule | None = None
    mode: Mode = Mode.ENFORCE

    @property
    def is_unlimited(self) -> bool:
        """Nothing is stated, so admission need not ask the store."""
        return (
            self.limits == Limits()
            and self.quota is None
            and self.per_tenant is None
            and not self.tenants
            and self.schedule is None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """
    Which calls are this operation's.

    Attributes:
        method: Upper case.
        template: Path below the pipeline, `/invoices/{invoice_id}/charge`.

    """

    method: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a TLS downstream is trusted; None means the system's authorities."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A header that the downstream wants; the value was read from its file."""

    header: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Downstream:
    """
    The system that does the work.

    Attributes:
        url: `http://host:port` or `https://...`, with an optional path prefix.
        timeout_ms: For the whole call.
        connect_timeout_ms: For connection and TLS handshake.
        path: Template that replaces the called path; None forwards it as called.
        credential: Set on every call, replacing the caller's header of that name.
        tls: Only for https.
        response_max: Largest response body in bytes; None is no limit.

    """

    url: str
    timeout_ms: int = 10_000
    connect_timeout_ms: int = 1_000
    path: str | None = None
    credential: Credential | None = None
    tls: Tls | None = None
    response_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSource:
    """Where a call says on whose behalf it is; the header goes first."""

    header: str | None = None
    pointer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    One kind of work in a pipeline: the unit that has capacity.

    Attributes:
        name: `pipeline.operation`.
        contract: JSON Schema 2020-12 of the body; None takes any body.
        contract_file: Where it came from, for messages.
        max_wait_ms: How long a throttled call may wait for its turn.
        waiting_max: How many calls may wait, over all replicas.
        retry_after_max_ms: The furthest retry ticket.
        linger_ms: How long an abandoned call keeps its slot; None is the mean service time.
        body_max: Largest request body in bytes; None is no limit (streamed).
        body_timeout_ms: How long the caller may take to send the body.
        on_hang_up: None is: cancel safe methods, finish the others.
        queue: With `overflow: queue`, else None.
        effects, probe: What repeating does, and how to ask whether it happened (`{idempotency_key}` in the path).
        idempotency: With `overflow: queue` only.
        retry, batch, callback: Of its jobs.
        retired: Takes nothing new, and may be removed from the files when it is empty.
        circuit: When it opens, and how it comes back.
        slow_down, slow_down_max_ms: Who pauses when the downstream asks for time, and at most how long.
        adaptive_min: The least to which the shared concurrency adapts; None does not adapt.
        when_store_down: What is done while the store cannot be used.
        direct_retry: Of calls that do not become jobs; None repeats nothing.
        alerts: When they speak, and who hears them.

    """

    name: str
    pipeline: str
    team: str
    match: Match
    downstream: Downstream
    capacity: Capacity = Capacity()
    overflow: Overflow = Overflow.THROTTLE
    contract: Mapping[str, Any] | None = None
    contract_file: str | None = None
    tenant: TenantSource | None = None
    max_wait_ms: int = 1_000
    waiting_max: int = 1_000
    retry_after_max_ms: int = 300_000
    linger_ms: int | None = None
    body_max: int | None = 1_048_576
    body_timeout_ms: int = 10_000
    on_hang_up: HangUp | None = None
    queue: Queue | None = None
    effects: Effects = Effects.KEYED
    probe: Match | None = None
    idempotency: Idempotency = field(default=Idempotency())
    retry: Retry = field(default=Retry())
    batch: Batch | None = None
    callback: Callback | None = None
    retired: bool = False
    circuit: CircuitPolicy = field(default=CircuitPolicy())
    slow_down: SlowDown = SlowDown.OPERATION
    slow_down_max_ms: int = 300_000
    adaptive_min: int | None = None
    when_store_down: WhenStoreDown = WhenStoreDown.LOCAL_SHARE
    direct_retry: DirectRetry | None = None
    alerts: AlertPolicy = field(default=AlertPolicy())
