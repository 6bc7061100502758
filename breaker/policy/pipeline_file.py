"""
The shape of `pipelines/*.yaml`, field by field, as pydantic reads it.

What needs more than one value, or another file, is checked in `build_operation.py` and the builders that it calls.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from breaker.policy import kinds as k
from breaker.policy import words as w
from breaker.policy.alert_sections import AlertsSection
from breaker.policy.circuit_sections import AdaptiveSection, CircuitSection, ShortCircuit
from breaker.policy.job_sections import (
    BatchSection,
    CallbackSection,
    IdempotencySection,
    QueueSection,
    RetrySection,
)


class LimitsSection(k.Section):
    """What may be used, by an operation, a tenant of it, or at some hours."""

    rate: k.Pace | None = k.setting(
        "Starts per time over all replicas; `0/s` is closed.", None, example="20/s"
    )
    burst: k.Burst = k.setting("How many of them may come at once.", 1, example=40)
    concurrency: k.Slots | None = k.setting("Calls in flight over all replicas.", None, example=8)


class OtherLimitsSection(LimitsSection):
    """Limits that take the place of others; what is not stated is taken from those."""

    rate: k.Pace | None = k.setting(
        "Starts per time, instead of the inherited ones.", None, example="12/min", shown="inherited"
    )
    burst: k.Burst = k.setting("Likewise.", 1, example=2, shown="inherited")
    concurrency: k.Slots | None = k.setting("Likewise.", None, example=3, shown="inherited")


class QuotaSection(k.Section):
    """Starts per calendar period."""

    limit: k.Count = k.setting("Starts per period. At least 1.", example=1000)
    per: Literal["day", "week", "month"] = k.setting(
        "The period, by the local calendar; weeks start on Monday.", example="day"
    )
    timezone: k.Zone = k.setting("Whose midnight ends the period.", example="Europe/Berlin")


class CostSection(k.Section):
    """How much of rate and quota a call uses."""

    constant: k.Count = k.setting(
        "Used when no header is configured or sent; `cost: 5` is short for it.", 1, example=5
    )
    header: k.Header | None = k.setting(
        "Request header that carries the cost of a call.", None, example="Breaker-Cost"
    )
    max: k.Count | None = k.setting(
        "The most that the header may say; required with it.", None, example=10, shown="the constant"
    )


class HoursSection(OtherLimitsSection):
    """One entry of a schedule."""

    when: Annotated[str, *k.text("days and times", w.check_when)] = k.setting(
        "Weekdays or one date, and local times; across midnight it ends on the next day.",
        example="mon-fri 08:00-18:00",
    )


class ScheduleSection(k.Section):
    """Other limits at other times."""

    timezone: k.Zone = k.setting("Whose clock the hours are read on.", example="Europe/Berlin")
    hours: list[HoursSection] = Field(min_length=1)
    otherwise: OtherLimitsSection = Field(default=OtherLimitsSection())


_SHORT_COST = BeforeValidator(
    lambda value: {"constant": value} if type(value) is int else value,
    json_schema_input_type=k.Count | CostSection,
)


class CapacitySection(LimitsSection):
    """Everything an operation may use."""

    cost: Annotated[CostSection, _SHORT_COST] = Field(default=CostSection())
    quota: QuotaSection | None = Field(default=None)
    per_tenant: LimitsSection | None = Field(default=None)
    tenants: dict[k.Tenant, OtherLimitsSection] = Field(default={})
    schedule: ScheduleSection | None = Field(default=None)
    mode: Literal["enforce", "shadow"] = k.setting(
        "`shadow` evaluates and counts the limits and lets everything through.", "enforce", example="shadow"
    )


class CredentialsSection(k.Section):
    """A header that the downstream wants."""

    header: k.Header = k.setting("Set on every call, instead of the caller's.", example="Authorization")
    file: k.File = k.setting("File with the whole value of the header.", example="../secrets/billing")


class TlsSection(k.Section):
    """How an https downstream is trusted."""

    ca_file: k.File | None = k.setting(
        "Authorities that are trusted.", None, example="../tls/ca.pem", shown="the system's"
    )
    cert_file: k.File | None = k.setting(
        "Our certificate, with `key_file`.", None, example="../tls/breaker.pem"
    )
    key_file: k.File | None = k.setting(
        "Our private key, with `cert_file`.", None, example="../secrets/breaker.key"
    )
    server_name: k.Text | None = k.setting(
        "Name that its certificate must carry.", None, example="billing.internal", shown="the host of `url`"
    )


class DownstreamSection(k.Section):
    """The system that does the work."""

    url: Annotated[str, *k.text("URL", w.check_downstream_url)] | None = k.setting(
        "http or https, with an optional path that goes before the called one.",
        None,
        example="http://127.0.0.1:9102",
        shown="required, here or there",
    )
    timeout: k.Length = k.setting("For the whole call.", "10s", example="10s")
    connect_timeout: k.Length = k.setting("For connection and TLS handshake.", "1s", example="500ms")
    path: k.Template | None = k.setting(
        "Replaces the called path; may use the placeholders of `match`.",
        None,
        example="/v2/charges/{invoice_id}",
        shown="as called",
    )
    credentials: CredentialsSection | None = Field(default=None)
    tls: TlsSection | None = Field(default=None)
    max_response: k.Size | None = k.setting("Largest response body.", None, example="10MiB")


class TenantSection(k.Section):
    """Where a call says on whose behalf it is."""

    header: k.Header | None = k.setting("Header with the tenant; goes first.", None, example="Breaker-Tenant")
    pointer: k.Pointer | None = k.setting(
        "JSON pointer to the tenant in the body.", None, example="/customerId"
    )


class OperationSection(k.Section):
    """One kind of work."""

    match: k.Route = k.setting(
        "Method and path below the pipeline, with `{placeholders}`.", example="POST /tickets"
    )
    team: k.Text | None = k.setting("Who owns it.", None, example="finance-platform", shown="the pipeline's")
    downstream: DownstreamSection | None = Field(default=None)
    tenant: TenantSection | None = Field(default=None)
    contract: k.File | None = k.setting(
        "JSON Schema 2020-12 that every body must satisfy.",
        None,
        example="../contracts/create-ticket.schema.json",
    )
    capacity: CapacitySection = Field(default=CapacitySection())
    overflow: Literal["queue", "throttle", "alert"] = k.setting(
        "Without capacity: become a job (`queue`), wait a moment, else refuse (`throttle`), or let through and "
        "tell on-call (`alert`).",
        "throttle",
        example="alert",
    )
    max_wait: Annotated[k.Duration, k.at_most("60s")] = k.setting(
        "How long a throttled call may wait for its turn; at most 60s.", "1s", example="2s"
    )
    max_waiting: k.Burst = k.setting("How many calls may wait, over all replicas.", 1000, example=200)
    retry_after_max: k.Length = k.setting("The furthest moment that a refusal may name.", "5m", example="2m")
    linger: Annotated[k.Duration, k.at_most("10s")] | None = k.setting(
        "How long an abandoned call keeps its slot; at most 10s.",
        None,
        example="3s",
        shown="mean service time",
    )
    max_body: k.Size | None = k.setting(
        "Largest request body.",
        None,
        example="256KiB",
        shown="`queue.payload_max`; without a queue 1MiB with a contract or tenant pointer, else no limit (streamed)",
    )
    body_timeout: k.Length = k.setting("How long the caller may take to send the body.", "10s", example="30s")
    on_hang_up: Literal["cancel", "finish"] | None = k.setting(
        "What happens downstream when the caller has gone.",
        None,
        example="finish",
        shown="cancel for GET, HEAD and OPTIONS, else finish",
    )
    queue: QueueSection | None = Field(default=None)
    effects: Literal["keyed", "once"] = k.setting(
        "`keyed`: the downstream deduplicates by `Idempotency-Key`; `once`: it does not, so no machine repeats "
        "an attempt whose outcome is not known.",
        "keyed",
        example="once",
    )
    probe: k.Probe | None = k.setting(
        "How to ask the downstream whether it happened; with `effects: once`.",
        None,
        example="GET /charges/{idempotency_key}",
    )
    idempotency: IdempotencySection = Field(default=IdempotencySection())
    retry: RetrySection = Field(default=RetrySection())
    batch: BatchSection | None = Field(default=None)
    callback: CallbackSection | None = Field(default=None)
    circuit: ShortCircuit = Field(default=CircuitSection())
    slow_down: Literal["operation", "tenant"] = k.setting(
        "Who pauses when the downstream asks for time: all calls, or those of the tenant that it answered.",
        "operation",
        example="tenant",
    )
    slow_down_max: Annotated[k.Length, k.at_most("24h")] = k.setting(
        "The longest pause that the downstream may ask for; at most 24h.", "5m", example="30s"
    )
    adaptive: AdaptiveSection | None = Field(default=None)
    when_store_down: Literal["local_share", "refuse", "allow"] | None = k.setting(
        "While the store is away: each replica admits its share of the limits, refuses, or admits all.",
        None,
        example="refuse",
        shown="`local_share`; with `overflow: queue` `refuse`, and nothing else",
    )
    alerts: AlertsSection = Field(default=AlertsSection())
    retired: bool = k.setting(
        "Takes nothing new; may be removed from the file when no job is left.", False, example=True
    )


class PipelineFile(k.Section):
    """`pipelines/*.yaml`: one business area, its downstream, its operations."""

    pipeline: k.Name = k.setting("Its name, and the first segment of its paths.", example="billing")
    team: k.Text | None = k.setting(
        "Who owns it; an operation may name another.", None, example="finance-platform"
    )
    downstream: DownstreamSection | None = Field(default=None)
    tenant: TenantSection | None = Field(default=None)
    operations: dict[k.Name, OperationSection] = Field(min_length=1)
