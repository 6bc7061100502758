"""
The shape of `gateway.yaml`, field by field, as pydantic reads it.

What needs more than one value, or another file, is checked in `build_gateway.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from breaker.policy import kinds as k
from breaker.policy.alert_sections import AlertingSection
from breaker.policy.store_url import check_store_url
from breaker.policy.words import check_downstream_url


class StoreSection(k.Section):
    """How to reach the store."""

    url: Annotated[str, *k.text("URL", check_store_url)] = k.setting(
        "`embedded`, `redis://`, `unix://`, `redis+sentinel://` or `redis+cluster://`; `rediss` is TLS.",
        "embedded",
        example="rediss://valkey.internal:6379/0",
    )
    timeout: k.Length = k.setting("For one round trip.", "100ms", example="50ms")
    username: k.Text | None = k.setting("For servers with users (ACL).", None, example="breaker")
    password_file: k.File | None = k.setting("File with the password.", None, example="secrets/store")
    ca_file: k.File | None = k.setting(
        "Authorities that are trusted with `rediss`.", None, example="tls/ca.pem", shown="the system's"
    )
    needed_at_start: bool = k.setting(
        "`true`: without its store a gateway does not start; `false`: it starts degraded.",
        True,
        example=False,
    )


class KeySection(k.Section):
    """Somebody with a key of their own, sent in `Breaker-Key`."""

    id: k.Name
    key_sha256_file: k.File | None = k.setting(
        "File with the SHA-256 of its key in hex; two lines while keys rotate.", None, example="secrets/crm"
    )
    key_sha256: list[str] | None = k.setting(
        "The same in place, one or two; give one of the two fields.", None, example=["9f86d081…0f00a08"]
    )


class CallerSection(KeySection):
    """An operational system that may call."""

    id: k.Name = k.setting("Its name in logs, and its tenant unless it may name others.", example="crm")
    operations: list[str] = k.setting("What it may call; `*` stands for any part.", example=["support.*"])
    may_name: list[Literal["tenant", "band"]] = k.setting(
        "What it may say of a call in headers.", [], example=["tenant", "band"]
    )
    max_tenants: k.Burst = k.setting(
        "How many different tenants it may name; the rest share one.", 10_000, example=500
    )


class OperatorSection(KeySection):
    """A person or tool on the admin listener."""

    id: k.Name = k.setting("Its name in the audit stream.", example="anna")
    role: Literal["viewer", "operator"] = k.setting(
        "`viewer` reads, `operator` changes.", "viewer", example="operator"
    )


class PayloadKeySection(k.Section):
    """A key that seals stored payloads."""

    id: k.KeyId = k.setting("Its name, stored beside what it sealed.", example="2026-06")
    file: k.File = k.setting("File with 32 bytes in hex or base64.", example="secrets/payload-2026-06")


class LogSection(k.Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = k.setting(
        "From which level on.", "info", example="warning"
    )
    format: Literal["auto", "json", "console"] = k.setting(
        "`auto` is console on a terminal and JSON elsewhere.", "auto", example="json"
    )
    sample: Annotated[float, Field(ge=0, le=1)] = k.setting(
        "Share of plainly forwarded, refused and queued calls, and of jobs that succeeded, that are logged, 0 to 1.",
        1.0,
        example=0.01,
    )


class TracesSection(k.Section):
    """Spans of calls and jobs, for a receiver of OpenTelemetry."""

    endpoint: Annotated[str, *k.text("URL", check_downstream_url)] | None = k.setting(
        "Where they are sent: OTLP over HTTP, path included; needs the extra `otel`.",
        None,
        example="http://collector:4318/v1/traces",
        shown="nothing is traced",
    )
    sample: Annotated[float, Field(ge=0, le=1)] = k.setting(
        "Share of the calls without a `traceparent` that begin a trace, 0 to 1; with one, its caller has decided.",
        0.1,
        example=0.01,
    )


class DrainSection(k.Section):
    """How the process stops."""

    delay: k.Duration = k.setting("Between `not ready` and closing the listener.", "0s", example="5s")
    timeout: k.Length = k.setting("How long calls may finish after that.", "20s", example="30s")


class ProcessLimitsSection(k.Section):
    """What one process bears."""

    head_timeout: k.Length = k.setting(
        "How long a connection may take to send a request head.", "15s", example="30s"
    )
    connections: k.Burst = k.setting("Open connections.", 10_000, example=2000)


class JobsSection(k.Section):
    """What one process does with queues."""

    in_flight: Annotated[int, Field(ge=1, le=10_000)] = k.setting(
        "Jobs that it runs at a time, over all operations.", 256, example=64
    )


class GatewayFile(k.Section):
    """`gateway.yaml`: the process."""

    listen: k.Address = k.setting("The callers' listener.", "127.0.0.1:8080", example="0.0.0.0:8080")
    admin: k.Address = k.setting("The admin listener.", "127.0.0.1:8081", example="127.0.0.1:8081")
    cluster: k.Name = k.setting(
        "Prefix of all keys in the store, and a label.", "default", example="production"
    )
    replicas_expected: Annotated[int, Field(ge=1, le=1000)] = k.setting(
        "Gateway processes that share the capacity, at least; while the store is away each takes that share, "
        "1 to 1000.",
        1,
        example=3,
    )
    store: StoreSection = Field(default=StoreSection())
    callers: list[CallerSection] | None = Field(default=None)
    operators: list[OperatorSection] | None = Field(default=None)
    payload_keys: list[PayloadKeySection] | None = Field(default=None)
    jobs: JobsSection = Field(default=JobsSection())
    alerts: AlertingSection = Field(default=AlertingSection())
    log: LogSection = Field(default=LogSection())
    traces: TracesSection = Field(default=TracesSection())
    drain: DrainSection = Field(default=DrainSection())
    limits: ProcessLimitsSection = Field(default=ProcessLimitsSection())
    cookies: bool = k.setting("Whether `Cookie` and `Set-Cookie` pass.", False, example=True)
