"""
Contract schema: a contract as a component of the OpenAPI document.

A contract is a document of its own: its references start at its own root or `$id`, and its anchors
are its own names. Inside another document, with other contracts, few tools follow that. So every
reference becomes a pointer from the root of the OpenAPI document, and ids and anchors, which are of
no further use then, are left out. JSON Schema 2020-12, sections 8.2 and 9.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

# Where the members of an object are schemas under names that people chose.
MAPS = frozenset({"$defs", "definitions", "properties", "patternProperties", "dependentSchemas"})
# What is data, however much it looks like a schema.
DATA = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired"})
NAMES = frozenset({"$schema", "$id", "$anchor", "$dynamicAnchor", "$vocabulary"})
REFERENCES = frozenset({"$ref", "$dynamicRef"})


def inlined(contract: Mapping[str, Any], at: str) -> dict[str, Any]:
    """
    The contract, fit to stand at `at`.

    Args:
        contract: JSON Schema 2020-12 that stands alone, as the configuration was checked for.
        at: Pointer with its `#`, such as `#/components/schemas/billing.charge-invoice`.

    """
    places: dict[str, str] = {}
    _collect(contract, "", at, places)
    places.setdefault("", at)
    moved = _moved(contract, "", places)
    assert isinstance(moved, dict)  # noqa: S101 - an object stays one
    return moved


def _collect(schema: Any, base: str, at: str, places: dict[str, str]) -> None:
    """Every id and anchor, with the place in the document that it names."""
    if not isinstance(schema, Mapping):
        return
    base = _base(schema, base)
    if isinstance(schema.get("$id"), str) or not places:
        places[base] = at
    for keyword in ("$anchor", "$dynamicAnchor"):
        if isinstance(schema.get(keyword), str):
            places[f"{base}#{schema[keyword]}"] = at
    for keyword, value in schema.items():
        place = f"{at}/{_escaped(keyword)}"
        if keyword in DATA:
            continue
        if keyword in MAPS and isinstance(value, Mapping):
            for name, part in value.items():
                _collect(part, base, f"{place}/{_escaped(name)}", places)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                _collect(part, base, f"{place}/{index}", places)
        else:
            _collect(value, base, place, places)


def _moved(schema: Any, base: str, places: Mapping[str, str]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    base = _base(schema, base)
    moved: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in REFERENCES and isinstance(value, str):
            # One contract has one place for a dynamic anchor, so that a plain reference says the same.
            moved["$ref"] = _target(value, base, places)
        elif keyword in NAMES and isinstance(value, str | Mapping):
            continue
        elif keyword in DATA:
            moved[keyword] = value
        elif keyword in MAPS and isinstance(value, Mapping):
            moved[keyword] = {name: _moved(part, base, places) for name, part in value.items()}
        elif isinstance(value, list):
            moved[keyword] = [_moved(part, base, places) for part in value]
        else:
            moved[keyword] = _moved(value, base, places)
    return moved


def _target(reference: str, base: str, places: Mapping[str, str]) -> str:
    resource, _, fragment = _joined(base, reference).partition("#")
    if not fragment.startswith("/"):
        named = f"{resource}#{fragment}" if fragment else resource
        return places.get(named, reference)  # what we do not know is the dialect's own: it stays
    return places[resource] + fragment if resource in places else reference


def _base(schema: Mapping[str, Any], base: str) -> str:
    own = schema.get("$id")
    return _joined(base, own).partition("#")[0] if isinstance(own, str) else base


def _joined(base: str, reference: str) -> str:
    if reference.startswith("#"):
        return base + reference  # urljoin does not know this of `urn:`
    return reference if urlsplit(reference).scheme else urljoin(base, reference)


def _escaped(name: str) -> str:
    """RFC 6901 section 6: a name as a part of a pointer in a URI."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~$!&'()*+,;=:@")
