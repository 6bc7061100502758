"""
Slack: an incoming webhook.

1. The text is for notifications and for what cannot draw blocks; people in Slack see the blocks.
2. What was filled in cannot call `@channel` or draw a link: `&`, `<` and `>` are escaped everywhere.
3. It has taken a message when it says "ok", and not before: 200 by somebody else is not Slack.
4. The URL is a secret, and of what is answered only Slack's own words are told on.
"""

import re
from collections.abc import Iterator

from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.signals.alert_text import (
    clipped,
    command_of,
    head_of,
    is_web,
    links_of,
    plain,
    state_of,
    text_of,
)
from breaker.signals.channel_http import Poster, json_of
from breaker.signals.channels import Answer, Later, Message

SHOWN_MAX = 10  # notices in one message; the others are counted
TEXT_MAX = 3_000  # characters of a section; these are limits of Slack
HEADER_MAX = 150

_WORD = re.compile(rb"[a-z_]{1,60}")
_CUT_ENTITY = re.compile(r"&[a-z]*$")
Block = dict[str, object]


class SlackChannel:
    """
    One incoming webhook.

    Args:
        poster: To its URL.

    """

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def close(self) -> None:
        """Hang up."""
        await self._poster.close()

    async def send(self, message: Message) -> Answer:
        """One attempt."""
        reply = await self._poster.post(json_of(payload_of(message)))
        if isinstance(reply, Later):
            return reply
        word = reply.body.strip()
        if reply.is_ok and word != b"ok":  # rule 3
            return Later(f"answered {reply.status}, but not 'ok': is this an incoming webhook of Slack?")
        return reply.judged(word.decode() if _WORD.fullmatch(word) else "")


def payload_of(message: Message) -> dict[str, object]:
    """What is posted."""
    return {"text": escaped(text_of(message)), "blocks": list(_blocks(message))}


def escaped(text: str, length: int = TEXT_MAX) -> str:
    """Rule 2, and at most so many characters; an entity is whole or not there."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return safe if len(safe) <= length else _CUT_ENTITY.sub("", safe[: length - 1]) + "…"


def _blocks(message: Message) -> Iterator[Block]:
    head = {"type": "plain_text", "text": clipped(head_of(message), HEADER_MAX), "emoji": False}
    yield {"type": "header", "text": head}
    if message.kind is Kind.TEST or not message.notices:
        yield _section(plain(message.detail) or "Somebody wanted to know whether alerts arrive here.")
        yield _context(f"Nothing is wrong. Cluster {message.cluster}")
        return
    if message.kind is Kind.ACKNOWLEDGED and message.detail:
        yield _section(f"By {plain(message.detail)}")
    # Three blocks each, with the two above and the count below: fewer than the 50 that Slack takes.
    for notice in message.notices[:SHOWN_MAX]:
        yield from _of_notice(message, notice)
    if len(message.notices) > SHOWN_MAX:
        yield _section(f"and {len(message.notices) - SHOWN_MAX} more")


def _of_notice(message: Message, notice: Notice) -> Iterator[Block]:
    said = notice.annotations
    lines = [plain(said["summary"])]
    firing = message.kind in (Kind.FIRING, Kind.REPEATED)
    if firing:
        lines += [plain(said["description"]), f"Impact: {plain(said['impact'])}"]
    yield _section("\n".join(lines))
    if firing:
        command, remark = command_of(notice)
        # Inside a code block only its own fence is special.
        fenced = f"```{escaped(command.replace('```', ''))}```"
        yield _drawn(fenced + (f"\n{escaped(remark)}" if remark else ""))
    labels = notice.labels
    facts = [state_of(message, notice), f"cluster {labels['cluster']}"]
    if labels.get("team"):
        facts.insert(1, f"team {labels['team']}")
    links = [_link(name, url) for name, url in links_of(notice)]
    if not is_web(said["runbook_url"]):
        links.insert(0, escaped(f"Runbook: {said['runbook_url']}"))
    yield _context(", ".join(facts), *links)


def _section(text: str) -> Block:
    return _drawn(escaped(text))


def _drawn(markup: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": markup}}


def _context(text: str, *links: str) -> Block:
    elements = [{"type": "mrkdwn", "text": part} for part in (escaped(text), *links)]
    return {"type": "context", "elements": elements}


def _link(name: str, url: str) -> str:
    # A `|` would end the address, a `>` the link.
    return f"<{escaped(url.replace('|', '%7C').replace('>', '%3E').replace('<', '%3C'))}|{name}>"
