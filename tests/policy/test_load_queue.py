"""What an operation says about its jobs, and the process about keys and operators: from files to values."""

import base64
import hashlib
from pathlib import Path

import pytest

from breaker.core.config import Operator, Role
from breaker.core.job_policy import (
    DAY_MS,
    Band,
    BandSource,
    Batch,
    Callback,
    Durability,
    Effects,
    Idempotency,
    PromiseClock,
    Queue,
    Retry,
)
from breaker.core.model import Match, Operation, Overflow
from breaker.policy.load import load
from tests.policy.conftest import PIPELINE, QUEUED, Problems, Write

MINUTE_MS = 60_000
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(64))).decode()
KEY = bytes(range(32))
HASH = hashlib.sha256(b"anna").hexdigest()


def charge(folder: Path) -> Operation:
    return load(folder, {}).operations["billing.charge"]


def test_the_smallest_queue_has_the_documented_defaults(folder: Path, write: Write) -> None:
    """A promise and a bound are all that a person must decide."""
    write("pipelines/billing.yaml", QUEUED)
    operation = charge(folder)
    assert operation.overflow is Overflow.QUEUE
    assert operation.queue == Queue(
        start_within_ms=15 * MINUTE_MS,
        clock=PromiseClock.OPEN,
        expire_after_ms=None,
        jobs_max=100,
        bytes_max=2**30,
        tenant_jobs_max=None,
        tenant_bytes_max=None,
        durability=Durability.FSYNC,
        replicas=0,
        keep_result_ms=DAY_MS,
        keep_dead_ms=30 * DAY_MS,
        payload_max=2**18,
        weights={},
        bands=None,
        encrypt=False,
        store_headers=frozenset(),
    )
    assert (operation.effects, operation.probe, operation.batch, operation.callback) == (
        Effects.KEYED, None, None, None,
    )  # fmt: skip
    assert operation.idempotency == Idempotency(is_required=False, window_ms=DAY_MS)
    assert operation.retry == Retry(for_ms=60 * MINUTE_MS, base_ms=1000, cap_ms=5 * MINUTE_MS, attempts=None)
    assert operation.retired is False


def test_every_field_about_jobs_arrives(folder: Path, write: Write) -> None:
    """A setting that nobody reads would be a promise that nobody keeps."""
    write("secrets/callbacks", f"{SECRET}\n{OLD_SECRET}\n")
    write("secrets/new", KEY.hex())
    write("gateway.yaml", "payload_keys: [{id: new, file: secrets/new}]\n")
    write(
        "pipelines/billing.yaml",
        PIPELINE
        + """\
    overflow: queue
    queue:
      start_within: 1h
      clock: wall
      expire_after: 2h
      max_jobs: 1000
      max_bytes: 10MiB
      max_jobs_per_tenant: 10
      max_bytes_per_tenant: 1MiB
      durability: {replicated: 2}
      keep_result: 0s
      keep_dead: 7d
      payload_max: 64KiB
      weights: {acme: 4, b.c: 1000}
      bands: {header: X-Plan, pointer: /plan, values: {enterprise: critical, "free trial": low}, default: high}
      encrypt: true
      store_headers: [Accept-Language, X-Trace]
    effects: once
    probe: GET /charges/{idempotency_key}
    idempotency: {key: required, window: 7d}
    retry: {for: 6h, base: 2s, cap: 1m, attempts: 3}
    batch: {max_items: 50, max_bytes: 500KB, window: 5s, key: /currency, path: POST /invoices/charge-batch}
    callback: {allow: [hooks.example.com, "http://127.0.0.1:9110", hooks.example.com], secret_file: ../secrets/callbacks}
    retired: true
""",
    )
    operation = charge(folder)
    assert operation.queue == Queue(
        start_within_ms=60 * MINUTE_MS,
        clock=PromiseClock.WALL,
        expire_after_ms=120 * MINUTE_MS,
        jobs_max=1000,
        bytes_max=10 * 2**20,
        tenant_jobs_max=10,
        tenant_bytes_max=2**20,
        durability=Durability.REPLICATED,
        replicas=2,
        keep_result_ms=0,
        keep_dead_ms=7 * DAY_MS,
        payload_max=65_536,
        weights={"acme": 4, "b.c": 1000},
        bands=BandSource(
            header="X-Plan",
            pointer="/plan",
            values={"enterprise": Band.CRITICAL, "free trial": Band.LOW},
            default=Band.HIGH,
        ),
        encrypt=True,
        store_headers=frozenset({"accept-language", "x-trace"}),
    )
    assert operation.effects is Effects.ONCE
    assert operation.probe == Match(method="GET", template="/charges/{idempotency_key}")
    assert operation.idempotency == Idempotency(is_required=True, window_ms=7 * DAY_MS)
    assert operation.retry == Retry(for_ms=360 * MINUTE_MS, base_ms=2000, cap_ms=MINUTE_MS, attempts=3)
    assert operation.batch == Batch(
        max_items=50, max_bytes=500_000, window_ms=5000, key="/currency", path="/invoices/charge-batch"
    )
    assert operation.callback == Callback(
        allow=("hooks.example.com", "http://127.0.0.1:9110"), secrets=(SECRET, OLD_SECRET)
    )
    assert operation.retired is True
    assert SECRET not in repr(operation)


