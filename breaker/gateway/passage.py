"""
Passage: which header lines go through, in one direction.

RFC 9110 section 7.6.1: hop-by-hop fields do not pass, nor do those that `Connection` names. What was
decided about a name is kept, because callers and downstreams send the same few names again and again.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from breaker.core.model import Operation
from breaker.core.trace import Span

Headers = Iterable[tuple[bytes, bytes]]

NAMES_MAX = 1_000  # names whose fate is kept; callers choose names, so it is bounded

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
OURS_DOWN = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"forwarded", b"x-request-id", b"request-timeout", b"breaker-key", b"prefer",
}  # fmt: skip
OURS_UP = HOP_BY_HOP | {
    b"content-length", b"x-request-id", b"breaker-outcome", b"breaker-decision", b"ratelimit", b"ratelimit-policy",
}  # fmt: skip
LOCATIONS = frozenset({b"location", b"content-location"})
FORWARDED = b"x-forwarded-"  # all of them say who called, and that we say ourselves
SPECIAL = b""  # a name whose value must be looked at


class Passage:
    """
    One direction of one operation.

    Args:
        ours: Names, in lower case, that do not pass: we set them, or they belong to one hop.
        here: Rewrites places (`Location`) to where the caller finds them; None leaves them.
        added: Complete lines that go with every message.
    """

    def __init__(self, ours: frozenset[bytes], *, here: "Here | None" = None, added: bytes = b"") -> None:
        self._ours, self._here, self._added = ours, here, added
        self._starts: dict[bytes, bytes | None] = {}

    def lines(self, headers: Headers) -> bytes:
        """The lines that pass, in their order."""
        starts, lines, named = self._starts, [], None
        for name, value in headers:
            try:
                start = starts[name]
            except KeyError:
                start = self._decide(name)
            if start:
                lines.append(start + value + b"\r\n")
            elif start is SPECIAL:
                if self._here and name.lower() in LOCATIONS:
                    lines.append(name + b": " + self._here(value) + b"\r\n")
                elif value.lower() not in (b"close", b"keep-alive"):
                    named = value if named is None else named + b"," + value
        if named is not None:
            lines = without(lines, named)
        lines.append(self._added)
        return b"".join(lines)

    def _decide(self, name: bytes) -> bytes | None:
        lowered = name.lower()
        start: bytes | None = name + b": "
        if lowered == b"connection" or (self._here and lowered in LOCATIONS):
            start = SPECIAL
        elif lowered in self._ours or lowered.startswith(FORWARDED):
            start = None
        if len(self._starts) < NAMES_MAX:
            self._starts[name] = start
        return start


class Here:
    """A place at the downstream, as the caller reaches it: below the pipeline. Other places stay."""

    def __init__(self, operation: Operation) -> None:
        url = operation.downstream.url.rstrip("/")
        self._prefix = b"/" + operation.pipeline.encode()
        self._url, self._base = url.encode(), urlsplit(url).path.encode()

    def __call__(self, value: bytes) -> bytes:
        for start in (self._url, self._base):
            if value.startswith(start + b"/") and not value.startswith(b"//"):
                return self._prefix + value[len(start) :]
        return value


def traced(headers: Headers, span: Span, traceparent: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The same headers with this `traceparent`; a trace that begins with us has no `tracestate` of others."""
    replaced = (b"traceparent",) if span.parent_id else (b"traceparent", b"tracestate")
    kept = [line for line in headers if line[0].lower() not in replaced]
    return (*kept, (b"traceparent", traceparent))


def without(lines: list[bytes], named: bytes) -> list[bytes]:
    """The lines but those that `Connection` names."""
    names = tuple(part.strip().lower() + b":" for part in named.split(b",") if part.strip())
    return [line for line in lines if not line.lower().startswith(names)]
