"""
Load: a folder and an environment become one Config, or all of their problems.

    config/gateway.yaml            the process
    config/pipelines/*.yaml        the operations
    whatever these name            contracts (part of the version) and secrets (not)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from breaker.core.config import Config
from breaker.core.errors import ConfigError, Problem
from breaker.core.model import Operation
from breaker.policy.build_alerts import stated_channels
from breaker.policy.build_gateway import GatewayBuilder
from breaker.policy.build_operation import OperationsBuilder
from breaker.policy.document import Document, read_document
from breaker.policy.environ import override
from breaker.policy.files import Files
from breaker.policy.gateway_file import GatewayFile
from breaker.policy.pipeline_file import PipelineFile
from breaker.policy.shape import read_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """
    A Config and where its values stood, for explanations.

    Attributes:
        config: What the gateway runs.
        gateway: The document of `gateway.yaml`, with the environment in it.
        pipelines: The document of each pipeline, by its name.

    """

    config: Config
    gateway: Document
    pipelines: Mapping[str, Document]


def load(folder: Path, environ: Mapping[str, str]) -> Config:
    """
    Everything the files say.

    Args:
        folder: Holds `gateway.yaml` and `pipelines/`.
        environ: Variables that start with `BREAKER_` replace values of `gateway.yaml`.

    Raises:
        ConfigError: With every problem of every file.

    """
    return load_documents(folder, environ).config


def load_documents(folder: Path, environ: Mapping[str, str]) -> Loaded:
    """The same as `load`, and the documents that it was read from."""
    problems: list[Problem] = []
    files = Files(folder=folder)
    pipelines: dict[str, Document] = {}
    operations: dict[str, Operation] = {}
    names: list[str] = []
    gateway_path = folder / "gateway.yaml"
    found = _read(gateway_path, files, problems)
    document = found or Document(file=str(gateway_path), value={}, places={}, key_places={})
    overrides = override(document, environ, problems)
    gateway_shape = read_shape(overrides.document, GatewayFile, problems)
    channels = stated_channels(gateway_shape) if found else None
    before = len(problems)

    for path in _pipeline_paths(folder, problems):
        pipeline_document = _read(path, files, problems)
        if pipeline_document is None:
            continue
        shaped = read_shape(pipeline_document, PipelineFile, problems)
        names += _stated_names(pipeline_document)
        if shaped.model is None:
            continue
        pipeline = shaped.model.pipeline
        if pipeline in pipelines:
            message = f"the pipeline '{pipeline}' stands in {pipelines[pipeline].file} already: one file each"
            problems.append(pipeline_document.problem(("pipeline",), message))
        pipelines.setdefault(pipeline, pipeline_document)
        builder = OperationsBuilder(
            shaped=shaped,
            file=shaped.model,
            path=path,
            files=files,
            # As stated, not as read: a key that cannot be read is one problem and not one per queue.
            has_payload_keys=overrides.document.has(("payload_keys",)),
            has_callers=overrides.document.has(("callers",)),
            channels=channels,
            problems=problems,
        )
        operations |= {operation.name: operation for operation in builder.build()}

    if gateway_shape.model is not None:
        gateway_builder = GatewayBuilder(
            shaped=gateway_shape,
            folder=folder,
            password=overrides.password,
            operations=names,
            routed=_routed(operations) if len(problems) == before else None,
            problems=problems,
        )
        gateway = gateway_builder.build(gateway_shape.model)
        if not problems:
            config = Config(
                version=files.version(), folder=str(folder), gateway=gateway, operations=operations
            )
            return Loaded(config=config, gateway=overrides.document, pipelines=pipelines)
    raise ConfigError(_in_order(problems))


def _pipeline_paths(folder: Path, problems: list[Problem]) -> list[Path]:
    """The files of pipelines in the order of their names; at least one, and none overlooked."""
    inside = folder / "pipelines"
    paths = sorted(inside.glob("*.yaml"))
    for path in sorted(inside.glob("*.yml")):
        message = f"only *.yaml is read: rename it to {path.stem}.yaml"
        problems.append(Problem(file=str(path), line=0, column=0, message=message))
    if not paths:
        message = "there is no pipelines/*.yaml in it: a gateway without operations does nothing"
        if not folder.is_dir():
            message = "there is no such folder: name it with --config or $BREAKER_CONFIG"
        problems.append(Problem(file=str(folder), line=0, column=0, message=message))
    return paths


def _read(path: Path, files: Files, problems: list[Problem]) -> Document | None:
    try:
        content = files.read_counted(path)
    except ValueError as error:
        if path.parent.is_dir():  # a folder that is not there has been said already
            problems.append(Problem(file=str(path), line=0, column=0, message=str(error)))
        return None
    document = read_document(path, content, problems)
    if document is not None and document.value is None and path.name == "gateway.yaml":
        # An empty file is a wish for all defaults.
        return Document(file=document.file, value={}, places=document.places, key_places=document.key_places)
    return document


def _routed(operations: Mapping[str, Operation]) -> frozenset[str]:
    """The channels that operations name for themselves."""
    return frozenset(channel for operation in operations.values() for channel in operation.alerts.routes)


def _stated_names(document: Document) -> list[str]:
    """Names of operations, also of those with problems: a caller may name them all the same."""
    value = document.value if isinstance(document.value, dict) else {}
    operations = value.get("operations")
    return [f"{value.get('pipeline')}.{name}" for name in operations] if isinstance(operations, dict) else []


def _in_order(problems: list[Problem]) -> list[Problem]:
    """By file and place, each once: what a pipeline states wrongly shows in each of its operations."""
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line, problem.column))
