"""
Ids: sortable, unique, and cheap to make.

A decision is `<operation>~<ULID>`: 10 characters of milliseconds, 8 that name the replica, 8 that
count. The lease it holds is `<replica>.<count>`, so that scripts see whose it is, and so that
ids of one replica sort in order of arrival.
"""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]


def base32(number: int, width: int) -> str:
    """`number` in exactly `width` characters of Crockford's base 32; higher bits are dropped."""
    digits = []
    for _ in range(width):
        digits.append(ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(digits))


class Ids:
    """The ids of one replica; `replica` is 8 characters that no other running replica has."""

    __slots__ = ("_count", "_ms", "_prefix", "_time", "replica")

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self._count = 0
        self._prefix = "000000"
        self._ms = -1
        self._time = ""

    def next(self) -> str:
        """The lease id of the next call."""
        count = self._count
        self._count = count + 1
        if not count & 1023:
            self._prefix = base32(count >> 10, 6)
        return f"{self.replica}.{self._prefix}{_PAIRS[count & 1023]}"

    def decision(self, operation: str, lease_id: str, now_ms: int) -> str:
        """The decision id of the call that has this lease id."""
        if now_ms != self._ms:
            self._ms, self._time = now_ms, base32(now_ms, 10)
        return f"{operation}~{self._time}{lease_id[:8]}{lease_id[9:]}"
