"""
Schema parts: JSON Schema as the gateway's own documents use it: closed objects, counts, moments, null.
"""

from typing import Any

COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TEXT: dict[str, Any] = {"type": "string"}
MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with all of these members, and no others."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {**schema, "description": description}
