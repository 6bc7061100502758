"""Circuits, adaptive capacity, retries of calls and an absent store: what arrives, and what is said about the rest."""

from pathlib import Path

import pytest

from breaker.core.circuit_policy import CircuitMode, CircuitPolicy, DirectRetry, SlowDown, WhenStoreDown
from breaker.core.job_policy import Retry
from breaker.core.model import Operation
from breaker.policy.diff import diff
from breaker.policy.explain import explain
from breaker.policy.load import load, load_documents
from tests.policy.conftest import PIPELINE, QUEUED, Problems, Write

B = "pipelines/billing.yaml"
HASH = "a" * 64
SHIPPED = Path(__file__).parents[2] / "config"

CIRCUIT = [
    # what stands in `circuit:` (line 7), and the start of the only problem
    ("failure_rate: 0", "7:29: `failure_rate`: 0 is out of bounds: more than 0"),
    ("failure_rate: 0.001", "OK"),
    ("failure_rate: 1", "OK"),
    ("failure_rate: 1.01", "7:29: `failure_rate`: 1.01 is out of bounds: at most 1"),
    ("failure_rate: 50", "7:29: `failure_rate`: 50 is out of bounds"),
    ("failure_rate: 50%", "7:29: `failure_rate` is '50%'; it must be a number"),
    ("slow_rate: 0, slow_call: 1s", "7:26: `slow_rate`: 0 is out of bounds"),
    ("slow_rate: 1.5, slow_call: 1s", "7:26: `slow_rate`: 1.5 is out of bounds"),
    ("slow_rate: 1, slow_call: 1s", "OK"),
    ("slow_rate: 0.5", "7:26: `slow_rate` needs `slow_call`: from when on a call is slow"),
    ("slow_call: 1s", "OK"),
    ("slow_call: 0s, slow_rate: 0.5", "7:26: `slow_call`: 0s is out of bounds"),
    ("slow_call: 9999ms, slow_rate: 0.5", "OK"),
    ("slow_call: 10s, slow_rate: 0.5", "7:26: `slow_call` 10s is not less than `downstream.timeout` 10s"),
    ("min_calls: 0", "7:26: `min_calls`: 0 is out of bounds: at least 1"),
    ("min_calls: 1, consecutive: 1, probes: 1", "OK"),
    ("consecutive: 0", "7:28: `consecutive`: 0 is out of bounds: at least 1"),
    ("probes: 0", "7:23: `probes`: 0 is out of bounds: at least 1"),
    ("probes: 100", "OK"),
    ("probes: 101", "7:23: `probes`: 101 is out of bounds: at most 100"),
    ("window: 999ms", "7:23: `window`: 999ms is too short: at least 1s"),
    ("window: 1s", "OK"),
    ("window: 1h", "OK"),
    ("window: 61m", "7:23: `window`: 61m is too long: at most 1h"),
    ("open: 0s", "7:21: `open`: 0s is out of bounds"),
    ("open: 5m", "OK"),
    ("open: 301s", "7:21: `circuit.open` 301s is more than `circuit.open_max` 5m"),
    ("open_max: 5s", "OK"),
    ("open_max: 4s", "7:25: `circuit.open` 5s is more than `circuit.open_max` 4s"),
    ("open_max: 4s, open: 5s", "7:35: `circuit.open` 5s is more than `circuit.open_max` 4s"),
    ("ramp: 0s", "OK"),
    ("ramp: 1h", "OK"),
    ("ramp: 3601s", "7:21: `ramp`: 3601s is too long: at most 1h"),
    ("mode: of", "7:21: `mode`: unknown value 'of' (did you mean 'off'?)"),
    ("mode: off", "OK"),
    ("failure_rat: 1", "7:15: unknown key `failure_rat` (did you mean 'failure_rate'?)"),
]  # fmt: skip


def only(found: list[str], problem: str) -> None:
    """One mistake is one sentence at its place; the right side of an edge is none."""
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"{B}:{problem}")


