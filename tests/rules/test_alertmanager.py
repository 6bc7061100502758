"""What Alertmanager is given: who is told what, and what is not told because something worse is."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from breaker.core.alert_table import ALERTS, INHIBITIONS
from breaker.signals.inhibit_rules import inhibit_rules

FILE = Path(__file__).parents[2] / "deploy" / "alertmanager" / "alertmanager.yaml"
PROMETHEUS = FILE.parents[1] / "prometheus" / "prometheus.yml"
STORE = {"BreakerStoreDown", "BreakerStoreRefusesWrites", "BreakerStoreReset", "BreakerAbsent"}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    found: Document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def said_by(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def names_in(matchers: list[str]) -> frozenset[str]:
    """The alerts that these matchers name."""
    first = matchers[0].partition('"')
    return frozenset(first[2].strip('"').split("|"))


def test_both_files_are_what_their_programs_read() -> None:
    """Nobody installs one that does not start."""
    said_by("amtool", "check-config", str(FILE))
    said_by("promtool", "check", "config", str(PROMETHEUS))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=BreakerStoreDown", "severity=critical"), "on-call"),
        (("alertname=BreakerPromiseAtRisk", "severity=critical", "team=finance"), "on-call"),
        (("alertname=BreakerOverCapacity", "severity=warning", "team=finance"), "chat"),
        (("alertname=BreakerWatchdog", "severity=none"), "dead-mans-switch"),
        (("alertname=SomethingElse",), "chat"),
    ],
)
def test_each_severity_reaches_who_should_hear_it(labels: tuple[str, ...], receiver: str) -> None:
    """On-call sleeps through warnings, and through nothing else."""
    said = said_by("amtool", "config", "routes", "test", f"--config.file={FILE}", *labels)
    assert said == receiver


def test_groups_are_those_of_the_gateway(document: Document) -> None:
    """One message for ten operations of a team with the same trouble."""
    route = document["route"]
    assert route["group_by"] == ["alertname", "team", "cluster"]
    assert (route["group_wait"], route["group_interval"], route["repeat_interval"]) == ("10s", "1m", "4h")


def test_what_concerns_the_whole_cluster_waits_for_no_company(document: Document) -> None:
    """With 5 s of scrape and 5 s of evaluation a store that is down is told within 15 s."""
    critical = next(route for route in document["route"]["routes"] if route["receiver"] == "on-call")
    at_once = [route for route in critical["routes"] if route["group_wait"] == "0s"]
    assert [names_in(route["matchers"]) for route in at_once] == [STORE]


def test_inhibitions_are_those_of_the_table(document: Document) -> None:
    """Both ways to on-call are silent about the same."""
    assert document["inhibit_rules"] == inhibit_rules()
    assert {name for rule in INHIBITIONS for name in rule.by} <= {
        name for rule in document["inhibit_rules"] for name in names_in(rule["source_matchers"])
    }


def test_one_replica_that_is_cut_off_hides_nothing(document: Document) -> None:
    """The warning of that name is of some replicas; the operations of the others go on."""
    for rule in document["inhibit_rules"]:
        if "BreakerStoreDown" in names_in(rule["source_matchers"]):
            assert 'severity="critical"' in rule["source_matchers"]


def test_every_alert_that_the_file_names_exists(document: Document) -> None:
    """A matcher that is misspelt matches nothing, for ever."""
    named = set(STORE)
    for rule in document["inhibit_rules"]:
        named |= names_in(rule["source_matchers"]) | names_in(rule["target_matchers"])
    assert named - {"Breaker.+"} <= {alert.name for alert in ALERTS}


def test_people_hear_of_the_end_and_no_secret_is_in_the_file(document: Document) -> None:
    """A page without an end is looked into for nothing."""
    for receiver in document["receivers"]:
        for kind in ("pagerduty_configs", "slack_configs"):
            for config in receiver.get(kind, []):
                assert config["send_resolved"] is True
                assert not {"routing_key", "api_url", "service_key"} & config.keys()
