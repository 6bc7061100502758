"""What is said about queues, keys and operators that are wrong: every rule, on both sides."""

import base64

import pytest

from tests.policy.conftest import PIPELINE, QUEUED, Problems, Write

B = "pipelines/billing.yaml"
SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()
HASH = "a" * 64
OTHER = "b" * 64

# What stands in `queue:` (line 8) besides `start_within: 15m, max_jobs: 100`, and the start of the only problem.
QUEUE = [
    ("expire_after: 899s", "8:61: `expire_after` 899s is before the promise, `start_within` 15m"),
    ("expire_after: 15m", "OK"),
    ("expire_after: 0s", "8:61: `expire_after`: 0s is out of bounds: more than 0"),
    ("clock: wal", "8:54: `clock`: unknown value 'wal' (did you mean 'wall'?)"),
    ("max_bytes: 262143", "8:58: `max_bytes` 262143 is less than `payload_max` 256KiB"),
    ("max_bytes: 256KiB", "OK"),
    ("max_bytes_per_tenant: 1KiB", "8:69: `max_bytes_per_tenant` 1KiB is less than `payload_max` 256KiB"),
    ("max_bytes_per_tenant: 256KiB", "OK"),
    ("max_bytes_per_tenant: 2GiB", "8:69: `max_bytes_per_tenant` is more than `max_bytes`"),
    ("max_bytes_per_tenant: 1GiB", "OK"),
    ("max_jobs_per_tenant: 101", "8:68: `max_jobs_per_tenant` is more than `max_jobs`"),
    ("max_jobs_per_tenant: 100", "OK"),
    ("durability: fsynk", "8:59: `durability`: 'fsynk' is no durability (did you mean 'fsync'?)"),
    ("durability: replicated", "8:59: `durability`: `replicated` needs a number of replicas"),
    ("durability: {replicated: 0}", "8:59: `durability`: `replicated` needs a number of replicas, 1 to 16"),
    ("durability: {replicated: 16}", "OK"),
    ("durability: {replicated: 17}", "8:59: `durability`: `replicated` needs a number of replicas, 1 to 16"),
    ("keep_result: 0s", "OK"),
    ("keep_dead: 0s", "8:58: `keep_dead`: 0s is out of bounds"),
    ("payload_max: 0", "8:60: `payload_max`: 0 is out of bounds"),
    ("payload_max: 16777217", "8:60: `payload_max`: 16777217 is too large: at most 16MiB"),
    ("payload_max: 16MiB", "OK"),
    ("weights: {acme: 0}", "8:63: `acme`: 0 is out of bounds: at least 1"),
    ("weights: {acme: 1, b: 1000}", "OK"),
    ("weights: {acme: 1001}", "8:63: `acme`: 1001 is out of bounds: at most 1000"),
    ("weights: {_x: 1}", "8:57: `_x`: '_x' is no name of a tenant"),
    ("bands: {}", "8:54: `bands` is empty: state `header` or `pointer`, and `values`"),
    ("bands: {default: high}", "OK"),
    ("bands: {values: {a: high}}", "8:63: `values` are of a word: state `header` or `pointer`"),
    ("bands: {header: X-Plan}", "8:54: `bands` needs `values`: the band of each word"),
    ("bands: {pointer: /plan, values: {a: high}}", "OK"),
    ("bands: {header: X-Plan, values: {a: urgent}}", "8:83: `a`: unknown value 'urgent'"),
    ("bands: {header: X-Plan, values: {a: high}, default: hihg}", "8:99: `default`: unknown value 'hihg' (did you mean 'high'?)"),
    ("encrypt: true", "8:56: `encrypt: true` needs a key: state `payload_keys` in gateway.yaml"),
    ("encrypt: false", "OK"),
    ("encrypt: yes", "8:56: `encrypt` is 'yes'; it must be true or false"),
    ("store_headers: [X-A]", "8:62: `store_headers` needs `encrypt`, because headers carry what is secret: state `payload_keys`"),
    ("store_headers: []", "OK"),
    ("store_headers: [breaker-KEY]", "8:63: entry 1 of `store_headers`: 'breaker-KEY' is the caller's own credential"),
    ("max_job: 1", "8:47: unknown key `max_job` (did you mean 'max_jobs'?)"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "problem"), QUEUE)
def test_a_wrong_queue_is_one_problem_at_its_place(
    more: str, problem: str, write: Write, problems: Problems
) -> None:
    """One mistake is one sentence, not a cascade; what lies on the right side of an edge is none."""
    write(B, QUEUED.replace("jobs: 100", f"jobs: 100, {more}"))
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"{B}:{problem}")


