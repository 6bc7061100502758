"""
The book of alerts on a real store: what the steward wrote is what the next steward reads, and nobody else writes it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from breaker.core.alerts import Incident, Stage
from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError
from breaker.core.notify import Ack, Kind, Letter, Silence
from breaker.store.alert_book import (
    ACKS,
    ALERTS,
    GROUPS,
    KEYS,
    NOTES,
    NOTES_FRESH_US,
    OUTBOX,
    SILENCES,
    AlertBook,
    Book,
    Entry,
    Note,
    text_of_entry,
    text_of_incident,
)
from breaker.store.connection import open_client
from breaker.store.keys import cluster_key
from breaker.store.members import MEMBER_KEYS
from breaker.store.server_binary import find_server
from breaker.store.slots import slot_of
from tests.store.replicas import Server

START = 1_800_000_000_000_000
INCIDENT = Incident(
    id="BreakerPromiseAtRisk:critical:billing.charge:normal", alert="BreakerPromiseAtRisk:critical",
    operation="billing.charge", about="normal", team="finance", stage=Stage.FIRING, since_us=START,
    fired_us=START + 15_000_000, true_us=START + 20_000_000, values={"promise": "2 h"}, told={"oncall": START + 16_000_000},
)  # fmt: skip
LETTER = Letter(
    id="alert-1", channel="oncall", kind=Kind.FIRING, incidents=(INCIDENT,), made_us=START, detail="ann: on it",
    backup=("hook", "slack"), backup_us=START + 60_000_000,
)  # fmt: skip
ENTRY = Entry(letter=LETTER, tries=3, due_us=START + 7, was_backed=True, detail="answered 503")
ACK = Ack(since_us=START, author="ann", reason="on it", at_us=START + 1)
SILENCE = Silence(
    id="5f1e", alert="Breaker*", operation="billing.*", author="ann", reason="migration", from_us=START,
    until_us=START + 60_000_000,
)  # fmt: skip
NOTE = Note(
    replica="ONE", at_us=START, lone=("billing.charge", "billing.refund"), lost={"billing.charge": 3}, reload_ok=False,
    reset_us=1, jump_us=2, jumped_us=-3,
)  # fmt: skip


@pytest.fixture
async def book(store_url: str, cluster: str) -> AsyncIterator[AlertBook]:
    client = open_client(StoreSettings(url=store_url))
    yield AlertBook(client, cluster)
    await client.aclose()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A store of its own, whose memory can be full."""
    server = Server(asyncio.run(find_server()), tmp_path)
    yield server
    server.close()


def key(cluster: str, number: int) -> str:
    return cluster_key(cluster, KEYS[number - 1])


async def test_the_next_steward_reads_what_the_last_one_wrote(book: AlertBook) -> None:
    """A steward that dies in the night must not take the incidents with it."""
    changes = [
        (ALERTS, INCIDENT.id, text_of_incident(INCIDENT)),
        (GROUPS, "oncall BreakerPromiseAtRisk:critical finance", str(START)),
        (OUTBOX, LETTER.id, text_of_entry(ENTRY)),
    ]
    assert await book.enter(1, changes)
    await book.acknowledge(INCIDENT.id, ACK)
    await book.silence(SILENCE)
    found = await book.load()
    assert found.living == {INCIDENT.id: INCIDENT}
    assert found.groups == {"oncall BreakerPromiseAtRisk:critical finance": START}
    assert found.outbox == {LETTER.id: ENTRY}
    assert found.said == await book.said()
    assert (found.said.acks, found.said.silences) == ({INCIDENT.id: ACK}, (SILENCE,))


async def test_what_is_entered_empty_is_gone(book: AlertBook, redis: Redis, cluster: str) -> None:
    """An incident that has ended, and a letter that was delivered."""
    await book.enter(
        1, [(ALERTS, INCIDENT.id, text_of_incident(INCIDENT)), (GROUPS, "a", "1"), (GROUPS, "b", "2")]
    )
    await book.acknowledge(INCIDENT.id, ACK)
    await book.silence(SILENCE)
    gone = [(ALERTS, INCIDENT.id, ""), (GROUPS, "a", ""), (ACKS, INCIDENT.id, ""), (SILENCES, SILENCE.id, "")]
    assert await book.enter(1, gone)
    assert await book.load() == Book(groups={"b": 2})
    assert redis.exists(*(key(cluster, number) for number in (ALERTS, OUTBOX, ACKS, SILENCES))) == 0


async def test_a_steward_that_was_deposed_writes_nothing_at_all(
    book: AlertBook, redis: Redis, cluster: str
) -> None:
    """It may not know it yet, and two hands in one book page twice."""
    redis.hset(cluster_key(cluster, "steward"), "term", 7)
    changes = [(ALERTS, INCIDENT.id, text_of_incident(INCIDENT)), (OUTBOX, LETTER.id, text_of_entry(ENTRY))]
    assert not await book.enter(6, changes)
    assert await book.load() == Book()
    assert await book.enter(7, changes)
    assert (await book.load()).living == {INCIDENT.id: INCIDENT}


async def test_an_empty_entry_says_who_is_the_steward(book: AlertBook, redis: Redis, cluster: str) -> None:
    """Asked before a book is taken over."""
    redis.hset(cluster_key(cluster, "steward"), "term", 7)
    assert not await book.enter(6, ())
    assert await book.enter(7, ())


