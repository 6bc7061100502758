"""
Inhibit rules: what Alertmanager is silent about while something explains it, as the gateway is (`core/notify.py`).

1. Only what is no less severe silences: what wakes nobody hides nothing that would.
2. A store that only some replicas cannot use is a warning, and silences no operation.
3. Of an alert with two severities the worse one is enough.
"""

from typing import Any

from breaker.core.alert_policy import Severity
from breaker.core.alert_table import ALERTS, INHIBITIONS, Inhibition

CRITICAL, WARNING = f'severity="{Severity.CRITICAL}"', f'severity="{Severity.WARNING}"'


def inhibit_rules() -> list[dict[str, Any]]:
    """The value of `inhibit_rules` in Alertmanager's file."""
    rules = [rule for inhibition in INHIBITIONS for rule in _rules_of(inhibition)]
    worse = {
        "source_matchers": ['alertname=~"Breaker.+"', CRITICAL],
        "target_matchers": ['alertname=~"Breaker.+"', WARNING],
        "equal": ["cluster", "alertname", "operation", "band", "channel"],
    }
    return [*rules, worse]


def _rules_of(inhibition: Inhibition) -> list[dict[str, Any]]:
    source = f'alertname=~"{"|".join(inhibition.by)}"'
    target = f'alertname=~"{"|".join(inhibition.these)}"'
    equal = ["cluster", "operation"] if inhibition.same_operation else ["cluster"]
    has_warnings = any(alert.severity is Severity.WARNING for alert in ALERTS if alert.name in inhibition.by)
    matchers = [([source], [target])]
    if has_warnings:
        matchers = [([source, CRITICAL], [target])]
        if inhibition.same_operation:
            matchers.append(([source], [target, WARNING]))
    return [
        {"source_matchers": sources, "target_matchers": targets, "equal": equal}
        for sources, targets in matchers
    ]
