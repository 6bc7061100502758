"""
Keyed: the first answer of each `Idempotency-Key`, for whoever repeats the call.

1. While the first call is worked on, a repeat gets 409 with `Retry-After`.
2. Afterwards a repeat gets the first answer, marked with `Idempotent-Replayed`.
3. Another call under a known key is a mistake: 422.
4. A call that ends without an answer of its own gives its key back: nothing was done.
"""

import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from breaker.demo.downstreams.reply import Reply

KEYS_MAX = 100_000  # the oldest are forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """The first call with a key; `reply` is None while it is being worked on."""

    fingerprint: str
    reply: Reply | None


class KeyedAnswers:
    """Remembers the first answer of each key. A call without a key is never a repeat."""

    def __init__(self) -> None:
        self._first: OrderedDict[str, _First] = OrderedDict()

    def earlier(self, key: str | None, fingerprint: str) -> Reply | None:
        """What a call gets because of one that came before; None when it is the first."""
        first = None if key is None else self._first.get(key)
        if first is None:
            return None
        if first.fingerprint != fingerprint:
            return Reply(status=422, content={"error": "this Idempotency-Key belongs to another call"})
        if first.reply is None:
            busy = {"error": "the first call with this Idempotency-Key is being worked on"}
            return Reply(status=409, content=busy, headers={"Retry-After": "1"})
        headers = {**first.reply.headers, "Idempotent-Replayed": "true"}
        return Reply(status=first.reply.status, content=first.reply.content, headers=headers)

    def is_open(self, key: str) -> bool:
        """Whether the first call with this key is being worked on."""
        return key in self._first and self._first[key].reply is None

    @contextlib.contextmanager
    def working(self, key: str | None, fingerprint: str) -> Iterator[None]:
        """The first call is being worked on until the block ends."""
        self._remember(key, _First(fingerprint=fingerprint, reply=None))
        try:
            yield
        finally:
            if key is not None and self.is_open(key):
                del self._first[key]  # nothing was done: the key may be tried again

    def keep(self, key: str | None, fingerprint: str, reply: Reply) -> None:
        """From now on every repeat gets this answer."""
        self._remember(key, _First(fingerprint=fingerprint, reply=reply))

    def _remember(self, key: str | None, first: _First) -> None:
        if key is None:
            return
        self._first[key] = first
        if len(self._first) > KEYS_MAX:
            self._first.popitem(last=False)


def fingerprint(*parts: object) -> str:
    """The same for the same call, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
