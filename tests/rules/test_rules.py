"""
What Prometheus is given: rules that are right, for every alert, and the ones that are committed.

That each alert fires when it should and says what it should stands in `cases/`, in the words of on-call.
"""

import re
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from breaker.cli.app import app
from breaker.core.alert_policy import Alerting
from breaker.core.alert_table import ALERTS, TEXT_FIELDS, Scope
from breaker.core.config import Config
from breaker.policy.load import load
from breaker.signals import rules
from breaker.signals.rules_alerts import duration
from breaker.signals.rules_text import FIELDS, OF_ALERTS, RAISES
from tests.rules.story import CONFIG, load_cases, promtool_files

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "deploy" / "prometheus" / "rules"
Rule = dict[str, Any]


@pytest.fixture(scope="module")
def config() -> Config:
    return load(CONFIG, {})


def rules_in(text: str) -> list[Rule]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def alerting(config: Config) -> list[Rule]:
    return rules_in(rules.text_of(rules.alerts(config)))


def promtool(*words: str, folder: Path) -> None:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_comes_out_as_it_is_written(config: Config, tmp_path: Path) -> None:
    """On-call: what fires, when, and in which words. A case that fails is named in the output."""
    files = promtool_files(load_cases(), [*rules.recorded(config), *rules.alerts(config)])
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    promtool("test", "rules", *(name for name in files if name.endswith(".test.yaml")), folder=tmp_path)


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    """An alert that nobody has seen is one that nobody knows to work."""
    cases = load_cases()
    firing = {case.alert.key for case in cases if case.firing or case.fires}
    silent = {case.alert.key for case in cases if case.silent}
    told = {
        f"{case.alert.name}:{said.get('severity', case.alert.severity)}"
        for case in cases
        for said in case.fires
    }
    every = {alert.key for alert in ALERTS}
    assert firing == every
    assert told == every
    assert silent == every - {"BreakerWatchdog:none"}, "the watchdog is never silent"


def test_no_two_cases_have_one_name() -> None:
    """The name is all that promtool says of one that fails."""
    assert [name for name, count in Counter(case.name for case in load_cases()).items() if count > 1] == []


@pytest.mark.parametrize("folder", [CONFIG, ROOT / "config"], ids=["tested", "shipped"])
def test_rules_have_nothing_that_promtool_finds_wrong(folder: Path, tmp_path: Path) -> None:
    """Prometheus does not start with a file that it does not like."""
    files = rules.files_of(load(folder, {}))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    promtool("check", "rules", "--lint=all", "--lint-fatal", *files, folder=tmp_path)


def test_committed_rules_are_those_of_the_shipped_configuration(tmp_path: Path) -> None:
    """`make rules` writes them again."""
    done = CliRunner().invoke(
        app, ["rules", "export", "--config", str(ROOT / "config"), "--dir", str(tmp_path)]
    )
    assert done.exit_code == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in COMMITTED.iterdir()
    }


def test_everything_on_standard_output_is_one_document() -> None:
    """It is piped into whatever brings files before Prometheus."""
    done = CliRunner().invoke(app, ["rules", "export", "--config", str(CONFIG)])
    assert done.exit_code == 0
    found = rules_in(done.stdout)
    assert {rule["alert"] for rule in found if "alert" in rule} == {alert.name for alert in ALERTS}


def test_a_configuration_that_is_wrong_gives_no_rules(tmp_path: Path) -> None:
    """Rules of half a configuration would silence the other half."""
    (tmp_path / "gateway.yaml").write_text("listn: 1\n")
    done = CliRunner().invoke(
        app, ["rules", "export", "--config", str(tmp_path), "--dir", str(tmp_path / "out")]
    )
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    """No traceback at 3 a.m."""
    (tmp_path / "out").write_text("a file")
    done = CliRunner().invoke(
        app, ["rules", "export", "--config", str(CONFIG), "--dir", str(tmp_path / "out")]
    )
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr


def test_every_alert_of_the_table_is_a_rule_with_its_labels(config: Config) -> None:
    """Alertmanager routes by them, and an incident that the gateway tells itself has the same."""
    found = alerting(config)
    by_key = {f"{rule['alert']}:{rule['labels']['severity']}": rule for rule in found}
    assert by_key.keys() == {alert.key for alert in ALERTS}
    for alert in ALERTS:
        own = [
            rule
            for rule in found
            if (rule["alert"], rule["labels"]["severity"]) == (alert.name, alert.severity)
        ]
        has_team = alert.scope in (Scope.OPERATION, Scope.BAND) and alert.name != "BreakerOperationRemoved"
        for rule in own:
            assert rule["labels"].keys() - {"operation"} == {"severity", "cluster"} | (
                {"team"} if has_team else set()
            )
            assert rule["labels"]["cluster"] == "test"
            if alert.for_s is not None:
                assert rule.get("for", "0s") == (duration(alert.for_s) if alert.for_s else "0s")
            assert ("keep_firing_for" in rule) == bool(alert.keep)


