"""
Alert text: what a person reads, in one screen of a phone.

1. What, how bad, who is hurt, the first command, whose it is and since when, where to read on; in this order.
2. About a dozen lines of at most 70 characters. Commands and links are not broken: they are copied.
3. It says what was true when the message was made, so that a second attempt says the same.
4. What others wrote stands in one line and without control characters: this is shown on terminals, too.
"""

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import assert_never

from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.signals.channels import Message

WIDTH = 70
LISTED_MAX = 4  # of several notices; the others are counted
SENTENCE_MAX = 280  # characters

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def text_of(message: Message) -> str:
    """The message as plain text, without a newline at its end."""
    return "\n".join(_lines(message))


def head_of(message: Message) -> str:
    """Its first line: a word that says whether to run, how bad it is, and the alert's name."""
    if message.kind is Kind.TEST or not message.notices:
        return "TEST of the way to on-call"
    labels = message.notices[0].labels
    count = f" ({len(message.notices)})" if len(message.notices) > 1 else ""
    return f"{_word(message.kind)} {labels['severity']}: {labels['alertname']}{count}"


def subject_of(notice: Notice) -> str:
    """What it is about: an operation, a band of one, a channel, or else the cluster."""
    labels = notice.labels
    parts = [labels[key] for key in ("operation",) if key in labels]
    parts += [f"{key} {labels[key]}" for key in ("band", "channel") if key in labels]
    return ", ".join(parts) or labels["cluster"]


def state_of(message: Message, notice: Notice) -> str:
    """Since when it fires and for how long, or how long it did."""
    begun = moment_text(notice.since_us, message.made_us)
    if message.kind is Kind.RESOLVED:
        ended_us = message.made_us if notice.ended_us is None else notice.ended_us
        after = span_text(ended_us - notice.since_us)
        return f"resolved after {after}, {begun} to {moment_text(ended_us, message.made_us)} UTC"
    return f"since {begun} UTC ({span_text(message.made_us - notice.since_us)})"


def command_of(notice: Notice) -> tuple[str, str]:
    """The first command, and what is to be known before it is typed; empty if nothing."""
    command, _, remark = notice.annotations["action"].partition("  # ")
    return plain(command), plain(remark)


def links_of(notice: Notice) -> tuple[tuple[str, str], ...]:
    """Name and address of each page that can be opened; a path of the documentation cannot."""
    pages = (("Runbook", "runbook_url"), ("Dashboard", "dashboard_url"))
    links = ((name, notice.annotations.get(key, "")) for name, key in pages)
    return tuple((name, link) for name, link in links if is_web(link))


def is_web(link: str) -> bool:
    return link.startswith(("https://", "http://"))


def plain(text: str, length: int = SENTENCE_MAX) -> str:
    """Rule 4, and at most so many characters."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return clipped(" ".join(shown.split()), length)


def clipped(text: str, length: int) -> str:
    """At most so many characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def span_text(us: int) -> str:
    """A time in its two largest units: 45 s, 12 min, 3 h 5 min, 2 d 3 h."""
    seconds = max(us, 0) // 1_000_000
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    size, name, small, small_name = (
        (_HOUR, "h", _MINUTE, "min") if seconds < _DAY else (_DAY, "d", _HOUR, "h")
    )
    rest = seconds % size // small
    return f"{seconds // size} {name}" + (f" {rest} {small_name}" if rest else "")


def moment_text(us: int, near_us: int) -> str:
    """The time of day, UTC; with its date unless that is the same as of `near_us`."""
    moment, near = (_EPOCH + timedelta(microseconds=at_us) for at_us in (us, near_us))
    return moment.strftime("%H:%M" if moment.date() == near.date() else "%d %b %H:%M")


def _word(kind: Kind) -> str:
    match kind:
        case Kind.REPEATED:
            return "STILL FIRING"
        case Kind.FIRING | Kind.ACKNOWLEDGED | Kind.RESOLVED | Kind.TEST:
            return kind.upper()
        case _:
            assert_never(kind)


def _lines(message: Message) -> Iterator[str]:
    yield head_of(message)
    if message.kind is Kind.TEST or not message.notices:
        yield from _wrapped(plain(message.detail) or "Somebody wanted to know whether alerts arrive here.")
        yield f"Nothing is wrong. {moment_text(message.made_us, message.made_us)} UTC, cluster {message.cluster}"
        return
    if message.kind is Kind.ACKNOWLEDGED and message.detail:
        yield from _wrapped(f"By {plain(message.detail)}")
    if len(message.notices) > 1:
        yield from _listed(message)
    else:
        yield from _told(message, message.notices[0])
    yield from _pages(message)


def _told(message: Message, notice: Notice) -> Iterator[str]:
    said = notice.annotations
    firing = message.kind in (Kind.FIRING, Kind.REPEATED)
    before = "It was: " if message.kind is Kind.RESOLVED else ""
    yield from _wrapped(before + plain(said["summary"]))
    if firing:
        yield from _wrapped(plain(said["description"]))
        yield from _to_do(notice)
    yield _owner(message, notice)


def _listed(message: Message) -> Iterator[str]:
    firing = message.kind in (Kind.FIRING, Kind.REPEATED)
    for notice in message.notices[:LISTED_MAX]:
        said = (
            notice.annotations["summary"] if firing else f"{subject_of(notice)}: {state_of(message, notice)}"
        )
        yield clipped(f"- {plain(said)}", WIDTH)
    if len(message.notices) > LISTED_MAX:
        yield f"and {len(message.notices) - LISTED_MAX} more"
    first = message.notices[0]
    if firing:
        yield from _to_do(first)
        yield _owner(message, min(message.notices, key=lambda notice: notice.since_us))
    else:
        yield _place(first)


def _to_do(notice: Notice) -> Iterator[str]:
    yield from _wrapped(f"Impact: {plain(notice.annotations['impact'])}")
    command, remark = command_of(notice)
    yield f"Do: {command}"
    if remark:
        yield f"    {remark}"


def _owner(message: Message, notice: Notice) -> str:
    state = state_of(message, notice)
    return f"{state[0].upper()}{state[1:]}, {_place(notice)}"


def _place(notice: Notice) -> str:
    team = notice.labels.get("team")
    return (f"team {team}, " if team else "") + f"cluster {notice.labels['cluster']}"


def _pages(message: Message) -> Iterator[str]:
    first = message.notices[0]
    firing = message.kind in (Kind.FIRING, Kind.REPEATED)
    if firing:
        yield f"Runbook: {first.annotations['runbook_url']}"
    if "dashboard_url" in first.annotations and len(message.notices) == 1:
        yield f"Dashboard: {first.annotations['dashboard_url']}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
