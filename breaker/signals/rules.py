"""
Rules: the table of alerts and a configuration, as rules for Prometheus.

`breaker rules export` writes them; `deploy/prometheus/rules/` holds those of the shipped configuration. What is recorded
stands in `rules_recorded.py`, when each alert fires in `rules_alerts.py`, and what it says in `rules_text.py`.

1. Labels are those of the gateway's own alerts: alertname, severity, cluster, and operation, team, band or channel where the
   alert has them. Nothing that differs between replicas is a label.
2. The operations of a team share a group, because a team is not in the metrics. Where they go by different thresholds, each has
   the rules that depend on them for itself.
3. The same configuration gives the same text, byte for byte: a test holds what is committed against it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from breaker.core.alert_table import ALERTS, Alert
from breaker.core.config import Config
from breaker.core.model import Operation
from breaker.signals import rules_recorded, rules_text
from breaker.signals.rules_alerts import (
    BY_THRESHOLD,
    CLUSTER_CONDITIONS,
    OPERATION_CONDITIONS,
    REMOVED,
    Owned,
    duration,
    raise_over_capacity,
)

RECORDED_FILE, ALERTS_FILE = "breaker-recorded.yaml", "breaker-alerts.yaml"
HEAD = "# Made by `breaker rules export` from the configuration; edit that, and export again.\n"
Rule = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """
    Rules that are evaluated one after the other.

    Attributes:
        interval_s: Seconds between two evaluations; None is Prometheus' own.

    """

    name: str
    rules: Sequence[Rule]
    interval_s: int | None = None


def files_of(config: Config) -> Mapping[str, str]:
    """The files to put before Prometheus, by name."""
    return {RECORDED_FILE: HEAD + text_of(recorded(config)), ALERTS_FILE: HEAD + text_of(alerts(config))}


def recorded(config: Config) -> list[Group]:
    """What is computed once for all alerts and dashboards."""
    return [
        Group(name="breaker-recorded", rules=_records(rules_recorded.RECORDED)),
        Group(name="breaker-recorded-words", rules=_records(rules_recorded.worded_rules())),
        Group(
            name="breaker-recorded-budget", rules=_records(rules_recorded.budget_rules()),
            interval_s=rules_recorded.BUDGET_EVERY_S,
        ),
        Group(name="breaker-recorded-raise", rules=_records(raise_over_capacity(config.operations.values()))),
    ]  # fmt: skip


def alerts(config: Config) -> list[Group]:
    """Every alert of the table, for this configuration."""
    teams = [
        Group(name=f"breaker-{owned.team}", rules=[*_operation_rules(config, owned)])
        for owned in teams_of(config)
    ]
    return [Group(name="breaker-cluster", rules=[*_cluster_rules(config)]), *teams]


def teams_of(config: Config) -> list[Owned]:
    """The operations of each team (rule 2)."""
    shared: dict[str, list[Operation]] = {}
    for operation in config.operations.values():
        shared.setdefault(operation.team, []).append(operation)
    cluster = config.gateway.cluster
    return [
        Owned(team=team, operations=tuple(operations), cluster=cluster) for team, operations in shared.items()
    ]


def text_of(groups: Sequence[Group]) -> str:
    """As YAML."""
    document = {
        "groups": [
            {
                "name": group.name,
                **({"interval": duration(group.interval_s)} if group.interval_s else {}),
                "rules": list(group.rules),
            }
            for group in groups
        ]
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _records(rules: Mapping[str, str]) -> list[Rule]:
    return [{"record": name, "expr": expression} for name, expression in rules.items()]


def _cluster_rules(config: Config) -> Iterator[Rule]:
    for alert in ALERTS:
        if condition := CLUSTER_CONDITIONS.get(alert.key):
            yield _rule(config, alert, condition(config.gateway.cluster), {})
        elif alert.key == REMOVED.key:
            # No file names these operations, so nobody knows their team.
            yield _rule(config, alert, REMOVED.condition, {})


def _operation_rules(config: Config, owned: Owned) -> Iterator[Rule]:
    for alert in ALERTS:
        condition = OPERATION_CONDITIONS.get(alert.key)
        if condition is None:
            continue
        by_threshold = alert.name in BY_THRESHOLD and len(owned.policies) > 1
        for part in owned.each if by_threshold else (owned,):
            if expression := condition(part):
                labels = {"team": owned.team}
                if by_threshold:  # as the series says anyway; two rules must not look the same
                    labels = {"operation": part.operations[0].name, **labels}
                yield _rule(config, alert, expression, labels, part)


def _rule(
    config: Config, alert: Alert, expression: str, labels: Mapping[str, str], owned: Owned | None = None
) -> Rule:
    for_s = alert.for_s
    if for_s is None and owned is not None:
        for_s = owned.policy.for_ms / 1_000
    rule: Rule = {"alert": alert.name, "expr": expression}
    if for_s:
        rule["for"] = duration(for_s)
    if keep_s := alert.keep * config.gateway.alerts.keep_ms / 1_000:
        rule["keep_firing_for"] = duration(keep_s)
    rule["labels"] = {"severity": str(alert.severity), "cluster": config.gateway.cluster, **labels}
    rule["annotations"] = rules_text.annotations(alert, config.gateway.alerts, owned)
    return rule


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines stay readable."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's own shape
        """Lists are indented below their key, as people write them."""
        super().increase_indent(flow, indentless=False)


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)
