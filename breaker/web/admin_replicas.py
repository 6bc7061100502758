"""
Replicas: who lives, what they run, and which of them is the steward.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from breaker.store.members import Member, Members
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields
from breaker.web.admin_reply import as_json
from breaker.web.admin_views import moment


def replicas_page(controls: Controls) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The route that lists them."""

    async def replicas(request: web.Request) -> web.Response:
        Fields(request.query)
        found = await controls.replicas()
        versions = Counter(member.version for member in found)
        return as_json({"replicas": [member_view(member) for member in found], "versions": dict(versions)})

    return replicas


def member_view(member: Member) -> dict[str, Any]:
    return {
        "replica": member.id,
        "version": member.version,
        "host": member.host,
        "pid": member.pid,
        "started": moment(member.started_us),
        "last_beat": moment(member.beat_us),
        "format": member.format,
        "steward": member.is_steward,
    }


def membership_view(members: Members) -> dict[str, Any]:
    """What one replica knows of all, for `/status`; the last word while the store is away."""
    return {
        "live": members.live,
        "differing": members.differing,
        "version_in_force": members.standing.version or None,
        "is_in_force": members.standing.is_in_force,
        "steward": members.steward_id or None,
    }
