"""
The alert book: what the steward knows of incidents and letters, so that it survives the steward.

Six hashes of the cluster: incidents, when groups last had a letter, letters that are not delivered yet, what people said
(acks, silences), and notes of what only one replica can see. The steward enters changes in one step, fenced by its term
(`lua/enter.lua`); acks and silences are written by whichever replica a person asked, notes by each. All of it is written
also when the store's memory is full: that is when people must be told.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from breaker.core.alerts import Incident, Stage
from breaker.core.notify import Ack, Kind, Letter, Said, Silence
from breaker.store.connection import as_ours
from breaker.store.keys import cluster_key
from breaker.store.scripts import load_scripts

KEYS = ("steward", "alerts", "groups", "outbox", "acks", "silences", "notes")
ALERTS, GROUPS, OUTBOX, ACKS, SILENCES, NOTES = 2, 3, 4, 5, 6, 7
ANY_TERM = 1 << 53  # later than all: of what not only the steward writes
SILENCES_MAX = 1_000
NOTES_FRESH_US = 15_000_000

Change = tuple[int, str, str]  # number of the key, field, value; "" deletes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    A letter in the outbox.

    Attributes:
        tries: Attempts so far. due_us: When the next one is.
        was_backed: Its backup has a copy.
        detail: Why the last attempt failed.

    """

    letter: Letter
    tries: int = 0
    due_us: int = 0
    was_backed: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All that is written in it."""

    living: Mapping[str, Incident] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    outbox: Mapping[str, Entry] = field(default_factory=dict)
    said: Said = field(default=Said())


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """
    What one replica alone can see.

    Attributes:
        at_us: When it was written, by the store's clock.
        lone: Operations whose failures it alone sees.
        lost: Jobs that it gave a 202 for and the store does not know, by operation.
        reload_ok: Whether the configuration that it read last is in force there.
        reset_us, jump_us: When it found that the store had lost what it knew, and that its clock had jumped; 0 never.
        jumped_us: By how much.

    """

    replica: str
    at_us: int
    lone: tuple[str, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    reload_ok: bool = True
    reset_us: int = 0
    jump_us: int = 0
    jumped_us: int = 0


class AlertBook:
    """The book in the store; every method raises StoreError when that does not answer."""

    def __init__(self, client: Redis, cluster: str) -> None:
        self._client = client
        self._keys = [cluster_key(cluster, name) for name in KEYS]
        self._enter = load_scripts()["enter"]

    async def load(self) -> Book:
        """All of it; what cannot be read, because another version wrote it, is left out."""
        alerts, groups, outbox = [await self._hash(number) for number in (ALERTS, GROUPS, OUTBOX)]
        return Book(
            living=dict(_read(alerts, incident_of)),
            groups=dict(_read(groups, int)),
            outbox=dict(_read(outbox, entry_of)),
            said=await self.said(),
        )

    async def said(self) -> Said:
        """What people said."""
        acks, silences = await self._hash(ACKS), await self._hash(SILENCES)
        return Said(
            acks=dict(_read(acks, lambda known: Ack(**known))),
            silences=tuple(silence for _, silence in _read(silences, lambda known: Silence(**known))),
        )

    async def enter(self, term: int, changes: Iterable[Change]) -> bool:
        """
        Write what changed, all at once.

        Returns:
            False when another replica is the steward by now; nothing was written.

        """
        arguments: list[Any] = [term]
        for change in changes:
            arguments += change
        keys = len(self._keys)
        try:
            try:
                done = await self._client.evalsha(self._enter.sha.decode(), keys, *self._keys, *arguments)
            except NoScriptError:
                done = await self._client.eval(self._enter.text, keys, *self._keys, *arguments)
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc
        return bool(done)

    async def acknowledge(self, incident: str, ack: Ack) -> None:
        await self.enter(ANY_TERM, [(ACKS, incident, json.dumps(asdict(ack)))])

    async def silence(self, silence: Silence) -> None:
        await self.enter(ANY_TERM, [(SILENCES, silence.id, json.dumps(asdict(silence)))])

    async def end_silence(self, id_: str) -> bool:
        """Whether there was one."""
        try:
            return bool(await self._client.hdel(self._key(SILENCES), id_))
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc

    async def note(self, note: Note) -> None:
        """Leave what only this replica can see."""
        await self.enter(ANY_TERM, [(NOTES, note.replica, json.dumps(asdict(note)))])

    async def notes(self, now_us: int) -> list[Note]:
        """What the replicas left lately; what those that have gone left is thrown away."""
        found = await self._hash(NOTES)
        notes = dict(_read(found, lambda known: Note(**{**known, "lone": tuple(known["lone"])})))
        fresh = {name: note for name, note in notes.items() if now_us - note.at_us < NOTES_FRESH_US}
        if stale := [name.decode() for name in found if name.decode() not in fresh]:
            await self.enter(ANY_TERM, [(NOTES, name, "") for name in stale])
        return list(fresh.values())

    async def _hash(self, number: int) -> Any:
        try:
            return await self._client.hgetall(self._key(number))
        except (RedisError, OSError, TimeoutError) as exc:
            raise as_ours(exc) from exc

    def _key(self, number: int) -> str:
        return self._keys[number - 1]


def _read(found: Mapping[bytes, bytes], make: Any) -> Iterable[tuple[str, Any]]:
    for name, text in found.items():
        try:
            yield name.decode(), make(json.loads(text))
        except (ValueError, TypeError, KeyError):
            continue  # of a version that we do not know; it knows what to do with it


def text_of_incident(incident: Incident) -> str:
    return json.dumps(asdict(incident))


def incident_of(known: dict[str, Any]) -> Incident:
    incident = Incident(**{**known, "stage": Stage(known["stage"])})
    _ = incident.row  # an alert that this version does not have is a KeyError
    return incident


def text_of_entry(entry: Entry) -> str:
    return json.dumps(asdict(entry))


def entry_of(known: dict[str, Any]) -> Entry:
    letter = known["letter"]
    made = Letter(
        **{
            **letter,
            "kind": Kind(letter["kind"]),
            "incidents": tuple(incident_of(incident) for incident in letter["incidents"]),
            "backup": tuple(letter["backup"]),
        }
    )
    return Entry(**{**known, "letter": made})
