"""An outbox on a clock that a test moves, and senders that answer as a test says: fakes at the network's edge."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from breaker.core.alert_policy import Alerting
from breaker.core.events import Event, LetterEnded
from breaker.core.notify import Kind, Letter
from breaker.signals.channels import Answer, Message, Sender, Taken
from breaker.signals.outbox import Outbox
from breaker.store.alert_book import Entry
from tests.core.alert_world import ALERTING, NOW, fires

SECOND = 1_000_000
MINUTE = 60 * SECOND
Answers = list[Answer | Exception]


class Script:
    """
    The receivers behind all channels.

    Attributes:
        answers: By channel, what they say next; afterwards they take all.
        sent: (channel, message) in the order in which they came.
        gate: While it is there, nobody answers.

    """

    def __init__(self) -> None:
        self.answers: dict[str, Answers] = defaultdict(list)
        self.always: dict[str, Answer] = {}
        self.sent: list[tuple[str, Message]] = []
        self.gate: asyncio.Event | None = None

    def sender(self, channel: str) -> Sender | None:
        return ScriptedSender(self, channel)

    def heard(self, channel: str) -> list[tuple[str, list[str]]]:
        """(kind, incidents) of what it was sent."""
        return [
            (str(message.kind), [notice.id for notice in message.notices])
            for name, message in self.sent
            if name == channel
        ]

    def ids(self, channel: str) -> list[str]:
        return [message.id for name, message in self.sent if name == channel]


@dataclass
class ScriptedSender:
    script: Script
    channel: str

    async def send(self, message: Message) -> Answer:
        if self.script.gate:
            await self.script.gate.wait()
        self.script.sent.append((self.channel, message))
        said = self.script.answers[self.channel]
        answer = said.pop(0) if said else self.script.always.get(self.channel, Taken())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """There is no connection."""


@dataclass
class Post:
    """
    An outbox, its receivers, its clock, and what it kept and told.

    Attributes:
        kept: The store's side: what would be brought by the next steward.

    """

    script: Script = field(default_factory=Script)
    alerting: Alerting = ALERTING
    now_us: int = NOW
    kept: dict[str, Entry] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    bugs: list[BaseException] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.outbox = Outbox(
            cluster="production", alerting=lambda: self.alerting,
            sender=lambda name: None if name in self.gone else self.script.sender(name),
            keep=self.keep, emit=self.events.append, now_us=lambda: self.now_us, on_bug=self.bugs.append,
        )  # fmt: skip

    async def keep(self, changes: Mapping[str, Entry | None]) -> None:
        for id_, entry in changes.items():
            if entry:
                self.kept[id_] = entry
            else:
                self.kept.pop(id_, None)

    def post(self, *letters: Letter) -> None:
        """As the evaluator does: they stand in the store before they are brought."""
        entries = [Entry(letter=letter) for letter in letters]
        self.kept |= {entry.letter.id: entry for entry in entries}
        self.outbox.post(entries)

    async def after(self, seconds: float) -> None:
        """So much later, what is due is brought; all of it, one after the other."""
        self.now_us += round(seconds * SECOND)
        before = -1
        while before != len(self.script.sent):
            before = len(self.script.sent)
            self.outbox.deliver()
            await self.outbox.finish()

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(event.channel, event.result) for event in self.events if isinstance(event, LetterEnded)]


def letter(
    id_: str,
    channel: str = "pager",
    kind: Kind = Kind.FIRING,
    *,
    operations: tuple[str, ...] = ("billing.charge",),
    made_us: int = NOW,
    backup: tuple[str, ...] = (),
) -> Letter:
    return Letter(
        id=id_, channel=channel, kind=kind, incidents=tuple(fires(operation=operation) for operation in operations),
        made_us=made_us, backup=backup, backup_us=made_us + MINUTE if backup else 0,
    )  # fmt: skip


def without_alertmanager() -> Alerting:
    return replace(
        ALERTING, channels={name: known for name, known in ALERTING.channels.items() if name != "am"}
    )
