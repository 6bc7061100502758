"""The JSON Schemas for editors, and the documents: both say what the models say."""

from pathlib import Path

import jsonschema_rs
import pytest

from breaker.core.errors import Problem
from breaker.policy import later
from breaker.policy.document import read_document
from breaker.policy.fields import fields_of, keys_at, markdown
from breaker.policy.gateway_file import GatewayFile
from breaker.policy.pipeline_file import PipelineFile
from breaker.policy.schema import FileKind, schema_of
from tests.policy.conftest import PIPELINE

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
        ("    overflow: queue", False),
    ],
)
def test_the_schema_draws_the_line_where_loading_does(lines: str, is_valid: bool) -> None:
    """What an editor accepts and `validate` refuses costs a round."""
    validator = jsonschema_rs.Draft202012Validator(schema_of("pipeline"))
    assert validator.is_valid(value_of(PIPELINE + lines)) is is_valid


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


def test_no_later_field_is_a_field_already() -> None:
    """When a feature arrives, its line leaves the list of what is refused."""
    operation = keys_at(PipelineFile, ("operations", "x"))
    assert not set(operation) & set(later.OPERATION)
    assert not set(GatewayFile.model_fields) & set(later.GATEWAY)


def test_the_documents_name_every_later_field() -> None:
    """Who looks for `queue` in the manual finds that it is not there yet."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name in (*later.OPERATION, *later.VALUES):
        assert f"`{name}`" in text, name
