"""
One replica on duty, with real receivers and a real store: tests that are sent, channels that change, and how it ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from redis import Redis

from breaker.core.alert_policy import Alerting, Channel, ChannelType
from breaker.core.alerts import Incident, Stage
from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError
from breaker.core.events import DegradedBegan, DegradedEnded, Event, LetterEnded
from breaker.signals import duty as module
from breaker.signals.alert_metrics import AlertMetrics
from breaker.signals.channels import Later, Never, Taken
from breaker.signals.duty import Duty
from breaker.signals.evidence import Known
from breaker.signals.sights import Sights
from breaker.store.alert_book import OUTBOX, AlertBook, Entry, text_of_entry
from breaker.store.capacity import CapacityStore
from breaker.store.connection import open_client
from breaker.store.keys import cluster_key
from breaker.store.server_binary import find_server
from breaker.store.steward import Stewardship
from breaker.store.tallies import Tallies
from tests.signals.evaluator_scene import CHARGE, alerting
from tests.signals.receivers import Failing, Receiver, serving
from tests.signals.scene import ended, named
from tests.store.replicas import Server, until
from tests.store.test_alert_book import LETTER

STORE_DOWN = Incident(
    id="BreakerStoreDown:critical", alert="BreakerStoreDown:critical", operation="", about="", team="", stage=Stage.FIRING,
    since_us=1, fired_us=1, true_us=1,
)  # fmt: skip
PLAIN_LETTER = replace(LETTER, channel="hook", backup=(), backup_us=0)


class Post:
    """
    A replica's Duty, and the process around it.

    Attributes:
        others: Replicas that live; None: the store does not say.

    """

    def __init__(self, url: str, cluster: str) -> None:
        self.events: list[Event] = []
        self.bugs: list[BaseException] = []
        self.alerting = Alerting()
        self.stewardship: Stewardship | None = None
        self.others: list[str] | None = ["ME"]
        self.registry = CollectorRegistry()
        settings = StoreSettings(url=url, timeout_ms=500)
        self.operations = named(queues=(CHARGE,))
        self.capacity = CapacityStore(settings, cluster=cluster, replica="AAAAAAAA", emit=lambda _: None)
        self.client = open_client(settings)
        self.book, self.tallies = AlertBook(self.client, cluster), Tallies(self.capacity)
        known = Known(
            operations=lambda: self.operations, alerting=lambda: self.alerting, now_us=lambda: time.time_ns() // 1_000,
            stewardship=lambda: self.stewardship, differing=lambda: 0,
        )  # fmt: skip
        self.duty = Duty(
            cluster="production", replica="ME", book=self.book, tallies=self.tallies, known=known,
            replicas=self._replicas, episode=lambda: "7", metrics=AlertMetrics(self.registry), emit=self.events.append,
            on_bug=self.bugs.append,
        )  # fmt: skip

    async def _replicas(self) -> list[str]:
        if self.others is None:
            raise StoreError("gone")
        return self.others

    def configure(self, **urls: str) -> None:
        """Webhooks by name, as a reload would bring them."""
        self.alerting = alerting(
            *(Channel(name=name, type=ChannelType.WEBHOOK, url=url) for name, url in urls.items())
        )
        self.duty.configure(self.alerting)

    def post(self, letter_id: str) -> None:
        """A letter of our own voice, which lives in memory only."""
        self.duty.voice.outbox.post(
            [Entry(letter=replace(PLAIN_LETTER, id=letter_id, made_us=module.unix_us()))]
        )

    def results(self) -> list[tuple[str, str]]:
        return [(event.channel, event.result) for event in self.events if isinstance(event, LetterEnded)]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
async def post(store_url: str, cluster: str) -> AsyncIterator[Post]:
    made = Post(store_url, cluster)
    await made.capacity.start(made.operations, "v1")
    yield made
    made.duty.voice.outbox.clear()
    await made.duty.close()
    await made.capacity.close()
    await made.client.aclose()
    assert made.bugs == []


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with serving(Receiver()) as made:
        yield made


def ids(receiver: Receiver) -> list[str]:
    return [request.headers["webhook-id"] for request, _ in receiver.requests]


# Tests of a channel, and reloads.


async def test_a_test_is_sent_for_real_and_its_answer_told(post: Post, hook: Receiver) -> None:
    """The one way to know that on-call would be woken."""
    post.configure(hook=hook.url)
    assert isinstance(await post.duty.test("hook"), Taken)
    hook.planned = [web.Response(status=403)]
    assert isinstance(await post.duty.test("hook"), Never)
    hook.planned = [web.Response(status=503)]
    assert isinstance(await post.duty.test("hook"), Later)
    assert b'"kind":"test"' in hook.requests[0][1]
    assert len(set(ids(hook))) == 3
    assert post.results() == [("hook", "ok"), ("hook", "failed"), ("hook", "failed")]


async def test_a_reload_changes_where_it_is_sent(post: Post, hook: Receiver) -> None:
    """The old address may be somebody else's by now."""
    async with serving(Receiver()) as second:
        post.configure(hook=hook.url)
        await post.duty.test("hook")
        post.configure(hook=second.url)
        await post.duty.test("hook")
        post.configure(other=second.url)
        assert await post.duty.test("hook") == Never("there is no such channel")
        assert isinstance(await post.duty.test("other"), Taken)
        assert (len(hook.requests), len(second.requests)) == (1, 2)


