"""The JSON Schemas for editors, and the documents: both say what the models say."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import jsonschema_rs
import pytest

from breaker.core.alert_policy import ChannelType
from breaker.core.errors import Problem
from breaker.policy.document import read_document
from breaker.policy.fields import fields_of, markdown
from breaker.policy.gateway_file import GatewayFile
from breaker.policy.load import load
from breaker.policy.pipeline_file import PipelineFile
from breaker.policy.schema import FileKind, schema_of
from tests.policy.conftest import PIPELINE, Problems, Write

ROOT = Path(__file__).parents[2]
FILES: list[tuple[FileKind, Path]] = [
    ("gateway", ROOT / "config" / "gateway.yaml"),
    *(("pipeline", path) for path in sorted((ROOT / "config" / "pipelines").glob("*.yaml"))),
]


def value_of(text: str) -> object:
    problems: list[Problem] = []
    document = read_document(Path("f.yaml"), text.encode(), problems)
    assert document is not None
    return document.value


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[path.name for _, path in FILES])
def test_the_shipped_files_satisfy_the_schema_for_editors(kind: FileKind, path: Path) -> None:
    """An editor that underlines a correct file is switched off."""
    jsonschema_rs.Draft202012Validator(schema_of(kind)).validate(value_of(path.read_text()))


@pytest.mark.parametrize(
    ("lines", "is_valid"),
    [
        ("    capacity: {rate: 20/s, cost: 5}", True),
        ("    capacity: {rate: 20/s, cost: {constant: 5}}", True),
        ("    max_body: 500", True),
        ("    max_wait: 1500ms", True),
        ("    capacity: {rate: 20/sec}", False),
        ("    capcity: {rate: 20/s}", False),
        ("    capacity: {burst: 0}", False),
        ("    max_wait: 5", False),
        ("    overflow: queue", True),
        ("    overflow: quee", False),
        ("    queue: {start_within: 15m, max_jobs: 5, durability: {replicated: 2}}", True),
        ("    queue: {start_within: 15m, max_jobs: 5, durability: 'replicated: 2'}", True),
        ("    queue: {start_within: 15m, max_jobs: 5, durability: fsynk}", False),
        ("    queue: {start_within: 15m, max_jobs: 5, durability: {replicated: 0}}", False),
        ("    queue: {start_within: 15m, max_jobs: 5, weights: {acme: 4}}", True),
        ("    queue: {start_within: 15m, max_jobs: 5, weights: {acme: 0}}", False),
        ("    queue: {start_within: 15m}", False),
        ("    retry: {for: 1h}", True),
        ("    retry: {for_: 1h}", False),
        ("    batch: {path: POST /b}", True),
        ("    batch: {path: PUT /b}", False),
        ("    batch: {path: 'POST /{id}'}", False),
        ("    probe: GET /c/{idempotency_key}", True),
        ("    probe: GET /c/{id}", False),
        ("    circuit: off", True),
        ("    circuit: {mode: off, failure_rate: 1}", True),
        ("    circuit: of", False),
        ("    circuit: {failure_rate: 0}", False),
        ("    circuit: {slow_call: 8}", False),
        ("    slow_down: tenant", True),
        ("    adaptive: {min: 2}", True),
        ("    adaptive: {}", False),
        ("    when_store_down: allow", True),
        ("    when_store_down: ignore", False),
        ("    alerts: {utilisation: 1.5, clear: 1, for: 0s, objective: 0.9999, routes: [ops]}", True),
        ("    alerts: {utilisation: 0}", False),
        ("    alerts: {clear: 10.1}", False),
        ("    alerts: {for_: 2m}", False),
        ("    alerts: {objective: 1}", False),
        ("    alerts: {routes: []}", False),
    ],
)
def test_the_schema_draws_the_line_where_loading_does(lines: str, is_valid: bool) -> None:
    """What an editor accepts and `validate` refuses costs a round."""
    validator = jsonschema_rs.Draft202012Validator(schema_of("pipeline"))
    assert validator.is_valid(value_of(PIPELINE + lines)) is is_valid


@pytest.mark.parametrize(
    ("alerts", "is_valid"),
    [
        ("{channels: {ops: {type: slack, url_file: s}}, routes: [{severity: none, to: [ops]}]}", True),
        ("{channels: {ops: {type: slak, url_file: s}}}", False),
        ("{channels: {ops: {url_file: s}}}", False),
        ("{channels: {}}", False),
        ("{routes: []}", False),
        ("{routes: [{severity: none, to: []}]}", False),
        ("{routes: [{severity: info, to: [ops]}]}", False),
        ("{group_wait: 0s, repeat: 5m}", True),
        ("{group_wait: 5}", False),
    ],
)
def test_the_schema_of_the_process_draws_the_line_there_too(alerts: str, is_valid: bool) -> None:
    """Whoever names a channel does it in an editor, on a quiet day."""
    validator = jsonschema_rs.Draft202012Validator(schema_of("gateway"))
    assert validator.is_valid(value_of(f"alerts: {alerts}")) is is_valid


@pytest.mark.parametrize("model", [GatewayFile, PipelineFile])
def test_the_documents_have_the_table_of_every_field(model: type[GatewayFile | PipelineFile]) -> None:
    """The manual is tested: `breaker config schema gateway|pipeline --markdown` prints what belongs there."""
    assert markdown(model) in (ROOT / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("model", [GatewayFile, PipelineFile])
def test_every_field_says_what_it_means_and_shows_an_example(model: type[GatewayFile | PipelineFile]) -> None:
    """A table with holes is no manual."""
    for field in fields_of(model):
        assert field.meaning.endswith((".", ")")), field.path
        assert field.example, field.path


def test_the_examples_of_the_documents_can_be_used(folder: Path, write: Write, problems: Problems) -> None:
    """A person copies them; one that is refused is worse than none."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    gateway, pipeline = (block for block in blocks if block.startswith("# config/"))
    for name in ("crm", "anna"):
        write(f"secrets/{name}", sha256(name.encode()).hexdigest())
    write("secrets/payload-2026-06", "ab" * 32)
    write("secrets/payload-2025-06", "cd" * 32)
    for name in ("callbacks", "alerts"):
        write(f"secrets/{name}", "whsec_" + b64encode(bytes(24)).decode())
    write("secrets/pagerduty", "0" * 32)
    for name in ("slack", "slack-finance"):
        write(f"secrets/{name}", f"https://hooks.example.com/services/{name}")
    write("secrets/billing", "Bearer x")
    write("contracts/charge-invoice.schema.json", "{}")
    write("gateway.yaml", gateway)
    write("pipelines/billing.yaml", pipeline)
    assert problems() == []
    operation = load(folder, {}).operations["billing.charge-invoice"]
    assert operation.queue is not None
    assert operation.queue.encrypt
    assert None not in (operation.batch, operation.callback, operation.queue.bands)
    assert (operation.adaptive_min, operation.circuit.slow_call_ms) == (2, 8000)
    assert load(folder, {}).operations["billing.get-invoice"].direct_retry is not None
    assert operation.alerts.routes == ("finance",)
    assert {channel.type for channel in load(folder, {}).gateway.alerts.channels.values()} == {*ChannelType}