@pytest.mark.parametrize(("more", "problem"), CIRCUIT)
def test_a_wrong_circuit_is_one_problem_at_its_place(
    more: str, problem: str, write: Write, problems: Problems
) -> None:
    """A circuit that could never open, or never close, is found before the bad day."""
    write(B, PIPELINE + f"    circuit: {{{more}}}\n")
    only(problems(), problem)


DIRECT = [
    # lines below `charge:` (from line 7 on), then the start of the only problem
    ("    circuit: off", "OK"),
    ("    circuit: shadow", "OK"),
    ("    circuit: of", "7:14: `circuit`: unknown value 'of' (did you mean 'off'?): write one of them or a mapping"),
    ("    circuit: false", "7:14: `circuit` is False; it must be a mapping"),
    ("    circuit:", "7:13: `circuit` is empty"),
    ("    downstream: {timeout: 1s}\n    circuit: {slow_call: 1s, slow_rate: 1}", "8:26: `slow_call` 1s is not less than `downstream.timeout` 1s"),
    ("    slow_down: tenant", "7:16: `slow_down: tenant` needs tenants, and all calls are of one here"),
    ("    slow_down: tenant\n    tenant: {header: X-T}", "OK"),
    ("    slow_down: tenant\n    tenant: {}", "8:13: `tenant` needs `header`, `pointer` or both"),
    ("    slow_down: tenant\n    tenant: {header: Host}", "8:22: `header`: 'Host' belongs to the connection"),
    ("    slow_down: tenant\n    tenant: X-T", "8:13: `tenant` is 'X-T'; it must be a mapping"),
    ("    slow_down: tennant", "7:16: `slow_down`: unknown value 'tennant' (did you mean 'tenant'?)"),
    ("    slow_down_max: 0s", "7:20: `slow_down_max`: 0s is out of bounds"),
    ("    slow_down_max: 24h", "OK"),
    ("    slow_down_max: 25h", "7:20: `slow_down_max`: 25h is too long: at most 24h"),
    ("    adaptive: {}", "7:15: `min` is missing"),
    ("    adaptive: {min: 0}\n    capacity: {concurrency: 2}", "7:21: `min`: 0 is out of bounds: at least 1"),
    ("    adaptive: {min: 2}\n    capacity: {concurrency: 2}", "OK"),
    ("    adaptive: {min: 3}\n    capacity: {concurrency: 2}", "7:21: `adaptive.min` 3 is more than the concurrency 2 of `capacity`: at most 2"),
    ("    adaptive: {min: 2}", "7:5: `adaptive` needs a `concurrency` to go down from, and `capacity` has none"),
    ("    adaptive: {min: 2}\n    capacity: {rate: 1/s, per_tenant: {concurrency: 3}}", "7:5: `adaptive` needs a `concurrency`"),
    ("    adaptive: {min: 2}\n    capacity: {concurrency: -1}", "8:29: `concurrency`: -1 is out of bounds"),
    ("    adaptive: {min: 2}\n    overflow: alert\n    capacity: {concurrency: 3}", "7:5: `adaptive` has no effect with `overflow: alert`"),
    ("    adaptive: {min: 2}\n    capacity: {concurrency: 3, schedule: {timezone: UTC, hours: [{when: mon, concurrency: 1}]}}", "7:21: `adaptive.min` 2 is more than the concurrency 1 of schedule 'mon'"),
    ("    adaptive: {min: 2}\n    capacity: {concurrency: 3, schedule: {timezone: UTC, hours: [{when: mon, concurrency: 2}], otherwise: {concurrency: 0}}}", "OK"),
    ("    adaptive: {min: 2}\n    capacity: {concurrency: 3, schedule: {timezone: UTC, hours: [{when: mon, rate: 1/s}], otherwise: {concurrency: 1}}}", "7:21: `adaptive.min` 2 is more than the concurrency 1 of `schedule.otherwise`"),
    ("    adaptive: {min: 2}\n    capacity: {concurrency: 3, schedule: {timezone: UTC, hours: [{when: mon, concurrency: null}]}}", "7:5: `adaptive` needs a `concurrency` to go down from, and schedule 'mon' has none"),
    ("    adaptive: {min: 2}\n    capacity: {schedule: {timezone: UTC, hours: [{when: mon, concurrency: 2}]}}", "7:5: `adaptive` needs a `concurrency` to go down from, and `schedule.otherwise` has none"),
    ("    adaptive: {min: 2}\n    capacity: {schedule: {timezone: UTC, hours: [{when: mon, concurrency: 2}], otherwise: {concurrency: 2}}}", "OK"),
    ("    when_store_down: alow", "7:22: `when_store_down`: unknown value 'alow' (did you mean 'allow'?)"),
    ("    when_store_down: local_share", "OK"),
    ("    when_store_down: allow", "OK"),
    ("    overflow: alert\n    when_store_down: refuse", "OK"),
    ("    retry: {attempts: 1}", "7:23: `retry.attempts` 1 cannot be of a call, which counts the first one and is waited for: 2 to 10"),
    ("    retry: {attempts: 2}", "OK"),
    ("    retry: {attempts: 10}", "OK"),
    ("    retry: {attempts: 11}", "7:23: `retry.attempts` 11 cannot be of a call"),
    ("    retry: {attempts: 0}", "7:23: `attempts`: 0 is out of bounds"),
    ("    retry: {base: 5s}", "OK"),
    ("    retry: {base: 5001ms}", "7:19: `retry.base` 5001ms is more than `retry.cap` 5s"),
    ("    retry: {cap: 100ms}", "OK"),
    ("    retry: {cap: 99ms}", "7:18: `retry.base` 100ms is more than `retry.cap` 99ms"),
    ("    retry: {cap: 60s}", "OK"),
    ("    retry: {cap: 61s}", "7:18: `retry.cap` 61s is too long for a call, which somebody waits for: at most 1m"),
    ("    retry: {for: 0s}", "7:18: `for`: 0s is out of bounds"),
    ("    retry: {}\n    overflow: alert", "OK"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "problem"), DIRECT)
