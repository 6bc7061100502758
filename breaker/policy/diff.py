"""
Diff: what differs between two configurations, in words.

    + billing.refund-invoice: added
    - support.close-ticket: removed
    ~ billing.charge-invoice: capacity.rate 20/s -> 40/s
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from breaker.core.config import Config
from breaker.policy.values import Hidden, Value, gateway_values, operation_values

PROCESS = "gateway"  # the subject of what stands in gateway.yaml


class Kind(StrEnum):
    """What happened to the subject."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """
    One thing that differs.

    Attributes:
        subject: An operation, or `gateway`.
        field: Path as in the files; None when the whole operation came or went.
        old: In words; None where there was nothing.
        new: Likewise.

    """

    kind: Kind
    subject: str
    field: str | None = None
    old: str | None = None
    new: str | None = None

    def __str__(self) -> str:
        """One line, with a sign in front."""
        sign = {Kind.ADDED: "+", Kind.REMOVED: "-", Kind.CHANGED: "~"}[self.kind]
        if self.field is None:
            return f"{sign} {self.subject}: {self.kind}"
        return f"{sign} {self.subject}: {self.field} {self.old or 'none'} -> {self.new or 'none'}"


def diff(old: Config, new: Config) -> list[Difference]:
    """All differences: the process first, then operations in the order of the new files, then removed ones."""
    found = _fields(PROCESS, gateway_values(old.gateway), gateway_values(new.gateway))
    if (old.gateway.callers is None) != (new.gateway.callers is None):
        words = {True: "everybody may call", False: "named callers only"}
        is_open = (old.gateway.callers is None, new.gateway.callers is None)
        found.append(
            Difference(
                kind=Kind.CHANGED,
                subject=PROCESS,
                field="callers",
                old=words[is_open[0]],
                new=words[is_open[1]],
            )
        )
    for name, operation in new.operations.items():
        if name in old.operations:
            found += _fields(name, operation_values(old.operations[name]), operation_values(operation))
        else:
            found.append(Difference(kind=Kind.ADDED, subject=name))
    found += [
        Difference(kind=Kind.REMOVED, subject=name) for name in old.operations if name not in new.operations
    ]
    return found


def _fields(subject: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> list[Difference]:
    paths = [*new, *(path for path in old if path not in new)]
    return [
        Difference(
            kind=Kind.CHANGED,
            subject=subject,
            field=path,
            old=_shown(old.get(path)),
            new=_shown(new.get(path), again=True),
        )
        for path in paths
        if old.get(path) != new.get(path)
    ]


def _shown(value: Value | None, *, again: bool = False) -> str | None:
    """A secret that changed is `(hidden) -> (another)`, not twice the same."""
    if isinstance(value, Hidden) and again:
        return "(another, hidden)"
    return None if value is None else str(value)
