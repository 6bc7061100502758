"""
Identity: who calls, and what may they call?

Keys are long random secrets, so their SHA-256 is stored and compared; two may be active while one
is rotated. Without any caller configured the gateway is open, and says so loudly at its start.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from breaker.core.config import Caller
from breaker.core.events import Listener, TenantsExceeded
from breaker.gateway.tenants import Tenants

ANONYMOUS = "_anonymous"
TENANTS_MAX = 10_000


@dataclass(slots=True)
class Identity:
    """A known caller, its tenants in this process, and the operations it was checked for already."""

    id: str
    tenants: Tenants
    patterns: tuple[str, ...]
    allowed: dict[str, bool]
    may_name_band: bool = True

    def may_call(self, operation: str) -> bool:
        known = self.allowed.get(operation)
        if known is None:
            known = any(fnmatchcase(operation, pattern) for pattern in self.patterns)
            self.allowed[operation] = known
        return known


class Callers:
    """All callers of a configuration; `None` means that everybody may call."""

    def __init__(self, callers: Iterable[Caller] | None, emit: Listener) -> None:
        self._by_hash: dict[str, Identity] | None = None
        self._anonymous = Identity(ANONYMOUS, tenants_of(ANONYMOUS, TENANTS_MAX, emit), ("*",), {})
        if callers is None:
            return
        self._by_hash = {}
        for caller in callers:
            most = caller.tenants_max if "tenant" in caller.may_name else 0
            tenants = tenants_of(caller.id, most, emit)
            identity = Identity(caller.id, tenants, caller.operations, {}, "band" in caller.may_name)
            for digest in caller.key_hashes:
                self._by_hash[digest.lower()] = identity

    @property
    def is_open(self) -> bool:
        return self._by_hash is None

    def of_key(self, key: str | None) -> Identity | None:
        """The caller with this key; None for a missing or unknown one."""
        if self._by_hash is None:
            return self._anonymous
        if not key:
            return None
        digest = sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        # A look-up by a hash: what its timing could tell is a digest that nobody can steer.
        return self._by_hash.get(digest)


def tenants_of(caller: str, most: int, emit: Listener) -> Tenants:
    return Tenants(caller, most, on_too_many=lambda: emit(TenantsExceeded(caller)))
