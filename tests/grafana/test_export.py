"""`breaker dashboards export` gives what Grafana needs, from a checkout and from an installed package."""

import subprocess
import sys
import zipfile
from pathlib import Path

from typer.testing import CliRunner

from breaker.cli.app import app

ROOT = Path(__file__).parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def shipped() -> dict[str, bytes]:
    source = ROOT / "grafana"
    return {
        name: content
        for name, content in files(source).items()
        if name.startswith(("dashboards/", "provisioning/"))
    }


def test_export_copies_dashboards_and_provisioning(tmp_path: Path) -> None:
    """Whoever runs Grafana has no checkout."""
    result = CliRunner().invoke(app, ["dashboards", "export", "--dir", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert files(tmp_path / "out") == shipped()
    assert str(tmp_path / "out" / "dashboards" / "overview.json") in result.stdout.splitlines()


def test_export_into_a_file_says_why_it_cannot(tmp_path: Path) -> None:
    """The last line says why, and the exit status says that it was not done."""
    (tmp_path / "out").write_text("")
    result = CliRunner().invoke(app, ["dashboards", "export", "--dir", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert result.stderr.startswith("breaker: ")


def test_wheel_holds_what_is_exported(tmp_path: Path) -> None:
    """An installed package has no folder beside it to take them from."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as built:
        found = {
            name.removeprefix("breaker/grafana/"): built.read(name)
            for name in built.namelist()
            if name.startswith("breaker/grafana/")
        }
    assert found == shipped()
