"""A small, valid configuration folder that a test breaks in one place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from breaker.core.errors import ConfigError
from breaker.policy.load import load

GATEWAY = "cluster: test\n"
PIPELINE = """\
pipeline: billing
team: finance
downstream: {url: "http://127.0.0.1:9102"}
operations:
  charge:
    match: POST /invoices/{id}/charge
"""
QUEUED = f"{PIPELINE}    overflow: queue\n    queue: {{start_within: 15m, max_jobs: 100}}\n"

Write = Callable[[str, str], Path]
Problems = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`gateway.yaml` and `pipelines/billing.yaml` with the operation `billing.charge`."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    (tmp_path / "pipelines" / "billing.yaml").write_text(PIPELINE)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Write one file of the folder."""

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def problems(folder: Path) -> Problems:
    """What is wrong with the folder, as `file:line:column: message` with the folder's name left out."""

    def problems(**environ: str) -> list[str]:
        try:
            load(folder, environ)
        except ConfigError as error:
            return [str(problem).replace(f"{folder}/", "") for problem in error.problems]
        return []

    return problems
