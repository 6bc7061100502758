"""The manual of the command line is that of the command."""

import re
from pathlib import Path

import typer.main
from typer.core import TyperGroup

from breaker.cli import client
from breaker.cli.app import app
from breaker.cli.config import DIFFERENT, WRONG
from breaker.core.jobs import Reason

DOCS = Path(__file__).parents[2] / "docs"


def commands(group: TyperGroup, prefix: str) -> set[str]:
    found = set()
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found |= commands(command, f"{prefix} {name}")
        elif not command.hidden:
            found.add(f"{prefix} {name}")
    return found


def test_every_command_is_documented_and_exists() -> None:
    """On-call types what the manual says, at 3 a.m."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    documented = re.findall(r"^\| `(breaker [a-z -]+)` \|", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert set(documented) == commands(root, "breaker")


def options(group: TyperGroup) -> set[str]:
    """The options of all commands that ask a running gateway."""
    found = {option for param in group.commands["top"].params for option in param.opts}
    for name in ("ops", "circuit", "alerts", "jobs", "dead"):
        inner = group.commands[name]
        assert isinstance(inner, TyperGroup)
        found |= {
            option for command in inner.commands.values() for param in command.params for option in param.opts
        }
    return {option for option in found if option.startswith("--")}


def test_every_option_of_the_commands_for_people_is_documented_and_exists() -> None:
    """`--help` says what there is; the manual says what it is for."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    of_others = {"--config", "--workers", "--demo", "--no-traffic", "--no-monitoring", "--dir"}
    assert set(re.findall(r"--[a-z][a-z-]*", page)) - of_others == options(root)


def test_every_exit_status_is_documented_and_given() -> None:
    """A script that runs at night decides by it."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8").partition("## Exit statuses")[2].partition("## ")[0]
    given = {0, client.FAILED, client.WRONG, client.STOPPED, client.INTERRUPTED, DIFFERENT, WRONG}
    assert {int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == given


def test_every_failure_class_is_documented() -> None:
    """Somebody who redrives chooses by it; the others are reasons to wait, not to be dead."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| `--failure"))
    assert set(re.findall(r"`([a-z_]+)`", line)) == set(Reason) - {Reason.DOWNSTREAM, Reason.SLOW_DOWN}


def test_commands_and_paths_that_the_manual_names_exist() -> None:
    """A page that sends its reader to a file that is not there wastes the worst minute of the night."""
    root = Path(__file__).parents[2]
    for page in [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
