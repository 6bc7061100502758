"""
Fields: what the models say about every field, for documents, suggestions and explanations.

A path is written as a person would say it: `capacity.per_tenant.rate`, `operations.<name>.match`,
`callers[].id`. Only leaves are fields; a mapping is the name before the dot.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from breaker.policy.document import Loc
from breaker.policy.kinds import Kind, Section

_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldText:
    """One field in words, as they stand in the documents."""

    path: str
    kind: str
    default: str
    meaning: str
    example: str


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[FieldText]:
    """All leaves below a model, in the order of the file."""
    hints = get_type_hints(model, include_extras=True)
    for key, (name, info) in _named(model).items():
        path = f"{prefix}{key}"
        inner, container = _inner(hints[name])
        section = _section(inner)
        if section is not None:
            yield from fields_of(section, f"{path}{container}.")
        else:
            # In a mapping with free keys each value is a field.
            example = (info.examples or [""])[0]
            is_free = isinstance(example, dict) and container == ".<name>"
            yield FieldText(
                path=f"{path}{container}" if is_free else path,
                kind=_kind(hints[name]),
                default=_default(info),
                meaning=info.description or "",
                example=_written(next(iter(example.values())) if is_free else example),
            )


def keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """Which keys may stand in the mapping at a path; empty when they are free."""
    at: type[BaseModel] | None = model
    in_container = False
    for part in loc:
        if in_container:  # this part is the name or number of an entry
            in_container = False
            continue
        known = {} if at is None else _named(at)
        if at is None or part not in known:
            return []
        inner, container = _inner(get_type_hints(at, include_extras=True)[known[str(part)][0]])
        at, in_container = _section(inner), bool(container)
    return [] if at is None or in_container else list(_named(at))


def markdown(model: type[BaseModel]) -> str:
    """The table of every field, as it stands in the documents."""
    lines = ["| field | type | default | meaning | example |", "|---|---|---|---|---|"]
    for field in fields_of(model):
        cells = (f"`{field.path}`", field.kind, field.default, field.meaning, f"`{field.example}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _named(model: type[BaseModel]) -> dict[str, tuple[str, FieldInfo]]:
    """Name and description of each field by its key in the file: `for` is a word of Python."""
    return {info.alias or name: (name, info) for name, info in model.model_fields.items()}


def _inner(hint: Any) -> tuple[Any, str]:
    """What stands inside Annotated, `| None`, list and dict; and how the container is written."""
    while True:
        origin, args = get_origin(hint), get_args(hint)
        if origin is Annotated:
            hint = args[0]
        elif origin in {Union, UnionType}:
            hint = next(arg for arg in args if arg is not NoneType)
        elif origin is dict:
            return _inner(args[1])[0], ".<name>"
        elif origin is list:
            return _inner(args[0])[0], "[]"
        else:
            return hint, ""


def _section(hint: Any) -> type[Section] | None:
    return hint if isinstance(hint, type) and issubclass(hint, Section) else None


def _kind(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kinds = [extra.text for extra in args[1:] if isinstance(extra, Kind)]
        return kinds[0] if kinds else _kind(args[0])
    if origin in {Union, UnionType}:
        return _kind(next(arg for arg in args if arg is not NoneType))
    if origin is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin is list:
        return f"list of {_kind(args[0])}"
    if origin is dict:
        return _kind(args[1])
    return _PLAIN[hint]


def _default(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "x-default" in extra:
        return str(extra["x-default"])
    if info.is_required():
        return "required"
    return "none" if info.default in (None, [], {}) else f"`{_written(info.default)}`"


def _written(value: Any) -> str:
    """A value as YAML on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
