"""
`breaker rules`: the alerts of a configuration, for Prometheus.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from breaker.cli.config import Folder, config_folder
from breaker.core.errors import ConfigError
from breaker.policy.load import load
from breaker.signals import rules

rules_app = typer.Typer(
    name="rules",
    help="Rules for Prometheus, made from the configuration.\n\n"
    "Exit status: 0 written, 1 it could not be written, 2 the configuration is wrong.",
    no_args_is_help=True,
)


@rules_app.callback()
def of_rules() -> None:
    """A group with one command is still a group."""


@rules_app.command("export")
def export(
    config: Folder = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", metavar="OUT", help="Write the files there, instead of to stdout.")
    ] = None,
) -> None:
    """
    Write recording and alerting rules for every operation.

    Exit status: 0 written, 1 it could not be written, 2 the configuration is wrong.
    """
    try:
        found = load(config_folder(config), os.environ)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(2) from None
    if folder is None:
        print(rules.HEAD + rules.text_of([*rules.recorded(found), *rules.alerts(found)]), end="")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in rules.files_of(found).items():
            (folder / name).write_text(text, encoding="utf-8")
            print(
                f"{folder / name}: {text.count('- alert:')} alerts, {text.count('- record:')} recorded",
                file=sys.stderr,
            )
    except OSError as exc:
        print(f"breaker: {folder} cannot be written: {exc.strerror}", file=sys.stderr)
        raise typer.Exit(1) from None
