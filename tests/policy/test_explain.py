"""Explanations and differences: every field in words, with its origin, and no secret."""

from pathlib import Path

import pytest

from breaker.core.model import Limits, Rate
from breaker.policy.diff import diff
from breaker.policy.explain import explain
from breaker.policy.fields import fields_of
from breaker.policy.gateway_file import GatewayFile
from breaker.policy.load import load, load_documents
from breaker.policy.pipeline_file import OperationSection
from breaker.policy.values import gateway_values, limits_in_words, operation_values
from tests.policy.conftest import PIPELINE, QUEUED, Write

SHIPPED = Path(__file__).parents[2] / "config"
FRIDAY_US = 1_780_660_800_000_000  # 2026-06-05T12:00Z, 14:00 in Berlin
HASHES = ("a" * 64, "b" * 64)


JOBS = {"queue", "effects", "probe", "idempotency", "retry", "batch", "callback"}


def test_every_field_of_the_models_has_a_value_in_words(folder: Path, write: Write) -> None:
    """A field that `explain` leaves out is one that `diff` does not see."""
    capacity = """\
    capacity:
      rate: 1/s
      tenants: {acme: {rate: 1/s}}
      schedule: {timezone: UTC, hours: [{when: mon}]}
"""
    queued = QUEUED.replace("15m", "15m, weights: {acme: 2}, bands: {header: P, values: {acme: low}}")
    write("pipelines/billing.yaml", queued + capacity)
    values = set(operation_values(load(folder, {}).operations["billing.charge"]))
    stated = {
        field.path.replace("<name>", "acme").replace("[]", "[0]") for field in fields_of(OperationSection)
    }
    assert values == stated
    write("pipelines/billing.yaml", PIPELINE + capacity)
    values = set(operation_values(load(folder, {}).operations["billing.charge"]))
    assert values == {path for path in stated if path.split(".")[0] not in JOBS - {"retry"}}


def test_every_field_of_the_process_has_a_value_in_words(folder: Path, write: Write) -> None:
    """Two ways to state keys are one value, ids of payload keys are one list; all else is one to one."""
    write("secrets/key", "ab" * 32)
    write(
        "gateway.yaml",
        f"callers: [{{id: crm, key_sha256: [{HASHES[0]}], operations: ['*']}}]\n"
        f"operators: [{{id: anna, key_sha256: [{HASHES[1]}]}}]\n"
        "payload_keys: [{id: k1, file: secrets/key}]\n"
        "alerts:\n"
        "  channels: {am: {type: alertmanager, url: 'http://am:9093'}}\n"
        "  routes: [{severity: critical, to: [am]}]\n",
    )
    values = set(gateway_values(load(folder, {}).gateway))
    ids = {"callers": "crm", "operators": "anna", "payload_keys": "k1", "alerts.routes": "critical"}
    stated = set()
    for field in fields_of(GatewayFile):
        name, _, rest = field.path.partition("[].")
        stated.add(f"{name}.{ids[name]}.{rest}" if rest else name.replace("<name>", "am"))
    left_out = {"callers.crm.id", "operators.anna.id", "payload_keys.k1.id"}
    left_out |= {"callers.crm.key_sha256_file", "operators.anna.key_sha256_file"}
    left_out |= {"alerts.routes.critical.severity"}
    assert values == stated - left_out | {"payload_keys"}


