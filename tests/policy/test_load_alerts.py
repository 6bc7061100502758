"""Alerts as they are read: values, defaults, overrides, and what is shown of them."""

from pathlib import Path

import pytest

from breaker.core.alert_policy import Alerting, AlertPolicy, Channel, ChannelType, Route, Severity
from breaker.core.config import Config
from breaker.policy.diff import diff
from breaker.policy.explain import explain
from breaker.policy.load import load, load_documents
from breaker.policy.restart import refuse_what_needs_a_restart
from breaker.policy.values import gateway_values
from tests.policy.conftest import PIPELINE, Write

B = "pipelines/billing.yaml"
SECRETS = ("whsec_" + "A" * 32, "whsec_" + "B" * 32)
GATEWAY = """\
alerts:
  channels:
    oncall: {type: pagerduty, routing_key_file: secrets/pagerduty}
    eu: {type: pagerduty, routing_key_file: secrets/pagerduty, url: "https://events.eu.pagerduty.com/v2/enqueue"}
    ops: {type: slack, url_file: secrets/slack}
    am: {type: alertmanager, url: "http://alertmanager:9093/"}
    hook: {type: webhook, url: "https://example.com/alerts/", secret_file: secrets/hook}
    here: {type: webhook, url: "http://127.0.0.1:9104/alerts"}
  routes:
    - {severity: critical, to: [oncall, ops], backup: [hook, eu], backup_after: 90s}
    - {severity: warning, to: [ops, here]}
    - {severity: none, to: [am]}
  group_wait: 0s
  group_interval: 5m
  keep: 10m
  repeat: 12h
  runbooks: https://wiki.example.com/breaker/
  dashboards: https://grafana.example.com
"""


@pytest.fixture
def told(folder: Path, write: Write) -> Config:
    """A gateway with every type of channel."""
    write("secrets/pagerduty", "hush-key\n")
    write("secrets/slack", "https://hooks.example.com/services/hush-slack\n")
    write("secrets/hook", "\n".join(SECRETS) + "\n")
    write("gateway.yaml", GATEWAY)
    return load(folder, {})


def test_channels_and_routes_are_read_with_what_their_files_hold(told: Config) -> None:
    """What is sent, where, and signed with what: a URL is kept as it is written, a slash at its end included."""
    kinds, enqueue = ChannelType, "https://events.pagerduty.com/v2/enqueue"
    europe = "https://events.eu.pagerduty.com/v2/enqueue"
    channels = [
        Channel(name="oncall", type=kinds.PAGERDUTY, url=enqueue, secrets=("hush-key",)),
        Channel(name="eu", type=kinds.PAGERDUTY, url=europe, secrets=("hush-key",)),
        Channel(name="ops", type=kinds.SLACK, url="https://hooks.example.com/services/hush-slack"),
        Channel(name="am", type=kinds.ALERTMANAGER, url="http://alertmanager:9093/"),
        Channel(name="hook", type=kinds.WEBHOOK, url="https://example.com/alerts/", secrets=SECRETS),
        Channel(name="here", type=kinds.WEBHOOK, url="http://127.0.0.1:9104/alerts"),
    ]
    assert told.gateway.alerts == Alerting(
        channels={channel.name: channel for channel in channels},
        routes=(
            Route(
                severity=Severity.CRITICAL,
                to=("oncall", "ops"),
                backup=("hook", "eu"),
                backup_after_ms=90_000,
            ),
            Route(severity=Severity.WARNING, to=("ops", "here")),
            Route(severity=Severity.NONE, to=("am",)),
        ),
        group_wait_ms=0,
        group_interval_ms=300_000,
        keep_ms=600_000,
        repeat_ms=43_200_000,
        runbooks="https://wiki.example.com/breaker/",
        dashboards="https://grafana.example.com",
    )


def test_the_defaults_of_the_files_are_those_of_the_core(folder: Path) -> None:
    """They stand in two places, and whoever tests the core tests what people get."""
    config = load(folder, {})
    assert config.gateway.alerts == Alerting()
    assert config.operations["billing.charge"].alerts == AlertPolicy()


