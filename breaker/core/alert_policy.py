"""
What a person decides about alerts: the words of the files as values.

What can be told stands in `alert_table.py`; how an alert begins and ends, in `alerts.py`; who hears of it and
when, in `notify.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How much it matters: wake somebody, tell somebody, or only show that alerts arrive at all."""

    CRITICAL = "critical"
    WARNING = "warning"
    NONE = "none"


class ChannelType(StrEnum):
    """How on-call is reached."""

    ALERTMANAGER = "alertmanager"
    PAGERDUTY = "pagerduty"
    SLACK = "slack"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """
    When an operation's alerts speak.

    Attributes:
        utilisation: Share of a limit, 0..1 and more, from which on it is over capacity ...
        clear: ... and below which it no longer is.
        for_ms: How long it must be over before anybody is told.
        objective: Share of calls that should end well, 0..1: the error budget is the rest.
        routes: Channels for this operation's alerts, instead of those of the gateway's routes.

    """

    utilisation: float = 0.9
    clear: float = 0.75
    for_ms: int = 120_000
    objective: float = 0.99
    routes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """
    One way to on-call.

    Attributes:
        url: Where to; of Slack's incoming webhook it is a secret.
        secrets: PagerDuty's routing key, or what a webhook is signed with (`whsec_...`, two while one is rotated).

    """

    name: str
    type: ChannelType
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def has_memory(self) -> bool:
        """Whether the receiver knows by itself that two messages are of one incident, and shows it once."""
        return self.type in (ChannelType.ALERTMANAGER, ChannelType.PAGERDUTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """
    Who is told of alerts of a severity.

    Attributes:
        to: All of these channels.
        backup: Told as well when none of `to` has taken the message for `backup_after_ms`.

    """

    severity: Severity
    to: tuple[str, ...]
    backup: tuple[str, ...] = ()
    backup_after_ms: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerting:
    """
    The gateway's own way to on-call.

    Attributes:
        channels: By name; none: alerts are shown and logged, and sent nowhere.
        group_wait_ms: How long the first alert of a group waits for others of it.
        group_interval_ms: Between two messages about one group.
        keep_ms: How long an alert goes on after it was last true, so that what flaps is told once; those whose row in the table
            says otherwise go on for a multiple of it.
        repeat_ms: How often it is said again that an alert goes on which nobody has acknowledged.
        runbooks, dashboards: Where people find them: a URL that a file name is put behind, and that of Grafana; empty: the file's
            path, and no link.

    """

    channels: Mapping[str, Channel] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    group_wait_ms: int = 10_000
    group_interval_ms: int = 60_000
    keep_ms: int = 300_000
    repeat_ms: int = 4 * 3_600_000
    runbooks: str = ""
    dashboards: str = ""
