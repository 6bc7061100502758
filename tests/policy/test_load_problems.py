"""What is said about files that are wrong: every rule, its place and its way out."""

from pathlib import Path

import pytest

from tests.policy.conftest import PIPELINE, Problems, Write

HASH = "a" * 64
B = "pipelines/billing.yaml"

OPERATION = [
    # lines below `charge:` (from line 7 on), then the start of the only problem
    ("    capacity: {burst: 0, rate: 1/s}", "7:23: `burst`: 0 is out of bounds: at least 1"),
    ("    capacity: {burst: true, rate: 1/s}", "7:23: `burst` is True; it must be a whole number"),
    ("    capacity: {burst: 2}", "7:23: `burst` without `rate` limits nothing"),
    ("    capacity: {concurrency: -1}", "7:29: `concurrency`: -1 is out of bounds: at least 0"),
    ("    capacity: {rate: 20}", "7:22: `rate`: 20 has no unit"),
    ("    capacity: {rate: }", "OK"),
    ("    capacity: {rate: 1/week, burst: 1654}", "7:37: a burst of 1654 at 1/week reaches more than 31 years"),
    ("    capacity: {rate: 1/week, burst: 1653}", "OK"),
    ("    capacity: {rate: 1/s, burst: 4, cost: 5}", "7:43: a cost of 5 never fits into the burst of 4 of capacity"),
    ("    capacity: {rate: 1/s, burst: 5, cost: 5}", "OK"),
    ("    capacity: {rate: 0/s, cost: 5}", "OK"),
    ("    capacity: {cost: 5, per_tenant: {rate: 1/s}}", "7:22: a cost of 5 never fits into the burst of 1 of per_tenant"),
    ("    capacity: {cost: 5, tenants: {acme: {rate: 1/s}}}", "7:22: a cost of 5 never fits into the burst of 1 of tenants.acme"),
    ("    capacity: {cost: 5, quota: {limit: 4, per: day, timezone: UTC}}", "7:22: a cost of 5 never fits into the quota of 4"),
    ("    capacity: {cost: 5, schedule: {timezone: UTC, hours: [{when: mon, rate: 1/s}]}}", "7:22: a cost of 5 never fits into the burst of 1 of schedule 'mon'"),
    ("    capacity: {cost: 0}", "7:22: `constant`: 0 is out of bounds: at least 1"),
    ("    capacity: {cost: {header: Cost}}", "7:31: `cost.header` needs `max`"),
    ("    capacity: {cost: {max: 3}}", "7:28: `cost.max` bounds a header, and there is none"),
    ("    capacity: {cost: {header: Cost, constant: 3, max: 2}}", "7:55: `cost.max` 2 is less than the constant 3"),
    ("    capacity: {quota: {limit: 1, per: year, timezone: UTC}}", "7:39: `per`: unknown value 'year'"),
    ("    capacity: {quota: {limit: 1, per: day}}", "7:23: `timezone` is missing"),
    ("    capacity: {quota: {limit: 1, per: day, timezone: Europe/Berln}}", "7:54: `timezone`: unknown time zone 'Europe/Berln' (did you mean 'Europe/Berlin'?)"),
    ("    capacity: {schedule: {timezone: UTC, hours: []}}", "7:49: `hours` is empty"),
    ("    capacity: {schedule: {timezone: UTC, hours: [{when: mon-fry}]}}", "7:57: `when`: 'mon-fry' names no day in 'fry'"),
    ("    capacity: {schedule: {timezone: UTC, hours: [{when: mon, burst: 2}]}}", "7:69: `burst` without `rate`"),
    ("    capacity: {per_tenant: 5/s}", "7:28: `per_tenant` is '5/s'; it must be a mapping"),
    ("    capacity: {per_tenat: {rate: 5/s}}", "7:16: unknown key `per_tenat` (did you mean 'per_tenant'?)"),
    ("    capacity: {mode: shaddow}", "7:22: `mode`: unknown value 'shaddow' (did you mean 'shadow'?)"),
    ("    capacity: {tenants: {'': {rate: 1/s}}}", "7:26: ``: '' is no name of a tenant"),
    ("    overflow: trottle", "7:15: `overflow`: unknown value 'trottle' (did you mean 'throttle'?)"),
    ("    overflow: alert\n    max_wait: 1s", "8:15: `max_wait` has no effect with `overflow: alert`"),
    ("    max_wait: 61s", "7:15: `max_wait`: 61s is too long: at most 60s"),
    ("    max_wait: 60s", "OK"),
    ("    max_wait: 0s", "OK"),
    ("    linger: 11s", "7:13: `linger`: 11s is too long: at most 10s"),
    ("    max_waiting: 0", "7:18: `max_waiting`: 0 is out of bounds"),
    ("    max_body: null\n    tenant: {pointer: /a}", "7:15: `max_body: null` cannot hold"),
    ("    body_timeout: 0s", "7:19: `body_timeout`: 0s is out of bounds: more than 0"),
    ("    tenant: {}", "7:13: `tenant` needs `header`, `pointer` or both"),
    ("    tenant: {pointer: customer}", "7:23: `pointer`: 'customer' is not a JSON pointer"),
    ("    contract: nofile.json", "7:15: `contract`: there is no file"),
    ("    contract: billing.yaml", "1:1: not JSON"),
    ("    downstream: {path: '/x/{other}'}", "7:24: `path` uses {other}, which `match` does not have"),
    ("    downstream: {path: '/x/{id}'}", "OK"),
    ("    downstream: {timeout: 0s}", "7:27: `timeout`: 0s is out of bounds"),
    ("    downstream: {url: 'http://h?x=1'}", "7:23: `url`: 'http://h?x=1' has a query"),
    ("    downstream: {tls: {}}", "7:23: `tls` has no effect on http://127.0.0.1:9102"),
    ("    downstream: {url: 'https://h', tls: {cert_file: billing.yaml}}", "7:41: `cert_file` and `key_file` belong together"),
    ("    downstream: {url: 'https://h', tls: {ca_file: none.pem}}", "7:51: `ca_file`: there is no file"),
    ("    downstream: {credentials: {header: Host, file: x}}", "7:40: `header`: 'Host' belongs to the connection"),
    ("    downstream: {credentials: {header: A, file: ../secrets/none}}", "7:49: `file`: there is no file"),
    ("    downstream: {credentials: {header: A, file: billing.yaml}}", "7:49: "),
    ("    on_hang_up: stop", "7:17: `on_hang_up`: unknown value 'stop' (there is cancel, finish)"),
    ("  other:\n    match: POST /invoices/{number}/charge", "8:12: 'POST /invoices/{number}/charge' takes the same calls as 'charge'"),
    ("  other:\n    match: GET /invoices/{number}/charge", "OK"),
    ("  charge:\n    match: GET /x", "7:3: `charge` stands twice; first in line 5"),
    ("  Refund:\n    match: GET /x", "7:3: `Refund`: 'Refund' is not a name"),
    ("  other: {}", "7:10: `match` is missing"),
    ("  other:\n", "7:9: `other` is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "problem"), OPERATION)
def test_a_wrong_operation_is_one_problem_at_its_place(
    lines: str, problem: str, write: Write, problems: Problems
) -> None:
    """One mistake is one sentence, not a cascade; what lies on the right side of an edge is none."""
    write(B, PIPELINE + lines + "\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"{B}:{problem}")


GATEWAY = [
    ("listen: 8080", "1:9: `listen` is 8080; it must be text: write it in quotes"),
    ("lisen: 127.0.0.1:1", "1:1: unknown key `lisen` (did you mean 'listen'?)"),
    ("listen: 127.0.0.1:8081", ":1:1: `admin` is 127.0.0.1:8081, as is `listen`"),
    ("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0", "OK"),
    ("cluster: Prod", "1:10: `cluster`: 'Prod' is not a name"),
    ("store: {url: 'redis+cluster://h'}", "1:14: `url`: 'h' is not host:port"),
    ("store: {needed_at_start: no}", "1:26: `needed_at_start` is 'no'; it must be true or false"),
    ("replicas_expected: 0", "1:20: `replicas_expected`: 0 is out of bounds: at least 1"),
    ("replicas_expected: 1000", "OK"),
    ("replicas_expected: 1001", "1:20: `replicas_expected`: 1001 is out of bounds: at most 1000"),
    ("store: {url: 'redis+cluster://h:1', ca_file: gateway.yaml}", "1:46: `ca_file` has no effect on redis+cluster://h:1: write rediss+cluster://"),
    ("store: {url: 'rediss+sentinel://h:1/s', ca_file: gateway.yaml}", "OK"),
    ("store: {password: x}", "1:9: `password` never stands in a file that is shared"),
    ("store: {password_file: none}", "1:24: `password_file`: there is no file"),
    ("store: {username: u}", "1:19: `username` needs a password"),
    ("store: {ca_file: gateway.yaml}", "1:18: `ca_file` has no effect on embedded"),
    ("store:", "1:7: `store` is empty"),
    ("callers: []", "1:10: `callers` is empty: name one"),
    ("callers:", "1:9: `callers` is empty: name one"),
    ("callers: [{id: a, operations: ['*']}]", "1:11: caller 'a' needs one of `key_sha256_file` and `key_sha256`"),
    ("callers: [{id: a, operations: ['*'], key_sha256: [secretkey]}]", "1:50: `key_sha256` must hold one or two"),
    (f"callers: [{{id: a, operations: ['*'], key_sha256: [{HASH}, {HASH}, {HASH}]}}]", "1:50: `key_sha256` must hold one or two"),
    ("callers: [{id: a, operations: ['*'], key_sha256_file: gateway.yaml}]", "1:55: "),
    (f"callers: [{{id: a, operations: ['biling.*'], key_sha256: [{HASH}]}}]", "1:32: 'biling.*' matches no operation (did you mean 'billing.*'?)"),
    (f"callers: [{{id: a, operations: [], key_sha256: [{HASH}]}}]", "1:31: `operations` is empty"),
    (f"callers: [{{id: a, operations: ['*'], key_sha256: [{HASH}], may_name: [tennant]}}]", "1:129: entry 1 of `may_name`: unknown value 'tennant'"),
    ("callers: {a: 1}", "1:10: `callers` is a mapping; it must be a list"),
    ("log: {level: warn}", "1:14: `level`: unknown value 'warn' (did you mean 'warning'?)"),
    ("log: {sample: 1.1}", "1:15: `sample`: 1.1 is out of bounds: at most 1"),
    ("log: {sample: 1}", "OK"),
    ("cookies: yes", "1:10: `cookies` is 'yes'; it must be true or false"),
    ("drain: {timeout: 0s}", "1:18: `timeout`: 0s is out of bounds"),
    ("limits: {connections: 0}", "1:23: `connections`: 0 is out of bounds"),
    ("just words", ":1:1: `the file` is 'just words'; it must be a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), GATEWAY)
def test_a_wrong_process_is_one_problem_at_its_place(
    text: str, problem: str, write: Write, problems: Problems
) -> None:
    """The same for gateway.yaml; a key that stands there by mistake is never repeated."""
    write("gateway.yaml", text + "\n")
    found = problems()
    if problem == "OK":
        assert found == []
    else:
        assert len(found) == 1, found
        assert found[0].startswith(f"gateway.yaml:{problem.removeprefix(':')}")
        assert "secretkey" not in found[0]


def test_all_problems_of_all_files_come_at_once(write: Write, problems: Problems) -> None:
    """One run of `validate`, not one per mistake."""
    write("gateway.yaml", "listen: x\ncookies: maybe\n")
    write(
        B,
        PIPELINE.replace("team", "taem")
        + "    capacity: {rate: 5}\n    contract: none.json\n    tenant: {}\n",
    )
    write("pipelines/support.yaml", "pipeline: support\n")
    places = [problem.split(" ")[0] for problem in problems()]
    assert places == [
        "gateway.yaml:1:9:", "gateway.yaml:2:10:",
        f"{B}:2:1:", f"{B}:7:22:", f"{B}:8:15:", f"{B}:9:13:",
        "pipelines/support.yaml:1:1:",
    ]  # fmt: skip


def test_an_operation_without_owner_or_downstream_is_refused(write: Write, problems: Problems) -> None:
    """Somebody must be told, and the call must go somewhere."""
    write(B, "pipeline: billing\noperations:\n  charge: {match: POST /x}\n")
    assert problems() == [
        f"{B}:3:3: nobody owns 'charge': state `team` for the pipeline or the operation",
        f"{B}:3:11: `downstream.url` is missing, here and in the pipeline",
    ]


def test_a_pipeline_stands_in_one_file_and_not_under_the_gateways_own_paths(
    write: Write, problems: Problems
) -> None:
    """Two files with the same operation would depend on the order of their names."""
    write("pipelines/copy.yaml", PIPELINE)
    write("pipelines/docs.yaml", PIPELINE.replace("pipeline: billing", "pipeline: docs"))
    found = problems()
    assert len(found) == 2
    assert found[0].startswith("pipelines/copy.yaml:1:11: the pipeline 'billing' stands in")
    assert found[1].startswith("pipelines/docs.yaml:1:11: 'docs' is a path of the gateway itself")


def test_what_is_missing_from_the_folder_is_named(folder: Path, write: Write, problems: Problems) -> None:
    """A file that would be overlooked is a problem too."""
    write("pipelines/more.yml", PIPELINE)
    (folder / "gateway.yaml").unlink()
    found = problems()
    assert found[0].startswith("gateway.yaml: there is no file")
    assert found[1:] == ["pipelines/more.yml: only *.yaml is read: rename it to more.yaml"]
    (folder / "pipelines" / "billing.yaml").unlink()
    assert any("no pipelines/*.yaml in it" in problem for problem in problems())


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        ("{", "c.json:1:2: not JSON"),
        ("[]", "a contract is a JSON object"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"minimum": NaN}', "NaN is not JSON"),
        ('{"type": "objct"}', 'at /type: "objct"'),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "contracts are JSON Schema 2020-12"),
        ('{"$ref": "http://127.0.0.1:9/x.json"}', "is outside of the file: copy it into `$defs`"),
        ('{"$ref": "#/$defs/none"}', "/$defs/none"),
    ],
)
def test_a_contract_that_cannot_be_used_is_a_problem_of_its_own_file(
    contract: str, says: str, write: Write, problems: Problems
) -> None:
    """And nothing is fetched from anywhere in order to find out."""
    write("contracts/c.json", contract)
    write(B, PIPELINE + "    contract: ../contracts/c.json\n")
    (found,) = problems()
    assert says in found
    assert "contracts/c.json" in found


def test_two_callers_with_one_id_or_one_key_are_refused(write: Write, problems: Problems) -> None:
    """Who called could not be told; the key itself is not shown."""
    caller = f"{{id: a, key_sha256: [{HASH}], operations: ['*']}}"
    write("gateway.yaml", f"callers: [{caller}, {caller}]\n")
    found = problems()
    assert [problem.split(": ", 1)[1] for problem in found] == [
        "two callers have the same key: who called could not be told",
        "two callers have the same id 'a': who called could not be told",
    ]
    assert HASH not in "".join(found)


def test_a_contract_on_a_method_without_body_is_refused(write: Write, problems: Problems) -> None:
    """It would refuse every call."""
    write("contracts/c.json", "{}")
    write(B, PIPELINE.replace("POST", "GET") + "    contract: ../contracts/c.json\n")
    assert problems() == [f"{B}:7:15: a GET has no body that a contract could check"]
