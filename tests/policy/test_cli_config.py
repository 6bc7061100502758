"""`breaker config`: data on stdout, talk on stderr, and exit statuses that scripts can use."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from breaker.cli.config import config_app
from tests.policy.conftest import PIPELINE, Write

BROKEN = PIPELINE + "    capacity: {rate: 5}\n"


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(config_app, list(arguments), env=dict(environ))


def test_a_valid_folder_is_said_to_be_valid(folder: Path) -> None:
    """With its version, which replicas show too; that everybody may call is said aside."""
    result = run("validate", "--config", str(folder))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{folder}: valid, version ")
    assert "everybody who reaches the listener may call" in result.stderr


def test_a_broken_folder_ends_with_status_2(folder: Path, write: Write) -> None:
    """`validate && deploy` stops; the problems are talk, stdout stays empty."""
    path = write("pipelines/billing.yaml", BROKEN)
    result = run("validate", "--config", str(folder))
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{path}:7:22: `rate`: 5 has no unit" in result.stderr
    assert result.stderr.endswith(f"{folder}: 1 problem\n")


def test_problems_come_as_json_for_machines(folder: Path, write: Write) -> None:
    """A pull request bot puts them at the lines that they are about."""
    path = write("pipelines/billing.yaml", BROKEN)
    result = run("validate", "--json", "--config", str(folder))
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert {key: answer["problems"][0][key] for key in ("file", "line", "column")} == {
        "file": str(path), "line": 7, "column": 22,
    }  # fmt: skip
    write("pipelines/billing.yaml", PIPELINE)
    answer = json.loads(run("validate", "--json", "--config", str(folder)).stdout)
    assert (answer["ok"], answer["operations"], answer["problems"]) == (True, ["billing.charge"], [])


def test_the_folder_is_the_option_then_the_variable_then_config(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order, and never a silent fourth."""
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(empty)
    monkeypatch.delenv("BREAKER_CONFIG", raising=False)
    assert "config: there is no such folder" in run("validate").stderr
    assert run("validate", BREAKER_CONFIG=str(folder)).exit_code == 0
    assert run("validate", "--config", str(empty), BREAKER_CONFIG=str(folder)).exit_code == 2
    folder.rename(empty / "config")
    assert run("validate").exit_code == 0


def test_the_environment_counts_for_validation(folder: Path) -> None:
    """What `serve` would refuse, `validate` refuses."""
    result = run("validate", "--config", str(folder), BREAKER_STORE__ULR="x")
    assert result.exit_code == 2
    assert "did you mean 'BREAKER_STORE__URL'?" in result.stderr


def test_schemas_are_printed_for_both_files() -> None:
    """Pipelines unless told otherwise: these are written by more people."""
    assert "pipeline" in json.loads(run("schema").stdout)["properties"]
    assert "listen" in json.loads(run("schema", "gateway").stdout)["properties"]
    assert run("schema", "gateway", "--markdown").stdout.startswith("| field | type | default |")
    result = run("schema", "pipelin")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean 'pipeline'?" in result.stderr


def test_an_operation_is_explained_field_by_field(folder: Path, write: Write) -> None:
    """With the limits that hold now; as JSON, too."""
    write("pipelines/billing.yaml", PIPELINE + "    capacity: {rate: 5/s}\n")
    result = run("explain", "billing.charge", "--config", str(folder))
    assert result.exit_code == 0
    assert "limits now: 5/s, burst 1" in result.stdout
    answer = json.loads(run("explain", "billing.charge", "--json", "--config", str(folder)).stdout)
    row = next(row for row in answer["fields"] if row["field"] == "capacity.rate")
    assert row["value"] == "5/s"
    assert row["origin"].endswith("billing.yaml:7")
    assert answer["limits_next"] is None


def test_a_schedule_is_explained_with_its_next_change(folder: Path, write: Write) -> None:
    """`when do they open?`"""
    hours = '{timezone: UTC, hours: [{when: "mon-sun 00:00-12:00", rate: 5/s}], otherwise: {rate: 0/s}}'
    write("pipelines/billing.yaml", PIPELINE + f"    capacity: {{schedule: {hours}}}\n")
    answer = json.loads(run("explain", "billing.charge", "--json", "--config", str(folder)).stdout)
    assert {answer["limits_now"], answer["limits_next"]["limits"]} == {"5/s, burst 1", "closed"}
    assert answer["limits_next"]["at"].endswith(("T00:00:00Z", "T12:00:00Z"))


def test_an_operation_that_is_misspelt_gets_a_suggestion(folder: Path) -> None:
    """And status 2."""
    result = run("explain", "billing.chrage", "--config", str(folder))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown operation 'billing.chrage' (did you mean 'billing.charge'?)" in result.stderr


def test_a_difference_ends_with_status_1(
    folder: Path, write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As diff does: 0 the same, 1 different, 2 trouble."""
    other = tmp_path_factory.mktemp("other")
    (other / "pipelines").mkdir()
    (other / "gateway.yaml").write_text("cluster: test\n")
    (other / "pipelines" / "billing.yaml").write_text(PIPELINE + "    max_wait: 2s\n")
    assert run("diff", str(folder), str(folder)).exit_code == 0
    result = run("diff", str(folder), str(other))
    assert (result.exit_code, result.stdout) == (1, "~ billing.charge: max_wait 1s -> 2s\n")
    (difference,) = json.loads(run("diff", str(folder), str(other), "--json").stdout)["differences"]
    assert (difference["kind"], difference["field"], difference["new"]) == ("changed", "max_wait", "2s")
    write("gateway.yaml", "x: y\n")
    assert run("diff", str(folder), str(other)).exit_code == 2


def test_the_exit_statuses_stand_in_the_help() -> None:
    """Nobody should have to try."""
    for command in ("validate", "explain", "diff"):
        assert "Exit status: 0" in " ".join(run(command, "--help").stdout.split())
