"""
Limits by hand: raise or lower an operation's for a while, and end that early.

1. They always end by themselves. Nobody has to remember a limit that was raised at 3 a.m.
2. What could never work is refused before it is written down; the store decides the same once more, in one step.
"""

from typing import Any

from aiohttp import web

from breaker.core.model import Limits, Operation
from breaker.core.override import Change as NewLimits
from breaker.core.override import Wrong, changed
from breaker.policy.units import format_duration, format_rate
from breaker.policy.values import limits_in_words
from breaker.policy.words import did_you_mean
from breaker.web.admin_audit import Change
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields, body_of, operation_named
from breaker.web.admin_operations import etas_of
from breaker.web.admin_problems import AdminProblem
from breaker.web.admin_reply import as_json
from breaker.web.admin_views import limits_view, moment, operation_view
from breaker.web.operators import PERSON

PATH = "/operations/{operation}/override"
SAID = ("rate", "burst", "concurrency")
LONGEST_MS = 30 * 86_400_000
BURST_MAX = 1_000_000_000
SLOTS_MAX = 1_000_000


class Overrides:
    """The routes of `operations/{operation}/override`."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def routes(self) -> list[web.RouteDef]:
        return [web.put(PATH, self.set), web.delete(PATH, self.ended)]

    async def set(self, request: web.Request) -> web.Response:
        operation, controls = self._named(request), self._controls
        fields = Fields(await body_of(request), *SAID, "reason", "expires_in", "dry_run")
        change, length_us, is_dry = new_limits(fields, operation), length_of(fields), fields.flag("dry_run")
        reason = fields.text("reason") if is_dry else fields.reason()
        look, now_us = await controls.look(operation.name), controls.now_us()
        after = changed(look.stated, change)
        if isinstance(after, Wrong):
            raise impossible(after, look.stated, change)
        until_us = now_us + length_us
        if is_dry:
            return as_json(
                {
                    "operation": operation.name,
                    "change": change_view(look.stated, after, until_us, is_changed=False, is_dry=True),
                }
            )
        asked = {name: word for name, word in words_of(change).items() if word is not None}
        async with Change(
            controls, request[PERSON], "operations.set", operation=operation.name, reason=reason,
            asked={**asked, "until": moment(until_us)},
        ) as done:  # fmt: skip
            found = await controls.overrides.set(operation.name, change, until_us, request[PERSON].id, reason)
            if isinstance(found, Wrong):  # somebody else changed them in this moment
                raise impossible(found, look.stated, change)
            done.outcome = f"{limits_in_words(found.before)} -> {limits_in_words(found.after)}"
        view = change_view(found.before, found.after, until_us)
        return as_json({**await self._view(operation), "change": view})

    async def ended(self, request: web.Request) -> web.Response:
        operation, controls = self._named(request), self._controls
        # Not every client sends a body with a DELETE, nor does every proxy pass it on.
        fields = Fields(await body_of(request) if request.can_read_body else request.query, "reason")
        reason = fields.reason()
        async with Change(
            controls, request[PERSON], "operations.unset", operation=operation.name, reason=reason
        ) as done:
            found = await controls.overrides.end(operation.name, request[PERSON].id, reason)
            words = f"{limits_in_words(found.before)} -> {limits_in_words(found.after)}"
            done.outcome = words if found.is_changed else "nobody had set limits"
        view = change_view(found.before, found.after, 0, is_changed=found.is_changed)
        return as_json({**await self._view(operation), "change": view})

    def _named(self, request: web.Request) -> Operation:
        name, known = operation_named(request.match_info["operation"]), self._controls.operations()
        if name not in known:
            raise AdminProblem(404, f"unknown operation '{name}'{did_you_mean(name, list(known))}")
        return known[name]

    async def _view(self, operation: Operation) -> dict[str, Any]:
        controls, name = self._controls, operation.name
        look = await controls.look(name)
        queue = await controls.desk.look_queue(name) if operation.queue else None
        etas = etas_of(operation, look, queue, controls.forecast, controls.now_us()) if queue else {}
        return operation_view(name, operation, look, queue, controls.now_us(), etas)


def new_limits(fields: Fields, operation: Operation) -> NewLimits:
    """
    What is said of the limits.

    Raises:
        AdminProblem: 422; it could not hold for any call.

    """
    cost = operation.capacity.cost
    change = NewLimits(
        rate=fields.pace("rate"),
        burst=fields.amount("burst", 1, BURST_MAX),
        concurrency=fields.amount("concurrency", 0, SLOTS_MAX),
        burst_least=max(cost.constant, cost.max),
    )
    if change == NewLimits(burst_least=change.burst_least):
        raise AdminProblem(
            422, f"nothing is said of the limits: state one or more of {', '.join(SAID)}, such as rate 40/s"
        )
    if change.burst is not None and change.burst < change.burst_least:
        raise AdminProblem(
            422,
            f"'burst': a cost of {change.burst_least} never fits into a burst of {change.burst}:"
            f" say {change.burst_least} or more",
        )
    return change


def length_of(fields: Fields) -> int:
    """
    Rule 1: microseconds.

    Raises:
        AdminProblem: 422; there is none, or it is too long.

    """
    longest = format_duration(LONGEST_MS)
    if not fields.has("expires_in"):
        raise AdminProblem(
            422,
            f"'expires_in' is missing: say for how long, such as 1h, at most {longest}; then it ends by itself",
        )
    length_us = fields.duration_us("expires_in")
    if not 0 < length_us <= LONGEST_MS * 1_000:
        raise AdminProblem(
            422,
            f"'expires_in' is to be more than 0s and at most {longest}: what holds longer belongs into the files",
        )
    return length_us


def impossible(wrong: Wrong, stated: Limits, change: NewLimits) -> AdminProblem:
    """Why there can be no such limits."""
    if wrong is Wrong.NO_RATE:
        return AdminProblem(
            422, "'burst' without a rate limits nothing, and this operation has none: say 'rate' too"
        )
    rate = change.rate or stated.rate
    of = f" of {format_rate(rate)}" if rate else ""
    return AdminProblem(
        422, f"'burst': so many at a rate{of} reach more than 31 years back: say a lower 'burst'"
    )


def words_of(change: NewLimits) -> dict[str, Any]:
    """What was said, as it was said."""
    return {
        "rate": format_rate(change.rate) if change.rate else None,
        "burst": change.burst,
        "concurrency": change.concurrency,
    }


def change_view(
    before: Limits, after: Limits, until_us: int, *, is_changed: bool = True, is_dry: bool = False
) -> dict[str, Any]:
    """What a change makes, or would make, of the limits as they are stated."""
    return {
        "before": limits_view(before),
        "after": limits_view(after),
        "until": moment(until_us),
        "changed": is_changed,
        "dry_run": is_dry,
    }
