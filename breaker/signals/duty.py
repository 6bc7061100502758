"""
Duty: all of alerting in one replica, put together: what is counted and noted, who judges, and who brings the letters.

A quarter of a second is its pulse: letters that are due are sent, and once a second the replica looks whether it must speak
for itself. Judging for all follows the watch's passes. Channels change with a reload; what is on its way stays.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from breaker.core.alert_policy import Alerting, Channel
from breaker.core.alerts import Incident, Stage
from breaker.core.errors import StoreError
from breaker.core.events import (
    CallEnded,
    Event,
    JobAccepted,
    JobAttempted,
    JobStarted,
    LetterEnded,
    Listener,
    RoundTripEnded,
)
from breaker.core.notify import Kind
from breaker.signals.alert_metrics import AlertMetrics
from breaker.signals.channels import Answer, Message, Never, Sender, Taken
from breaker.signals.evaluator import Evaluator
from breaker.signals.evidence import Known
from breaker.signals.noted import Noted
from breaker.signals.outbox import LOOK_S, Keep, Outbox
from breaker.signals.own_voice import OwnVoice, in_memory
from breaker.signals.senders import sender_of
from breaker.signals.sights import Sights
from breaker.signals.tally import Tally
from breaker.store.alert_book import AlertBook, Entry
from breaker.store.ending import end
from breaker.store.tallies import Tallies

JUDGE_S = 1.0
COUNTED = frozenset({CallEnded, JobAttempted})
FREQUENT = frozenset({RoundTripEnded, JobAccepted, JobStarted})
# What was refused while the store was away is seen in the tallies for six minutes, and has been told.
SEEN_US = 390_000_000
CLOSE_S = 2.0  # for what lives in memory only, and for what is under way


def unix_us() -> int:
    return time.time_ns() // 1_000


class Duty:
    """
    One replica on duty.

    Attributes:
        evaluator: Judges for all while we are the steward.
        voice: Speaks for ourselves while there is no store.

    """

    def __init__(
        self,
        *,
        cluster: str,
        replica: str,
        book: AlertBook,
        tallies: Tallies,
        known: Known,
        replicas: Callable[[], Awaitable[list[str]]],
        episode: Callable[[], str],
        metrics: AlertMetrics,
        emit: Listener,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """
        Wire it; nothing runs before `start`.

        Args:
            replicas: The ids of those that live; raises StoreError.
            episode: What all replicas know alike, and what changes with each outage.

        """
        self._cluster, self._replica, self._known, self._metrics = cluster, replica, known, metrics
        self._replicas, self._emit, self._on_bug = replicas, emit, on_bug
        self._channels: Mapping[str, Channel] = {}
        self._senders: dict[str, Sender] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._rank, self._is_only = 0, True
        self._told_us: dict[str, int] = {}  # by name: when what we told ourselves was last true
        self._tasks: list[asyncio.Task[None]] = []
        self._tally, self._noted = Tally(), Noted(replica, known.now_us)
        self.evaluator = Evaluator(
            cluster=cluster, book=book, tallies=tallies, tally=self._tally, noted=self._noted,
            outbox=self._outbox(self._keep, known.now_us), known=known, emit=emit, on_bug=on_bug,
        )  # fmt: skip
        own = self._outbox(in_memory, unix_us)
        self.voice = OwnVoice(
            cluster=cluster, outbox=own, alerting=known.alerting, rank=lambda: self._rank, episode=episode, emit=emit,
            now_us=unix_us,
        )  # fmt: skip
        self.evaluator.elsewhere = self._told_by_us

    def listen(self, event: Event) -> None:
        """On the path of every call: what is frequent is counted, what is rare is noted."""
        if type(event) in COUNTED:
            self._tally.listen(event)
        elif type(event) not in FREQUENT:
            self._noted.listen(event)

    def configure(self, alerting: Alerting) -> None:
        """These channels are in force."""
        self._metrics.configured(alerting.channels)
        for name, channel in self._channels.items():
            if alerting.channels.get(name) != channel:
                self._retire(self._senders.pop(name))
        for name, channel in alerting.channels.items():
            if name not in self._senders:
                self._senders[name] = sender_of(channel)
        self._channels = alerting.channels

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        # Apart, because a store that hangs must not keep us from saying so.
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._tell_each_second())]

    async def close(self) -> None:
        """Stop; what is in the store is brought by others, what is in memory as far as it is taken now."""
        await end(self._tasks)
        if self._is_only:  # else others that saw the same outage tell its end in their time
            try:
                self.voice.judge(self._noted.outage, is_last=True)
            except Exception as exc:  # noqa: BLE001 - what was decided before is brought all the same
                self._on_bug(exc)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(self._bring_own(), self.evaluator.finish())
        await self.voice.outbox.close()
        await self.evaluator.outbox.close()
        for sender in self._senders.values():
            await sender.close()
        await asyncio.gather(*self._retired)

    async def on_pass(self, sights: Sights) -> None:
        """The watch has looked at all."""
        await self.evaluator.on_pass(sights)
        with suppress(StoreError):  # then the last who were known speak in their order
            names = sorted(await self._replicas())
            self._rank = names.index(self._replica) if self._replica in names else len(names)
            self._is_only = names == [self._replica]

    async def test(self, channel: str) -> Answer:
        """Send a test for real, now."""
        sender = self._senders.get(channel)
        if sender is None:
            return Never("there is no such channel")
        now_us = unix_us()
        message = Message(
            id=f"test-{secrets.token_hex(8)}", cluster=self._cluster, kind=Kind.TEST, notices=(),
            detail=f"A test of the channel {channel}, sent by replica {self._replica}.", made_us=now_us,
        )  # fmt: skip
        answer = await sender.send(message)
        is_ok = isinstance(answer, Taken)
        detail = "" if isinstance(answer, Taken) else answer.detail
        self._emit(LetterEnded(channel, "ok" if is_ok else "failed", Kind.TEST, "", detail))
        return answer

    def own_incidents(self) -> list[Incident]:
        """What only this replica says."""
        return list(self.voice.living.values())

    def _told_by_us(self) -> frozenset[str]:
        self._told_us |= {
            incident.row.name: incident.true_us
            for incident in self.own_incidents()
            if incident.stage is Stage.FIRING
        }
        firing = {name for name, true_us in self._told_us.items() if unix_us() - true_us < SEEN_US}
        return frozenset(firing)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        judge_at = loop.time()
        while True:
            steps = [self.voice.outbox.deliver, self.evaluator.deliver]
            if loop.time() >= judge_at:
                judge_at = loop.time() + JUDGE_S
                steps = [self._judge, *steps, self._show]
            pause_s = LOOK_S
            for step in steps:
                try:
                    step()
                except Exception as exc:  # noqa: BLE001 - a mistake of ours must not silence what comes next
                    self._on_bug(exc)
                    pause_s = JUDGE_S
            await asyncio.sleep(pause_s)

    def _judge(self) -> None:
        self.voice.judge(self._noted.outage)

    async def _tell_each_second(self) -> None:
        while True:
            await asyncio.sleep(JUDGE_S)
            try:
                await self.evaluator.tell()
            except Exception as exc:  # noqa: BLE001 - likewise
                self._on_bug(exc)

    async def _bring_own(self) -> None:
        own = self.voice.outbox
        while own.entries:
            own.deliver()
            await asyncio.sleep(LOOK_S / 5)

    def _show(self) -> None:
        """What fires and waits, for the metrics."""
        incidents = [*self.evaluator.living.values(), *self.voice.living.values()]
        firing = Counter(
            (incident.row.name, str(incident.severity))
            for incident in incidents
            if incident.stage is Stage.FIRING
        )
        waiting = Counter[str]()
        for outbox in (self.evaluator.outbox, self.voice.outbox):
            waiting.update({channel: count for channel, (_, count) in outbox.waiting().items()})
        self._metrics.observe(firing, waiting)

    def _outbox(self, keep: Keep, now_us: Callable[[], int]) -> Outbox:
        return Outbox(
            cluster=self._cluster, alerting=self._known.alerting, sender=self._senders.get, keep=keep,
            emit=self._emit, now_us=now_us, on_bug=self._on_bug,
        )  # fmt: skip

    async def _keep(self, changes: Mapping[str, Entry | None]) -> None:
        await self.evaluator.keep(changes)

    def _retire(self, sender: Sender) -> None:
        task = asyncio.get_running_loop().create_task(sender.close())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