async def test_a_reload_that_changes_nothing_keeps_the_connection(post: Post, hook: Receiver) -> None:
    """Each reload would otherwise break off what is on its way."""
    post.configure(hook=hook.url)
    await post.duty.test("hook")
    post.configure(hook=hook.url)
    await post.duty.test("hook")
    assert len({request.transport for request, _ in hook.requests}) == 1


async def test_a_letter_on_its_way_follows_a_reload(
    post: Post, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused at the old address; the next attempt goes to the new one."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    hook.planned = [web.Response(status=503)]
    async with serving(Receiver()) as second:
        post.configure(hook=hook.url)
        post.duty.start()
        post.post("alert-1")
        await until(lambda: as_future(len(hook.requests) == 1))
        post.configure(hook=second.url)
        await until(lambda: as_future(ids(second) == ["alert-1"]))


async def as_future(is_so: bool) -> bool:
    return is_so


# What a replica says by itself.


async def test_a_store_that_hangs_keeps_nobody_from_saying_so(
    cluster: str, tmp_path: Path, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks the store each second waits for it; whoever speaks of the store must not."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "JUDGE_S", 0.02)
    server = Server(await find_server(), tmp_path)
    post = Post(server.url, cluster)
    try:
        post.configure(hook=hook.url)
        post.stewardship = Stewardship(term=1, since_us=0)
        post.duty.start()
        server.pause()
        post.duty.listen(DegradedBegan("timeout", "no answer", operation=""))
        began_us = module.unix_us()
        monkeypatch.setattr("breaker.signals.own_voice.OwnVoice.judge", judged_as_if_later(post))
        await until(lambda: as_future(len(hook.requests) == 1))
        assert [incident.row.name for incident in post.duty.own_incidents()] == ["BreakerStoreDown"]
        assert post.duty.own_incidents()[0].since_us >= began_us
        assert post.sample("breaker_alerts_firing", alert="BreakerStoreDown", severity="critical") == 1
        post.duty.listen(DegradedEnded(seconds=6.0, operation=""))
    finally:
        server.resume()
        await post.duty.close()
        await post.capacity.close()
        await post.client.aclose()
        server.close()


def judged_as_if_later(post: Post) -> Callable[..., None]:
    """Each judgement comes five seconds after the one before, so that nobody waits for an outage to last."""
    judge, voice = type(post.duty.voice).judge, post.duty.voice
    count = iter(range(1, 1_000_000))

    def judged(*arguments: object, **more: object) -> None:
        ahead_us = next(count) * 5_000_000
        voice._now_us = lambda: time.time_ns() // 1_000 + ahead_us
        judge(*arguments, **more)  # type: ignore[arg-type]

    return judged


async def test_a_mistake_of_ours_in_judging_does_not_keep_letters(
    post: Post, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said aloud again and again, and what was decided before is brought."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "JUDGE_S", 0.02)

    def mistaken(_: object, **_more: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(post.duty.voice, "judge", mistaken)
    post.configure(hook=hook.url)
    post.duty.start()
    await until(lambda: as_future(len(post.bugs) > 1))
    post.post("alert-1")
    await until(lambda: as_future(ids(hook) == ["alert-1"]))
    post.bugs.clear()
    await post.duty.close()
    post.bugs.clear()


async def test_the_order_of_those_who_speak_is_that_of_their_names(post: Post) -> None:
    """As last known: while the store is away nobody can be asked."""
    sights = Sights()
    for others, rank in (
        (["ME"], 0), (["OTHER", "ME", "ALPHA"], 1), (None, 1), (["ALPHA", "BETA"], 2), (["ME", "OTHER"], 0),
    ):  # fmt: skip
        post.others = others
        await post.duty.on_pass(sights)
        assert post.duty.voice._rank() == rank


@pytest.mark.parametrize(("seconds", "is_told"), [(-389, True), (-391, False)])
async def test_an_outage_speaks_for_what_was_refused_meanwhile(
    post: Post, seconds: int, *, is_told: bool
) -> None:
    """Five minutes later the tallies still hold it: nobody is to be paged for each operation when all is well again."""
    true_us = module.unix_us() + seconds * 1_000_000
    down = replace(STORE_DOWN, true_us=true_us)
    post.duty.voice.living = {down.id: down}
    assert post.duty.evaluator.elsewhere() == (frozenset({"BreakerStoreDown"}) if is_told else frozenset())
    post.duty.voice.living = {}
    assert post.duty.evaluator.elsewhere() == (frozenset({"BreakerStoreDown"}) if is_told else frozenset())


async def test_what_is_not_told_yet_speaks_for_nothing(post: Post) -> None:
    """A slow fork of the store must not silence an operation."""
    assert post.duty.evaluator.elsewhere() == frozenset()
    pending = replace(STORE_DOWN, true_us=module.unix_us(), stage=Stage.PENDING)
    post.duty.voice.living = {pending.id: pending}
    assert post.duty.evaluator.elsewhere() == frozenset()


# How it ends.


async def test_what_lives_in_memory_is_brought_before_the_end(post: Post, hook: Receiver) -> None:
    """That the store is well again must not be lost with the replica that said it was not."""
    post.configure(hook=hook.url)
    post.post("alert-1")
    post.post("alert-2")
    await post.duty.close()
    assert ids(hook) == ["alert-1", "alert-2"]


async def test_what_nobody_takes_does_not_hold_up_the_end(
    post: Post, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rolling upgrade waits for no receiver."""
    monkeypatch.setattr(module, "CLOSE_S", 0.1)
    hook.planned = [web.Response(status=503) for _ in range(1_000)]
    post.configure(hook=hook.url)
    post.post("alert-1")
    await asyncio.wait_for(post.duty.close(), 10)
    assert hook.requests


async def test_a_receiver_that_never_answers_does_not_hold_up_the_end(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is hung up on."""
    monkeypatch.setattr(module, "CLOSE_S", 0.1)

    may_end = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await may_end.wait()
        return web.Response()

    async with serving(Failing(how=never)) as hangs:
        post.configure(hook=hangs.url)
        post.post("alert-1")
        await asyncio.wait_for(post.duty.close(), 10)
        may_end.set()
        assert len(hangs.requests) == 1


async def test_a_letter_under_way_is_known_to_be_taken_before_the_end(
    post: Post, redis: Redis, cluster: str
) -> None:
    """Else the next steward brings it again: a page for each step of a rolling upgrade."""
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(_: web.Request) -> web.Response:
        has_begun.set()
        await may_end.wait()
        return web.Response(status=204)

    entry = Entry(letter=PLAIN_LETTER)
    await post.book.enter(1, [(OUTBOX, entry.letter.id, text_of_entry(entry))])
    post.stewardship = Stewardship(term=1, since_us=0)
    async with serving(Failing(how=slowly)) as slow:
        post.configure(hook=slow.url)
        await post.duty.evaluator.tell()
        post.duty.evaluator.deliver()
        await has_begun.wait()
        closing = asyncio.create_task(post.duty.close())
        await asyncio.sleep(0)
        may_end.set()
        await closing
        assert len(slow.requests) == 1
    assert redis.exists(cluster_key(cluster, "outbox")) == 0


async def test_what_was_counted_last_is_told_before_the_end(post: Post) -> None:
    """A replica that is stopped because it fails must not take its failures with it."""
    post.duty.listen(ended())
    await post.duty.close()
    assert (await post.tallies.read(CHARGE, is_long=False)).recent["all"] == 1


async def test_what_waits_and_what_fires_is_shown(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """That alerts do not arrive is seen where everything else is seen."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "JUDGE_S", 0.02)
    monkeypatch.setattr(module, "CLOSE_S", 0.05)
    post.configure(hook="http://127.0.0.1:9")
    post.stewardship = Stewardship(term=1, since_us=0)
    await post.duty.on_pass(Sights())
    post.duty.start()
    post.post("alert-1")
    await until(lambda: as_future(post.sample("breaker_alert_outbox", channel="hook") == 1))
    assert post.sample("breaker_alerts_firing", alert="BreakerWatchdog", severity="none") == 1
    assert post.sample("breaker_alerts_firing", alert="BreakerStoreDown", severity="critical") == 0
