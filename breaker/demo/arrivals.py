"""
Arrivals: the messages about alerts that the receiver took, and what of them is shown.

The first message of each way, and the first about each alert, is shown in full, as a person on call reads it. What comes after -
the same by the other way, again, or that it has ended - is one line: a demonstration that stays up must not bury what matters.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

GATEWAY, ALERTMANAGER = "the gateway itself", "Prometheus and Alertmanager"
OVER_CAPACITY = "BreakerOverCapacity"
_FIRING = ("firing", "repeated", "acknowledged")
_NUMBERS_MAX = 5  # the newest messages of each way that are told of one alert


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    One alert of a message.

    Attributes:
        operation, about: Empty where it has none; `about` is a band or a channel.
        action: The first command.

    """

    name: str
    severity: str
    operation: str = ""
    about: str = ""
    action: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.name, self.severity, self.operation, self.about

    def __str__(self) -> str:
        of = ", ".join(filter(None, (self.operation, self.about)))
        return f"{self.name} ({of})" if of else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """
    A message that arrived.

    Attributes:
        number: From 1, in the order of arrival.
        way: Who sent it.
        kind: firing, repeated, acknowledged, resolved or test.
        text: What a person reads.

    """

    number: int
    way: str
    kind: str
    text: str
    alerts: tuple[Alert, ...]

    def headline(self) -> str:
        """In one line."""
        told = ", ".join(map(str, self.alerts)) or "no alert"
        return f"message {self.number} from {self.way}: {self.kind} {told}"


def arrival_of(shown: Mapping[str, Any]) -> Arrival:
    """As the receiver tells it."""
    return Arrival(**{**shown, "alerts": tuple(Alert(**each) for each in shown["alerts"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of one alert: whether it fires by what was told last, and the messages about it, by their way."""

    alert: Alert
    is_firing: bool
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Arrivals:
    """
    All that arrived.

    Attributes:
        count: How many messages.
        states: By alert, in the order in which they were first told.

    """

    def __init__(self) -> None:
        self.count = 0
        self.states: dict[tuple[str, str, str, str], State] = {}
        self._ways: set[str] = set()
        self._over_capacity: dict[str, set[str]] = {}

    def take(self, arrivals: Iterable[Arrival]) -> list[tuple[str, str]]:
        """
        These are new.

        Returns:
            For each the line about it, and the text that a person reads; empty where one line is enough.

        """
        told = []
        for arrival in arrivals:
            self.count = max(self.count, arrival.number)
            is_new = arrival.way not in self._ways or any(
                alert.key not in self.states for alert in arrival.alerts
            )
            self._ways.add(arrival.way)
            told.append((arrival.headline(), arrival.text if is_new else ""))
            for alert in arrival.alerts:
                self._note(arrival, alert)
        return told

    def _note(self, arrival: Arrival, alert: Alert) -> None:
        before = self.states.get(alert.key)
        numbers = dict(before.numbers) if before else {}
        numbers[arrival.way] = (*numbers.get(arrival.way, ()), arrival.number)[-_NUMBERS_MAX:]
        self.states[alert.key] = State(alert=alert, is_firing=arrival.kind in _FIRING, numbers=numbers)
        if alert.name == OVER_CAPACITY and arrival.kind == "firing" and _can_be_acted_on(arrival, alert):
            self._over_capacity.setdefault(arrival.way, set()).add(alert.operation)

    def over_capacity_by(self, way: str) -> frozenset[str]:
        """Operations of which this way has told that they are over capacity, and what to do first."""
        return frozenset(self._over_capacity.get(way, ()))


def _can_be_acted_on(arrival: Arrival, alert: Alert) -> bool:
    """Its text names the operation and a command, so that who reads nothing else can begin."""
    # Several operations of a team come in one message, with the first command for the first of them.
    commands = [each.action for each in arrival.alerts if each.action]
    return (
        bool(alert.operation)
        and alert.operation in arrival.text
        and any(command in arrival.text for command in commands)
    )
