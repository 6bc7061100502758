"""
Replies of the admin listener: JSON that a person can read as it is.
"""

from typing import Any

import orjson
from aiohttp import web


def as_json(value: dict[str, Any], status: int = 200) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