def test_every_operation_is_watched_by_exactly_one_rule_of_each_alert(config: Config) -> None:
    """Two would tell everything twice; none, nothing."""
    for alert in (
        "BreakerOverCapacity:warning",
        "BreakerErrorBudgetBurn:critical",
        "BreakerRefusing:warning",
    ):
        named: Counter[str] = Counter()
        for rule in alerting(config):
            if f"{rule['alert']}:{rule['labels']['severity']}" == alert:
                first = re.search(r'operation=~?"([^"]+)"', rule["expr"])
                assert first
                named.update(first[1].replace("[.]", ".").split("|"))
        assert named == dict.fromkeys(config.operations, 1)


def test_every_field_of_the_table_has_a_template() -> None:
    """`{waiting}` in a page at night is worse than no text."""
    for alert in ALERTS:
        for text in (alert.summary, alert.description, alert.impact, alert.action):
            for name in re.findall(r"\{(\w+)\}", text):
                assert name in TEXT_FIELDS
                own = name in ("windows", "fate") or (name == "raise" and alert.name in RAISES)
                assert own or name in FIELDS or name in OF_ALERTS.get(alert.name, {}), f"{alert.key}: {name}"
    assert FIELDS.keys() <= TEXT_FIELDS.keys()


def test_links_are_those_of_the_configuration(config: Config) -> None:
    """Without addresses there is the path of the runbook, and no link that leads nowhere."""
    bare = replace(config, gateway=replace(config.gateway, alerts=Alerting()))
    for rule in alerting(bare):
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert "dashboard_url" not in rule["annotations"]


def max_only() -> set[str]:
    """The gauges that every replica exports alike, by docs/metrics.md."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(breaker_\w+)` \|.*\| `max[^|]*\|$", page, re.MULTILINE)
    assert len(rows) > 15
    return set(rows)


def aggregated_otherwise(expression: str, gauges: set[str]) -> list[str]:
    """Each of these gauges that meets another aggregation before `max`."""
    found, open_ = [], [""]
    for match in re.finditer(r"([a-z_]+)(?:\s+(?:by|without)\s*\([^)]*\))?\s*\(|([\w:]+)|[()]", expression):
        opens, word = match[1], match[2]
        if opens is not None:
            open_.append(opens)
        elif match[0] == ")":
            open_.pop()
        elif match[0] == "(":
            open_.append("")
        elif word in gauges:
            first = next(
                (name for name in reversed(open_) if name in ("max", "min", "sum", "avg", "count")), ""
            )
            if first not in ("max", "min") and not word.endswith("_total"):
                found.append(word)
    return found


@pytest.mark.parametrize(
    "wrong", ["sum by (operation) (breaker_queue_jobs)", "avg(breaker_queue_jobs)", "breaker_queue_jobs > 5"]
)
def test_a_sum_over_replicas_would_be_found(wrong: str) -> None:
    """The next test can fail."""
    assert aggregated_otherwise(wrong, {"breaker_queue_jobs"}) == ["breaker_queue_jobs"]
    assert not aggregated_otherwise("sum by (a) (max by (a, b) (breaker_queue_jobs))", {"breaker_queue_jobs"})


@pytest.mark.parametrize("folder", [CONFIG, ROOT / "config"], ids=["tested", "shipped"])
def test_what_every_replica_says_alike_is_never_summed(folder: Path) -> None:
    """Three replicas would have three times the jobs, and nobody would see it with one."""
    gauges = max_only()
    for text in rules.files_of(load(folder, {})).values():
        for rule in rules_in(text):
            assert aggregated_otherwise(rule["expr"], gauges) == [], rule


def test_every_metric_that_rules_name_is_documented(config: Config) -> None:
    """An alert on a metric that nobody exports never fires."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    exported = set(re.findall(r"^\| `(breaker_\w+)` \|", page, re.MULTILINE))
    for text in rules.files_of(config).values():
        for rule in rules_in(text):
            said = " ".join([rule["expr"], *rule.get("annotations", {}).values()])
            named = set(re.findall(r"(?<![:\w])breaker_\w+(?!\w*:)", said))
            assert {re.sub("_(sum|count|bucket)$", "", name) for name in named} <= exported, rule
