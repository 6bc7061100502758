"""
Circuits by hand: how each stands, and open, close and hand back.
"""

from typing import Any

from aiohttp import web

from breaker.core.circuit_policy import CircuitMode
from breaker.core.model import Operation
from breaker.policy.words import did_you_mean
from breaker.store.circuit_posts import ByHand
from breaker.web.admin_audit import Change
from breaker.web.admin_controls import Controls
from breaker.web.admin_fields import Fields, body_of, operation_named
from breaker.web.admin_problems import AdminProblem
from breaker.web.admin_reply import as_json
from breaker.web.admin_views import circuit_view, moment, operation_limits_view
from breaker.web.operators import PERSON

PATH = "/operations/{operation}/circuit"


class Circuits:
    """The routes below `operations/{operation}/circuit`."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH, self.shown), web.post(PATH, self.forced)]

    async def shown(self, request: web.Request) -> web.Response:
        Fields(request.query)
        return as_json(await self._view(self._named(request)))

    async def forced(self, request: web.Request) -> web.Response:
        operation, controls = self._named(request), self._controls
        fields = Fields(await body_of(request), "state", "reason", "expires_in")
        word, reason = fields.word("state", ByHand), fields.reason()
        if word is None:
            raise AdminProblem(422, f"'state' is missing: one of {', '.join(ByHand)}")
        expires_us = fields.duration_us("expires_in")
        if fields.has("expires_in") and (word is ByHand.AUTOMATIC or not expires_us):
            raise AdminProblem(
                422, "'expires_in': 'forced-open' or 'disabled' may end by itself, after more than 0s"
            )
        if operation.circuit.mode is CircuitMode.OFF:
            raise AdminProblem(
                409, f"'{operation.name}' has no circuit: its configuration says `circuit: off`"
            )
        until_us = controls.now_us() + expires_us if expires_us else 0
        person, asked = request[PERSON], {"state": word, "until": moment(until_us)}
        async with Change(
            controls, person, "operations.circuit", operation=operation.name, reason=reason, asked=asked
        ) as change:
            was, now = await controls.force(operation.name, word, until_us, person.id, reason)
            change.outcome = f"{was} -> {now}"
        return as_json(await self._view(operation))

    def _named(self, request: web.Request) -> Operation:
        name, known = operation_named(request.match_info["operation"]), self._controls.operations()
        if name not in known:
            raise AdminProblem(404, f"unknown operation '{name}'{did_you_mean(name, list(known))}")
        return known[name]

    async def _view(self, operation: Operation) -> dict[str, Any]:
        look = await self._controls.look(operation.name)
        return {
            "operation": operation.name,
            "circuit": circuit_view(look.circuit, operation.circuit.mode, self._controls.now_us()),
            "limits": operation_limits_view(look),
        }