def test_a_batch_has_the_documented_defaults(folder: Path, write: Write) -> None:
    """Where it goes is all that must be said."""
    write("pipelines/billing.yaml", QUEUED + "    batch: {path: POST /batch}\n")
    assert charge(folder).batch == Batch(
        max_items=100, max_bytes=1_000_000, window_ms=30_000, key=None, path="/batch"
    )


@pytest.mark.parametrize(
    ("written", "durability", "replicas"),
    [
        ("fsync", Durability.FSYNC, 0),
        ("memory", Durability.MEMORY, 0),
        ('"replicated: 2"', Durability.REPLICATED, 2),
        ("{replicated: 1}", Durability.REPLICATED, 1),
    ],
)
def test_durability_is_a_word_or_a_number_of_replicas(
    written: str, durability: Durability, replicas: int, folder: Path, write: Write
) -> None:
    """Both ways to write `replicated` mean the same."""
    write("pipelines/billing.yaml", QUEUED.replace("15m", f"15m, durability: {written}"))
    queue = charge(folder).queue
    assert queue is not None
    assert (queue.durability, queue.replicas) == (durability, replicas)


def test_payloads_are_sealed_when_there_is_a_key_unless_somebody_says_no(folder: Path, write: Write) -> None:
    """Who configures a key means it; one operation may have nothing to hide."""
    write("secrets/key", KEY.hex())
    sealed = {}
    for ring in ("", "payload_keys: [{id: a, file: secrets/key}]\n"):
        write("gateway.yaml", ring)
        for encrypt in ("", ", encrypt: false"):
            write("pipelines/billing.yaml", QUEUED.replace("15m", "15m" + encrypt))
            queue = charge(folder).queue
            assert queue is not None
            sealed[bool(ring), bool(encrypt)] = queue.encrypt
    assert sealed == {
        (False, False): False, (False, True): False, (True, False): True, (True, True): False,
    }  # fmt: skip


def test_the_body_of_a_queued_call_is_bounded_by_what_may_be_stored(folder: Path, write: Write) -> None:
    """With or without a contract: a queue reads each body whole. A smaller bound of its own is kept."""
    write("pipelines/billing.yaml", QUEUED)
    assert charge(folder).body_max == 2**18
    write("pipelines/billing.yaml", QUEUED.replace("15m", "15m, payload_max: 2MiB"))
    assert charge(folder).body_max == 2**21
    write("pipelines/billing.yaml", QUEUED + "    max_body: 1KiB\n")
    assert charge(folder).body_max == 1024


