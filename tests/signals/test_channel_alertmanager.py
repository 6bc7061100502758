"""The channel to Alertmanager, against a real one."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest
from aiohttp import web

from breaker.core.alert_policy import Channel, ChannelType
from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.signals.channel_alertmanager import PATH, AlertmanagerChannel
from breaker.signals.channel_http import Poster
from breaker.signals.channels import Answer, Later, Message, Never, Sender, Taken
from breaker.signals.senders import sender_of
from tests.signals.alert_scene import MINUTE_US, message_of, noticed
from tests.signals.receivers import Alertmanager, Failing, Receiver, alertmanager, serving

PROMISE, CIRCUIT = "BreakerPromiseAtRisk:critical", "BreakerCircuitOpen:warning"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with alertmanager(tmp_path_factory.mktemp("alertmanager")) as made:
        yield made


def sender(url: str) -> Sender:
    return sender_of(Channel(name="am", type=ChannelType.ALERTMANAGER, url=url))


async def send(url: str, *messages: Message) -> list[Answer]:
    made = sender(url)
    try:
        return [await made.send(message) for message in messages]
    finally:
        await made.close()


def now_us() -> int:
    return int(time.time() * 1e6)


def us_of(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


async def test_what_fires_is_shown_with_all_that_a_person_needs(running: Alertmanager, cluster: str) -> None:
    """Who looks at Alertmanager sees the words, the command and the links of the gateway's own alert."""
    before = now_us()
    since_us = before - 5 * MINUTE_US
    notice = noticed(PROMISE, cluster=cluster, since_us=since_us)
    assert await send(running.url + "/", message_of(Kind.FIRING, notice)) == [Taken()]
    [shown] = await running.wait_for(1, cluster=cluster)
    assert shown["labels"] == {
        "alertname": "BreakerPromiseAtRisk", "severity": "critical", "cluster": cluster,
        "operation": "billing.charge-invoice", "team": "finance", "band": "normal",
    }  # fmt: skip
    assert shown["annotations"] == notice.annotations
    assert shown["generatorURL"] == notice.annotations["dashboard_url"]
    assert abs(us_of(shown["startsAt"]) - since_us) <= 1_000
    assert before + 5 * MINUTE_US <= us_of(shown["endsAt"]) + 1_000 <= now_us() + 5 * MINUTE_US + 1_000


async def test_alert_that_three_replicas_send_is_one(running: Alertmanager, cluster: str) -> None:
    """On-call is paged once, whichever replicas believe that it is their turn."""
    began_us = now_us() - MINUTE_US
    starts = [began_us, began_us + 2_000_000, began_us + 1_000_000]
    messages = [
        message_of(Kind.FIRING, noticed(PROMISE, cluster=cluster, since_us=at_us, waiting=str(at_us)))
        for at_us in starts
    ]
    answers = await asyncio.gather(*(send(running.url, message) for message in messages))
    assert answers == [[Taken()]] * 3
    [shown] = await running.wait_for(1, cluster=cluster)
    assert abs(us_of(shown["startsAt"]) - began_us) <= 1_000


async def test_what_has_ended_is_no_longer_shown(running: Alertmanager, cluster: str) -> None:
    """The end is told at once; nobody waits for it to be forgotten."""
    began_us = now_us() - MINUTE_US
    one, other = (noticed(PROMISE, name, cluster=cluster, since_us=began_us) for name in ("a.one", "a.other"))
    assert await send(running.url, message_of(Kind.FIRING, one, other)) == [Taken()]
    await running.wait_for(2, cluster=cluster)
    ended = replace(one, ended_us=now_us() - 1_000_000)
    assert await send(running.url, message_of(Kind.RESOLVED, ended)) == [Taken()]
    [left] = await running.wait_for(1, cluster=cluster)
    assert left["labels"]["operation"] == "a.other"


async def test_acknowledgement_is_taken_and_not_sent() -> None:
    """It has no word for it; a message that waits for ever would hold up those behind it."""
    async with serving(Receiver()) as there:
        message = message_of(Kind.ACKNOWLEDGED, noticed(PROMISE), detail="jane: on it")
        assert await send(there.url, message) == [Taken()]
    assert not there.requests


async def test_test_is_an_alert_that_wakes_nobody_and_ends_by_itself(
    running: Alertmanager, cluster: str
) -> None:
    """Somebody who tries the way to on-call need not clean up behind himself."""
    message = message_of(Kind.TEST, cluster=cluster, detail="jane tries it")
    assert await send(running.url, message) == [Taken()]
    [shown] = await running.wait_for(1, cluster=cluster)
    assert shown["labels"] == {"alertname": "BreakerTest", "severity": "none", "cluster": cluster}
    assert shown["annotations"]["description"] == "jane tries it"
    assert us_of(shown["endsAt"]) - us_of(shown["startsAt"]) == MINUTE_US


def mislabelled(notice: Notice) -> Notice:
    return replace(notice, labels={**notice.labels, "bad-label": "x"})


async def test_bad_label_is_named_and_costs_no_other_alert(running: Alertmanager, cluster: str) -> None:
    """A batch that is refused as a whole would lose the alerts that are good."""
    good = [noticed(CIRCUIT, f"a.op{number}", cluster=cluster, since_us=now_us()) for number in range(10)]
    bad = mislabelled(noticed(CIRCUIT, "a.bad", cluster=cluster, since_us=now_us()))
    [answer] = await send(running.url, message_of(Kind.FIRING, *good[:5], bad, *good[5:]))
    assert isinstance(answer, Never)
    assert answer.detail.startswith("BreakerCircuitOpen of a.bad was refused: ")
    assert 'invalid name "bad-label"' in answer.detail
    assert "a.op" not in answer.detail
    await running.wait_for(10, cluster=cluster)
    [alone] = await send(running.url, message_of(Kind.FIRING, bad))
    assert alone == answer


async def test_batch_that_is_refused_although_each_of_it_is_taken_is_taken() -> None:
    """Nothing is left to say."""
    notices = [noticed(CIRCUIT, f"a.op{number}") for number in range(2)]
    async with serving(Receiver(planned=[web.Response(status=400)])) as there:
        assert await send(there.url, message_of(Kind.FIRING, *notices)) == [Taken()]
    assert [len(json.loads(body)) for _, body in there.requests] == [2, 1, 1]


async def test_alert_that_gets_no_answer_while_sent_by_itself_is_tried_again() -> None:
    """One that is ill in the middle has not refused anything."""
    notices = [noticed(CIRCUIT, f"a.op{number}") for number in range(2)]
    ill = [web.Response(status=400), web.Response(status=500), web.Response(status=400)]
    async with serving(Receiver(planned=list(ill))) as there:
        assert await send(there.url, message_of(Kind.FIRING, *notices)) == [Later("answered 500")]

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(Failing(how=hang_up, planned=[web.Response(status=400)])) as there:
        [answer] = await send(there.url, message_of(Kind.FIRING, *notices))
    assert isinstance(answer, Later)


async def test_clock_that_is_behind_makes_no_alert_that_ends_before_it_begins(
    running: Alertmanager, cluster: str
) -> None:
    """The store says since when, our machine what time it is; Alertmanager refuses what does not fit."""
    channel = AlertmanagerChannel(Poster(running.url + PATH, now=lambda: time.time() - 3_600))
    notice = noticed(PROMISE, cluster=cluster, since_us=now_us())
    try:
        assert await channel.send(message_of(Kind.FIRING, notice)) == Taken()
    finally:
        await channel.close()
    await running.wait_for(1, cluster=cluster)