JOBS = [
    # lines below `queue:` (from line 9 on), then the start of the only problem
    ("    max_body: 262145", "9:15: `max_body` 262145 is more than `queue.payload_max` 256KiB"),
    ("    max_body: 256KiB", "OK"),
    ("    max_body: null", "9:15: `max_body` null is more than `queue.payload_max` 256KiB"),
    ("    max_wait: 1s", "9:15: `max_wait` has no effect with `overflow: queue`"),
    ("    max_waiting: 5", "9:18: `max_waiting` has no effect with `overflow: queue`"),
    ("    retry_after_max: 1m\n    linger: 1s\n    on_hang_up: finish", "OK"),
    ("    effects: one", "9:14: `effects`: unknown value 'one' (did you mean 'once'?)"),
    ("    probe: GET /c/{idempotency_key}", "9:12: `probe` has no effect with `effects: keyed`"),
    ("    effects: keyed\n    probe: GET /c/{idempotency_key}", "10:12: `probe` has no effect with `effects: keyed`"),
    ("    effects: once\n    probe: GET /c/{idempotency_key}", "OK"),
    ("    effects: once\n    probe: GET /{id}/{idempotency_key}", "10:12: `probe`: 'GET /{id}/{idempotency_key}' uses {id}: only {idempotency_key} is known"),
    ("    effects: once\n    probe: GET /c/{id}", "10:12: `probe`: 'GET /c/{id}' does not say which call it asks for: use {idempotency_key}"),
    ("    effects: once\n    probe: POST /c/{idempotency_key}", "10:12: `probe`: 'POST /c/{idempotency_key}' is a POST"),
    ("    idempotency: {key: needed}", "9:24: `key`: unknown value 'needed'"),
    ("    idempotency: {window: 0s}", "9:27: `window`: 0s is out of bounds"),
    ("    retry: {base: 301s}", "9:19: `retry.base` 301s is more than `retry.cap` 5m"),
    ("    retry: {base: 5m}", "OK"),
    ("    retry: {cap: 999ms}", "9:18: `retry.base` 1s is more than `retry.cap` 999ms"),
    ("    retry: {cap: 1s}", "OK"),
    ("    retry: {for: 0s}", "9:18: `for`: 0s is out of bounds"),
    ("    retry: {for_: 1h}", "9:13: unknown key `for_` (did you mean 'for'?)"),
    ("    retry: {attempts: 0}", "9:23: `attempts`: 0 is out of bounds: at least 1"),
    ("    retry: {attempts: 1}", "OK"),
    ("    retry: {attempts: 1000}", "OK"),
    ("    retry: {attempts: 1001}", "9:23: `attempts`: 1001 is out of bounds: at most 1000"),
    ("    batch: {max_items: 5}", "9:12: `path` is missing"),
    ("    batch: {path: /batch}", "9:19: `path`: '/batch' is not POST and a path, such as POST /invoices/charge-batch"),
    ("    batch: {path: PUT /batch}", "9:19: `path`: 'PUT /batch' is not POST and a path"),
    ("    batch: {path: 'POST /{id}/batch'}", "9:19: `path`: 'POST /{id}/batch' uses {id}: a batch holds many calls"),
    ("    batch: {path: POST batch}", "9:19: `path`: 'batch' does not start with '/'"),
    ("    batch: {path: POST /b, max_items: 1001}", "9:39: `max_items`: 1001 is out of bounds: at most 1000"),
    ("    batch: {path: POST /b, max_items: 0}", "9:39: `max_items`: 0 is out of bounds: at least 1"),
    ("    batch: {path: POST /b, max_items: 1000}\n    capacity: {per_tenant: {rate: 1/s}}", "OK"),
    ("    batch: {path: POST /b, max_bytes: 262143}", "9:39: `batch.max_bytes` 262143 is less than `queue.payload_max` 256KiB"),
    ("    batch: {path: POST /b, max_bytes: 256KiB}", "OK"),
    ("    batch: {path: POST /b, max_bytes: 64MiB}", "OK"),
    ("    batch: {path: POST /b, max_bytes: 67108865}", "9:39: `max_bytes`: 67108865 is too large: at most 64MiB"),
    ("    batch: {path: POST /b, key: currency}", "9:33: `key`: 'currency' is not a JSON pointer"),
    ("    effects: once\n    batch: {path: POST /b}", "OK"),
    ("    callback: {allow: [], secret_file: ../secrets/ok}", "9:23: `allow` is empty"),
    ("    callback: {allow: ['*.com'], secret_file: ../secrets/ok}", "9:24: entry 1 of `allow`: allow-list entry '*.com'"),
    ("    callback: {allow: [a.example], secret_file: ../secrets/ok}", "OK"),
    ("    callback: {allow: [a.example]}", "9:15: `secret_file` is missing"),
    ("    callback: {allow: [a.example], secret_file: ../secrets/none}", "9:49: `secret_file`: there is no file"),
    ("    callback: {allow: [a.example], secret_file: ../secrets/bad}", "9:49: `secret_file`: "),
    ("    downstream: {credentials: {header: Authorization, file: ../secrets/ok}}", "OK"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "problem"), JOBS)
