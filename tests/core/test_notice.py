"""One incident in words and labels, as every channel gets it."""

from dataclasses import replace

import pytest

from breaker.core.alert_policy import Alerting
from breaker.core.alert_table import ALERTS, BY_KEY, TEXT_FIELDS, Scope
from breaker.core.notice import notice_of
from tests.core.alert_world import NOW, OVER, RISK, SECOND, fires

PLAIN = Alerting()


def test_labels_are_those_of_the_rules() -> None:
    """An Alertmanager that hears of both ways shows one alert; nothing in them differs between replicas."""
    of_band = notice_of(fires(RISK, about="high"), PLAIN, "production")
    assert of_band.labels == {
        "alertname": "BreakerPromiseAtRisk", "severity": "critical", "cluster": "production", "operation": "billing.charge",
        "team": "finance", "band": "high",
    }  # fmt: skip
    of_all = notice_of(fires("BreakerStoreDown:critical", "", team=""), PLAIN, "production")
    assert of_all.labels == {"alertname": "BreakerStoreDown", "severity": "critical", "cluster": "production"}
    of_channel = notice_of(fires("BreakerDeliveryFailing:warning", "", about="oncall"), PLAIN, "production")
    assert of_channel.labels["channel"] == "oncall"
    assert of_channel.annotations["action"] == "breaker alerts test --channel oncall"


def test_a_key_names_the_incident_over_all_clusters() -> None:
    """Receivers that match by a key hear of several clusters."""
    known = fires(RISK, about="high")
    assert notice_of(known, PLAIN, "production").key == f"breaker:production:{known.id}"


def test_what_was_not_read_is_a_question_mark() -> None:
    """An error at three in the morning would leave its reader with nothing."""
    found = notice_of(replace(fires(RISK, about="low"), values={"expected": "3 h"}), PLAIN, "production")
    assert found.annotations["summary"] == (
        "billing.charge: jobs in band low will break their promise: they will have waited 3 h, promised are ?."
    )


@pytest.mark.parametrize(("values", "shown"), [
    ({"raise": "rate=34/s"}, 'breaker ops set billing.charge rate=34/s --for 1h --reason "over capacity"  # if the downstream can take it: breaker ops show billing.charge'),
    ({"raise": ""}, "breaker ops show billing.charge"),
    ({}, "breaker ops show billing.charge"),
])  # fmt: skip
def test_where_no_higher_limit_helps_the_first_command_is_to_look(values: dict[str, str], shown: str) -> None:
    """A quota, and jobs that are held; a command that cannot work costs minutes."""
    assert notice_of(replace(fires(OVER), values=values), PLAIN, "production").annotations["action"] == shown


def test_links_lead_below_what_is_configured() -> None:
    """With and without a slash at its end, and none without a Grafana."""
    assert "dashboard_url" not in notice_of(fires(OVER), PLAIN, "production").annotations
    assert (
        notice_of(fires(OVER), PLAIN, "production").annotations["runbook_url"]
        == "docs/runbooks/BreakerOverCapacity.md"
    )
    pages = Alerting(runbooks="https://wiki.example.com/", dashboards="https://grafana.example.com/")
    found = notice_of(fires(OVER, "billing.a b"), pages, "production").annotations
    assert found["runbook_url"] == "https://wiki.example.com/BreakerOverCapacity.md"
    assert found["dashboard_url"] == (
        "https://grafana.example.com/d/breaker-operation/breaker-operation?var-operation=billing.a%20b"
    )
    of_all = notice_of(fires("BreakerStoreDown:critical", ""), pages, "production").annotations
    assert of_all["dashboard_url"] == "https://grafana.example.com/d/breaker-overview/breaker-overview"


def test_only_an_end_is_over() -> None:
    """It says since when, and until when."""
    found = notice_of(fires(OVER), PLAIN, "production", ended_us=NOW + SECOND)
    assert (found.is_over, found.since_us, found.ended_us) == (True, NOW, NOW + SECOND)
    assert not notice_of(fires(OVER), PLAIN, "production").is_over


@pytest.mark.parametrize("key", [row.key for row in ALERTS])
def test_no_sentence_of_the_table_has_a_hole(key: str) -> None:
    """Every field that a sentence names is one that `TEXT_FIELDS` explains."""
    about = "x" if BY_KEY[key].scope in (Scope.BAND, Scope.CHANNEL) else ""
    known = replace(fires(key, about=about), values=dict.fromkeys(TEXT_FIELDS, "value"))
    found = notice_of(known, PLAIN, "production").annotations
    assert not any("?" in text or "{" in text for text in found.values())
