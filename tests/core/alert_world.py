"""Readings, incidents and desks with the boring fields filled in, for tests of alerts."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from breaker.core.alert_policy import Alerting, Channel, ChannelType, Route, Severity
from breaker.core.alerts import Incident, Level, Moved, Reading, Stage
from breaker.core.notify import Ack, Desk, Letter, Plan, Said, Silence, plan

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOW = 1_800_000_000 * SECOND
KEEP = 5 * MINUTE
HIGH, BETWEEN, LOW = Level.HIGH, Level.BETWEEN, Level.LOW

OVER = "BreakerOverCapacity:warning"
RISK = "BreakerPromiseAtRisk:critical"
REFUSING = "BreakerRefusing:critical"
CIRCUIT = "BreakerCircuitOpen:warning"
CIRCUIT_LONG = "BreakerCircuitOpen:critical"
BURN = "BreakerErrorBudgetBurn:critical"
WATCHDOG = "BreakerWatchdog:none"

CHANNELS = {
    name: Channel(name=name, type=type_, url=f"https://{name}.example.com")
    for name, type_ in (
        ("am", ChannelType.ALERTMANAGER), ("pager", ChannelType.PAGERDUTY), ("chat", ChannelType.SLACK),
        ("hook", ChannelType.WEBHOOK),
    )
}  # fmt: skip
ALERTING = Alerting(
    channels=CHANNELS,
    routes=(
        Route(severity=Severity.CRITICAL, to=("pager", "chat"), backup=("hook",)),
        Route(severity=Severity.WARNING, to=("chat",)),
        Route(severity=Severity.NONE, to=("am",)),
    ),
)
DESK = Desk(alerting=ALERTING)
STILL = NOW + 1_000 * HOUR


def read(level: Level, alert: str = REFUSING, operation: str = "billing.charge", **more: Any) -> Reading:
    return Reading(alert=alert, level=level, operation=operation, team="finance", **more)


def fires(
    alert: str = REFUSING,
    operation: str = "billing.charge",
    *,
    at_us: int = NOW,
    true_us: int = STILL,
    about: str = "",
    team: str = "finance",
    told: Mapping[str, int] | None = None,
) -> Incident:
    """One that has been firing since `at_us`, and is true at whatever moment a test looks."""
    return Incident(
        id=":".join(filter(None, (alert, operation, about))), alert=alert, operation=operation, about=about, team=team,
        stage=Stage.FIRING, since_us=at_us, fired_us=at_us, true_us=true_us, told=told or {},
    )  # fmt: skip


def pending(incident: Incident) -> Incident:
    return replace(incident, stage=Stage.PENDING, fired_us=0)


def moved(*firing: Incident, ended: Iterable[Incident] = ()) -> Moved:
    return Moved(living={incident.id: incident for incident in firing}, ended=tuple(ended))


def planned(
    *firing: Incident,
    ended: Iterable[Incident] = (),
    groups: Mapping[str, int] | None = None,
    said: Said | None = None,
    desk: Desk = DESK,
    now_us: int = NOW + HOUR,
) -> Plan:
    return plan(moved(*firing, ended=ended), groups or {}, said or Said(), desk, now_us)


def told(found: Plan | Iterable[Letter]) -> list[tuple[str, str, list[str]]]:
    """(channel, kind, incidents) of each letter."""
    letters = found.letters if isinstance(found, Plan) else found
    return [(made.channel, str(made.kind), [known.id for known in made.incidents]) for made in letters]


def ack(incident: Incident, *, at_us: int, reason: str = "") -> Said:
    return Said(acks={incident.id: Ack(since_us=incident.since_us, author="ann", reason=reason, at_us=at_us)})


def silence(
    *, alert: str = "*", operation: str = "*", from_us: int = NOW, until_us: int = NOW + 2 * HOUR
) -> Said:
    return Said(
        silences=[
            Silence(
                id="1", alert=alert, operation=operation, author="ann", reason="known", from_us=from_us, until_us=until_us
            )
        ]
    )  # fmt: skip