def test_a_wrong_precaution_is_one_problem_at_its_place(
    lines: str, problem: str, write: Write, problems: Problems
) -> None:
    """Somebody would rely on a protection that could never act."""
    write(B, PIPELINE + lines + "\n")
    only(problems(), problem)


QUEUE = [
    ("    when_store_down: refuse", "OK"),
    ("    when_store_down: allow", "9:22: `when_store_down: allow` cannot hold with `overflow: queue`: a call may become a job"),
    ("    when_store_down: local_share", "9:22: `when_store_down: local_share` cannot hold with `overflow: queue`"),
    ("    retry: {attempts: 1, cap: 5m}", "OK"),
    ("    adaptive: {min: 1}\n    capacity: {concurrency: 1}", "OK"),
    ("    circuit: off", "OK"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "problem"), QUEUE)
def test_a_queue_has_one_answer_to_an_absent_store(
    lines: str, problem: str, write: Write, problems: Problems
) -> None:
    """A 202 that lives only in the memory of a process would be a lie."""
    write(B, QUEUED + lines + "\n")
    only(problems(), problem)


def test_a_misspelt_overflow_is_not_blamed_on_the_other_words(write: Write, problems: Problems) -> None:
    """One mistake, one sentence."""
    write(
        B,
        QUEUED.replace("overflow: queue", "overflow: que")
        + "    retry: {for: 1h}\n    circuit: {open: 1s}\n",
    )
    only(problems(), "7:15: `overflow`: unknown value 'que'")


def test_callers_are_tenants_that_can_be_slowed_down(write: Write, problems: Problems) -> None:
    """Each caller is its own tenant where an operation names none."""
    write(B, PIPELINE + "    slow_down: tenant\n")
    write("gateway.yaml", f"callers: [{{id: crm, key_sha256: [{HASH}], operations: ['*']}}]\n")
    assert problems() == []


