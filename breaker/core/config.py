"""
What the files say, as one value: the process, its store, who may call and operate, and all operations.

`policy/` makes it; a reload swaps it atomically. What an operation is stands in `model.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from breaker.core.alert_policy import Alerting
from breaker.core.model import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    An operational system that may call.

    Attributes:
        id: Its name in logs and as the default tenant.
        key_hashes: SHA-256 of its keys, hex; two while keys rotate.
        operations: Patterns such as `support.*`.
        may_name: What it may say of a call: `tenant`, `band`.
        tenants_max: How many different tenants it may name; the rest share `_other`.

    """

    id: str
    key_hashes: tuple[str, ...] = field(repr=False)
    operations: tuple[str, ...]
    may_name: frozenset[str] = frozenset()
    tenants_max: int = 10_000


class Role(StrEnum):
    """What an operator may do on the admin listener."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A person or tool on the admin listener; `key_hashes` as for callers. Sent as `Breaker-Key`."""

    id: str
    key_hashes: tuple[str, ...] = field(repr=False)
    role: Role = Role.VIEWER


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """
    How to reach the store.

    Attributes:
        url: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://` (or `embedded`, resolved by the
            command that starts it).
        timeout_ms: For one round trip.
        password: Read from its file.
        ca_file: Authority for `rediss://`; None means the system's.
        needed_at_start: Without the store the gateway does not start; else it starts degraded.

    """

    url: str = "embedded"
    timeout_ms: int = 100
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    needed_at_start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """
    The process: `gateway.yaml`.

    Attributes:
        listen, admin: `host:port`.
        cluster: Prefix of all keys, and a label.
        callers: None is open: everybody may call everything.
        log_sample: Share of plain calls (forwarded, refused, queued) and jobs (succeeded) that are logged, 0..1.
        traces_endpoint: Where spans go, a URL; None is nowhere.
        traces_sample: Share of calls without a trace that begin one, 0..1.
        drain_delay_ms: Between "not ready" and closing the listener.
        drain_timeout_ms: How long calls may finish after that.
        head_timeout_ms: How long a connection may take to send a request head.
        connections_max: Open connections per process.
        cookies: Whether `Cookie` and `Set-Cookie` pass.
        operators: Who may use `/admin/v1`; none: loopback only, and then everybody there may.
        key_ring: (id, 32 bytes) of payload keys, the newest first; empty stores payloads as they are.
        jobs_max: Jobs that this process runs at a time, over all operations.
        replicas_expected: Gateway processes that share the capacity, at least; each takes that share while the store
            is away.
        alerts: The way to on-call.

    """

    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:8081"
    cluster: str = "default"
    store: StoreSettings = StoreSettings()
    callers: tuple[Caller, ...] | None = None
    log_level: str = "info"
    log_format: str = "auto"
    log_sample: float = 1.0
    traces_endpoint: str | None = None
    traces_sample: float = 0.1
    drain_delay_ms: int = 0
    drain_timeout_ms: int = 20_000
    head_timeout_ms: int = 15_000
    connections_max: int = 10_000
    cookies: bool = False
    operators: tuple[Operator, ...] = ()
    key_ring: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    jobs_max: int = 256
    replicas_expected: int = 1
    alerts: Alerting = field(default=Alerting())


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    Everything the files say, as one value that is swapped atomically.

    Attributes:
        version: Content hash over all files, 12 hex digits.
        folder: Where it was read from.
        operations: By name, in file order.

    """

    version: str
    folder: str
    gateway: Gateway
    operations: Mapping[str, Operation]
