"""From files to a Config: what comes out of good ones, and the version."""

import hashlib
from contextlib import suppress
from pathlib import Path

import jsonschema_rs
import pytest

from breaker.core.config import StoreSettings
from breaker.core.errors import ConfigError
from breaker.core.model import (
    Capacity,
    Cost,
    Credential,
    Downstream,
    Hours,
    Limits,
    Match,
    Mode,
    Operation,
    Overflow,
    Per,
    Quota,
    Rate,
    Schedule,
    TenantSource,
)
from breaker.policy.load import load
from tests.policy.conftest import PIPELINE, Write

SECOND_US = 1_000_000
SHIPPED = Path(__file__).parents[2] / "config"
HASH = hashlib.sha256(b"key").hexdigest()


def rate(limit: int, burst: int = 1, period_us: int = SECOND_US) -> Rate:
    return Rate(limit=limit, period_us=period_us, burst=burst)


def test_the_smallest_pipeline_has_the_documented_defaults(folder: Path) -> None:
    """What nobody states is what the documents say, and what core says."""
    config = load(folder, {})
    assert config.operations == {
        "billing.charge": Operation(
            name="billing.charge",
            pipeline="billing",
            team="finance",
            match=Match(method="POST", template="/invoices/{id}/charge"),
            downstream=Downstream(url="http://127.0.0.1:9102"),
            body_max=None,
        )
    }
    assert config.folder == str(folder)
    assert (config.gateway.cluster, config.gateway.callers, config.gateway.log_sample) == ("test", None, 1.0)


def test_an_empty_gateway_file_is_a_wish_for_defaults(folder: Path, write: Write) -> None:
    """`touch gateway.yaml` is enough to start."""
    write("gateway.yaml", "# nothing\n")
    assert load(folder, {}).gateway.listen == "127.0.0.1:8080"


def test_every_field_of_an_operation_arrives(folder: Path, write: Write) -> None:
    """A setting that nobody reads would be a promise that nobody keeps."""
    write("contracts/charge.json", '{"type": "object"}')
    write("secrets/token", "Bearer abc\n")
    write(
        "pipelines/billing.yaml",
        """\
pipeline: billing
team: finance
downstream: {url: "https://billing.internal/api/", timeout: 5s, tls: {server_name: billing}}
tenant: {header: X-Tenant}
operations:
  charge:
    match: PUT /invoices/{id}
    team: charges
    downstream:
      connect_timeout: 250ms
      path: /v2/{id}
      credentials: {header: Authorization, file: ../secrets/token}
      max_response: 2MiB
    tenant: {pointer: /customer_id}
    contract: ../contracts/charge.json
    capacity:
      rate: 20/s
      burst: 40
      concurrency: 8
      cost: {header: Breaker-Cost, max: 4, constant: 2}
      quota: {limit: 1000, per: week, timezone: Europe/Berlin}
      per_tenant: {rate: 5/s, burst: 10, concurrency: 2}
      tenants: {acme: {rate: 50/min}, "42": {concurrency: null}}
      mode: shadow
    overflow: throttle
    max_wait: 2s
    max_waiting: 10
    retry_after_max: 1m
    linger: 0s
    max_body: 64KiB
    body_timeout: 3s
    on_hang_up: cancel
""",
    )
    operation = load(folder, {}).operations["billing.charge"]
    assert operation.team == "charges"
    assert operation.downstream == Downstream(
        url="https://billing.internal/api",
        timeout_ms=5000,
        connect_timeout_ms=250,
        path="/v2/{id}",
        credential=Credential(header="Authorization", value="Bearer abc"),
        tls=operation.downstream.tls,
        response_max=2 * 2**20,
    )
    assert operation.downstream.tls is not None
    assert operation.downstream.tls.server_name == "billing"
    assert operation.tenant == TenantSource(pointer="/customer_id")
    assert (operation.contract, operation.contract_file) == ({"type": "object"}, "contracts/charge.json")
    assert operation.capacity == Capacity(
        limits=Limits(rate=rate(20, 40), concurrency=8),
        quota=Quota(limit=1000, per=Per.WEEK, timezone="Europe/Berlin"),
        cost=Cost(constant=2, header="Breaker-Cost", max=4),
        per_tenant=Limits(rate=rate(5, 10), concurrency=2),
        tenants={
            "acme": Limits(rate=rate(50, 10, 60 * SECOND_US), concurrency=2),
            "42": Limits(rate=rate(5, 10), concurrency=None),
        },
        mode=Mode.SHADOW,
    )
    assert (operation.max_wait_ms, operation.waiting_max, operation.retry_after_max_ms) == (2000, 10, 60_000)
    assert (operation.linger_ms, operation.body_max, operation.body_timeout_ms) == (0, 65_536, 3000)
    assert operation.on_hang_up == "cancel"