def test_what_an_operation_says_of_its_alerts_is_read(folder: Path, write: Write) -> None:
    """Whole numbers count as numbers."""
    write("gateway.yaml", "alerts: {channels: {ops: {type: alertmanager, url: 'http://am:9093'}}}")
    said = "{utilisation: 2, clear: 1, for: 0s, objective: 0.999, routes: [ops]}"
    write(B, f"{PIPELINE}    alerts: {said}\n")
    policy = load(folder, {}).operations["billing.charge"].alerts
    assert policy == AlertPolicy(utilisation=2.0, clear=1.0, for_ms=0, objective=0.999, routes=("ops",))
    assert type(policy.utilisation) is type(policy.clear) is float


def test_variables_take_the_place_of_settings_of_alerts(folder: Path, told: Config) -> None:
    """A test environment repeats sooner without a file of its own."""
    environ = {"BREAKER_ALERTS__REPEAT": "5m", "BREAKER_ALERTS__RUNBOOKS": "http://wiki"}
    alerts = load(folder, environ).gateway.alerts
    assert (alerts.repeat_ms, alerts.runbooks) == (300_000, "http://wiki")
    assert alerts.channels == told.gateway.alerts.channels


def test_no_secret_of_a_channel_is_shown(told: Config) -> None:
    """Neither in a trace of the process nor in what a person asks for."""
    shown = repr(told) + str({name: str(value) for name, value in gateway_values(told.gateway).items()})
    assert "hush" not in shown
    assert not any(secret in shown for secret in SECRETS)


def test_differences_name_channels_and_hide_what_they_are_called_with(
    folder: Path, told: Config, write: Write
) -> None:
    """Who is told is the first thing that a reviewer looks at."""
    write("secrets/pagerduty", "hush-another")
    write("secrets/slack", "https://hooks.example.com/services/hush-other")
    write("secrets/hook", SECRETS[1])
    write(
        "gateway.yaml",
        GATEWAY.replace("to: [oncall, ops], backup: [hook, eu]", "to: [oncall, eu], backup: [hook]").replace(
            "12h", "1h"
        ),
    )
    write(B, f"{PIPELINE}    alerts: {{for: 10m, routes: [ops]}}\n")
    assert [str(difference) for difference in diff(told, load(folder, {}))] == [
        "~ gateway: alerts.channels.oncall.routing_key_file (hidden) -> (another, hidden)",
        "~ gateway: alerts.channels.eu.routing_key_file (hidden) -> (another, hidden)",
        "~ gateway: alerts.channels.ops.url_file (hidden) -> (another, hidden)",
        "~ gateway: alerts.channels.hook.secret_file (hidden) -> (another, hidden)",
        "~ gateway: alerts.routes.critical.to oncall, ops -> oncall, eu",
        "~ gateway: alerts.routes.critical.backup hook, eu -> hook",
        "~ gateway: alerts.repeat 12h -> 1h",
        "~ billing.charge: alerts.for 2m -> 10m",
        "~ billing.charge: alerts.routes the gateway's -> ops",
    ]


def test_an_explanation_names_the_line_of_a_threshold(folder: Path, write: Write) -> None:
    """`why was I woken?` is answered with a file and a line."""
    path = write(B, f"{PIPELINE}    alerts:\n      utilisation: 0.8\n      for: 10m\n")
    rows = {row.field: row for row in explain(load_documents(folder, {}), "billing.charge", 0).rows}
    assert {name: (row.value, row.origin) for name, row in rows.items() if name.startswith("alerts.")} == {
        "alerts.utilisation": ("0.8", f"{path}:8"),
        "alerts.clear": ("0.75", "default"),
        "alerts.for": ("10m", f"{path}:9"),
        "alerts.objective": ("0.99", "default"),
        "alerts.routes": ("the gateway's", "default"),
    }


def test_who_is_told_changes_at_a_reload(folder: Path, told: Config, write: Write) -> None:
    """A channel that is added while it burns must not need a restart."""
    write("gateway.yaml", "cluster: default\n")
    refuse_what_needs_a_restart(told.gateway, load(folder, {}).gateway, folder)
