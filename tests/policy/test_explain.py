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
from tests.policy.conftest import PIPELINE, Write

SHIPPED = Path(__file__).parents[2] / "config"
FRIDAY_US = 1_780_660_800_000_000  # 2026-06-05T12:00Z, 14:00 in Berlin
HASHES = ("a" * 64, "b" * 64)


def test_every_field_of_the_models_has_a_value_in_words(folder: Path, write: Write) -> None:
    """A field that `explain` leaves out is one that `diff` does not see."""
    write("pipelines/billing.yaml", PIPELINE + """\
    capacity:
      rate: 1/s
      tenants: {acme: {rate: 1/s}}
      schedule: {timezone: UTC, hours: [{when: mon}]}
""")  # fmt: skip
    values = set(operation_values(load(folder, {}).operations["billing.charge"]))
    stated = {
        field.path.replace("<name>", "acme").replace("[]", "[0]") for field in fields_of(OperationSection)
    }
    assert values == stated


def test_every_field_of_the_process_has_a_value_in_words(folder: Path, write: Write) -> None:
    """Two ways to state keys are one value; everything else is one to one."""
    write("gateway.yaml", f"callers: [{{id: crm, key_sha256: [{HASHES[0]}], operations: ['*']}}]\n")
    values = set(gateway_values(load(folder, {}).gateway))
    stated = {field.path.replace("callers[]", "callers.crm") for field in fields_of(GatewayFile)}
    assert values == stated - {"callers.crm.id", "callers.crm.key_sha256_file"}


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
