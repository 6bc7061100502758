"""
Channels: what a way to on-call is, to those that send.

A channel makes one attempt and says what came of it; when it is tried again, and who is told instead, is decided by the
outbox. Each stands in a file of its own, `channel_*.py`.
"""

from dataclasses import dataclass
from typing import Protocol

from breaker.core.notice import Notice
from breaker.core.notify import Kind

SEND_S = 10.0  # for one attempt, connection included
ANSWER_MAX = 4_096  # bytes of an answer that are read, for the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    A letter in words.

    Attributes:
        id: The same over all attempts.
        kind: What it says of the notices.
        notices: One alert of one team, for one or more operations; at least one, but of a test.
        detail: Who acknowledged and why, or what a test says.
        made_us: When it was made, unix time.

    """

    id: str
    cluster: str
    kind: Kind
    notices: tuple[Notice, ...]
    detail: str = ""
    made_us: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class Later:
    """It did not take it now; `after_s` when it said how long to wait, else 0."""

    detail: str
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Never:
    """It will not take this message, however often it is sent."""

    detail: str


Answer = Taken | Later | Never


class Sender(Protocol):
    """One configured channel."""

    async def send(self, message: Message) -> Answer:
        """One attempt, within `SEND_S`; never raises for what a network or a receiver does."""

    async def close(self) -> None:
        """Hang up."""
