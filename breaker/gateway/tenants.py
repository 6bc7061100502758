"""
Tenants: on whose behalf does a caller call?

Names go into keys, so they are of a closed form or hashed, and each caller may use only so many at
a time: a caller that invents tenants must neither fill the store nor escape its limits. What goes
over shares one tenant, `_other`. A name that was not used for ten to twenty minutes is forgotten.
"""

import re
import time
from collections.abc import Callable
from hashlib import sha256

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
OTHER = "_other"
GENERATION_S = 600.0


class Tenants:
    """
    The tenants that one caller has named, in this process.

    Args:
        own: The tenant of calls that name none: the caller itself.
        most: How many different ones it may name at a time; 0: it may not name any.
        on_too_many: Told once per ten minutes that names had to share.
        now: Seconds, monotonic.
    """

    def __init__(
        self,
        own: str,
        most: int,
        *,
        on_too_many: Callable[[], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.own = own
        self._most = most
        self._on_too_many, self._now = on_too_many, now
        self._recent: set[str] = set()
        self._before: set[str] = set()
        self._began = now()
        self._has_told = False

    def named(self, name: str | None) -> str:
        """The tenant for a name that a call carries; the caller itself when it carries none."""
        if not name or not self._most:
            return self.own
        if name not in self._recent:
            return self._take_in(name)
        return name

    def _take_in(self, name: str) -> str:
        if not NAME.match(name) or name.startswith("_"):
            # Still the same tenant at each call, and never one of ours.
            name = "h." + sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if self._now() - self._began >= GENERATION_S:
            self._before, self._recent = self._recent, set()
            self._began, self._has_told = self._now(), False
        if name in self._recent:
            return name
        if name in self._before:
            self._before.discard(name)
        elif len(self._recent) + len(self._before) >= self._most:
            if self._on_too_many and not self._has_told:
                self._has_told = True
                self._on_too_many()
            return OTHER
        self._recent.add(name)
        return name
