"""
PagerDuty: its Events API v2, one event per incident.

1. All events of an incident carry its key as `dedup_key`: a second trigger adds to the incident, whichever replica sends it.
2. An event that it refuses (400) is refused for ever. Those of the same message that it took are not sent again by this
   process when the message is: so many incidents get through, although it slows us down.
"""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal, assert_never

import orjson

from breaker.core.alert_policy import Severity
from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.signals.alert_text import clipped, links_of, plain
from breaker.signals.channel_http import CONNECTIONS_MAX, DETAIL_MAX, Poster, Reply, json_of, rfc3339
from breaker.signals.channels import Answer, Later, Message, Never, Taken

SUMMARY_MAX = 1_024  # characters; these are limits of the API
KEY_MAX = 255

Action = Literal["trigger", "acknowledge", "resolve"]
Event = Mapping[str, object]

_SEVERITIES: Mapping[str, str] = {
    Severity.CRITICAL: "critical",
    Severity.WARNING: "warning",
    Severity.NONE: "info",
}


class PagerDutyChannel:
    """
    One service of PagerDuty.

    Args:
        poster: To the URL of its Events API.
        routing_key: Of the service's integration.

    """

    def __init__(self, poster: Poster, routing_key: str) -> None:
        self._poster, self._routing_key = poster, routing_key
        self._message = ""  # the one that was sent last ...
        self._said: dict[str, Taken | Never] = {}  # ... and what was said to its events for good, by key

    async def close(self) -> None:
        """Hang up."""
        await self._poster.close()

    async def send(self, message: Message) -> Answer:
        """One attempt for all of its incidents."""
        deadline = self._poster.deadline()
        if message.kind is Kind.TEST:
            for action in ("trigger", "resolve"):
                if not isinstance(answer := await self._post(test_event(message, action), deadline), Taken):
                    return answer
            return Taken()
        if message.id != self._message:
            self._message, self._said = message.id, {}
        said = self._said
        left = [notice for notice in message.notices if notice.key not in said]
        for first in range(0, len(left), CONNECTIONS_MAX):
            some = left[first : first + CONNECTIONS_MAX]
            events = (event_of(notice, message) for notice in some)
            answers = await asyncio.gather(*(self._post(event, deadline) for event in events))
            said |= {
                notice.key: answer
                for notice, answer in zip(some, answers, strict=True)
                if not isinstance(answer, Later)
            }
            for answer in answers:
                if isinstance(answer, Later):
                    return answer
        refused = [answer.detail for answer in said.values() if isinstance(answer, Never)]
        return Never(plain("; ".join(dict.fromkeys(refused)), DETAIL_MAX)) if refused else Taken()

    async def _post(self, event: Event, deadline: float) -> Answer:
        body = json_of({"routing_key": self._routing_key, **event})
        reply = await self._poster.post(body, deadline=deadline)
        if isinstance(reply, Later):
            return reply
        # It may quote what it was sent.
        return reply.judged(_said(reply).replace(self._routing_key, "(routing key)"))


def event_of(notice: Notice, message: Message) -> Event:
    """The event without its routing key."""
    action = _action(message.kind)
    event: dict[str, object] = {"event_action": action, "dedup_key": dedup_key(notice.key)}
    if action != "trigger":
        return event
    labels, said = notice.labels, notice.annotations
    payload = {
        "summary": clipped(said["summary"], SUMMARY_MAX),
        "source": f"breaker {message.cluster}",
        "severity": _SEVERITIES[labels["severity"]],
        "timestamp": rfc3339(notice.since_us),
        "component": labels.get("operation", "gateway"),
        "class": labels["alertname"],
        "custom_details": {**labels, **said},
    }
    if labels.get("team"):
        payload["group"] = labels["team"]
    event["payload"] = payload
    if links := links_of(notice):
        event["links"] = [{"href": href, "text": text} for text, href in links]
    return event


def test_event(message: Message, action: Action) -> Event:
    """One of the two events of a test, which nobody has to close."""
    event: dict[str, object] = {
        "event_action": action,
        "dedup_key": dedup_key(f"breaker:{message.cluster}:test:{message.id}"),
    }
    if action == "trigger":
        event["payload"] = {
            "summary": clipped(f"A test of the way to on-call. {message.detail}".rstrip(), SUMMARY_MAX),
            "source": f"breaker {message.cluster}",
            "severity": "info",
            "component": "gateway",
            "class": "BreakerTest",
        }
    return event


def dedup_key(key: str) -> str:
    """The key itself, or as much of it as fits before a hash of all of it."""
    if len(key) <= KEY_MAX:
        return key
    digest = sha256(key.encode()).hexdigest()
    return f"{key[: KEY_MAX - 1 - len(digest)]}~{digest}"


def _action(kind: Kind) -> Action:
    match kind:
        case Kind.FIRING | Kind.REPEATED | Kind.TEST:
            return "trigger"
        case Kind.ACKNOWLEDGED:
            return "acknowledge"
        case Kind.RESOLVED:
            return "resolve"
        case _:
            assert_never(kind)


def _said(reply: Reply) -> str:
    """What it says is wrong: `errors`, else `message`; nothing if it is not PagerDuty that speaks."""
    try:
        said = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(said, dict):
        return ""
    errors = said.get("errors")
    words = errors if isinstance(errors, list) and errors else [said.get("message", "")]
    return ", ".join(word for word in words if isinstance(word, str))
