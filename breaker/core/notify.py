"""
Notify: who is told of which incidents, and when.

`plan` is a plain function of what fires, what has ended, what people said, and what was told before. It makes letters;
the outbox delivers them.

1. An incident goes to its operation's own channels, else to those of the route of its severity.
2. A channel hears of the incidents of one alert and one team together: of the first after `group_wait`, of more
   no sooner than `group_interval` after the last letter.
3. What is silenced, or inhibited by what is no less severe, is not told. If it still fires when that ends, it is told then.
4. What was told is told again every `repeat`, until somebody acknowledges it. The acknowledgement is told once.
5. The end is told to whoever was told the beginning, at once and in any case; to nobody else.
6. Only a beginning has a backup: who was told in its place is told of the end as well, by rule 5.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256

from breaker.core.alert_policy import Alerting, ChannelType, Route, Severity
from breaker.core.alert_table import INHIBITIONS
from breaker.core.alerts import Incident, Moved, Stage

SAME_OUTAGE_US = (
    600_000_000  # a replica that is cut off again knows no other episode, and is to be heard again
)


RANKS = {Severity.NONE: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


TRUE_US = 15_000_000  # what was not true for so long is only kept, lest it flap: nobody is told its beginning any more


class Kind(StrEnum):
    """What a letter says."""

    FIRING = "firing"
    REPEATED = "repeated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """
    A person has seen an incident.

    Attributes:
        since_us: Of the incident, so that the next one of the same id is told again.

    """

    since_us: int
    author: str
    reason: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """
    What nobody wants to hear of for a while. It always ends.

    Attributes:
        alert, operation: Names, in which `*` stands for any part.

    """

    id: str
    alert: str
    operation: str
    author: str
    reason: str
    from_us: int
    until_us: int

    def covers(self, incident: Incident, now_us: int) -> bool:
        return (
            self.from_us <= now_us < self.until_us
            and fnmatchcase(incident.row.name, self.alert)
            and fnmatchcase(incident.operation, self.operation)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """
    One message to one channel, as it was when it was made.

    Attributes:
        id: The same over all attempts, and over the replicas that may send it: receivers know it again.
        incidents: Of one alert and team.
        made_us: When it was made; letters of a channel are delivered in this order.
        detail: Who acknowledged and why, or what a test says.
        backup: Channels that get it as well when it is not delivered by `backup_us`.

    """

    id: str
    channel: str
    kind: Kind
    incidents: tuple[Incident, ...]
    made_us: int
    detail: str = ""
    backup: tuple[str, ...] = ()
    backup_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What people said of incidents."""

    acks: Mapping[str, Ack] = field(default_factory=dict)
    silences: Sequence[Silence] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What is to be told, and what is known to be told afterwards.

    Attributes:
        living: The incidents, with whom was told.
        groups: When a channel last had a letter of a group.

    """

    letters: tuple[Letter, ...]
    living: Mapping[str, Incident]
    groups: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """
    Who can be told.

    Attributes:
        own_routes: By operation, its own channels.
        elsewhere: Alerts that fire and are told by somebody else, but inhibit ours.
        episode: What replicas that cannot talk to each other know alike of this outage; empty: we speak for all.

    """

    alerting: Alerting
    own_routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    episode: str = ""

    def route(self, incident: Incident) -> Route:
        """Rule 1; one to nobody when there is none."""
        own = self.own_routes.get(incident.operation, ())
        if own and incident.severity is not Severity.NONE:
            return Route(severity=incident.severity, to=own)
        found = (route for route in self.alerting.routes if route.severity is incident.severity)
        return next(found, Route(severity=incident.severity, to=()))


def plan(moved: Moved, groups: Mapping[str, int], said: Said, desk: Desk, now_us: int) -> Plan:
    """
    What is to be told now.

    Args:
        moved: What fires, and what has just ended.
        groups: As of the plan before.

    """
    living, sent = dict(moved.living), dict(groups)
    letters: list[Letter] = []
    firing = [incident for incident in living.values() if incident.stage is Stage.FIRING]
    heard = audible(firing, said, desk, now_us)
    gathered: dict[tuple[str, str], list[Incident]] = defaultdict(list)
    for incident in heard:
        for channel in desk.route(incident).to:
            if channel in desk.alerting.channels:
                gathered[channel, group_of(incident)].append(incident)
    for (channel, group), members in gathered.items():
        for kind, incidents in due(members, channel, sent.get(f"{channel} {group}"), said, desk, now_us):
            letters.append(letter(kind, channel, incidents, desk, now_us))
            sent[f"{channel} {group}"] = now_us
            for incident in incidents:
                known = living[incident.id]
                living[incident.id] = replace(known, told={**known.told, channel: now_us})
    for told in acknowledged(firing, said, desk, now_us):
        letters.append(told)
        known = living[told.incidents[0].id]
        living[known.id] = replace(known, told={**known.told, told.channel: now_us})
    letters += endings(moved.ended, desk, now_us)
    alive = {
        f"{channel} {group_of(incident)}"
        for incident in living.values()
        for channel in desk.alerting.channels
    }
    # A group that has nobody left begins anew, but not sooner than its interval allows.
    horizon_us = now_us - desk.alerting.group_interval_ms * 1_000
    sent = {group: at_us for group, at_us in sent.items() if group in alive or at_us > horizon_us}
    return Plan(letters=tuple(letters), living=living, groups=sent)


def audible(firing: Iterable[Incident], said: Said, desk: Desk, now_us: int) -> list[Incident]:
    """Rule 3: what fires, and is neither silenced nor inhibited."""
    firing = list(firing)
    return [
        incident
        for incident in firing
        if not any(silence.covers(incident, now_us) for silence in said.silences)
        and not is_inhibited(incident, firing, desk.elsewhere)
    ]


def is_inhibited(incident: Incident, firing: Iterable[Incident], elsewhere: Iterable[str] = ()) -> bool:
    """Whether something that fires, and is no less severe, says all that this would."""
    name = incident.row.name
    louder = [other for other in firing if RANKS[other.severity] >= RANKS[incident.severity]]
    for rule in INHIBITIONS:
        if name not in rule.these:
            continue
        if not rule.same_operation and any(other in rule.by for other in elsewhere):
            return True
        if any(
            other.row.name in rule.by and (not rule.same_operation or other.operation == incident.operation)
            for other in louder
        ):
            return True
    return incident.severity is Severity.WARNING and any(
        other.row.name == name
        and other.severity is Severity.CRITICAL
        and other.operation == incident.operation
        for other in firing
    )


def group_of(incident: Incident) -> str:
    """Rule 2."""
    return f"{incident.alert} {incident.team}"


def due(
    members: Sequence[Incident], channel: str, last_us: int | None, said: Said, desk: Desk, now_us: int
) -> list[tuple[Kind, tuple[Incident, ...]]]:
    """What one channel is told of one group now."""
    alerting = desk.alerting
    fresh = tuple(
        incident
        for incident in members
        if channel not in incident.told and now_us - incident.true_us < TRUE_US
    )
    again = tuple(
        incident
        for incident in members
        if channel in incident.told
        and now_us - incident.told[channel] >= repeat_us(incident, alerting)
        and not is_acknowledged(incident, said)
    )
    found: list[tuple[Kind, tuple[Incident, ...]]] = []
    if fresh and (
        now_us >= min(incident.fired_us for incident in fresh) + alerting.group_wait_ms * 1_000
        if last_us is None
        else now_us >= last_us + alerting.group_interval_ms * 1_000
    ):
        found.append((Kind.FIRING, fresh))
    if again:
        found.append((Kind.REPEATED, again))
    return found


def repeat_us(incident: Incident, alerting: Alerting) -> int:
    """A dead man's switch wants to hear of the watchdog all the time."""
    often = incident.severity is Severity.NONE
    return (alerting.group_interval_ms if often else alerting.repeat_ms) * 1_000


