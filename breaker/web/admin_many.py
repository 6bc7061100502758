"""
Many: work on all the jobs of a scope, from being asked to its last line.
"""

from collections.abc import AsyncGenerator

from aiohttp import web

from breaker.web.admin_audit import Change
from breaker.web.admin_controls import Controls
from breaker.web.admin_scope import Scope
from breaker.web.admin_stream import Line, stream
from breaker.web.operators import PERSON


async def many(
    controls: Controls, request: web.Request, action: str, scope: Scope, lines: AsyncGenerator[Line, None]
) -> web.StreamResponse:
    """Stream the work; it stands in the audit stream unless it only counts."""
    if scope.is_dry:
        return await stream(request, None, lines)
    async with Change(
        controls, request[PERSON], action, operation=scope.operation, reason=scope.reason, asked=scope.asked
    ) as change:
        return await stream(request, change, lines)