async def test_people_and_replicas_write_whoever_is_the_steward(
    book: AlertBook, redis: Redis, cluster: str
) -> None:
    """Whichever replica a person asks; and what one alone saw is for the others to know."""
    redis.hset(cluster_key(cluster, "steward"), "term", START)
    await book.acknowledge(INCIDENT.id, ACK)
    await book.silence(SILENCE)
    await book.note(NOTE)
    said = await book.said()
    assert (said.acks, said.silences) == ({INCIDENT.id: ACK}, (SILENCE,))
    assert await book.notes(START) == [NOTE]


async def test_what_another_version_wrote_is_left_out_and_left_alone(
    book: AlertBook, redis: Redis, cluster: str
) -> None:
    """In a rolling upgrade it is read by whoever wrote it; and it must not end what can be read."""
    strange: dict[int, list[dict[str, Any] | list[int]]] = {
        ALERTS: [
            {**json.loads(text_of_incident(INCIDENT)), "alert": "BreakerOfTomorrow:critical"},
            {**json.loads(text_of_incident(INCIDENT)), "stage": "snoozed"},
            {**json.loads(text_of_incident(INCIDENT)), "colour": "red"},
            {"id": "x"},
            [1],
        ],
        GROUPS: [{"at": 1}],
        OUTBOX: [
            {**json.loads(text_of_entry(ENTRY)), "urgent": True},
            {**json.loads(text_of_entry(ENTRY)), "letter": {**json.loads(text_of_entry(ENTRY))["letter"], "kind": "fax"}},
            [1],
        ],
        ACKS: [{"author": "ann"}],
        SILENCES: [{"id": "x", "matchers": []}],
    }  # fmt: skip
    for number, entries in strange.items():
        redis.hset(key(cluster, number), "of no JSON", "{")
        for at, entry in enumerate(entries):
            redis.hset(key(cluster, number), f"strange {at}", json.dumps(entry))
    await book.enter(1, [(ALERTS, INCIDENT.id, text_of_incident(INCIDENT)), (GROUPS, "a", "1")])
    await book.acknowledge(INCIDENT.id, ACK)
    found = await book.load()
    assert (found.living, found.groups, found.outbox) == ({INCIDENT.id: INCIDENT}, {"a": 1}, {})
    assert (found.said.acks, found.said.silences) == ({INCIDENT.id: ACK}, ())
    for number, entries in strange.items():
        kept: Any = redis.hkeys(key(cluster, number))
        names = {name.decode() for name in kept}
        assert {"of no JSON", *(f"strange {at}" for at in range(len(entries)))} <= names


async def test_a_silence_ends_once(book: AlertBook) -> None:
    """Two people may want to end the same one."""
    await book.silence(SILENCE)
    assert await book.end_silence(SILENCE.id)
    assert not await book.end_silence(SILENCE.id)
    assert (await book.said()).silences == ()


async def test_the_notes_of_replicas_that_are_gone_vanish(
    book: AlertBook, redis: Redis, cluster: str
) -> None:
    """What a replica saw says nothing once it has ended, and its name does not come back."""
    await book.note(NOTE)
    later = replace(NOTE, replica="OTHER", at_us=START + 1)
    await book.note(later)
    redis.hset(key(cluster, NOTES), "STRANGE", json.dumps({"replica": "STRANGE", "mood": "bad"}))
    found = await book.notes(START + NOTES_FRESH_US - 1)
    assert sorted(found, key=lambda note: note.replica) == [NOTE, later]
    assert await book.notes(START + NOTES_FRESH_US) == [later]
    assert redis.hkeys(key(cluster, NOTES)) == [b"OTHER"]


async def test_all_of_it_is_written_while_the_store_s_memory_is_full(server: Server, cluster: str) -> None:
    """That is an incident of its own, and the way to on-call must not be the first thing that it breaks."""
    client = open_client(StoreSettings(url=server.url))
    book = AlertBook(client, cluster)
    server.client.config_set("maxmemory", "1")
    assert await book.enter(1, [(ALERTS, INCIDENT.id, text_of_incident(INCIDENT))])
    await book.acknowledge(INCIDENT.id, ACK)
    await book.silence(SILENCE)
    await book.note(NOTE)
    found = await book.load()
    assert (found.living, found.said.acks) == ({INCIDENT.id: INCIDENT}, {INCIDENT.id: ACK})
    assert (found.said.silences, await book.notes(START)) == ((SILENCE,), [NOTE])
    await client.aclose()


async def test_scripts_that_the_store_forgot_are_sent_again(book: AlertBook, redis: Redis) -> None:
    """A store that was restarted knows none."""
    redis.script_flush()
    assert await book.enter(1, [(GROUPS, "a", "1")])


async def test_a_store_that_is_away_is_said_to_be_by_each_question(server: Server, cluster: str) -> None:
    """One error, for which whoever asks has a way to go on."""
    client = open_client(StoreSettings(url=server.url))
    book = AlertBook(client, cluster)
    server.kill()
    for asked in (
        book.load(), book.said(), book.enter(1, ()), book.acknowledge("x", ACK), book.silence(SILENCE),
        book.end_silence("x"), book.note(NOTE), book.notes(START),
    ):  # fmt: skip
        with pytest.raises(StoreError):
            await asked
    await client.aclose()


def test_in_a_cluster_all_of_it_is_on_one_node(cluster: str) -> None:
    """Else the script that writes it would be refused; and the steward's election decides beside it."""
    keys = [cluster_key(cluster, name) for name in (*KEYS, *MEMBER_KEYS)]
    assert len({slot_of(one.encode()) for one in keys}) == 1
    assert (KEYS[ALERTS - 1], KEYS[OUTBOX - 1], KEYS[NOTES - 1]) == ("alerts", "outbox", "notes")
