"""
The evaluator: judges what was seen, keeps the incidents, and has people told.

Every replica has one. After each pass of the watch it tells the store what it counted and what only it can see; the
steward's then judges for all, from the book in the store. While the store cannot be used there is no steward, and each
speaks for itself, of the store alone: see `own_voice.py`.

1. A round of the steward reads, decides in memory, and enters all that changed in one step. When that is refused, nothing
   was decided, and the next round does it again.
2. When nobody knows whether it was entered, the book is read again first: a letter that stands in it is not made twice.
3. What became of letters is owed to the book until it stands there, the last word of each; it is entered with whatever is
   entered next.
4. Who is not the steward any more brings nothing, from that moment on.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from breaker.core.alert_policy import Alerting
from breaker.core.alerts import Incident, Moved, Stage, move
from breaker.core.errors import StoreError
from breaker.core.events import AlertMoved, Listener, StoreFailed
from breaker.core.notice import notice_of
from breaker.core.notify import Desk, Plan, Said, plan
from breaker.signals.evidence import AT_ONCE, Evidence, Known
from breaker.signals.noted import Noted
from breaker.signals.outbox import Outbox
from breaker.signals.sights import Sights
from breaker.signals.tally import Tally
from breaker.store.alert_book import (
    ACKS,
    ALERTS,
    GROUPS,
    OUTBOX,
    SILENCES,
    AlertBook,
    Book,
    Entry,
    text_of_entry,
    text_of_incident,
)
from breaker.store.tallies import Tallies

Place = tuple[int, str]  # in the book: number of the key, field


class Evaluator:
    """
    What one replica does about alerts that are known from the store.

    Attributes:
        living: Incidents, when we are the steward.
        outbox: Their letters.
        elsewhere: Names of alerts that our replica tells by itself; they inhibit others for some minutes after an outage.

    """

    def __init__(
        self,
        *,
        cluster: str,
        book: AlertBook,
        tallies: Tallies,
        tally: Tally,
        noted: Noted,
        outbox: Outbox,
        known: Known,
        emit: Listener,
        on_bug: Callable[[BaseException], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.living: dict[str, Incident] = {}
        self.elsewhere: Callable[[], frozenset[str]] = frozenset
        self._cluster, self._book, self._tallies, self._known = cluster, book, tallies, known
        self._tally, self._noted, self.outbox, self._emit = tally, noted, outbox, emit
        self._evidence = Evidence(book=book, tallies=tallies, known=known, now_s=now_s, on_bug=on_bug)
        self._term: int | None = None
        self._is_sure = True
        self._groups: dict[str, int] = {}
        self._owed: dict[Place, str] = {}
        self._one_round, self._one_write = asyncio.Lock(), asyncio.Lock()

    async def on_pass(self, sights: Sights) -> None:
        """The watch has looked at all."""
        await self.tell_counts()
        try:
            await self._book.note(self._noted.note())
            async with self._one_round:
                if await self._is_in_office():
                    await self._round(sights)
        except StoreError as exc:  # the next round tries again
            # Of the book alone: what can be decided is told by the exchanges of decisions.
            self._emit(StoreFailed(exc.kind, f"alerts could not be judged: {exc}", is_partial=True))

    async def tell(self) -> None:
        """Between two passes: whether somebody is to be told by now, or has said something."""
        async with self._one_round:
            with suppress(StoreError):  # told by the next pass, which asks the same
                if await self._is_in_office():
                    said = await self._book.said()
                    await self._enter(
                        Moved(living=self.outbox.with_backups(self.living), ended=()),
                        said,
                        self._known.now_us(),
                    )

    def deliver(self) -> None:
        """Begin what is due, as long as we are the steward; returns at once."""
        stewardship = self._known.stewardship()
        if stewardship and stewardship.term == self._term:
            self.outbox.deliver()

    def resign(self) -> None:
        """Another replica is the steward; it has the book."""
        self._term, self._is_sure = None, True
        self.living, self._groups, self._owed = {}, {}, {}
        self._evidence.forget()
        self.outbox.clear()

    async def keep(self, changes: Mapping[str, Entry | None]) -> None:
        """Write down what became of letters."""
        if self._term is not None:
            self._owed |= {
                (OUTBOX, id_): text_of_entry(entry) if entry else "" for id_, entry in changes.items()
            }
            with suppress(StoreError):
                await self._write({})

    async def tell_counts(self) -> None:
        """Tell the store what was counted; what it does not take is told next time."""
        operations = self._known.operations()
        # Else it was taken away while its last calls ran.
        counted = [pair for pair in self._tally.take().items() if pair[0] in operations]
        for at in range(0, len(counted), AT_ONCE):
            await asyncio.gather(*(self._tell_count(*pair) for pair in counted[at : at + AT_ONCE]))

    async def finish(self) -> None:
        """What was counted is told, and what is under way is taken and known to be."""
        await self.tell_counts()
        await self.outbox.finish()

    async def _tell_count(self, operation: str, counts: Mapping[str, int]) -> None:
        try:
            await self._tallies.add(operation, counts)
        except StoreError:
            self._tally.put_back(operation, counts)

    async def _is_in_office(self) -> bool:
        """Whether we are the steward and know the book; else nothing is judged, told or brought."""
        stewardship = self._known.stewardship()
        if stewardship is None:
            self.resign()
            return False
        if self._term != stewardship.term:
            self.resign()
            book = await self._book.load()
            if not await self._book.enter(stewardship.term, ()):
                return False  # deposed, and not told yet
            self._term = stewardship.term
            self._open(book)
        elif not self._is_sure:
            await self._read_again()
        return self._term is not None

    def _open(self, book: Book) -> None:
        self.living, self._groups = dict(book.living), dict(book.groups)
        done = {id_ for (key, id_), text in self._owed.items() if key == OUTBOX and not text}
        found = [
            entry for id_, entry in book.outbox.items() if id_ not in self.outbox.entries and id_ not in done
        ]
        self.outbox.post(sorted(found, key=lambda entry: entry.letter.made_us))

    async def _read_again(self) -> None:
        """Rule 2."""
        before = self.living
        async with self._one_write:  # else what is written meanwhile would be read as it was
            book = await self._book.load()
            if self._term is None:
                return
            self._open(book)
            self._is_sure = True
        ended = [incident for id_, incident in before.items() if id_ not in self.living]
        self._tell_moves(before, Moved(living=self.living, ended=tuple(filter(is_firing, ended))))

    async def _round(self, sights: Sights) -> None:
        now_us = self._known.now_us()
        said = await self._book.said()
        readings = await self._evidence.readings(self.living, sights, self.outbox.waiting(), now_us)
        keep_us = self._known.alerting().keep_ms * 1_000
        await self._enter(
            move(self.outbox.with_backups(self.living), readings, now_us, keep_us), said, now_us
        )

    async def _enter(self, moved: Moved, said: Said, now_us: int) -> None:
        """Write and tell what has changed; nothing, when that is refused."""
        if self._term is None:
            return  # deposed while it was read
        desk = Desk(
            alerting=self._known.alerting(), own_routes=self._own_routes(), elsewhere=self.elsewhere()
        )
        planned = plan(moved, self._groups, said, desk, now_us)
        entries = [Entry(letter=letter) for letter in planned.letters if self.outbox.has_room(letter)]
        before, backed = self.living, len(self.outbox.backed)
        try:
            if not await self._write(self._changes(planned, entries, said, now_us)):
                return
        except StoreError:
            self._is_sure = False
            raise
        del self.outbox.backed[:backed]
        self._tell_moves(before, moved)
        self.living, self._groups = dict(planned.living), dict(planned.groups)
        self.outbox.post(entries)
        self.outbox.fires(filter(is_firing, self.living.values()))

    async def _write(self, changes: Mapping[Place, str]) -> bool:
        """Enter these, and all that is owed; False when we are not the steward any more."""
        async with self._one_write:  # else an older word could be entered after a newer one
            if self._term is None:
                return False
            owed = dict(self._owed)
            entered = [(*place, text) for place, text in {**owed, **changes}.items()]
            if entered and not await self._book.enter(self._term, entered):
                self.resign()
                return False
            for place, text in owed.items():
                if self._owed.get(place) == text:
                    del self._owed[place]
            return True

    # What is written and told.

    def _own_routes(self) -> dict[str, tuple[str, ...]]:
        return {
            name: operation.alerts.routes
            for name, operation in self._known.operations().items()
            if operation.alerts.routes
        }

    def _changes(self, planned: Plan, entries: Iterable[Entry], said: Said, now_us: int) -> dict[Place, str]:
        living, groups = planned.living, planned.groups
        changes: dict[Place, str] = {(ALERTS, id_): "" for id_ in self.living.keys() - living.keys()}
        changes |= {
            (ALERTS, id_): text_of_incident(incident)
            for id_, incident in living.items()
            if self.living.get(id_) != incident
        }
        changes |= {(GROUPS, group): "" for group in self._groups.keys() - groups.keys()}
        changes |= {
            (GROUPS, group): str(at_us) for group, at_us in groups.items() if self._groups.get(group) != at_us
        }
        changes |= {(OUTBOX, entry.letter.id): text_of_entry(entry) for entry in entries}
        changes |= {
            (ACKS, id_): ""
            for id_, ack in said.acks.items()
            if id_ not in living or living[id_].since_us != ack.since_us
        }
        changes |= {(SILENCES, silence.id): "" for silence in said.silences if silence.until_us <= now_us}
        return changes

    def _tell_moves(self, before: Mapping[str, Incident], moved: Moved) -> None:
        for id_, incident in moved.living.items():
            was = before.get(id_)
            if is_firing(incident) and (was is None or not is_firing(was)):
                self._emit(moved_of(incident, self._known.alerting(), self._cluster, is_firing=True))
        for incident in moved.ended:
            self._emit(moved_of(incident, self._known.alerting(), self._cluster, is_firing=False))


def is_firing(incident: Incident) -> bool:
    return incident.stage is Stage.FIRING


def moved_of(incident: Incident, alerting: Alerting, cluster: str, *, is_firing: bool) -> AlertMoved:
    summary = notice_of(incident, alerting, cluster).annotations["summary"]
    return AlertMoved(
        incident.id, incident.row.name, incident.severity, incident.operation, is_firing, summary
    )