def test_a_schedule_entry_takes_what_it_does_not_state_from_the_operation(folder: Path, write: Write) -> None:
    """An entry that only says `rate` keeps the burst and the slots; `otherwise` may be closed."""
    write(
        "pipelines/billing.yaml",
        PIPELINE
        + """\
    capacity:
      rate: 6/s
      burst: 6
      concurrency: 3
      schedule:
        timezone: Europe/Berlin
        hours:
          - {when: "mon-fri 08:00-18:00", rate: 12/min}
          - {when: "fri 22:00-06:00", concurrency: null, burst: 1}
          - {when: 2026-12-24, rate: 0/s}
        otherwise: {rate: null, concurrency: 1}
""",
    )
    capacity = load(folder, {}).operations["billing.charge"].capacity
    closed = Limits(rate=rate(0, 6), concurrency=3)
    assert capacity.schedule == Schedule(
        timezone="Europe/Berlin",
        hours=(
            Hours(
                weekdays=frozenset(range(5)), start_minute=480, end_minute=1080, text="mon-fri 08:00-18:00",
                limits=Limits(rate=rate(12, 6, 60 * SECOND_US), concurrency=3),
            ),
            Hours(
                weekdays=frozenset({4}), start_minute=1320, end_minute=360, text="fri 22:00-06:00",
                limits=Limits(rate=rate(6), concurrency=None),
            ),
            Hours(date="2026-12-24", limits=closed, text="2026-12-24"),
        ),
        otherwise=Limits(concurrency=1),
    )  # fmt: skip


def test_a_short_cost_is_a_constant(folder: Path, write: Write) -> None:
    """`cost: 5` reads as it is meant."""
    write("pipelines/billing.yaml", PIPELINE + "    capacity: {rate: 1/s, burst: 5, cost: 5}\n")
    assert load(folder, {}).operations["billing.charge"].capacity.cost == Cost(constant=5, header=None, max=5)


def test_a_body_that_must_be_seen_is_bounded_by_default(folder: Path, write: Write) -> None:
    """A contract or a tenant pointer needs the whole body in memory; what streams needs no bound."""
    pointer = PIPELINE + "    tenant: {pointer: /customer}\n"
    header = PIPELINE + "    tenant: {header: X-Tenant}\n"
    write("pipelines/billing.yaml", pointer)
    assert load(folder, {}).operations["billing.charge"].body_max == 1_048_576
    write("pipelines/billing.yaml", header)
    assert load(folder, {}).operations["billing.charge"].body_max is None


def test_an_operation_can_refuse_the_pipelines_tenant(folder: Path, write: Write) -> None:
    """`tenant: null` means that the caller is the tenant, here."""
    write(
        "pipelines/billing.yaml",
        PIPELINE.replace("team:", "tenant: {header: T}\nteam:") + "    tenant: null\n",
    )
    assert load(folder, {}).operations["billing.charge"].tenant is None


def test_the_process_and_its_callers_arrive(folder: Path, write: Write) -> None:
    """Every field of gateway.yaml, with keys from a file and in place."""
    other = hashlib.sha256(b"other").hexdigest()
    third = hashlib.sha256(b"third").hexdigest()
    write("secrets/crm", f"{HASH}\n{other.upper()}\n")
    write("secrets/store", "hunter2\n")
    write("tls/ca.pem", "pem\n")
    write(
        "gateway.yaml",
        f"""\
listen: 0.0.0.0:80
admin: 127.0.0.1:0
cluster: prod
store: {{url: "rediss://h:1", timeout: 50ms, username: u, password_file: secrets/store, ca_file: tls/ca.pem}}
callers:
  - {{id: crm, key_sha256_file: secrets/crm, operations: ["billing.*"], may_name: [tenant], max_tenants: 5}}
  - {{id: erp, key_sha256: ["{third}"], operations: ["*"]}}
log: {{level: debug, format: json, sample: 0.5}}
drain: {{delay: 1s, timeout: 2s}}
limits: {{head_timeout: 3s, connections: 4}}
cookies: true
""",
    )
    gateway = load(folder, {}).gateway
    assert gateway.store == StoreSettings(
        url="rediss://h:1",
        timeout_ms=50,
        username="u",
        password="hunter2",
        ca_file=str(folder / "tls/ca.pem"),
    )
    assert gateway.callers is not None
    crm, erp = gateway.callers
    assert (crm.id, crm.key_hashes, crm.operations) == ("crm", (HASH, other), ("billing.*",))
    assert (crm.may_name, crm.tenants_max) == (frozenset({"tenant"}), 5)
    assert (erp.id, erp.key_hashes, erp.may_name, erp.tenants_max) == ("erp", (third,), frozenset(), 10_000)
    assert (gateway.listen, gateway.admin, gateway.cluster) == ("0.0.0.0:80", "127.0.0.1:0", "prod")
    assert (gateway.log_level, gateway.log_format, gateway.log_sample) == ("debug", "json", 0.5)
    assert (gateway.drain_delay_ms, gateway.drain_timeout_ms) == (1000, 2000)
    assert (gateway.head_timeout_ms, gateway.connections_max, gateway.cookies) == (3000, 4, True)
    assert "hunter2" not in repr(gateway)
    assert HASH not in repr(gateway)