def test_an_explanation_names_the_origin_of_each_value_about_jobs(folder: Path, write: Write) -> None:
    """A band or a weight with a dot in its key, too."""
    path = write("pipelines/billing.yaml", PIPELINE + """\
    overflow: queue
    queue:
      start_within: 15m
      max_jobs: 100
      durability: {replicated: 2}
      weights: {a.b: 3}
      bands:
        header: X-Plan
        values: {"gold.v2[0]": critical}
    retry: {for: 2h}
    batch: {path: POST /b}
""")  # fmt: skip
    rows = {row.field: row for row in explain(load_documents(folder, {}), "billing.charge", 0).rows}
    expected = {
        "queue.start_within": ("15m", f"{path}:9"),
        "queue.expire_after": ("never", "default"),
        "queue.durability": ("replicated: 2", f"{path}:11"),
        "queue.weights.a.b": ("3", f"{path}:12"),
        "queue.bands.values.gold.v2[0]": ("critical", f"{path}:15"),
        "queue.bands.default": ("normal", "default"),
        "queue.encrypt": ("false", "default"),
        "retry.for": ("2h", f"{path}:16"),
        "retry.attempts": ("as many as fit", "default"),
        "batch.path": ("POST /b", f"{path}:17"),
        "batch.max_items": ("100", "default"),
        "callback.allow": ("none", "default"),
        "max_body": ("256KiB", "default"),
        "effects": ("keyed", "default"),
        "retired": ("false", "default"),
    }
    assert {name: (rows[name].value, rows[name].origin) for name in expected} == expected


def test_differences_about_jobs_show_the_promise_and_no_secret(folder: Path, write: Write) -> None:
    """Which key seals from now on, that a secret rotated, and what a 202 is worth."""
    write("secrets/a", "ab" * 32)
    write("secrets/b", "cd" * 32)
    write("secrets/callbacks", "whsec_" + "A" * 32)
    callback = "    callback: {allow: [a.example], secret_file: ../secrets/callbacks}\n"
    write("gateway.yaml", "payload_keys: [{id: a, file: secrets/a}]\n")
    write("pipelines/billing.yaml", QUEUED + callback)
    old = load(folder, {})
    write("secrets/callbacks", "whsec_" + "B" * 32)
    write(
        "gateway.yaml",
        "payload_keys: [{id: b, file: secrets/b}, {id: a, file: secrets/a}]\n"
        f"operators: [{{id: anna, key_sha256: [{HASHES[0]}], role: operator}}]\n",
    )
    write(
        "pipelines/billing.yaml",
        QUEUED.replace("15m", "5m, durability: memory, weights: {acme: 4}")
        + callback
        + "    effects: once\n    retired: true\n",
    )
    lines = [str(difference) for difference in diff(old, load(folder, {}))]
    assert lines == [
        "~ gateway: payload_keys a -> b, a",
        "~ gateway: operators.anna.key_sha256 none -> (another, hidden)",
        "~ gateway: operators.anna.role none -> operator",
        "~ gateway: payload_keys.b.file none -> (another, hidden)",
        "~ billing.charge: queue.start_within 15m -> 5m",
        "~ billing.charge: queue.durability fsync -> memory",
        "~ billing.charge: queue.weights.acme none -> 4",
        "~ billing.charge: effects keyed -> once",
        "~ billing.charge: callback.secret_file (hidden) -> (another, hidden)",
        "~ billing.charge: retired false -> true",
    ]


def test_an_explanation_names_the_origin_of_each_value(folder: Path, write: Write) -> None:
    """`why is it 5/s?` is answered with a file and a line."""
    path = write("pipelines/billing.yaml", PIPELINE + """\
    capacity:
      rate: 20/s
      burst: 4
      cost: 2
      per_tenant: {rate: 5/s, burst: 2}
      tenants: {a.b: {rate: 50/s}}
      schedule: {timezone: UTC, hours: [{when: mon, rate: 1/s}]}
    downstream: {timeout: 3s}
""")  # fmt: skip
    rows = {row.field: row for row in explain(load_documents(folder, {}), "billing.charge", 0).rows}
    expected = {
        "capacity.rate": ("20/s", f"{path}:8"),
        "capacity.cost.constant": ("2", f"{path}:10"),
        "capacity.tenants.a.b.rate": ("50/s", f"{path}:12"),
        "capacity.tenants.a.b.burst": ("2", f"{path}:11 (inherited)"),
        "capacity.schedule.hours[0].rate": ("1/s", f"{path}:13"),
        "capacity.schedule.hours[0].burst": ("4", f"{path}:9 (inherited)"),
        "downstream.timeout": ("3s", f"{path}:14"),
        "downstream.url": ("http://127.0.0.1:9102", f"{path}:3 (pipeline)"),
        "team": ("finance", f"{path}:2 (pipeline)"),
        "max_wait": ("1s", "default"),
        "on_hang_up": ("finish", "default"),
    }
    assert {name: (rows[name].value, rows[name].origin) for name in expected} == expected


