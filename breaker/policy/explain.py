"""
Explain: what holds for one operation, and where each value comes from.

A value comes from a line of the operation or of its pipeline, is inherited inside of a capacity
(an entry of a schedule from the operation, a tenant from `per_tenant`), or is the default.
"""

import re
from dataclasses import dataclass

from breaker.core.calendar import transitions
from breaker.core.model import Limits
from breaker.policy.document import Document, Loc
from breaker.policy.load import Loaded
from breaker.policy.values import operation_values

_AHEAD_US = 400 * 86_400_000_000  # beyond a year, so that a single date is found
_FROM_PIPELINE = {"team", "downstream", "tenant"}
_SHORT = {"capacity.cost.constant", "circuit.mode"}
DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field: its path below the operation, its effective value, where that comes from."""

    field: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """
    One operation, explained.

    Attributes:
        rows: Every field in the order of the documents.
        now: The limits that hold at the moment asked for.
        then: From when (microseconds since 1970) which others hold; None when nothing changes for a year.

    """

    operation: str
    rows: list[Row]
    now: Limits
    then: tuple[int, Limits] | None


def explain(loaded: Loaded, operation: str, now_us: int) -> Explanation:
    """
    Everything that holds for an operation.

    Raises:
        KeyError: There is no such operation.

    """
    value = loaded.config.operations[operation]
    name = operation.removeprefix(f"{value.pipeline}.")
    document = loaded.pipelines[value.pipeline]
    rows = [
        Row(field=path, value=str(words), origin=_origin(document, name, path))
        for path, words in operation_values(value).items()
    ]
    changes = transitions(value.capacity, now_us, now_us + _AHEAD_US)
    return Explanation(
        operation=operation,
        rows=rows,
        now=changes[0][1] if changes else value.capacity.limits,
        then=changes[1] if len(changes) > 1 else None,
    )


def _origin(document: Document, name: str, path: str) -> str:
    loc = _loc(path)
    own: Loc = ("operations", name)
    if document.has((*own, *loc)):
        return document.origin((*own, *loc))
    # `cost: 5` is short for the constant, `circuit: off` for its mode; `tenant` replaces the pipeline's as a whole.
    is_short = path in _SHORT and not document.has_inside((*own, *loc[:-1]))
    if (is_short or loc[0] == "tenant") and document.has((*own, *loc[:-1])):
        return document.origin((*own, *loc[:-1]))
    if loc[0] in _FROM_PIPELINE and document.has(loc):
        return f"{document.origin(loc)} (pipeline)"
    inherits = _inherits_from(loc)
    if inherits is not None and document.has((*own, *inherits)):
        return f"{document.origin((*own, *inherits))} (inherited)"
    return DEFAULT


def _inherits_from(loc: Loc) -> Loc | None:
    if loc[:2] == ("capacity", "schedule") and loc[-1] in {"rate", "burst", "concurrency"}:
        return ("capacity", loc[-1])
    return ("capacity", "per_tenant", loc[-1]) if loc[:2] == ("capacity", "tenants") else None


def _loc(path: str) -> Loc:
    """`capacity.schedule.hours[0].rate` as a path in the document; a free key may hold dots."""
    tenant = re.fullmatch(r"capacity\.tenants\.(.+)\.(rate|burst|concurrency)", path)
    if tenant is not None:
        return ("capacity", "tenants", tenant[1], tenant[2])
    for around in ("queue.weights.", "queue.bands.values."):
        if path.startswith(around):
            return (*around[:-1].split("."), path.removeprefix(around))
    parts: list[str | int] = []
    for part in path.split("."):
        word, _, index = part.partition("[")
        parts += [word, int(index.removesuffix("]"))] if index else [word]
    return tuple(parts)