def test_a_queue_that_only_rehearses_its_limits_is_a_queue(write: Write, problems: Problems) -> None:
    """In shadow nothing overflows, but a caller may still ask for a job."""
    write("pipelines/billing.yaml", QUEUED + "    capacity: {rate: 1/s, mode: shadow}\n")
    assert problems() == []


def test_any_operation_can_be_retired(folder: Path, write: Write) -> None:
    """Not only those with a queue."""
    write("pipelines/billing.yaml", PIPELINE + "    retired: true\n")
    assert charge(folder).retired is True


@pytest.mark.parametrize(
    "content",
    [
        KEY.hex(),
        KEY.hex().upper() + "\n",
        base64.b64encode(KEY).decode(),
        base64.b64encode(KEY).decode()[:-1],
    ],
    ids=["hex", "HEX", "base64", "base64 without padding"],
)
def test_a_payload_key_is_hex_or_base64(content: str, folder: Path, write: Write) -> None:
    """As `openssl rand -hex 32` and `-base64 32` write it."""
    write("secrets/key", content)
    write("gateway.yaml", "payload_keys: [{id: a, file: secrets/key}]\n")
    assert load(folder, {}).gateway.key_ring == (("a", KEY),)


def test_operators_keys_and_the_bound_of_jobs_arrive(folder: Path, write: Write) -> None:
    """Every new field of gateway.yaml; nothing secret shows."""
    other, crm = (hashlib.sha256(name).hexdigest() for name in (b"other", b"crm"))
    write("secrets/anna", f"{HASH}\n{other}\n")
    write("secrets/new", KEY.hex())
    write("secrets/old", bytes(32).hex())
    write(
        "gateway.yaml",
        f"""\
callers: [{{id: crm, key_sha256: [{crm}], operations: ["*"], may_name: [band, tenant]}}]
operators:
  - {{id: anna, key_sha256_file: secrets/anna, role: operator}}
  - {{id: screen, key_sha256: [{"0" * 64}]}}
payload_keys: [{{id: 2026-06, file: secrets/new}}, {{id: "1", file: secrets/old}}]
jobs: {{in_flight: 7}}
""",
    )
    gateway = load(folder, {}).gateway
    assert gateway.operators == (
        Operator(id="anna", key_hashes=(HASH, other), role=Role.OPERATOR),
        Operator(id="screen", key_hashes=("0" * 64,), role=Role.VIEWER),
    )
    assert gateway.key_ring == (("2026-06", KEY), ("1", bytes(32)))
    assert gateway.jobs_max == 7
    assert gateway.callers is not None
    assert gateway.callers[0].may_name == frozenset({"band", "tenant"})
    assert HASH not in repr(gateway)
    assert repr(KEY) not in repr(gateway)


def test_a_process_without_them_has_the_documented_defaults(folder: Path) -> None:
    """Open on loopback, payloads as they are, 256 jobs."""
    gateway = load(folder, {}).gateway
    assert (gateway.operators, gateway.key_ring, gateway.jobs_max) == ((), (), 256)
    assert load(folder, {"BREAKER_JOBS__IN_FLIGHT": "9"}).gateway.jobs_max == 9


def test_a_key_that_rotates_changes_no_version(folder: Path, write: Write) -> None:
    """Replicas with the same limits have the same version, whichever keys they hold."""
    write("secrets/key", KEY.hex())
    write("secrets/callbacks", SECRET)
    write("gateway.yaml", "payload_keys: [{id: a, file: secrets/key}]\n")
    write(
        "pipelines/billing.yaml",
        QUEUED + "    callback: {allow: [a.example], secret_file: ../secrets/callbacks}\n",
    )
    before = load(folder, {})
    write("secrets/key", bytes(32).hex())
    write("secrets/callbacks", OLD_SECRET)
    after = load(folder, {})
    assert after != before
    assert after.version == before.version
