"""
The shape of what the files say about alerts: a part of `pipeline_file.py` and of `gateway_file.py`.

What needs more than one value, or another file, is checked in `build_alerts.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from breaker.policy import kinds as k
from breaker.policy import words as w

_Url = Annotated[str, *k.text("URL", w.check_web_url)]
_Names = Annotated[list[str], Field(min_length=1)]
_Utilisation = Annotated[float, Field(gt=0, le=10)]


class AlertsSection(k.Section):
    """When the alerts of one operation speak, and who hears them."""

    utilisation: _Utilisation = k.setting(
        "Used share of a limit from which on the operation is over its capacity, more than 0 and at most 10.",
        0.9,
        example=0.8,
    )
    clear: _Utilisation = k.setting("Below this it no longer is; less than `utilisation`.", 0.75, example=0.6)
    for_: Annotated[k.Duration, k.at_most("1d"), Field(alias="for")] = k.setting(
        "How long it must be over before anybody is told; at most 1d.", "2m", example="10m"
    )
    objective: Annotated[float, Field(ge=0.5, le=0.9999)] = k.setting(
        "Share of calls that should end well, 0.5 to 0.9999; the rest is the error budget.",
        0.99,
        example=0.999,
    )
    routes: _Names | None = k.setting(
        "Channels of gateway.yaml for its alerts, whatever their severity.",
        None,
        example=["finance"],
        shown="the gateway's `alerts.routes`",
    )


class ChannelSection(k.Section):
    """One way to on-call; which fields it has depends on its type."""

    type: Literal["alertmanager", "pagerduty", "slack", "webhook"] = k.setting(
        "How people are reached.", example="pagerduty"
    )
    url: _Url | None = k.setting(
        "http or https, of an Alertmanager, a webhook, or another PagerDuty than the usual one.",
        None,
        example="http://alertmanager:9093",
        shown="required; with `pagerduty` `https://events.pagerduty.com/v2/enqueue`; with `slack` none",
    )
    url_file: k.File | None = k.setting(
        "File with the URL of Slack's incoming webhook, which is a secret.",
        None,
        example="secrets/slack",
        shown="required with `slack`",
    )
    routing_key_file: k.File | None = k.setting(
        "File with PagerDuty's routing key (Events API v2).",
        None,
        example="secrets/pagerduty",
        shown="required with `pagerduty`",
    )
    secret_file: k.File | None = k.setting(
        "File with `whsec_...`, one per line, the newest first; each signs what a webhook gets.",
        None,
        example="secrets/alerts",
        shown="required with `webhook`, unless its host is this machine",
    )


class RouteSection(k.Section):
    """Who is told of alerts of one severity."""

    severity: Literal["critical", "warning", "none"] = k.setting(
        "Which alerts; `none` is the watchdog, which always fires.", example="critical"
    )
    to: _Names = k.setting("Channels, all of which are told.", example=["oncall", "ops"])
    backup: _Names | None = k.setting(
        "Channels that are told as well when none of `to` has taken the message.", None, example=["hook"]
    )
    backup_after: Annotated[k.Length, k.at_most("1h")] = k.setting(
        "After how long without success; at most 1h.", "1m", example="30s"
    )


class AlertingSection(k.Section):
    """The gateway's own way to on-call."""

    channels: Annotated[dict[k.Name, ChannelSection], Field(min_length=1)] | None = Field(default=None)
    routes: Annotated[list[RouteSection], Field(min_length=1)] | None = Field(default=None)
    group_wait: Annotated[k.Duration, k.at_most("10m")] = k.setting(
        "How long the first alert of a group waits for others of it; at most 10m.", "10s", example="30s"
    )
    group_interval: Annotated[k.Duration, k.at_least("10s"), k.at_most("1d")] = k.setting(
        "Between two messages about one group, 10s to 1d.", "1m", example="5m"
    )
    keep: Annotated[k.Duration, k.at_most("1h")] = k.setting(
        "How long an alert goes on after it was last true, so that what flaps is told once; some go on for a multiple; at most 1h.",
        "5m",
        example="10m",
    )
    repeat: Annotated[k.Duration, k.at_least("5m"), k.at_most("7d")] = k.setting(
        "How often it is said again that an alert goes on which nobody has acknowledged, 5m to 7d.",
        "4h",
        example="12h",
    )
    runbooks: _Url | None = k.setting(
        "Where people find the runbooks: `/<Alert>.md` is put behind it.",
        None,
        example="https://wiki.example.com/breaker",
        shown="their path in `docs/runbooks/`",
    )
    dashboards: _Url | None = k.setting(
        "Where Grafana is, for links to the dashboards.",
        None,
        example="https://grafana.example.com",
        shown="no links",
    )
