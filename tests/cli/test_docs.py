"""The manual of the command line is that of the command."""

import re
from pathlib import Path

import typer.main
from typer.core import TyperGroup

from breaker.cli.app import app

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


def test_commands_and_paths_that_the_manual_names_exist() -> None:
    """A page that sends its reader to a file that is not there wastes the worst minute of the night."""
    root = Path(__file__).parents[2]
    for page in [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
