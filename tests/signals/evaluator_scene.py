"""
Replicas that judge, beside a real store: who is the steward, what is seen and what time it is, a test decides.

Only the receivers are made up: each channel keeps what it was sent, and answers as it is told to.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from breaker.core.alert_policy import Alerting, Channel, ChannelType, Route, Severity
from breaker.core.config import StoreSettings
from breaker.core.errors import StoreTimeoutError
from breaker.core.events import Event
from breaker.core.ids import base32
from breaker.core.model import Operation
from breaker.core.notify import Kind
from breaker.signals.channels import Answer, Message, Taken
from breaker.signals.evaluator import Evaluator
from breaker.signals.evidence import Known
from breaker.signals.noted import Noted
from breaker.signals.outbox import Outbox
from breaker.signals.sights import Sight, Sights
from breaker.signals.tally import Tally
from breaker.store.alert_book import AlertBook, Change
from breaker.store.capacity import CapacityStore, CircuitLook
from breaker.store.connection import open_client
from breaker.store.keys import cluster_key
from breaker.store.steward import Stewardship
from breaker.store.tallies import Tallied, Tallies
from tests.signals.scene import look, named, queue_look

CHARGE, REFUND = "billing.charge", "billing.refund"
SECOND, MINUTE = 1_000_000, 60_000_000
START_US = 1_800_000_000 * SECOND
HOOK = Channel(name="hook", type=ChannelType.WEBHOOK, url="http://127.0.0.1:9")
BACKUP = Channel(name="backup", type=ChannelType.WEBHOOK, url="http://127.0.0.1:9")


def alerting(*channels: Channel, backup: tuple[str, ...] = (), to: tuple[str, ...] = ()) -> Alerting:
    """Criticals and warnings go to these channels, else the first of them, at once."""
    known = {channel.name: channel for channel in channels or (HOOK,)}
    routes = tuple(
        Route(severity=severity, to=to or (next(iter(known)),), backup=backup)
        for severity in (Severity.CRITICAL, Severity.WARNING)
    )
    return Alerting(channels=known, routes=routes, group_wait_ms=0)


def sight(**numbers: Any) -> Sight:
    """An operation that is well, but for what its queue or its circuit is said to be."""
    circuit = CircuitLook(state=numbers.pop("circuit")) if "circuit" in numbers else None
    return Sight(look=look(circuit=circuit, quota_used=0, in_use=0), queue=queue_look(**numbers))


@dataclass(slots=True)
class Wire:
    """
    Where a test cuts the exchanges with the store: the one with this number, counted from 1, is lost.

    Attributes:
        loses_answers: It happens, and nobody hears of it; else it does not happen.

    """

    number: int = 0
    loses_answers: bool = False
    count: int = 0

    def is_cut(self) -> bool:
        self.count += 1
        return self.count == self.number


class CutBook(AlertBook):
    """A book behind a wire."""

    def __init__(self, client: AsyncRedis, cluster: str, wire: Wire) -> None:
        super().__init__(client, cluster)
        self.wire = wire

    async def enter(self, term: int, changes: Iterable[Change]) -> bool:
        is_cut = self.wire.is_cut()
        if is_cut and not self.wire.loses_answers:
            raise StoreTimeoutError("cut")
        done = await super().enter(term, changes)
        if is_cut:
            raise StoreTimeoutError("cut")
        return done

    async def _hash(self, number: int) -> Any:
        if self.wire.is_cut():
            raise StoreTimeoutError("cut")
        return await super()._hash(number)


class CutTallies(Tallies):
    """
    Tallies behind a wire.

    Attributes:
        cut: Operations whose node is away.
        asked: Whether the windows were asked for, of each question.

    """

    cut: tuple[str, ...] = ()

    def __init__(self, capacity: CapacityStore) -> None:
        super().__init__(capacity)
        self.asked: list[bool] = []

    async def add(self, operation: str, counts: Mapping[str, int], now_us: int | None = None) -> None:
        if operation in self.cut:
            raise StoreTimeoutError("cut")
        await super().add(operation, counts, now_us)

    async def read(self, operation: str, *, is_long: bool, now_us: int | None = None) -> Tallied:
        self.asked.append(is_long)
        if operation in self.cut:
            raise StoreTimeoutError("cut")
        return await super().read(operation, is_long=is_long, now_us=now_us)


@dataclass(slots=True)
class Receiver:
    """
    A channel's other end.

    Attributes:
        answers: The next ones; then it takes all.
        got: What arrived, also what it did not take.
        told: What it took: kind and incident.

    """

    answers: list[Answer] = field(default_factory=list)
    got: list[Message] = field(default_factory=list)
    told: list[tuple[Kind, str]] = field(default_factory=list)

    async def send(self, message: Message) -> Answer:
        self.got.append(message)
        answer = self.answers.pop(0) if self.answers else Taken()
        if isinstance(answer, Taken):
            self.told += [(message.kind, notice.id) for notice in message.notices]
        return answer

    async def close(self) -> None:
        """Nothing to hang up."""

    def count(self, kind: Kind, incident: str) -> int:
        return self.told.count((kind, incident))


@dataclass(slots=True)
class World:
    """What all replicas see alike, and who of them is the steward."""

    redis: Redis
    cluster: str
    alerting: Alerting = field(default_factory=alerting)
    operations: dict[str, Operation] = field(default_factory=lambda: named(queues=(CHARGE,)))
    receivers: dict[str, Receiver] = field(default_factory=lambda: {"hook": Receiver(), "backup": Receiver()})
    now_us: int = START_US
    differing: int = 0
    sights: Sights = field(default_factory=lambda: Sights(operations={CHARGE: sight()}))
    term: int = 0

    @property
    def hook(self) -> Receiver:
        return self.receivers["hook"]

    def elect(self, judge: "Judge", *losers: "Judge") -> None:
        """The store has elected this one; the losers know it already."""
        self.term += 1
        self.redis.hset(self._key("steward"), "term", self.term)
        judge.stewardship = Stewardship(term=self.term, since_us=self.now_us)
        for loser in losers:
            loser.stewardship = None

    def written(self, name: str) -> dict[str, str]:
        """A hash of the book, as it stands in the store."""
        found: Any = self.redis.hgetall(self._key(name))
        return {field_.decode(): text.decode() for field_, text in found.items()}

    def _key(self, name: str) -> str:
        return cluster_key(self.cluster, name)

    def see(self, **numbers: Any) -> None:
        """How the first operation is."""
        self.sights = replace(self.sights, operations={**self.sights.operations, CHARGE: sight(**numbers)})


class Judge:
    """One replica's evaluator."""

    def __init__(self, world: World, book: CutBook, capacity: CapacityStore) -> None:
        self.world, self.book, self.events = world, book, list[Event]()
        self.bugs: list[BaseException] = []
        self.stewardship: Stewardship | None = None
        self.tally, self.tallies = Tally(), CutTallies(capacity)
        self.noted = Noted(capacity.replica, lambda: world.now_us)
        outbox = Outbox(
            cluster="production", alerting=lambda: world.alerting, sender=self._sender, keep=self._keep,
            emit=self.events.append, now_us=lambda: world.now_us, on_bug=self.bugs.append,
        )  # fmt: skip
        known = Known(
            operations=lambda: world.operations, alerting=lambda: world.alerting, now_us=lambda: world.now_us,
            stewardship=lambda: self.stewardship, differing=lambda: world.differing,
        )  # fmt: skip
        self.evaluator = Evaluator(
            cluster="production", book=book, tallies=self.tallies, tally=self.tally, noted=self.noted, outbox=outbox,
            known=known, emit=self.events.append, on_bug=self.bugs.append, now_s=lambda: world.now_us / 1e6,
        )  # fmt: skip

    def _sender(self, channel: str) -> Receiver | None:
        return self.world.receivers.get(channel) if channel in self.world.alerting.channels else None

    async def _keep(self, changes: Any) -> None:
        await self.evaluator.keep(changes)

    async def passes(self, *seconds: float) -> None:
        """A pass of the watch after each of these times, and what is due is brought."""
        for one in seconds or (0,):
            self.world.now_us += round(one * SECOND)
            await self.evaluator.on_pass(self.world.sights)
            await self.deliver()

    async def tell(self, seconds: float = 0) -> None:
        """What happens each second."""
        self.world.now_us += round(seconds * SECOND)
        await self.evaluator.tell()
        await self.deliver()

    async def deliver(self) -> None:
        """Bring what is due now, one after the other, and wait until all of it was taken or not."""
        for _ in range(20):
            self.evaluator.deliver()
            await self.evaluator.outbox.finish()
        assert self.bugs == []

    def firing(self) -> set[str]:
        """Of what people are told; the watchdog always fires."""
        return {
            id_
            for id_, incident in self.evaluator.living.items()
            if incident.fired_us and incident.severity != "none"
        }


@asynccontextmanager
async def judges(world: World, store_url: str, *wires: Wire) -> AsyncIterator[list[Judge]]:
    """So many replicas, each behind its wire."""
    settings = StoreSettings(url=store_url, timeout_ms=2_000)
    client = open_client(settings)
    stores = []
    try:
        made = []
        for wire in wires:
            capacity = CapacityStore(
                settings, cluster=world.cluster, replica=base32(secrets.randbits(40), 8), emit=lambda _: None
            )
            stores.append(capacity)
            await capacity.start(world.operations, "v1")
            made.append(Judge(world, CutBook(client, world.cluster, wire), capacity))
        yield made
    finally:
        for store in stores:
            await store.close()
        await client.aclose()
