"""
Outbox: brings letters to their channels, however often it takes.

1. A channel gets its letters one at a time, in the order in which they were made: nobody hears the end before the beginning.
2. What was not taken is tried again after 1, 2, 4 ... 60 s, or when the receiver says; for a day.
3. What the receiver will never take is given up and told aloud. So is what it did not take in a day.
4. A beginning that is late, and that no other channel of its route has taken, goes to its backup as well, once, also when it
   only waits behind another letter that is not taken. Who had it will have the end. What has ended by then is told to nobody else.
5. A receiver that forgets what is not said again (Alertmanager) hears every minute of all that fires.

What becomes of a letter is kept by whoever owns the outbox: in the store, or in memory while there is none.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from breaker.core.alert_policy import Alerting, ChannelType
from breaker.core.alerts import Incident
from breaker.core.events import LetterEnded, Listener
from breaker.core.notice import notice_of
from breaker.core.notify import Kind, Letter
from breaker.signals.channels import Answer, Later, Message, Never, Sender, Taken
from breaker.store.alert_book import Entry
from breaker.store.ending import end

LOOK_S = 0.25
BACKOFF_US, BACKOFF_MAX_US = 1_000_000, 60_000_000
GIVE_UP_US = 86_400_000_000
REFRESH_US = 60_000_000
SLACK_US = 1_000_000  # between two messages: more are refused
LETTERS_MAX = 1_000  # waiting ones, beyond which nothing is said twice

Keep = Callable[[Mapping[str, Entry | None]], Awaitable[None]]


class Outbox:
    """
    Letters on their way.

    Attributes:
        entries: By the letter's id, in the order in which they were made.
        backed: What went to a backup and is not known to the incidents yet: (incident ids, channel).

    """

    def __init__(
        self,
        *,
        cluster: str,
        alerting: Callable[[], Alerting],
        sender: Callable[[str], Sender | None],
        keep: Keep,
        emit: Listener,
        now_us: Callable[[], int],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """
        Wire it.

        Args:
            sender: Of a channel; None when it is not configured any more.
            keep: Writes down what became of letters: None when it is done with. Never raises.
            now_us: Unix time.

        """
        self.entries: dict[str, Entry] = {}
        self.backed: list[tuple[tuple[str, ...], str]] = []
        self._cluster, self._alerting, self._sender = cluster, alerting, sender
        self._keep, self._emit, self._now_us, self._on_bug = keep, emit, now_us, on_bug
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._refreshed: dict[str, int] = {}
        self._not_before: dict[str, int] = {}
        self._firing: tuple[Incident, ...] = ()

    def has_room(self, letter: Letter) -> bool:
        """Whether it is to be posted: what was said before is not, when too much waits already."""
        return letter.kind is not Kind.REPEATED or len(self.entries) < LETTERS_MAX

    def post(self, entries: Iterable[Entry]) -> None:
        """These are on their way from now on."""
        posted = [entry for entry in entries if self.has_room(entry.letter)]
        for entry in posted:
            self.entries[entry.letter.id] = entry
            if entry.letter.kind is Kind.RESOLVED:
                self._follow(entry.letter)
        for entry in posted:
            if entry.was_backed:  # another replica did that, and may not have written whom it told
                ids = tuple(known.id for known in entry.letter.incidents)
                self.backed += [(ids, channel) for channel in entry.letter.backup]

    def fires(self, incidents: Iterable[Incident]) -> None:
        """What fires now (rule 5)."""
        self._firing = tuple(incidents)

    def with_backups(self, living: Mapping[str, Incident]) -> dict[str, Incident]:
        """Incidents, with who had them as a backup among those that were told."""
        found = dict(living)
        for ids, channel in self.backed:
            for id_ in ids:
                if known := found.get(id_):
                    found[id_] = replace(known, told={channel: self._now_us(), **known.told})
        return found

    def clear(self) -> None:
        """Somebody else brings them from now on."""
        self.entries, self._firing, self.backed = {}, (), []

    def waiting(self) -> dict[str, tuple[int, int]]:
        """By channel: when the oldest letter that was tried in vain was made, and how many wait."""
        found: dict[str, tuple[int, int]] = dict.fromkeys(self._alerting().channels, (0, 0))
        for entry in self.entries.values():
            since_us, count = found.get(entry.letter.channel, (0, 0))
            if entry.tries:
                since_us = min(since_us or entry.letter.made_us, entry.letter.made_us)
            found[entry.letter.channel] = since_us, count + 1
        return found

    def deliver(self) -> None:
        """Begin what is due; called often, returns at once."""
        now_us = self._now_us()
        self._back_up(now_us)
        heads: dict[str, Entry] = {}
        for entry in self.entries.values():
            heads.setdefault(entry.letter.channel, entry)
        for channel, entry in heads.items():
            if channel not in self._sending and max(entry.due_us, self._not_before.get(channel, 0)) <= now_us:
                self._begin(channel, partial(self._deliver, entry))
        for name, known in self._alerting().channels.items():
            is_due = now_us - self._refreshed.get(name, 0) >= REFRESH_US
            if known.type is ChannelType.ALERTMANAGER and is_due and name not in self._sending:
                self._refreshed[name] = now_us
                if told := [incident for incident in self._firing if name in incident.told]:
                    self._begin(name, partial(self._refresh, name, told))

    async def finish(self) -> None:
        """Wait for what is under way; nothing new begins by that."""
        if self._sending:
            await asyncio.wait(self._sending.values())

    async def close(self) -> None:
        """Stop; what is under way is not known to have been taken."""
        await end(self._sending.values())

    def message(self, letter: Letter) -> Message:
        """The letter in words."""
        ended_us = letter.made_us if letter.kind is Kind.RESOLVED else None
        notices = tuple(
            notice_of(incident, self._alerting(), self._cluster, ended_us=ended_us)
            for incident in letter.incidents
        )
        return Message(
            id=letter.id, cluster=self._cluster, kind=letter.kind, notices=notices, detail=letter.detail,
            made_us=letter.made_us,
        )  # fmt: skip

    def _begin(self, channel: str, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except Exception as exc:  # noqa: BLE001 - one channel's mistake must not end the others
                self._on_bug(exc)
                self._not_before[channel] = self._now_us() + BACKOFF_MAX_US

        task = self._sending[channel] = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(lambda _: self._sending.pop(channel, None))

    async def _deliver(self, entry: Entry) -> None:
        letter = entry.letter
        sender = self._sender(letter.channel)
        if sender is None:
            answer: Answer = Never("the channel is not configured any more")
        else:
            answer = await self._attempt(sender, letter)
            channel = self._alerting().channels.get(letter.channel)
            if channel and channel.type is ChannelType.SLACK:
                self._not_before[letter.channel] = self._now_us() + SLACK_US
        if letter.id in self.entries:  # else somebody else brings it by now
            await self._note(self.entries[letter.id], answer)

    async def _attempt(self, sender: Sender, letter: Letter) -> Answer:
        try:
            return await sender.send(self.message(letter))
        except Exception as exc:  # noqa: BLE001 - a mistake of ours must not hold up what comes behind it for ever
            self._on_bug(exc)
            return Later(f"a mistake of ours: {type(exc).__name__}", after_s=BACKOFF_MAX_US / 1e6)

    async def _note(self, entry: Entry, answer: Answer) -> None:
        letter = entry.letter
        match answer:
            case Taken():
                self._tell(letter, "ok", "")
                changed = self._spare(letter)
                del self.entries[letter.id]
                await self._keep_as_is([letter.id, *changed])
            case Never(detail=detail):
                self._tell(letter, "failed", detail)
                changed = [] if self._siblings(letter) else self._copy(entry)
                del self.entries[letter.id]
                await self._keep_as_is({letter.id, *changed})
            case Later() if self._now_us() - letter.made_us >= GIVE_UP_US:
                self._tell(letter, "failed", f"given up after a day: {answer.detail}")
                await self._done(letter)
            case Later():
                await self._again(entry, answer)

    async def _again(self, entry: Entry, answer: Later) -> None:
        """Rule 2."""
        letter = entry.letter
        pause_us = min(BACKOFF_MAX_US, BACKOFF_US << min(entry.tries, 6))
        due_us = self._now_us() + max(pause_us, round(answer.after_s * 1e6))
        after = replace(entry, tries=entry.tries + 1, due_us=due_us, detail=answer.detail)
        self._tell(letter, "retry", answer.detail)
        self.entries[letter.id] = after
        await self._keep({letter.id: after})

    async def _done(self, letter: Letter) -> None:
        self.entries.pop(letter.id, None)
        await self._keep({letter.id: None})

    def _back_up(self, now_us: int) -> None:
        """Rule 4."""
        failing = {entry.letter.channel for entry in self.entries.values() if entry.tries}
        changed: list[str] = []
        for id_ in list(self.entries):
            letter = self.entries[id_].letter
            if letter.channel in failing and letter.backup and now_us >= letter.backup_us:
                changed += self._copy(self.entries[id_])
        if changed:
            self._begin(f"keep {changed[0]}", partial(self._keep_as_is, changed))

    def _copy(self, entry: Entry) -> list[str]:
        """To its backup, but for what has ended by now; the letters that this changed or made."""
        letter = entry.letter
        if entry.was_backed:
            return []
        over = {
            (known.id, known.since_us)
            for other in self.entries.values()
            if other.letter.kind is Kind.RESOLVED and other.letter.channel == letter.channel
            for known in other.letter.incidents
        }
        going_on = tuple(known for known in letter.incidents if (known.id, known.since_us) not in over)
        if not going_on:  # nor will it go on: it is not looked at again
            self.entries[letter.id] = replace(entry, letter=replace(letter, backup=(), backup_us=0))
            return [letter.id]
        copies = [copy_of(replace(letter, incidents=going_on), channel) for channel in letter.backup]
        self.entries[letter.id] = replace(entry, was_backed=True)
        self.entries |= {copy.id: Entry(letter=copy) for copy in copies}
        self.backed += [(tuple(known.id for known in going_on), copy.channel) for copy in copies]
        return [letter.id, *(copy.id for copy in copies), *self._spare(letter)]

    def _siblings(self, letter: Letter) -> list[Entry]:
        """The same beginning on its way to other channels of its route, which may still need a backup."""
        begun = {(known.id, known.since_us) for known in letter.incidents}
        return [
            entry
            for entry in self.entries.values()
            if entry.letter.backup
            and entry.letter.channel != letter.channel
            and {(known.id, known.since_us) for known in entry.letter.incidents} == begun
        ]

    def _spare(self, letter: Letter) -> list[str]:
        """One channel of the route has it, or the backup does: nobody else is asked. The letters that this changed."""
        if letter.kind is not Kind.FIRING:
            return []
        spared = {entry.letter.id: entry for entry in self._siblings(letter) if not entry.was_backed}
        for id_, entry in spared.items():
            self.entries[id_] = replace(entry, letter=replace(entry.letter, backup=(), backup_us=0))
        return list(spared)

    def _follow(self, end_: Letter) -> None:
        """An end that was made while the beginning went to a backup goes there as well."""
        late = []
        for ids, channel in self.backed:
            told = tuple(known for known in end_.incidents if known.id in ids)
            if told and channel != end_.channel:
                late.append(copy_of(replace(end_, incidents=told), channel))
        self.entries |= {copy.id: Entry(letter=copy) for copy in late}
        if late:
            self._begin(f"keep {late[0].id}", partial(self._keep_as_is, [copy.id for copy in late]))

    async def _keep_as_is(self, ids: Iterable[str]) -> None:
        """Write down what there is of them when it is written: the letter may be done with by then."""
        await self._keep({id_: self.entries.get(id_) for id_ in ids})

    async def _refresh(self, channel: str, incidents: list[Incident]) -> None:
        """Rule 5; what was not taken is sent again after 10 s, as it is by then."""
        sender, now_us = self._sender(channel), self._now_us()
        if sender is None:
            return
        notices = tuple(notice_of(incident, self._alerting(), self._cluster) for incident in incidents)
        answer = await sender.send(
            Message(
                id=f"refresh-{now_us}",
                cluster=self._cluster,
                kind=Kind.REPEATED,
                notices=notices,
                made_us=now_us,
            )
        )
        if not isinstance(answer, Taken):
            self._refreshed[channel] = now_us - REFRESH_US + BACKOFF_US * 10
            self._emit(LetterEnded(channel, "retry", Kind.REPEATED, "", answer.detail))

    def _tell(self, letter: Letter, result: str, detail: str) -> None:
        about = letter.incidents[0].id if letter.incidents else ""
        self._emit(LetterEnded(letter.channel, result, letter.kind, about, detail))


def copy_of(letter: Letter, channel: str) -> Letter:
    """The same for a backup."""
    return replace(letter, id=f"{letter.id}-{channel}", channel=channel, backup=(), backup_us=0)
