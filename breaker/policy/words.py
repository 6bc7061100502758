"""
Words: how single values are written - names, addresses, URLs, routes, opening hours.

Each function turns one text into one value or raises ValueError with a sentence for the person
who wrote it. Nothing here opens a file; numbers with units are in `units.py`.
"""

import re
from datetime import date
from difflib import get_close_matches
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from breaker.core.model import Match

# As `gateway/tenants.py` names them: any other name is hashed there, and an exception for it would never hold.
TENANT_PATTERN = r"^([A-Za-z0-9.-][A-Za-z0-9._-]{0,63}|_anonymous|_other)$"
NAME_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BODILESS = {"GET", "HEAD", "OPTIONS"}
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
_TIMES = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


class When(NamedTuple):
    """The days and the local minutes of an entry of a schedule; crossing midnight is end <= start."""

    weekdays: frozenset[int]
    date: str | None
    start_minute: int
    end_minute: int


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """` (did you mean 'rate'?)`, or what there is when nothing is near; empty when there is nothing."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (there is {', '.join(known)})" if 0 < len(known) <= 20 else ""  # noqa: PLR2004 - still readable


def check_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            f"{text!r} is not a name: lower-case letters, digits and '-', starting with a letter"
        )
    return text


def check_tenant(text: str) -> str:
    if not re.fullmatch(TENANT_PATTERN, text):
        raise ValueError(
            f"{text!r} is no name of a tenant: up to 64 letters, digits, '.', '_' and '-', not starting with '_'"
        )
    return text


def check_timezone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):  # unknown, or no name at all: '../etc', ''
        near = did_you_mean(text, sorted(available_timezones()))
        raise ValueError(
            f"unknown time zone {text!r}{near or ': use a name such as Europe/Berlin'}"
        ) from None
    return text


def check_address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:  # noqa: PLR2004 - the last port
        raise ValueError(f"{text!r} is not host:port, such as 127.0.0.1:8080 or [::1]:8080")
    if not bare or (":" in bare) != (host != bare) or not re.fullmatch(r"[0-9A-Za-z.:%_-]+", bare):
        raise ValueError(
            f"{text!r} has no valid host: write 127.0.0.1:{port}, [::1]:{port} or 0.0.0.0:{port}"
        )
    return text


def check_header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a header")
    if text.lower() in _OWN_HEADERS:
        raise ValueError(f"{text!r} belongs to the connection and cannot be used here")
    return text


def check_pointer(text: str) -> str:
    if not re.fullmatch(r"(?:/(?:[^~/]|~[01])*)+", text):
        raise ValueError(f"{text!r} is not a JSON pointer such as /customer_id or /customer/id")
    return text


def check_web_url(text: str) -> str:
    """An http(s) URL with host and optional path."""
    parts = split_url(text, ("http", "https"))
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} has a query or fragment: only scheme, host, port and path belong here")
    if not parts.hostname:
        raise ValueError(f"{text!r} has no host: write http://host:port")
    return text


def check_downstream_url(text: str) -> str:
    """Likewise; a trailing '/' is dropped."""
    return check_web_url(text).rstrip("/")


def parse_match(value: object) -> Match:
    """`POST /invoices/{invoice_id}/charge`: a method and a path below the pipeline."""
    if not isinstance(value, str):
        raise ValueError("write a method and a path, such as POST /tickets")  # noqa: TRY004 - one error for the person
    method, _, template = value.partition(" ")
    if method not in METHODS:
        raise ValueError(f"{value!r} has an unknown method {method!r}{did_you_mean(method.upper(), METHODS)}")
    return Match(method=method, template=check_template(template.strip()))


def check_template(text: str) -> str:
    """A path whose segments are plain words or `{placeholders}`."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} does not start with '/'")
    names: list[str] = []
    for segment in text[1:].split("/") if text != "/" else []:
        if segment in {"", ".", ".."}:
            raise ValueError(f"{text!r} has an empty segment, '.' or '..': each '/' needs a word after it")
        placeholder = _PLACEHOLDER.fullmatch(segment)
        if placeholder:
            names.append(placeholder[1])
        elif not _LITERAL.fullmatch(segment):
            raise ValueError(
                f"{text!r} has the segment {segment!r}: write plain characters or one {{placeholder}} alone"
            )
    if len(names) != len(set(names)):
        raise ValueError(f"{text!r} names a placeholder twice")
    return text


def placeholders(template: str) -> frozenset[str]:
    return frozenset(_PLACEHOLDER.findall(template))


def shape(match: Match) -> str:
    """What two matches have in common when they could take the same call: `POST /invoices/{}/charge`."""
    return f"{match.method} {_PLACEHOLDER.sub('{}', match.template)}"


def parse_when(text: str) -> When:
    """`mon-fri 08:00-18:00`, `sat,sun 10:00-14:00`, `sun`, `2026-12-24`, `2026-12-31 22:00-02:00`."""
    days, _, times = " ".join(text.split()).partition(" ")
    start, end = _parse_times(times, text) if times else (0, 1440)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", days):
        try:
            date.fromisoformat(days)
        except ValueError:
            raise ValueError(f"{text!r} names {days}, which is not in the calendar") from None
        return When(weekdays=frozenset(), date=days, start_minute=start, end_minute=end)
    return When(weekdays=_parse_weekdays(days, text), date=None, start_minute=start, end_minute=end)


def check_when(text: str) -> str:
    parse_when(text)
    return text


def _parse_weekdays(days: str, text: str) -> frozenset[int]:
    chosen: set[int] = set()
    for part in days.split(","):
        first, dash, last = part.partition("-")
        for name in (first, last) if dash else (first,):
            if name not in WEEKDAYS:
                near = did_you_mean(name.lower()[:3], WEEKDAYS)
                raise ValueError(
                    f"{text!r} names no day in {name!r}{near}: write mon-fri, sat,sun or 2026-12-24"
                )
        begin, length = WEEKDAYS.index(first), 1
        if dash:
            length = (WEEKDAYS.index(last) - begin) % 7 + 1
        chosen.update((begin + step) % 7 for step in range(length))
    return frozenset(chosen)


def _parse_times(times: str, text: str) -> tuple[int, int]:
    found = _TIMES.fullmatch(times)
    if found is None:
        raise ValueError(f"{text!r} has no times that can be read in {times!r}: write 08:00-18:00")
    hours_minutes = [int(part) for part in found.groups()]
    start, end = hours_minutes[0] * 60 + hours_minutes[1], hours_minutes[2] * 60 + hours_minutes[3]
    if start >= 1440 or end > 1440 or max(hours_minutes[1], hours_minutes[3]) >= 60:  # noqa: PLR2004 - a clock
        raise ValueError(f"{text!r} has a time that no clock shows: 00:00 to 23:59, and 24:00 as an end")
    end = end or 1440
    if start == end:
        raise ValueError(f"{text!r} starts and ends at the same time: for a whole day leave the times out")
    return start, end


def split_url(text: str, schemes: tuple[str, ...], also: str = "") -> SplitResult:
    """The parts of a URL; one that carries a secret is not repeated in the message."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("the URL cannot be read: is the port a number?") from None
    if "@" in text:
        raise ValueError("the URL carries a user or password, which do not belong in a file that is shared")
    if parts.scheme not in schemes or not text.startswith(f"{parts.scheme}://") or port == 0:
        ways = ", ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"{text!r} is not a URL that can be used here: write {also}{ways}...")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(f"{text!r} has a space or control character in it")
    return parts
