"""
Contracts: what a process takes, as JSON Schema 2020-12, checked before any capacity is spent.

The limits on depth and size are those of the parser (1024 levels) and of `max_body`; a violation
names the place by JSON pointer, so that the caller's developer need not guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

VIOLATIONS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that breaks the contract; `pointer` is RFC 6901, empty for the whole body."""

    pointer: str
    message: str


class NotJsonError(Exception):
    """The body is not JSON, or nested too deep."""


class Contract:
    """A compiled schema; `format` is asserted, because a date that is none helps nobody."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True)

    def violations(self, value: Any) -> list[Violation]:
        """
        What is wrong with this value, at most 20 things; empty when it fits.

        Raises:
            NotJsonError: It is nested deeper than can be checked.

        """
        try:
            if self._validator.is_valid(value):
                return []
            found = []
            for error in self._validator.iter_errors(value):
                found.append(Violation(pointer=pointer_of(error.instance_path), message=error.message))
                if len(found) == VIOLATIONS_MAX:
                    break
        except ValueError as exc:
            raise NotJsonError(str(exc)) from exc
        return found


def parse(body: bytes) -> Any:
    """
    The value of a JSON text.

    Raises:
        NotJsonError: It is none; says where.

    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise NotJsonError(
            f"the body is not JSON: {exc}" if body else "the body is empty, but must be JSON"
        ) from exc


def pointer_of(path: list[str | int]) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def at_pointer(value: Any, pointer: str) -> Any:
    """What stands at a JSON pointer; None when there is nothing."""
    for raw in pointer.split("/")[1:]:
        part = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