def is_acknowledged(incident: Incident, said: Said) -> bool:
    ack = said.acks.get(incident.id)
    return ack is not None and ack.since_us == incident.since_us


def acknowledged(firing: Iterable[Incident], said: Said, desk: Desk, now_us: int) -> list[Letter]:
    """Rule 4: acknowledgements, to whoever was told; Alertmanager has no word for them."""
    letters = []
    for incident in firing:
        ack = said.acks.get(incident.id)
        if ack is None or not is_acknowledged(incident, said):
            continue
        for channel, told_us in incident.told.items():
            known = desk.alerting.channels.get(channel)
            if known and known.type is not ChannelType.ALERTMANAGER and told_us < ack.at_us <= now_us:
                detail = f"{ack.author}: {ack.reason}" if ack.reason else ack.author
                letters.append(
                    replace(letter(Kind.ACKNOWLEDGED, channel, (incident,), desk, now_us), detail=detail)
                )
    return letters


def endings(ended: Iterable[Incident], desk: Desk, now_us: int) -> list[Letter]:
    """Rule 5."""
    gathered: dict[tuple[str, str], list[Incident]] = defaultdict(list)
    for incident in ended:
        for channel in incident.told:
            if channel in desk.alerting.channels:
                gathered[channel, group_of(incident)].append(incident)
    return [
        letter(Kind.RESOLVED, channel, tuple(incidents), desk, now_us)
        for (channel, _), incidents in gathered.items()
    ]


def letter(kind: Kind, channel: str, incidents: tuple[Incident, ...], desk: Desk, now_us: int) -> Letter:
    route = desk.route(incidents[0])
    backup = (
        tuple(name for name in route.backup if name not in route.to) if kind is Kind.FIRING else ()
    )  # rule 6
    return Letter(
        id=letter_id(kind, channel, incidents, desk, now_us), channel=channel, kind=kind, incidents=incidents,
        made_us=now_us, backup=backup, backup_us=now_us + route.backup_after_ms * 1_000 if backup else 0,
    )  # fmt: skip


def letter_id(kind: Kind, channel: str, incidents: tuple[Incident, ...], desk: Desk, now_us: int) -> str:
    """The same for the same message, also when replicas that cannot talk to each other make it."""
    fired_us = incidents[0].fired_us
    when = f"{desk.episode} {fired_us // SAME_OUTAGE_US} {(now_us - fired_us) // (desk.alerting.repeat_ms * 1_000)}"
    if not desk.episode:
        when = f"{now_us} " + " ".join(str(incident.since_us) for incident in incidents)
    told = " ".join([channel, kind, when, *(incident.id for incident in incidents)])
    return "alert-" + sha256(told.encode()).hexdigest()[:24]