def test_a_tenant_of_the_pipeline_can_be_slowed_down_unless_it_is_refused(
    write: Write, problems: Problems
) -> None:
    """`tenant: null` means that the caller is the tenant, and here nobody is."""
    write(B, "tenant: {header: X-T}\n" + PIPELINE + "    slow_down: tenant\n")
    assert problems() == []
    write(B, "tenant: {header: X-T}\n" + PIPELINE + "    slow_down: tenant\n    tenant: null\n")
    only(problems(), "8:16: `slow_down: tenant` needs tenants")


def test_a_misspelt_tenant_of_the_pipeline_is_one_problem(write: Write, problems: Problems) -> None:
    """Not one more for each operation that slows tenants down."""
    write(B, "tenant: X-T\n" + PIPELINE + "    slow_down: tenant\n")
    only(problems(), "1:9: `tenant` is 'X-T'; it must be a mapping")


def charge(folder: Path) -> Operation:
    return load(folder, {}).operations["billing.charge"]


def test_every_word_about_an_ill_downstream_arrives(folder: Path, write: Write) -> None:
    """A setting that nobody reads would be a promise that nobody keeps."""
    write(B, PIPELINE + """\
    tenant: {header: X-T}
    capacity: {concurrency: 8}
    circuit:
      {failure_rate: 1, slow_rate: 0.25, slow_call: 8s, min_calls: 20, consecutive: 3, window: 1m, open: 2s,
       open_max: 1m, probes: 4, ramp: 10s, mode: shadow}
    slow_down: tenant
    slow_down_max: 30s
    adaptive: {min: 2}
    when_store_down: allow
    retry: {for: 8s, base: 50ms, cap: 2s, attempts: 4}
""")  # fmt: skip
    operation = charge(folder)
    assert operation.circuit == CircuitPolicy(
        failure_rate=1.0,
        slow_rate=0.25,
        slow_call_ms=8_000,
        min_calls=20,
        consecutive=3,
        window_ms=60_000,
        open_ms=2_000,
        open_max_ms=60_000,
        probes=4,
        ramp_ms=10_000,
        mode=CircuitMode.SHADOW,
    )
    assert isinstance(operation.circuit.failure_rate, float)
    assert (operation.slow_down, operation.slow_down_max_ms) == (SlowDown.TENANT, 30_000)
    assert (operation.adaptive_min, operation.when_store_down) == (2, WhenStoreDown.ALLOW)
    assert operation.direct_retry == DirectRetry(for_ms=8_000, base_ms=50, cap_ms=2_000, attempts=4)
    assert operation.retry == Retry()  # that of jobs, of which there are none


def test_slow_calls_count_like_failed_ones_unless_a_share_is_stated(folder: Path, write: Write) -> None:
    """Whoever says from when on a call is slow means it to matter."""
    write(B, PIPELINE + "    circuit: {failure_rate: 0.25, slow_call: 2s}\n")
    assert charge(folder).circuit.slow_rate == 0.25


def test_what_is_not_stated_is_what_core_says(folder: Path, write: Write) -> None:
    """Whoever states one field of several keeps the usual ones; a bare `retry` is a wish for all of them."""
    write(B, PIPELINE + "    retry: {attempts: 2}\n    circuit: {open: 1s}\n")
    assert charge(folder).direct_retry == DirectRetry(attempts=2)
    assert charge(folder).circuit == CircuitPolicy(open_ms=1_000)
    write(B, PIPELINE + "    retry: {}\n    circuit: off\n")
    assert charge(folder).direct_retry == DirectRetry()
    assert charge(folder).circuit == CircuitPolicy(mode=CircuitMode.OFF)
    write(B, PIPELINE)
    assert charge(folder).direct_retry is None
    assert charge(folder).when_store_down is WhenStoreDown.LOCAL_SHARE


