"""
Alerts: how one begins, goes on and ends.

    (nothing) -> pending -> firing -> (nothing)

1. It is pending from when its condition is first met, and fires when that has lasted for its `for`. What falls below the
   threshold meanwhile was nothing.
2. Once it fires, only a reading below the lower threshold counts against it; between the two it goes on.
3. It ends when it was not true for so long as the gateway keeps alerts, or a multiple of that. So what flaps around a threshold is one incident, told once.
4. What was not read says nothing: an incident neither begins nor ends for want of a reading.

Times are integer microseconds of one clock, which the caller chooses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from breaker.core.alert_policy import Severity
from breaker.core.alert_table import BY_KEY, Alert

KEEP_US = 300_000_000


class Level(StrEnum):
    """Where a reading stands between the threshold at which an alert begins, and the one below which it ends."""

    LOW = "low"
    BETWEEN = "between"
    HIGH = "high"


class Stage(StrEnum):
    """Where an incident is; one that has ended is no more."""

    PENDING = "pending"
    FIRING = "firing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    What was seen of one alert's condition, for one operation, band or channel.

    Attributes:
        alert: Key of its row in the table.
        operation, about: What it is about; `about` is the band or the channel; empty where the alert has none.
        team: Who owns the operation; empty for what concerns all.
        values: For the words of the table, by field.
        for_us: Instead of the table's, where the operation has its own.

    """

    alert: str
    level: Level
    operation: str = ""
    about: str = ""
    team: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    for_us: int | None = None

    @property
    def id(self) -> str:
        return ":".join(filter(None, (self.alert, self.operation, self.about)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """
    One alert for one operation, from when it became pending until it has ended.

    Attributes:
        since_us: When its condition was first met; it tells one incident from the next of the same id.
        fired_us: When it fired; 0 while it is pending.
        true_us: When its condition was last met.
        values: As last read.
        told: By channel, when that was last told of it.

    """

    id: str
    alert: str
    operation: str
    about: str
    team: str
    stage: Stage
    since_us: int
    fired_us: int = 0
    true_us: int
    values: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)

    @property
    def row(self) -> Alert:
        return BY_KEY[self.alert]

    @property
    def severity(self) -> Severity:
        return self.row.severity


def step(incident: Incident | None, reading: Reading, now_us: int, keep_us: int = KEEP_US) -> Incident | None:
    """
    The incident after this reading; None: there is none, or it has ended.

    Args:
        keep_us: The gateway's, of which rows of the table may have a multiple.

    """
    row = BY_KEY[reading.alert]
    for_us = round((row.for_s or 0) * 1e6) if reading.for_us is None else reading.for_us
    if incident is None:
        if reading.level is not Level.HIGH:
            return None
        incident = Incident(
            id=reading.id, alert=reading.alert, operation=reading.operation, about=reading.about, team=reading.team,
            stage=Stage.PENDING, since_us=now_us, true_us=now_us, values=reading.values,
        )  # fmt: skip
    if incident.stage is Stage.PENDING:
        if reading.level is not Level.HIGH:
            return None  # rule 1
        incident = replace(incident, true_us=now_us, values=reading.values)
        if now_us - incident.since_us >= for_us:
            return replace(incident, stage=Stage.FIRING, fired_us=now_us)
        return incident
    if reading.level is not Level.LOW:
        return replace(incident, true_us=now_us, values=reading.values, team=reading.team)  # rule 2
    if now_us - incident.true_us >= row.keep * keep_us:
        return None  # rule 3
    return incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a round of readings changed: all that lives now, and what fired before and has ended."""

    living: Mapping[str, Incident]
    ended: tuple[Incident, ...]


def move(
    living: Mapping[str, Incident], readings: Iterable[Reading], now_us: int, keep_us: int = KEEP_US
) -> Moved:
    """All incidents after these readings; those that nothing was read of stay as they are (rule 4)."""
    after, ended = dict(living), []
    for reading in readings:
        was = after.pop(reading.id, None)
        now = step(was, reading, now_us, keep_us)
        if now:
            after[now.id] = now
        elif was and was.stage is Stage.FIRING:
            ended.append(was)
    return Moved(living=after, ended=tuple(ended))
