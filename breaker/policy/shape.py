"""
Shape: does a document have the fields of its model? What pydantic finds, in our words.

All problems of a file are reported at once. To look further behind the first ones, what is wrong
is taken out and the rest is read again; `Shaped.broken` says where, so that nothing is
reported for being missing that is only misspelt.
"""

import copy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from breaker.core.errors import Problem
from breaker.policy.document import Document, Loc
from breaker.policy.fields import keys_at
from breaker.policy.kinds import Section
from breaker.policy.words import did_you_mean

Model = TypeVar("Model", bound=Section)

_EXPECTED = {
    "string": "text: write it in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping (`name: value`)",
    "model": "a mapping (`name: value`)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped(Generic[Model]):
    """
    A document and what could be read of it.

    Attributes:
        model: None when nothing useful is left.
        broken: Paths that were taken out.

    """

    document: Document
    model: Model | None
    broken: frozenset[Loc]

    def is_broken(self, loc: Loc) -> bool:
        """Is something at or below this path reported already?"""
        return any(path[: len(loc)] == loc for path in self.broken)


def read_shape(document: Document, model: type[Model], problems: list[Problem]) -> Shaped[Model]:
    """The model of a document; whatever does not fit is added to the problems."""
    value = copy.deepcopy(document.value)
    broken: set[Loc] = set()
    # At most: the fields, what they leave incomplete, then the operations (or callers) around them, then the file.
    for attempt, depth in enumerate((99, 99, 2, 0)):
        try:
            shaped = model.model_validate(value)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                loc, at_key = _path(detail)
                if attempt == 0:  # the first look finds what the person wrote
                    problems.append(_problem(document, model, detail, loc, at_key))
            locs = {_path(detail)[0][:depth] for detail in error.errors(include_url=False)}
            if () in locs:
                return Shaped(document=document, model=None, broken=frozenset({()}))
            broken |= locs
            # All are looked up before the first is taken out.
            for holder in [_holder(value, loc) for loc in locs]:
                if holder is not None:
                    holder[0].pop(holder[1], None)
        else:
            return Shaped(document=document, model=shaped, broken=frozenset(broken))
    return Shaped(document=document, model=None, broken=frozenset({()}))


def _path(detail: ErrorDetails) -> tuple[Loc, bool]:
    """Where it is, and whether it is the key there that is wrong."""
    loc = detail["loc"]
    if loc and loc[-1] == "[key]":
        return loc[:-1], True
    return loc, detail["type"] == "extra_forbidden"


def _holder(value: Any, loc: Loc) -> tuple[dict[Any, Any], str | int] | None:
    """
    The mapping and the key that hold what is wrong.

    An entry of a list goes with its list, or the others would move; what is missing, or inside
    of a short form, goes with what is around it.
    """
    holder = None
    for part in loc:
        if isinstance(value, dict) and part in value:
            holder, value = (value, part), value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
    return holder


def _problem(
    document: Document, model: type[Section], detail: ErrorDetails, loc: Loc, at_key: bool
) -> Problem:
    kind, context, key = detail["type"], detail.get("ctx", {}), str(loc[-1]) if loc else "the file"
    name = f"entry {loc[-1] + 1} of `{loc[-2]}`" if loc and isinstance(loc[-1], int) else f"`{key}`"
    value = detail["input"]
    if kind == "extra_forbidden":
        message = _unknown_key(model, loc)
    elif kind == "missing":
        message = f"{name} is missing"
    elif kind == "value_error":
        message = f"{name}: {context['error']}"
    elif value is None:
        message = f"{name} is empty: give it a value or leave it out"
    elif kind == "literal_error":
        known = tuple(part.strip(" '") for part in context["expected"].replace(" or ", ",").split(","))
        message = f"{name}: unknown value {value!r}{did_you_mean(str(value), known)}"
    elif kind.removesuffix("_type") in _EXPECTED:
        shown = (
            "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
        )
        message = f"{name} is {shown}; it must be {_EXPECTED[kind.removesuffix('_type')]}"
    elif kind.startswith(("greater", "less")):
        message = f"{name}: {document_value(document, loc, value)} is out of bounds: {_bound(context)}"
    elif kind in {"too_short", "string_too_short"}:
        message = f"{name} is empty: at least one is needed"
    else:
        message = f"{name}: {detail['msg']}"
    return document.problem(loc, message, at_key=at_key)


def document_value(document: Document, loc: Loc, value: Any) -> Any:
    """What the person wrote, which may be `0s` where the model saw 0."""
    written = document.value
    for part in loc:
        try:
            written = written[part]
        except (KeyError, IndexError, TypeError):
            return value
    return written


def _bound(context: dict[str, Any]) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return " and ".join(f"{words[name]} {bound}" for name, bound in context.items() if name in words)


def _unknown_key(model: type[Section], loc: Loc) -> str:
    key, around = str(loc[-1]), loc[:-1]
    known = keys_at(model, around)
    if key == "password":
        return "`password` never stands in a file that is shared: use `password_file` or $BREAKER_STORE__PASSWORD"
    return f"unknown key `{key}`{did_you_mean(key, known)}"
