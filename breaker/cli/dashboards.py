"""
`breaker dashboards`: the dashboards for Grafana, and its provisioning, copied to where Grafana reads them.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

import breaker
from breaker.cli.client import stop
from breaker.cli.output import talk

PARTS = ("dashboards", "provisioning")

dashboards_app = typer.Typer(
    name="dashboards",
    help="Dashboards for Grafana.\n\nExit status: 0 done, 1 it could not be done, 2 the command line is wrong.",
    no_args_is_help=True,
)


@dashboards_app.callback()
def dashboards() -> None:
    """Keep `export` a word of its own: a single command would take its place."""


@dashboards_app.command("export")
def export(
    folder: Annotated[
        Path,
        typer.Option("--dir", metavar="DIR", help="Made when it is not there; files of the same name go."),
    ],
) -> None:
    """Copy the dashboards and Grafana's provisioning files into a folder."""
    source = source_folder()
    try:
        for part in PARTS:
            for file in sorted((source / part).rglob("*")):
                if file.is_file():
                    target = folder / file.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
                    print(target)
    except OSError as exc:
        stop(f"{exc.filename or folder}: {exc.strerror}", 1)
    talk(f"for Grafana; where the files go: {DOCUMENTATION}")


DOCUMENTATION = "docs/dashboards.md"


def source_folder() -> Path:
    """Beside the modules of an installed package; in a checkout, at its top."""
    package = Path(breaker.__file__).parent
    installed = package / "grafana"
    return installed if installed.is_dir() else package.parent / "grafana"
