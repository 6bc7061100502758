"""
Reply: what a downstream answers, as a value, before anybody sends it; and how a body is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    An HTTP answer.

    Attributes:
        status: HTTP status.
        content: Sent as JSON.
        headers: Beside the content type.

    """

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """The content as it goes over the wire, ending in a newline for people with curl."""
        return json.dumps(self.content).encode() + b"\n"

    def response(self) -> web.Response:
        """The whole answer at once."""
        return web.Response(
            status=self.status,
            body=self.body(),
            headers=dict(self.headers),
            content_type="application/json",
        )


async def read_object(request: web.Request) -> dict[str, Any] | Reply:
    """The JSON object that the call carries ({} when it carries nothing), or the 400 that it gets."""
    raw = await request.read()
    if not raw:
        return {}
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        return Reply(status=400, content={"error": f"the body is not JSON: {exc}"})
    if not isinstance(content, dict):
        return Reply(status=400, content={"error": "the body is not a JSON object"})
    return content