def test_the_version_changes_with_yaml_and_contracts_and_not_with_secrets(folder: Path, write: Write) -> None:
    """Replicas compare it: same limits, same version, whatever key was rotated meanwhile."""
    write("contracts/c.json", "{}")
    write("secrets/t", "Bearer a")
    text = (
        PIPELINE
        + "    contract: ../contracts/c.json\n    downstream: {credentials: {header: A, file: ../secrets/t}}\n"
    )
    write("pipelines/billing.yaml", text)
    versions = [load(folder, {}).version]
    write("secrets/t", "Bearer b")
    assert load(folder, {}).version == versions[0]
    assert load(folder, {"BREAKER_LISTEN": "127.0.0.1:1"}).version == versions[0]
    write("contracts/c.json", "{} ")
    versions.append(load(folder, {}).version)
    write("pipelines/billing.yaml", text + "#")
    versions.append(load(folder, {}).version)
    write("gateway.yaml", "cluster: other\n")
    versions.append(load(folder, {}).version)
    assert len(set(versions)) == 4
    assert all(len(version) == 12 and int(version, 16) >= 0 for version in versions)


def test_the_shipped_folder_is_the_running_example() -> None:
    """`make run` and every document speak of these operations."""
    config = load(SHIPPED, {})
    assert sorted(config.operations) == [
        "billing.charge-invoice", "billing.get-invoice", "onboarding.provision-account",
        "onboarding.send-welcome", "support.create-ticket",
    ]  # fmt: skip
    assert config.gateway.callers is None
    assert config.gateway.store.url == "embedded"
    charge = config.operations["billing.charge-invoice"].capacity
    assert charge.limits == Limits(rate=rate(20, 40), concurrency=8)
    assert charge.per_tenant == Limits(rate=rate(5, 5), concurrency=2)
    assert config.operations["onboarding.send-welcome"].overflow is Overflow.ALERT
    assert config.operations["support.create-ticket"].capacity.schedule is not None


@pytest.mark.parametrize(
    "name", ["billing.charge-invoice", "onboarding.provision-account", "support.create-ticket"]
)
def test_a_shipped_contract_takes_its_own_examples_and_nothing_else(name: str) -> None:
    """Examples that a caller copies must pass, and a field that is misspelt must not."""
    contract = load(SHIPPED, {}).operations[name].contract
    assert contract is not None
    validator = jsonschema_rs.Draft202012Validator(dict(contract), validate_formats=True)
    for example in contract["examples"]:
        validator.validate(example)
        assert not validator.is_valid({**example, "misspelt": 1})
        for required in contract["required"]:
            assert not validator.is_valid({key: value for key, value in example.items() if key != required})
    for field, schema in contract["properties"].items():
        assert schema["description"], field
        for example in schema["examples"]:
            assert jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(example), field


def test_the_onboarding_contract_wants_a_real_moment_for_the_kickoff_call() -> None:
    """A call "next Tuesday" is a call that nobody makes."""
    contract = load(SHIPPED, {}).operations["onboarding.provision-account"].contract
    assert contract is not None
    validator = jsonschema_rs.Draft202012Validator(dict(contract), validate_formats=True)
    example = contract["examples"][0]
    assert not validator.is_valid({**example, "kickoffCallScheduled": "next Tuesday"})
    assert validator.is_valid({**example, "kickoffCallScheduled": None})


def test_no_mutilated_file_makes_anything_but_a_config_error(folder: Path, write: Write) -> None:
    """Whatever an editor or a merge leaves behind, the person gets a sentence."""
    shipped = (SHIPPED / "pipelines" / "support.yaml").read_text()
    write(
        "contracts/create-ticket.schema.json", (SHIPPED / "contracts/create-ticket.schema.json").read_text()
    )
    lines = shipped.splitlines()
    refused = 0
    for number in range(len(lines)):
        for text in (
            "\n".join(lines[:number] + lines[number + 1 :]),
            "\n".join([*lines[:number], lines[number].split(":")[0] + ": [x]", *lines[number + 1 :]]),
            "\n".join([*lines[:number], lines[number].split(":")[0] + ":", *lines[number + 1 :]]),
        ):
            write("pipelines/support.yaml", text)
            with suppress(ConfigError):
                load(folder, {})
                continue
            refused += 1
    assert refused > len(lines)
