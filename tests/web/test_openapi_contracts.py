"""A contract means the same inside the OpenAPI document as it does alone."""

from typing import Any

import jsonschema_rs
import pytest

from breaker.web.contract_schema import inlined
from breaker.web.openapi import document
from tests.web.described import config, operation, validator

CONTRACTS: list[dict[str, Any]] = [
    {"$ref": "#/$defs/amount", "$defs": {"amount": {"type": "integer"}}},
    {
        "$id": "urn:x:1",
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "urn:x:1#/$defs/b"}, "b": {"type": "integer"}},
    },
    {
        "$id": "https://a.example/c",
        "$ref": "d#whole",
        "$defs": {"d": {"$id": "d", "$anchor": "whole", "type": "integer"}},
    },
    {
        "$ref": "urn:x:2",
        "$defs": {
            "q": {"type": "string"},
            "inner": {"$id": "urn:x:2", "$ref": "#/$defs/q", "$defs": {"q": {"type": "integer"}}},
        },
    },
    {"$ref": "#whole", "$defs": {"a/b ~c": {"$anchor": "whole", "type": "integer"}}},
    {"anyOf": [{"type": "integer"}, {"type": "array", "minItems": 1, "items": {"$ref": "#"}}]},
    {
        "$dynamicAnchor": "node",
        "anyOf": [{"type": "integer"}, {"type": "array", "minItems": 1, "items": {"$dynamicRef": "#node"}}],
    },
    {"type": "object", "properties": {"$ref": {"type": "integer"}, "enum": {"$ref": "#/properties/$ref"}}},
    {
        "$id": "urn:x:1",
        "allOf": [{"$ref": "#/$defs/z", "$defs": {}}],
        "$defs": {"z": {"const": {"$ref": "#/$defs/z"}}},
    },
]


VALUES: list[Any] = [1, "1", [], [1], [[1]], ["1"], [["1"]], {"$ref": 1}, {"$ref": "1"}, {"enum": 1}, {"enum": "1"},
                     {"$ref": "#/$defs/z"}]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_accepts_the_same_inside_the_document(contract: dict[str, Any]) -> None:
    """A client that checks its bodies against the document is never surprised by a 422."""
    described = document(
        config(operation(contract=contract), operation("billing.z", "POST /z", contract={"$defs": {}}))
    )
    inside = validator(described, {"$ref": "#/components/schemas/billing.charge"})
    outside = jsonschema_rs.Draft202012Validator(contract)
    assert [inside.is_valid(value) for value in VALUES] == [outside.is_valid(value) for value in VALUES]
    assert len({outside.is_valid(value) for value in VALUES}) == 2, "the values do not tell contracts apart"


def test_a_reference_to_the_dialect_itself_is_left_alone() -> None:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    assert inlined({"$schema": dialect, "$ref": dialect}, "#/c") == {"$ref": dialect}