def test_a_wrong_field_about_jobs_is_one_problem_at_its_place(
    lines: str, problem: str, write: Write, problems: Problems
) -> None:
    """Beside the queue, too; a secret that stands there wrongly is never repeated."""
    write("secrets/ok", SECRET)
    write("secrets/bad", "hunter2")
    write(B, QUEUED + lines + "\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"{B}:{problem}")
        assert "hunter2" not in found[0]


@pytest.mark.parametrize("queue", ["", "    queue:\n"], ids=["absent", "empty"])
def test_overflow_into_a_queue_needs_a_queue(queue: str, write: Write, problems: Problems) -> None:
    """How long a job may wait is nothing that a default could know."""
    write(B, PIPELINE + "    overflow: queue\n" + queue)
    assert problems() == [f"{B}:7:15: `overflow: queue` needs `queue`: state `start_within` and `max_jobs`"]


@pytest.mark.parametrize("field", ["start_within", "max_jobs"])
def test_a_queue_needs_a_promise_and_a_bound(field: str, write: Write, problems: Problems) -> None:
    """And its absence is one problem, whatever else refers to the queue."""
    lines = {"start_within": "start_within: 15m", "max_jobs": "max_jobs: 5"}
    del lines[field]
    queue = f"    overflow: queue\n    queue: {{{lines.popitem()[1]}}}\n"
    write(B, PIPELINE + queue + "    max_body: 1MiB\n    batch: {path: POST /b}\n")
    assert problems() == [f"{B}:8:12: `{field}` is missing"]


def test_a_required_value_that_is_wrong_hides_nothing_else(write: Write, problems: Problems) -> None:
    """One run of `validate` for all of an operation, though its batch cannot be read."""
    write(B, QUEUED + "    batch: {path: /b}\n    max_wait: 1s\n    retry: {base: 1h}\n")
    assert [problem.split(": ")[0] for problem in problems()] == [f"{B}:9:19", f"{B}:10:15", f"{B}:11:19"]


@pytest.mark.parametrize("overflow", ["throttle", "alert"])
@pytest.mark.parametrize(
    "field",
    [
        "queue: {start_within: 15m, max_jobs: 5}",
        "effects: keyed",
        "probe: GET /c/{idempotency_key}",
        "idempotency: {key: required}",
        "batch: {path: POST /b}",
        "callback: {allow: [a.example], secret_file: none}",
    ],
)
def test_a_field_about_jobs_without_a_queue_is_refused(
    field: str, overflow: str, write: Write, problems: Problems
) -> None:
    """Nobody may believe to be protected by something that is not there."""
    write(B, PIPELINE + f"    overflow: {overflow}\n    {field}\n")
    name = field.partition(":")[0]
    assert problems() == [
        f"{B}:8:5: `{name}` has no effect with `overflow: {overflow}`: write `overflow: queue` or leave it out"
    ]


def test_a_field_about_jobs_that_says_none_is_no_mistake(write: Write, problems: Problems) -> None:
    """`batch: null` is true of an operation without a queue."""
    write(B, PIPELINE + "    batch: null\n    callback: null\n")
    assert problems() == []


def test_a_misspelt_overflow_does_not_make_the_queue_wrong(write: Write, problems: Problems) -> None:
    """One mistake, one problem."""
    write(B, QUEUED.replace("overflow: queue", "overflow: quee") + "    effects: once\n")
    assert problems() == [f"{B}:7:15: `overflow`: unknown value 'quee' (did you mean 'queue'?)"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_has_no_body_cannot_be_queued(method: str, write: Write, problems: Problems) -> None:
    """Who reads wants the answer, not a place in a line."""
    write(B, QUEUED.replace("POST", method))
    (found,) = problems()
    assert found == (
        f"{B}:7:15: a {method} cannot be queued, because its caller wants the answer now: "
        "use `throttle` or `alert`"
    )
    write(B, QUEUED.replace("POST", "DELETE"))
    assert problems() == []


def test_the_key_of_a_probe_is_the_only_one_of_its_name(write: Write, problems: Problems) -> None:
    """Else it could ask for another charge than the one that was sent."""
    write(
        B,
        QUEUED.replace("{id}", "{idempotency_key}")
        + "    effects: once\n    probe: GET /c/{idempotency_key}\n",
    )
    (found,) = problems()
    assert found.startswith(f"{B}:6:12: `match` has a placeholder {{idempotency_key}}, which `probe` uses")


def test_a_batch_too_small_for_a_raised_payload_is_a_problem_of_the_payload(
    write: Write, problems: Problems
) -> None:
    """Nobody stated `batch.max_bytes`, so the place is the value that was."""
    write(B, QUEUED.replace("15m", "15m, payload_max: 1MiB") + "    batch: {path: POST /b}\n")
    (found,) = problems()
    assert found.startswith(f"{B}:8:45: `batch.max_bytes` 1MB is less than `queue.payload_max` 1MiB")


def test_headers_are_kept_only_where_they_are_sealed(write: Write, problems: Problems) -> None:
    """With a key ring by default; who switches it off for an operation gets no headers there."""
    write("secrets/key", "ab" * 32)
    write("gateway.yaml", "payload_keys: [{id: a, file: secrets/key}]\n")
    write(B, QUEUED.replace("15m", "15m, store_headers: [X-A]"))
    assert problems() == []
    write(B, QUEUED.replace("15m", "15m, encrypt: true, store_headers: [X-A]"))
    assert problems() == []
    write(B, QUEUED.replace("15m", "15m, encrypt: false, store_headers: [X-A]"))
    (found,) = problems()
    assert "`store_headers` needs `encrypt`" in found
    assert found.endswith("leave `encrypt: false` out")


def test_a_key_ring_that_cannot_be_read_is_one_problem(write: Write, problems: Problems) -> None:
    """Not one more for each operation that encrypts."""
    write("gateway.yaml", "payload_keys: [{id: a, file: none}]\n")
    write(B, QUEUED.replace("15m", "15m, encrypt: true"))
    (found,) = problems()
    assert found.startswith("gateway.yaml:1:30: `file`: there is no file")


CALLER = f"callers: [{{id: crm, key_sha256: [{HASH}], operations: ['*']}}]\n"
PROCESS = [
    ("jobs: {in_flight: 0}", "1:19: `in_flight`: 0 is out of bounds: at least 1"),
    ("jobs: {in_flight: 10000}", "OK"),
    ("jobs: {in_flight: 10001}", "1:19: `in_flight`: 10001 is out of bounds: at most 10000"),
    ("operators: []", "1:12: `operators` is empty: name one, or leave it out"),
    ("operators: [{id: a}]", "1:13: operator 'a' needs one of `key_sha256_file` and `key_sha256`"),
    (f"operators: [{{id: a, key_sha256: [{HASH}], role: admin}}]", "1:107: `role`: unknown value 'admin' (there is viewer, operator)"),
    (f"operators: [{{id: a, key_sha256: [{HASH}], operations: ['*']}}]", "1:101: unknown key `operations`"),
    (f"operators: [{{id: a, key_sha256: [{HASH}]}}, {{id: a, key_sha256: [{OTHER}]}}]", "1:107: two operators have the same id 'a': who changed something could not be told"),
    (f"operators: [{{id: a, key_sha256: [{HASH}]}}, {{id: b, key_sha256: [{HASH}]}}]", "1:102: two operators have the same key"),
    (f"operators: [{{id: a, key_sha256: [{HASH}]}}, {{id: b, key_sha256: [{OTHER}]}}]", "OK"),
    (f"{CALLER}operators: [{{id: a, key_sha256: [{HASH}]}}]", "2:13: operator 'a' has the key of the caller 'crm', which could then change limits"),
    (f"{CALLER}operators: [{{id: crm, key_sha256: [{OTHER}]}}]", "OK"),
    ("payload_keys: []", "1:15: `payload_keys` is empty: name one, or leave it out to store payloads as they are"),
    ("payload_keys: [{id: A, file: secrets/key}]", "1:21: `id`: 'A' is no id of a key: 1 to 32 lower-case letters"),
    ("payload_keys: [{id: a, file: secrets/none}]", "1:30: `file`: there is no file"),
    ("payload_keys: [{id: a, file: secrets/short}]", "1:30: `file`: "),
    ("payload_keys: [{id: a, file: secrets/key}, {id: a, file: secrets/other}]", "1:49: two payload keys have the same id 'a'"),
    ("payload_keys: [{id: a, file: secrets/key}, {id: b, file: secrets/key}]", "1:58: payload key 'b' is the same as another one"),
    ("payload_keys: [{id: a, file: secrets/key}, {id: b, file: secrets/other}]", "OK"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), PROCESS)
def test_a_wrong_key_or_operator_is_one_problem_at_its_place(
    text: str, problem: str, write: Write, problems: Problems
) -> None:
    """And no key is ever repeated."""
    write("secrets/key", "ab" * 32)
    write("secrets/other", "cd" * 32)
    write("secrets/short", "hunter2")
    write("gateway.yaml", text + "\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"gateway.yaml:{problem}")
        assert not any(secret in found[0] for secret in ("hunter2", HASH, "abab"))
