"""
Notice: one incident in words and labels, as every channel gets it.

The labels are those of the rules for Prometheus, so that an Alertmanager that hears of both ways shows one alert.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from breaker.core.alert_policy import Alerting
from breaker.core.alert_table import Scope
from breaker.core.alerts import Incident

LOOK = "breaker ops show {operation}"  # the first command where no higher limit helps
DASHBOARD = "/d/breaker-operation/breaker-operation?var-operation="
OVERVIEW = "/d/breaker-overview/breaker-overview"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """
    What is told of one incident.

    Attributes:
        id: Of the incident.
        key: For receivers that match messages of one incident by a key of at most 255 characters.
        labels: alertname, severity, cluster, and operation, team, band or channel where it has them.
        annotations: summary, description, impact, action, runbook_url, and dashboard_url where it is known.
        since_us: When its condition was first met. ended_us: None while it fires.

    """

    id: str
    key: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    since_us: int
    ended_us: int | None = None

    @property
    def is_over(self) -> bool:
        return self.ended_us is not None


class Unknown(dict[str, str]):
    """Values by field; what was not read is a question mark, not an error at 3 a.m."""

    def __missing__(self, field: str) -> str:
        return "?"


def notice_of(incident: Incident, alerting: Alerting, cluster: str, *, ended_us: int | None = None) -> Notice:
    """
    What is told of this incident.

    Args:
        ended_us: When it ended; None while it fires.

    """
    row = incident.row
    values = Unknown({**incident.values, "operation": incident.operation})
    labels = {"alertname": row.name, "severity": str(row.severity), "cluster": cluster}
    if incident.operation:
        labels |= {"operation": incident.operation, "team": incident.team}
    if row.scope in (Scope.BAND, Scope.CHANNEL):
        labels[str(row.scope)] = values[str(row.scope)] = incident.about
    annotations = {
        "summary": row.summary.format_map(values),
        "description": row.description.format_map(values),
        "impact": row.impact.format_map(values),
        "action": (LOOK if "{raise}" in row.action and not values.get("raise") else row.action).format_map(
            values
        ),
        "runbook_url": runbook_of(row.name, alerting.runbooks),
    }
    if alerting.dashboards:
        page = DASHBOARD + quote(incident.operation, safe="") if incident.operation else OVERVIEW
        annotations["dashboard_url"] = alerting.dashboards.rstrip("/") + page
    return Notice(
        id=incident.id, key=f"breaker:{cluster}:{incident.id}", labels=labels, annotations=annotations,
        since_us=incident.since_us, ended_us=ended_us,
    )  # fmt: skip


def runbook_of(name: str, base: str) -> str:
    """Where its runbook is: below the configured address, else its path in the documentation."""
    return f"{base.rstrip('/')}/{name}.md" if base else f"docs/runbooks/{name}.md"
