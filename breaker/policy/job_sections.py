"""
The shape of what an operation says about its jobs, as pydantic reads it: a part of `pipeline_file.py`.

What needs more than one value, or another file, is checked in `build_queue.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from breaker.policy import kinds as k

_BAND = Literal["critical", "high", "normal", "low"]


class BandsSection(k.Section):
    """Where a call says how urgent it is."""

    header: k.Header | None = k.setting(
        "Header with a word, such as a plan; goes first.", None, example="X-Plan"
    )
    pointer: k.Pointer | None = k.setting("JSON pointer to the word in the body.", None, example="/plan")
    values: dict[k.Text, _BAND] = k.setting("The band of each word.", {}, example={"enterprise": "high"})
    default: _BAND = k.setting(
        "Of a call with no word, or with one that is not in `values`.", "normal", example="low"
    )


class QueueSection(k.Section):
    """The durable queue of an operation."""

    start_within: k.Length = k.setting(
        "The promise: how long a job may wait before it starts.", example="15m"
    )
    clock: Literal["open", "wall"] = k.setting(
        "Whether the promise counts the open hours of `capacity.schedule` only, or all time.",
        "open",
        example="wall",
    )
    expire_after: k.Length | None = k.setting(
        "A job that did not start by then ends as `expired`; at least `start_within`.",
        None,
        example="24h",
        shown="never",
    )
    max_jobs: k.Count = k.setting("How many jobs may wait; more are refused.", example=100_000)
    max_bytes: k.Room = k.setting(
        "Bytes of all that is stored: waiting, dead, and results.", "1GiB", example="256MiB"
    )
    max_jobs_per_tenant: k.Count | None = k.setting(
        "How many jobs of one tenant may wait.", None, example=5000
    )
    max_bytes_per_tenant: k.Room | None = k.setting(
        "Bytes of one tenant's waiting jobs.", None, example="64MiB"
    )
    durability: k.Durable = k.setting(
        "What has happened to a job before its 202 is given: written to the disk, on N replicas, or neither.",
        "fsync",
        example={"replicated": 1},
    )
    keep_result: k.Duration = k.setting(
        "How long the record of an ended job is kept; `0s` keeps none.", "24h", example="7d"
    )
    keep_dead: k.Length = k.setting(
        "How long a dead or unknown job is kept for a person.", "30d", example="90d"
    )
    payload_max: Annotated[k.Room, k.at_most_size("16MiB")] = k.setting(
        "Largest body that may become a job; at most 16MiB.", "256KiB", example="64KiB"
    )
    weights: dict[k.Tenant, k.Share] = k.setting(
        "Share of a tenant beside the others', 1 to 1000; 1 unless stated.", {}, example={"acme": 4}
    )
    bands: BandsSection | None = Field(default=None)
    encrypt: bool | None = k.setting(
        "Payloads and results are stored sealed.",
        None,
        example=True,
        shown="true when gateway.yaml has `payload_keys`",
    )
    store_headers: list[k.StoredHeader] = k.setting(
        "Request headers that a job keeps besides the usual ones; needs `encrypt`.",
        [],
        example=["Accept-Language"],
    )


class IdempotencySection(k.Section):
    """What the key of a call is good for."""

    key: Literal["optional", "required"] = k.setting(
        "Whether a call without `Idempotency-Key` is refused.", "optional", example="required"
    )
    window: k.Length = k.setting(
        "How long a key is remembered after its work has ended.", "24h", example="7d"
    )


class RetrySection(k.Section):
    """Attempts after one that failed; without a queue `build_retry.py` has other defaults."""

    for_: Annotated[k.Length, Field(alias="for")] = k.setting(
        "Budget of time from the first attempt on; after that the job is dead, or the call has failed.",
        "1h",
        example="6h",
        shown="`1h`; without a queue the call's deadline",
    )
    base: k.Length = k.setting(
        "Upper end of the first pause; it doubles with each attempt.",
        "1s",
        example="2s",
        shown="`1s`; without a queue `100ms`",
    )
    cap: k.Length = k.setting(
        "Upper end of every pause; without a queue at most 60s.",
        "5m",
        example="2s",
        shown="`5m`; without a queue `5s`",
    )
    attempts: Annotated[int, Field(ge=1, le=1000)] | None = k.setting(
        "The most attempts that may fail; 1 never tries again. Without a queue 2 to 10.",
        None,
        example=5,
        shown="as many as fit; without a queue `3`",
    )


class BatchSection(k.Section):
    """Jobs that go downstream together."""

    max_items: Annotated[int, Field(ge=1, le=1000)] = k.setting(
        "The most jobs of one batch, 1 to 1000.", 100, example=50
    )
    max_bytes: Annotated[k.Room, k.at_most_size("64MiB")] = k.setting(
        "The most bytes of their bodies; at most 64MiB.", "1MB", example="256KiB"
    )
    window: k.Length = k.setting("A job waits at most so long for company.", "30s", example="5s")
    key: k.Pointer | None = k.setting(
        "JSON pointer into the body; only jobs with the same value there share a batch.",
        None,
        example="/currency",
    )
    path: k.BatchPath = k.setting(
        "Where the batch goes, below `downstream.url`.", example="POST /invoices/charge-batch"
    )


class CallbackSection(k.Section):
    """How callers are told that a job has ended."""

    allow: list[k.CallbackHost] = Field(
        description="Hosts that a caller may name: https on port 443, unless the entry says otherwise.",
        examples=[["hooks.example.com", "*.example.org", "https://10.0.0.5:8443"]],
        min_length=1,
    )
    secret_file: k.File = k.setting(
        "File with `whsec_...`, one per line, the newest first; each signs.", example="../secrets/callbacks"
    )