def test_the_retries_of_a_queue_are_those_of_jobs(folder: Path, write: Write) -> None:
    """A call that becomes a job is not repeated by two."""
    write(B, QUEUED + "    retry: {attempts: 1}\n")
    operation = charge(folder)
    assert (operation.retry, operation.direct_retry) == (Retry(attempts=1), None)
    assert operation.when_store_down is WhenStoreDown.REFUSE


def test_an_explanation_names_the_origin_of_each_precaution(folder: Path, write: Write) -> None:
    """Also of the short form, and not of what stands beside it."""
    path = write(
        B,
        PIPELINE
        + "    retry: {cap: 2s}\n    circuit: shadow\n    adaptive: {min: 2}\n    capacity: {concurrency: 2}\n",
    )
    rows = {row.field: row for row in explain(load_documents(folder, {}), "billing.charge", 0).rows}
    expected = {
        "retry.cap": ("2s", f"{path}:7"),
        "retry.for": ("the call's deadline", "default"),
        "retry.attempts": ("3", "default"),
        "circuit.mode": ("shadow", f"{path}:8"),
        "circuit.failure_rate": ("0.5", "default"),
        "circuit.slow_call": ("off", "default"),
        "adaptive.min": ("2", f"{path}:9"),
        "when_store_down": ("local_share", "default"),
        "slow_down_max": ("5m", "default"),
    }
    assert {name: (rows[name].value, rows[name].origin) for name in expected} == expected
    write(
        B,
        PIPELINE
        + "    circuit: {open: 1s}\n    capacity: {cost: {max: 2, header: X-Cost}, rate: 1/s, burst: 2}\n",
    )
    rows = {row.field: row for row in explain(load_documents(folder, {}), "billing.charge", 0).rows}
    assert [rows[name].origin for name in ("circuit.open", "circuit.mode", "capacity.cost.constant")] == [
        f"{path}:7", "default", "default",
    ]  # fmt: skip


def test_differences_about_precautions_are_seen(folder: Path, write: Write) -> None:
    """A circuit that was switched off must not slip through a review."""
    write(B, PIPELINE)
    old = load(folder, {})
    write(B, PIPELINE + """\
    circuit: {mode: off, slow_rate: 0.25, slow_call: 2s}
    when_store_down: allow
    retry: {}
""")  # fmt: skip
    write("gateway.yaml", "cluster: test\nreplicas_expected: 3\nstore: {needed_at_start: false}\n")
    assert [str(difference) for difference in diff(old, load(folder, {}))] == [
        "~ gateway: replicas_expected 1 -> 3",
        "~ gateway: store.needed_at_start true -> false",
        "~ billing.charge: retry.for none -> the call's deadline",
        "~ billing.charge: retry.base none -> 100ms",
        "~ billing.charge: retry.cap none -> 5s",
        "~ billing.charge: retry.attempts none -> 3",
        "~ billing.charge: circuit.slow_rate off -> 0.25",
        "~ billing.charge: circuit.slow_call off -> 2s",
        "~ billing.charge: circuit.mode enforce -> off",
        "~ billing.charge: when_store_down local_share -> allow",
    ]


def test_the_shipped_operations_take_precautions() -> None:
    """The running example shows what each is for."""
    operations = load(SHIPPED, {}).operations
    assert {name: operation.when_store_down for name, operation in operations.items()} == {
        "billing.charge-invoice": "refuse",
        "billing.get-invoice": "allow",
        "onboarding.provision-account": "local_share",
        "onboarding.send-welcome": "local_share",
        "support.create-ticket": "refuse",
    }
    assert operations["billing.charge-invoice"].circuit.slow_call_ms == 8_000
    assert operations["billing.get-invoice"].direct_retry == DirectRetry(cap_ms=1_000)
    assert operations["onboarding.provision-account"].adaptive_min == 1
    assert all(operation.circuit.mode is CircuitMode.ENFORCE for operation in operations.values())
