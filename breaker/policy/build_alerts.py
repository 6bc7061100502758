"""
Alerts: from what gateway.yaml and the operations say about them to core types.

Channels stand in gateway.yaml and are named in several files: a name that leads nowhere, and a channel that
nothing leads to, are found here and not on the night when somebody should have been told.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from breaker.core.alert_policy import Alerting, AlertPolicy, Channel, ChannelType, Route, Severity
from breaker.core.errors import Problem
from breaker.policy.alert_sections import AlertingSection, AlertsSection, ChannelSection, RouteSection
from breaker.policy.document import Document, Loc
from breaker.policy.files import read_secret
from breaker.policy.gateway_file import GatewayFile
from breaker.policy.job_words import parse_webhook_secrets
from breaker.policy.pipeline_file import PipelineFile
from breaker.policy.shape import Shaped
from breaker.policy.units import format_duration
from breaker.policy.words import check_web_url, did_you_mean

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"

_REQUIRED = {
    ChannelType.ALERTMANAGER: "url",
    ChannelType.PAGERDUTY: "routing_key_file",
    ChannelType.SLACK: "url_file",
    ChannelType.WEBHOOK: "url",
}
_OPTIONAL = {ChannelType.PAGERDUTY: "url", ChannelType.WEBHOOK: "secret_file"}
_Read = TypeVar("_Read")


def stated_channels(shaped: Shaped[GatewayFile]) -> tuple[str, ...] | None:
    """Names of channels, also of those with problems; None when a mistake around them hides which there are."""
    if any(_hides_channels(path) for path in shaped.broken):
        return None
    value = shaped.document.value
    for key in ("alerts", "channels"):
        value = value.get(key) if isinstance(value, dict) else None
    return tuple(value) if isinstance(value, dict) else ()


def _hides_channels(path: Loc) -> bool:
    match path:
        case () | ("alerts",) | ("alerts", "channels"):
            return True
        case (key,):  # it may be `alerts`, misspelt
            return key not in GatewayFile.model_fields
        case ("alerts", key):
            return key not in AlertingSection.model_fields
        case _:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicyBuilder:
    """
    Builds the alerts of one operation; `at` is the path of the operation in the document.

    Attributes:
        channels: Those of gateway.yaml; None is not known.

    """

    shaped: Shaped[PipelineFile]
    at: Loc
    channels: tuple[str, ...] | None
    problems: list[Problem]

    def build(self, section: AlertsSection) -> AlertPolicy:
        at: Loc = (*self.at, "alerts")
        document = self.shaped.document
        if section.clear >= section.utilisation and not self.shaped.is_broken(at):
            is_usual = "clear" not in section.model_fields_set
            self.problems.append(
                document.problem(
                    (*at, "utilisation" if is_usual else "clear"),
                    f"`alerts.clear` {section.clear:g}{', its default,' if is_usual else ''} is not less than "
                    f"`alerts.utilisation` {section.utilisation:g}: an alert would end where it begins; "
                    "state a lower `clear`",
                )
            )
        names = tuple(section.routes or ())
        self.problems.extend(_wrong_names(names, self.channels, document, (*at, "routes")))
        return AlertPolicy(
            utilisation=float(section.utilisation),
            clear=float(section.clear),
            for_ms=section.for_,
            objective=float(section.objective),
            routes=names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertingBuilder:
    """
    Builds the gateway's own way to on-call.

    Attributes:
        folder: Of gateway.yaml.
        routed: Channels that operations name; None is not known.

    """

    shaped: Shaped[GatewayFile]
    folder: Path
    routed: frozenset[str] | None
    problems: list[Problem]

    def build(self, section: AlertingSection) -> Alerting:
        channels = {name: self._channel(name, channel) for name, channel in (section.channels or {}).items()}
        known = stated_channels(self.shaped)
        routes = tuple(self._route(index, route, known) for index, route in enumerate(section.routes or ()))
        self._check_severities(routes)
        self._check_reached(channels, routes)
        if section.repeat < section.group_interval and not self.shaped.is_broken(("alerts",)):
            self._add(
                ("alerts", "repeat" if "repeat" in section.model_fields_set else "group_interval"),
                f"`repeat` {format_duration(section.repeat)} is less than `group_interval` "
                f"{format_duration(section.group_interval)}, which lies between two messages in any case",
            )
        return Alerting(
            channels=channels,
            routes=routes,
            group_wait_ms=section.group_wait,
            group_interval_ms=section.group_interval,
            keep_ms=section.keep,
            repeat_ms=section.repeat,
            runbooks=section.runbooks or "",
            dashboards=section.dashboards or "",
        )

    def _channel(self, name: str, section: ChannelSection) -> Channel:
        at: Loc = ("alerts", "channels", name)
        kind = ChannelType(section.type)
        self._check_fields(at, name, kind, section)
        url = section.url or ""
        secrets: tuple[str, ...] = ()
        if kind is ChannelType.SLACK and section.url_file is not None:
            url = self._secret((*at, "url_file"), section.url_file, _slack_url) or ""
        elif kind is ChannelType.PAGERDUTY:
            url = url or PAGERDUTY_URL
            if section.routing_key_file is not None:
                secrets = (
                    self._secret((*at, "routing_key_file"), section.routing_key_file, _routing_key) or ()
                )
        elif kind is ChannelType.WEBHOOK and section.secret_file is not None:
            secrets = self._secret((*at, "secret_file"), section.secret_file, parse_webhook_secrets) or ()
        return Channel(name=name, type=kind, url=url, secrets=secrets)

    def _check_fields(self, at: Loc, name: str, kind: ChannelType, section: ChannelSection) -> None:
        if self.shaped.is_broken(at):
            return
        required = _REQUIRED[kind]
        stated = {field for field in section.model_fields_set if getattr(section, field) is not None}
        foreign = sorted(stated - {"type", required, _OPTIONAL.get(kind)})
        for field in foreign:
            message = f"`{field}` has no effect with `type: {kind}`: leave it out"
            if kind is ChannelType.SLACK and field == "url":
                message = (
                    "the URL of Slack's incoming webhook is a secret: put it into a file and state `url_file`"
                )
            self._add((*at, field), message, at_key=True)
        if required not in stated and not foreign:
            self._add(at, f"channel '{name}' needs `{required}`, as it is of `type: {kind}`")
        elif kind is ChannelType.WEBHOOK and "secret_file" not in stated and section.url is not None:
            host = urlsplit(section.url).hostname or ""
            if not _is_this_machine(host):
                self._add(
                    at,
                    f"channel '{name}' needs `secret_file`: {host} could not tell our messages from others' "
                    "(only to this machine they may go unsigned)",
                )

    def _route(self, index: int, section: RouteSection, known: tuple[str, ...] | None) -> Route:
        at: Loc = ("alerts", "routes", index)
        backup = tuple(section.backup or ())
        for field, names in (("to", tuple(section.to)), ("backup", backup)):
            self.problems.extend(_wrong_names(names, known, self.shaped.document, (*at, field)))
        for place, name in enumerate(backup):
            if name in section.to:
                self._add(
                    (*at, "backup", place), f"'{name}' is told first already: a backup is another channel"
                )
        if "backup_after" in section.model_fields_set and not backup and not self.shaped.is_broken(at):
            self._add((*at, "backup_after"), "`backup_after` has no effect without `backup`", at_key=True)
        return Route(
            severity=Severity(section.severity),
            to=tuple(section.to),
            backup=backup,
            backup_after_ms=section.backup_after,
        )

    def _check_severities(self, routes: tuple[Route, ...]) -> None:
        seen: set[Severity] = set()
        for index, route in enumerate(routes):
            if route.severity in seen:
                self._add(
                    ("alerts", "routes", index, "severity"),
                    f"two routes are for '{route.severity}': name all channels in one",
                )
            seen.add(route.severity)

    def _check_reached(self, channels: Mapping[str, Channel], routes: tuple[Route, ...]) -> None:
        """A channel that nothing leads to was meant for somebody, who would wait for ever."""
        named = {name for route in routes for name in (*route.to, *route.backup)}
        # A name that is misspelt has been said already, and so has all else that is wrong there.
        if self.routed is None or self.shaped.is_broken(("alerts",)) or not named <= set(channels):
            return
        for name in channels:
            if name not in named | self.routed:
                self._add(
                    ("alerts", "channels", name),
                    f"no route names the channel '{name}', so nobody is ever told there: name it in "
                    "`alerts.routes`, here or of an operation, or leave it out",
                    at_key=True,
                )

    def _secret(self, at: Loc, file: str, parse: Callable[[str], _Read]) -> _Read | None:
        path = self.folder / file
        try:
            text = read_secret(path)
        except ValueError as error:
            self._add(at, f"`{at[-1]}`: {error}")
            return None
        try:
            return parse(text)
        except ValueError as error:
            self._add(at, f"`{at[-1]}`: {path} {error}")
            return None

    def _add(self, at: Loc, message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.shaped.document.problem(at, message, at_key=at_key))


def _wrong_names(
    names: tuple[str, ...], known: tuple[str, ...] | None, document: Document, at: Loc
) -> Iterator[Problem]:
    """Channels that are not there, or stand twice in one list."""
    for place, name in enumerate(names):
        if known is not None and name not in known:
            near = did_you_mean(name, known) if known else ": gateway.yaml has no `alerts.channels`"
            yield document.problem((*at, place), f"unknown channel '{name}'{near}")
        elif name in names[:place]:
            yield document.problem((*at, place), f"'{name}' stands twice: once is enough")


def _slack_url(text: str) -> str:
    try:
        return check_web_url(text)
    except ValueError:
        # The reason would quote the URL.
        raise ValueError(
            "does not hold one http or https URL, such as that of an incoming webhook of Slack"
        ) from None


def _routing_key(text: str) -> tuple[str, ...]:
    if not re.fullmatch(r"[!-~]{1,200}", text):
        raise ValueError("does not hold one routing key: a word of plain characters")
    return (text,)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