def test_an_explanation_says_what_holds_now_and_next() -> None:
    """On a Friday afternoon the desk is open; at 18:00 in Berlin the ones on call take over."""
    found = explain(load_documents(SHIPPED, {}), "support.create-ticket", FRIDAY_US)
    desk = Limits(rate=Rate(limit=6, period_us=1_000_000, burst=6), concurrency=3)
    on_call = Limits(rate=Rate(limit=3, period_us=1_000_000, burst=3), concurrency=2)
    assert (found.now, found.then) == (desk, (FRIDAY_US + 4 * 3_600_000_000, on_call))
    assert explain(load_documents(SHIPPED, {}), "billing.get-invoice", FRIDAY_US).then is None


def test_limits_are_said_in_words() -> None:
    """As the log and the command line show them."""
    assert limits_in_words(Limits()) == "no limit"
    assert limits_in_words(Limits(rate=Rate(limit=0, period_us=1), concurrency=3)) == "closed, concurrency 3"
    assert limits_in_words(Limits(rate=Rate(limit=2, period_us=60_000_000))) == "2/min, burst 1"


def test_a_folder_does_not_differ_from_itself() -> None:
    """No noise before a rollout."""
    assert diff(load(SHIPPED, {}), load(SHIPPED, {})) == []


def test_differences_are_said_in_the_words_of_the_files(folder: Path, write: Write) -> None:
    """What a reviewer reads before a rollout: what comes, what goes, old -> new."""
    write("contracts/c.json", "{}")
    write(
        "pipelines/billing.yaml",
        PIPELINE + "    capacity: {rate: 20/s}\n    contract: ../contracts/c.json\n  old: {match: GET /o}\n",
    )
    write("gateway.yaml", f"callers: [{{id: crm, key_sha256: [{HASHES[0]}], operations: ['*']}}]\n")
    old = load(folder, {"BREAKER_STORE__PASSWORD": "one"})
    write("contracts/c.json", '{"type": "object"}')
    write(
        "pipelines/billing.yaml",
        PIPELINE + "    capacity: {rate: 40/s}\n    contract: ../contracts/c.json\n  new: {match: GET /n}\n",
    )
    write(
        "gateway.yaml",
        f"callers: [{{id: crm, key_sha256: [{HASHES[1]}], operations: ['*']}}]\ncluster: next\n",
    )
    new = load(folder, {"BREAKER_STORE__PASSWORD": "two"})
    lines = [str(difference) for difference in diff(old, new)]
    contract = next(line for line in lines if ": contract " in line)
    assert contract.count("contracts/c.json (") == 2
    assert [line for line in lines if line != contract] == [
        "~ gateway: cluster default -> next",
        "~ gateway: store.password_file (hidden) -> (another, hidden)",
        "~ gateway: callers.crm.key_sha256 (hidden) -> (another, hidden)",
        "~ billing.charge: capacity.rate 20/s -> 40/s",
        "+ billing.new: added",
        "- billing.old: removed",
    ]
    assert "two" not in str(diff(old, new))


def test_closing_an_open_gateway_is_a_difference(folder: Path, write: Write) -> None:
    """Who may call changes for everybody: it must not hide among the callers' fields."""
    old = load(folder, {})
    write(
        "gateway.yaml",
        f"cluster: test\ncallers: [{{id: crm, key_sha256: [{HASHES[0]}], operations: ['*']}}]\n",
    )
    lines = [str(difference) for difference in diff(old, load(folder, {}))]
    assert "~ gateway: callers everybody may call -> named callers only" in lines


def test_an_unknown_operation_has_no_explanation(folder: Path) -> None:
    """The command line turns this into a suggestion."""
    with pytest.raises(KeyError):
        explain(load_documents(folder, {}), "billing.chrage", 0)
