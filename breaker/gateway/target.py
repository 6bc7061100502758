"""
Target: the path that a call takes downstream.

The same path as it was called, below the pipeline, byte for byte; or the operation's own template
with the called parameters in it. The query always passes.
"""

from collections.abc import Mapping


def target_of(template: str | None, path: str, query: str, parameters: Mapping[str, str]) -> bytes:
    """
    The request target for the downstream.

    Args:
        template: The operation's `downstream.path`; None forwards as called.
        path: As sent, with the pipeline as its first segment.
        query: As sent, with its question mark; empty when there is none.
        parameters: Values as sent, so already encoded.

    """
    if template is None:
        target = "/" + path.split("/", 2)[2] if path.count("/") > 1 else "/"
    else:
        target = "/".join(
            parameters.get(part[1:-1], part) if part.startswith("{") else part for part in template.split("/")
        )
    # What aiohttp could not decode stands as surrogates: back to the very bytes.
    return f"{target}{query}".encode("utf-8", "surrogateescape")
