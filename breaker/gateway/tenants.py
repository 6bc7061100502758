"""
Tenants: on whose behalf does a caller call?

Names go into keys, so they are of a closed form or hashed, and each caller may use only so many:
a caller that invents tenants must neither fill the store nor escape its limits.
"""

import re
from hashlib import sha256

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
OTHER = "_other"


class Tenants:
    """
    The tenants that one caller has named, in this process.

    Args:
        own: The tenant of calls that name none: the caller itself.
        most: How many different ones it may name; 0: it may not name any.

    """

    def __init__(self, own: str, most: int) -> None:
        self.own = own
        self._most = most
        self._seen: set[str] = set()

    @property
    def may_name(self) -> bool:
        return self._most > 0

    def named(self, name: str | None) -> str:
        """The tenant for a name that a call carries; the caller itself when it carries none."""
        if not name or not self._most:
            return self.own
        if name in self._seen:
            return name
        if not NAME.match(name) or name.startswith("_"):
            # Still the same tenant at each call, and never one of ours.
            name = "h." + sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
            if name in self._seen:
                return name
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(name)
        return name
