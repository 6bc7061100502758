"""
Alertmanager: its API v2, `POST /api/v2/alerts`.

1. Alerts with the same labels are one alert to it, whoever sends them: our replicas and Prometheus may all tell it.
2. It forgets what it is not told again: an alert that fires ends `FIRING_S` from now, and the outbox sends it again
   every minute. So all of them ending at once says that nobody sends any more.
3. It refuses a batch with one bad alert in it, and keeps the others: after a 400 each is sent by itself, so that one
   name cannot cost the rest.
4. It has no word for acknowledging.
"""

import asyncio
from collections.abc import Mapping, Sequence

import orjson

from breaker.core.alert_policy import Severity
from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.signals.alert_text import is_web, plain, subject_of
from breaker.signals.channel_http import CONNECTIONS_MAX, DETAIL_MAX, Poster, Reply, json_of, rfc3339
from breaker.signals.channels import Answer, Later, Message, Never, Taken

PATH = "/api/v2/alerts"
TEST_ALERT = "BreakerTest"
FIRING_S = 300
TEST_S = 60

_REFUSED = 400
Entry = Mapping[str, object]


class AlertmanagerChannel:
    """
    One Alertmanager.

    Args:
        poster: To its URL with `PATH` behind it.

    """

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def close(self) -> None:
        """Hang up."""
        await self._poster.close()

    async def send(self, message: Message) -> Answer:
        """One attempt; of an acknowledgement nothing is sent."""
        if message.kind is Kind.ACKNOWLEDGED:
            return Taken()  # rule 4
        now_us = round(self._poster.now() * 1e6)
        if message.kind is Kind.TEST:
            entries: list[Entry] = [test_entry(message, now_us)]
            subjects = [TEST_ALERT]
        else:
            entries = [entry_of(notice, message, now_us) for notice in message.notices]
            subjects = [f"{notice.labels['alertname']} of {subject_of(notice)}" for notice in message.notices]
        deadline = self._poster.deadline()
        answer = await self._post(entries, deadline)
        if isinstance(answer, Later):
            return answer
        if answer.status != _REFUSED:
            return answer.judged(_said(answer))
        if len(entries) == 1:
            return _refused(subjects[0], answer)
        return await self._post_each(entries, subjects, deadline)

    async def _post_each(self, entries: Sequence[Entry], subjects: Sequence[str], deadline: float) -> Answer:
        """Rule 3."""
        refused = []
        for first in range(0, len(entries), CONNECTIONS_MAX):
            some = range(first, min(first + CONNECTIONS_MAX, len(entries)))
            replies = await asyncio.gather(*(self._post([entries[index]], deadline) for index in some))
            for index, reply in zip(some, replies, strict=True):
                if isinstance(reply, Later):
                    return reply
                if reply.status == _REFUSED:
                    refused.append(_refused(subjects[index], reply))
                elif not reply.is_ok:
                    return reply.judged(_said(reply))
        return Never(plain("; ".join(never.detail for never in refused), DETAIL_MAX)) if refused else Taken()

    async def _post(self, entries: Sequence[Entry], deadline: float) -> Reply | Later:
        return await self._poster.post(json_of(entries), deadline=deadline)


def entry_of(notice: Notice, message: Message, now_us: int) -> Entry:
    """One alert of the array."""
    # Its end must not lie before its beginning, whatever our clock says: Alertmanager would refuse it.
    ends_us = max(now_us, notice.since_us) + FIRING_S * 1_000_000
    if message.kind is Kind.RESOLVED or notice.is_over:
        ends_us = max(message.made_us if notice.ended_us is None else notice.ended_us, notice.since_us)
    entry: dict[str, object] = {
        "labels": dict(notice.labels),
        "annotations": dict(notice.annotations),
        "startsAt": rfc3339(notice.since_us),
        "endsAt": rfc3339(ends_us),
    }
    dashboard = notice.annotations.get("dashboard_url", "")
    if is_web(dashboard):
        entry["generatorURL"] = dashboard
    return entry


def test_entry(message: Message, now_us: int) -> Entry:
    """An alert that wakes nobody, and ends by itself."""
    return {
        "labels": {"alertname": TEST_ALERT, "severity": str(Severity.NONE), "cluster": message.cluster},
        "annotations": {"summary": "A test of the way to on-call.", "description": message.detail},
        "startsAt": rfc3339(now_us),
        "endsAt": rfc3339(now_us + TEST_S * 1_000_000),
    }


def _refused(subject: str, reply: Reply) -> Never:
    return Never(plain(f"{subject} was refused: {_said(reply) or f'answered {reply.status}'}", DETAIL_MAX))


def _said(reply: Reply) -> str:
    """Its words, which name the label that it does not like: a JSON string, or an object. Others' are not told on."""
    try:
        said = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return ""
    if isinstance(said, dict):
        said = said.get("message")
    return said if isinstance(said, str) else ""
