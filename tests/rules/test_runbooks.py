"""Alerts, runbooks, cases and the manual are of the same things, and what they tell people to type exists."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml
from typer.core import TyperGroup

from breaker.cli.app import app
from breaker.core.alert_table import ALERTS, Alert
from breaker.policy.load import load
from breaker.signals import rules
from breaker.signals.rules_alerts import duration
from tests.rules.story import CONFIG, load_cases

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BOOKS = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "runbooks").glob("*.md")}
SECTIONS = ["Meaning", "Impact", "Check", "Mitigate", "Escalate", "False alarms"]
NAMES = {alert.name for alert in ALERTS}
WRONG = typer.BadParameter.__mro__[
    1
]  # what it and a missing argument have in common; Typer has no name for it
SAID = {"raise": "rate=34/s burst=60", "operation": "billing.charge", "channel": "pager"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def typed(text: str) -> list[list[str]]:
    """Each `breaker ...` of a page as words, with what its own block says for `$OP`."""
    found = []
    for block in blocks(text, "sh"):
        known = dict(re.findall(r"^([A-Z]+)=(\S+)", block, re.MULTILINE))
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            words = words[: words.index("|")] if "|" in words else words
            if words and words[0] == "breaker":
                found.append([known[word[1:]] if word.startswith("$") else word for word in words])
    return found + [shlex.split(line) for line in re.findall(r"`(breaker [^`]+)`", text)]


def parse(words: list[str]) -> None:
    """Verbs, options and arguments; nothing is run."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while isinstance(command, TyperGroup):
        command = command.commands[rest.pop(0)]
    with command.make_context(" ".join(words), rest):
        pass


def test_every_alert_has_a_runbook_a_case_and_a_row_in_the_manual_and_the_reverse() -> None:
    """What fires at night is explained somewhere; what is explained can fire."""
    assert BOOKS.keys() == NAMES
    assert {case.alert.name for case in load_cases()} == NAMES
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(runbooks/(\w+)\.md\) \| (\w+) \| (\w+) \| ([^|]*) \|",
        (DOCS / "alerts.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert all(name == link for name, link, *_ in rows)
    assert [(name, severity, scope, for_.strip()) for name, _, severity, scope, for_ in rows] == [
        (
            alert.name,
            str(alert.severity),
            str(alert.scope),
            "`alerts.for`" if alert.for_s is None else duration(alert.for_s) if alert.for_s else "at once",
        )
        for alert in ALERTS
    ]


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_every_runbook_has_the_same_sections(name: str) -> None:
    """A tired person looks for *Mitigate* without reading."""
    text = BOOKS[name]
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in re.split(r"^#.*$", text, flags=re.MULTILINE)[1:])
    assert len(text.splitlines()) <= 90
    assert blocks(text, "sh")


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_commands_of_runbooks_exist(name: str) -> None:
    """On-call copies them."""
    for words in typed(BOOKS[name]):
        parse(words)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.key)
def test_the_first_command_of_every_alert_exists(alert: Alert) -> None:
    """It is the only one that somebody on a phone sees."""
    words = shlex.split(alert.action.format_map(SAID), comments=True)
    assert words[0] == "breaker"
    parse(words)


@pytest.mark.parametrize(
    "wrong",
    ["breaker ops raise a", "breaker ops show", "breaker jobs list --all", "breaker ops show a --now"],
)
def test_a_command_that_does_not_exist_would_be_found(wrong: str) -> None:
    """The tests above can fail."""
    with pytest.raises((WRONG, KeyError)):
        parse(wrong.split())


def test_queries_of_runbooks_are_ones_that_prometheus_takes(tmp_path: Path) -> None:
    """They are pasted into a browser, in a hurry."""
    queries = [query for text in BOOKS.values() for query in blocks(text, "promql")]
    assert len(queries) > len(BOOKS)
    found = [{"record": f"runbook:query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": found}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", "queries.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_queries_name_is_exported_or_recorded() -> None:
    """A query without an answer looks like an answer."""
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `(breaker_\w+)` \|", page, re.MULTILINE)) | {"ALERTS", "up"}
    for group in rules.recorded(load(CONFIG, {})):
        known |= {rule["record"] for rule in group.rules}
    for name, text in BOOKS.items():
        for query in blocks(text, "promql"):
            bare = re.sub(r'"[^"]*"', "", query)
            named = re.findall(r"[a-z_]+:[a-z_0-9]+:[a-z_0-9]+|\bbreaker_\w+|\bALERTS\b|\bup\b", bare)
            assert named, query
            assert set(named) <= known, name


def test_addresses_of_runbooks_are_served() -> None:
    """The paths of the admin listener, by its own manual."""
    manual = (DOCS / "admin.md").read_text(encoding="utf-8") + (DOCS / "operations.md").read_text(
        encoding="utf-8"
    )
    for text in BOOKS.values():
        for path in re.findall(r"https?://[\w.-]+:8081/(?:admin/v1/)?(\w+)", text):
            assert f"/{path}`" in manual or f"`GET {path}`" in manual, path
        for event in re.findall(r"event `(\w+)`", text):
            assert f"`{event}`" in (DOCS / "logs.md").read_text(encoding="utf-8"), event
