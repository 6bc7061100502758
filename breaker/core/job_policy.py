"""
Job policy: what a person says about the jobs of an operation.

`policy/` makes these from files; the dispatcher and the scripts act on them.
Times are milliseconds (`_ms`) here; sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DAY_MS = 86_400_000


class Band(StrEnum):
    """A priority class in a queue; the order of this list is the order of urgency."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


BANDS = tuple(Band)


class Durability(StrEnum):
    """What must have happened to a job before its 202 is given."""

    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICATED = "replicated"


class Effects(StrEnum):
    """
    What sending a call twice does.

    `keyed`: the downstream deduplicates by the idempotency key, so an attempt may be repeated.
    `once`: it does not, so an attempt whose outcome is not known is never repeated by a machine.
    """

    KEYED = "keyed"
    ONCE = "once"


class PromiseClock(StrEnum):
    """Whether `start_within` counts the open hours of the schedule only, or all time."""

    OPEN = "open"
    WALL = "wall"


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSource:
    """
    Where a call says how urgent it is. `Breaker-Band` goes first, for callers that may name bands.

    Attributes:
        header, pointer: Where a word stands (a plan, say); the header goes before the JSON pointer.
        values: The band of each word.
        default: Of a call with no word, or one that is not in `values`.

    """

    header: str | None = None
    pointer: str | None = None
    values: Mapping[str, Band] = field(default_factory=dict)
    default: Band = Band.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """
    The durable queue of an operation with `overflow: queue`.

    Attributes:
        start_within_ms: The promise: how long a job may wait before it starts.
        clock: Whether the promise counts open hours only.
        expire_after_ms: A job that did not start by then ends as `expired`; None is never.
        jobs_max, bytes_max: Bounds of the operation: waiting jobs; bytes of all that is stored.
        tenant_jobs_max, tenant_bytes_max: The same for each tenant (waiting only); None is no bound of its own.
        durability, replicas: What a 202 promises; `replicas` is N of `replicated: N`.
        keep_result_ms: How long the record of an ended job is kept; 0 keeps none.
        keep_dead_ms: How long a dead or unknown job is kept for a person.
        payload_max: Largest request that may become a job.
        weights: Share of a tenant beside the others', 1..1000; 1 where nothing is said.
        bands: Where the band comes from; None is `normal` unless the caller names one.
        encrypt: Payloads and results are sealed.
        store_headers: Request headers, lower case, that a job keeps besides the usual ones.

    """

    start_within_ms: int
    clock: PromiseClock = PromiseClock.OPEN
    expire_after_ms: int | None = None
    jobs_max: int
    bytes_max: int = 1_073_741_824
    tenant_jobs_max: int | None = None
    tenant_bytes_max: int | None = None
    durability: Durability = Durability.FSYNC
    replicas: int = 0
    keep_result_ms: int = DAY_MS
    keep_dead_ms: int = 30 * DAY_MS
    payload_max: int = 262_144
    weights: Mapping[str, int] = field(default_factory=dict)
    bands: BandSource | None = None
    encrypt: bool = False
    store_headers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """
    Attributes:
        is_required: A call without `Idempotency-Key` is refused.
        window_ms: How long a key is remembered after its work has ended.

    """

    is_required: bool = False
    window_ms: int = DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    Attempts after one that failed: full jitter over `min(cap, base * 2^n)`, within a budget of time.

    Attributes:
        for_ms: From the first attempt on; after that the job is dead.
        attempts: The most attempts that may fail; None leaves it to the budget.

    """

    for_ms: int = 3_600_000
    base_ms: int = 1_000
    cap_ms: int = 300_000
    attempts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    Jobs that go downstream together.

    Attributes:
        window_ms: A job waits at most so long for company.
        key: JSON pointer into the body; only jobs with the same value share a batch. None: all do.
        path: Where the batch is posted, below the downstream's url.

    """

    max_items: int = 100
    max_bytes: int = 1_000_000
    window_ms: int = 30_000
    key: str | None = None
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """
    Attributes:
        allow: Hosts that a caller may name, as `gateway/callback_client.py` reads them.
        secrets: `whsec_...`, the newest first; each signs, so that one can be rotated.

    """

    allow: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)
