"""
Schema: JSON Schema of the two kinds of files, for editors.

A person who writes `# yaml-language-server: $schema=...` at the top of a file gets completion and the meaning
of every field while typing. What needs more than one field is said by `breaker config validate`.
"""

from typing import Any, Literal, assert_never

from breaker.policy.gateway_file import GatewayFile
from breaker.policy.kinds import Section
from breaker.policy.pipeline_file import PipelineFile

FileKind = Literal["gateway", "pipeline"]


def model_of(kind: FileKind) -> type[Section]:
    match kind:
        case "gateway":
            return GatewayFile
        case "pipeline":
            return PipelineFile
        case _:
            assert_never(kind)


def schema_of(kind: FileKind) -> dict[str, Any]:
    """JSON Schema 2020-12 of `gateway.yaml` or of a file in `pipelines/`."""
    schema = model_of(kind).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
