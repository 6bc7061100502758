"""
Onboarding: a provisioning service that accepts everything.

Three accounts at once are made at full speed. Beyond that all of them share the machine and get slower
together; what is not done after four seconds is given up, and the time spent on it is lost.
Reading accounts and sending welcomes is light, and done beside that.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from breaker.demo.downstreams.capacity import Contention
from breaker.demo.downstreams.control import add_control
from breaker.demo.downstreams.reply import Reply, read_object
from breaker.demo.downstreams.serving import Serving

WORKERS = 3
SERVICE_S = 0.5
GIVE_UP_S = 4.0
_LIGHT_SHARE = 0.25
ACCOUNTS_MAX = 100_000  # the oldest are forgotten


class OnboardingService:
    """Makes accounts, one for each `customerId`, and sends each one welcome."""

    def __init__(self, *, seed: int) -> None:
        capacity = Contention(workers=WORKERS, give_up_s=GIVE_UP_S)
        self._serving = Serving(name="onboarding", capacity=capacity, mean_s=SERVICE_S, full=None, seed=seed)
        self._being_made: set[str] = set()
        self._forget()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/accounts", self._create),
                web.get("/accounts/{id}", self._read),
                web.post("/accounts/{id}/welcome", self._welcome),
            ]
        )
        add_control(app, self._serving, forget=self._forget)
        return app

    def _forget(self) -> None:
        self._accounts: dict[str, dict[str, Any]] = {}

    async def _create(self, request: web.Request) -> web.StreamResponse:
        content = await read_object(request)
        if isinstance(content, Reply):
            return await self._serving.answer(request, content)
        customer = content.get("customerId")
        if not isinstance(customer, str) or not customer:
            missing = Reply(status=422, content={"error": "customerId is missing"})
            return await self._serving.answer(request, missing)
        account_id = f"acc-{hashlib.sha256(customer.encode()).hexdigest()[:10]}"
        if account_id in self._accounts or account_id in self._being_made:
            exists = Reply(
                status=409,
                content={"error": f"customer {customer} has an account", "accountId": account_id},
                headers={"Location": f"/accounts/{account_id}"},
            )
            return await self._serving.answer(request, exists)
        return await self._serving.serve(
            request, lambda: self._make(account_id, customer, content), held=self._making(account_id)
        )

    @contextlib.contextmanager
    def _making(self, account_id: str) -> Iterator[None]:
        self._being_made.add(account_id)
        try:
            yield
        finally:
            self._being_made.discard(account_id)

    def _make(self, account_id: str, customer: str, content: dict[str, Any]) -> Reply:
        account = {"accountId": account_id, "customerId": customer, "plan": content.get("plan", "standard")}
        if len(self._accounts) >= ACCOUNTS_MAX:
            del self._accounts[next(iter(self._accounts))]
        self._accounts[account_id] = {**account, "welcomed": False}
        self._serving.record.on_effect()
        return Reply(status=201, content=account, headers={"Location": f"/accounts/{account_id}"})

    async def _read(self, request: web.Request) -> web.StreamResponse:
        return await self._serving.serve(
            request, lambda: self._find(request), share=_LIGHT_SHARE, beside=True
        )

    def _find(self, request: web.Request) -> Reply:
        account = self._accounts.get(request.match_info["id"])
        return self._unknown(request) if account is None else Reply(status=200, content=account)

    async def _welcome(self, request: web.Request) -> web.StreamResponse:
        return await self._serving.serve(
            request, lambda: self._send_welcome(request), share=_LIGHT_SHARE, beside=True
        )

    def _send_welcome(self, request: web.Request) -> Reply:
        account = self._accounts.get(request.match_info["id"])
        if account is None:
            return self._unknown(request)
        if not account["welcomed"]:
            # Asked twice, it is sent once: the answer is the same.
            account["welcomed"] = True
            self._serving.record.on_effect()
        return Reply(status=202, content={"accountId": account["accountId"], "welcome": "sent"})

    def _unknown(self, request: web.Request) -> Reply:
        return Reply(status=404, content={"error": f"no account {request.match_info['id']}"})
