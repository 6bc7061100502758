"""
OpenAPI of the gateway's own paths: the catalogue, this document, the page for people, health.
"""

from typing import Any

from breaker.gateway.call import Kind
from breaker.web.catalogue import CATALOGUE_SCHEMA
from breaker.web.openapi_parts import problem_response

TAG = "Breaker"  # with a capital, as no pipeline can be named

OWN_SCHEMAS: dict[str, Any] = {
    "Catalogue": CATALOGUE_SCHEMA,
}


def own_paths(*, is_open: bool) -> dict[str, Any]:
    """Everything that is no operation and no job; only the catalogue asks for a key, if calls do."""
    word = {"type": "string", "description": "For a person; the status decides.", "examples": ["ready\n"]}
    document = {"type": "object", "required": ["openapi", "paths"]}
    page = {"type": "string"}
    return {
        "/v1/operations": _path(
            "listOperations", "What every operation promises, and how it stands now.",
            {
                "200": _answer("All operations.", "application/json", {"$ref": "#/components/schemas/Catalogue"}),
                **({} if is_open else {"401": problem_response(401, [Kind.UNAUTHENTICATED], limited=False, headers=("Breaker-Outcome",), is_only=True)}),
            },
            asks_key=True,
        ),
        "/openapi.json": _path(
            "getOpenApi", "This document.",
            {"200": _answer("OpenAPI 3.1, made from the configuration in force.", "application/json", document)},
        ),
        "/docs": _path("getDocs", "This document for people; `#<kind>` is the section that a problem's `type` leads to.", {"200": _answer("A page.", "text/html", page)}),
        "/livez": _path(
            "getLivez", "Whether the process runs.", {"200": _answer("It does.", "text/plain", word)}
        ),
        "/readyz": _path(
            "getReadyz", "Whether calls should be sent here.",
            {
                "200": _answer("They should.", "text/plain", word),
                "503": _answer("It starts, or it is shutting down.", "text/plain", word),
            },
        ),
    }  # fmt: skip


def _path(name: str, summary: str, responses: dict[str, Any], *, asks_key: bool = False) -> dict[str, Any]:
    get: dict[str, Any] = {"operationId": name, "tags": [TAG], "summary": summary, "responses": responses}
    if not asks_key:
        get["security"] = []
    bodiless = {status: {"description": response["description"]} for status, response in responses.items()}
    head = {
        **get,
        "operationId": f"{name}Head",
        "summary": "As GET, without the body.",
        "responses": bodiless,
    }
    return {"get": get, "head": head}


def _answer(description: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}
