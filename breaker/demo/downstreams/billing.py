"""
Billing: an API that knows its limits and says so.

Eight charges at once; the ninth gets 503 with `Retry-After`. A customer may have two charges in flight; the
third gets 429. An invoice is charged once: a repeat with the same `Idempotency-Key` gets the first answer.
Reading invoices takes no worker: they come from a replica of the data.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from breaker.demo.downstreams.capacity import Strict
from breaker.demo.downstreams.control import add_control
from breaker.demo.downstreams.reply import Reply, read_object
from breaker.demo.downstreams.serving import Serving

WORKERS = 8
SERVICE_S = 0.12
CHARGES_PER_CUSTOMER = 2
_READ_SHARE = 0.25
REMEMBERED_MAX = 100_000  # keys and charges; the oldest are forgotten
_INVOICE_ID = re.compile(r"(?=.*\d)[A-Za-z0-9_.-]{1,64}")
_CUSTOMERS = 50
_DECLINED = "402"
_FULL = Reply(status=503, content={"error": "all workers are busy"}, headers={"Retry-After": "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keyed:
    """The first call with an idempotency key; `reply` is None while it is being worked on."""

    fingerprint: str
    reply: Reply | None


class BillingApi:
    """Charges invoices. Every id with a digit in it is an invoice; one that ends in 402 is declined."""

    def __init__(self, *, seed: int) -> None:
        capacity = Strict(workers=WORKERS)
        self._serving = Serving(name="billing", capacity=capacity, mean_s=SERVICE_S, full=_FULL, seed=seed)
        self._in_flight: Counter[str] = Counter()
        self._being_charged: set[str] = set()
        self._forget()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [web.get("/invoices/{id}", self._read), web.post("/invoices/{id}/charge", self._charge)]
        )
        add_control(app, self._serving, forget=self._forget)
        return app

    def _forget(self) -> None:
        self._charges: OrderedDict[str, str] = OrderedDict()
        self._keyed: OrderedDict[str, _Keyed] = OrderedDict()

    async def _read(self, request: web.Request) -> web.StreamResponse:
        return await self._serving.serve(request, lambda: self._find(request), share=_READ_SHARE, beside=True)

    def _find(self, request: web.Request) -> Reply:
        invoice_id = request.match_info["id"]
        if not _INVOICE_ID.fullmatch(invoice_id):
            return _unknown(invoice_id)
        invoice = _invoice(invoice_id)
        charge_id = self._charges.get(invoice_id)
        return Reply(
            status=200,
            content={**invoice, "status": "paid" if charge_id else "open", "chargeId": charge_id},
        )

    async def _charge(self, request: web.Request) -> web.StreamResponse:
        content = await read_object(request)
        if isinstance(content, Reply):
            return await self._serving.answer(request, content)
        invoice_id = request.match_info["id"]
        key = request.headers.get("Idempotency-Key")
        fingerprint = hashlib.sha256(json.dumps([invoice_id, content], sort_keys=True).encode()).hexdigest()
        customer = str(content.get("customerId") or _invoice(invoice_id)["customerId"])

        known = self._known(invoice_id, key, fingerprint)
        if known is not None:
            return await self._serving.answer(request, known)
        if self._in_flight[customer] >= CHARGES_PER_CUSTOMER:
            busy = Reply(
                status=429,
                content={"error": f"customer {customer} has {CHARGES_PER_CUSTOMER} charges in flight"},
                headers={"Retry-After": "1"},
            )
            return await self._serving.answer(request, busy, refused=True)
        return await self._serving.serve(
            request,
            lambda: self._collect(invoice_id, key, fingerprint),
            held=self._charging(invoice_id, customer, key, fingerprint),
        )

    def _known(self, invoice_id: str, key: str | None, fingerprint: str) -> Reply | None:
        """The answer that needs no work, if there is one."""
        if not _INVOICE_ID.fullmatch(invoice_id):
            return _unknown(invoice_id)
        earlier = None if key is None else self._keyed.get(key)
        if earlier is not None and earlier.fingerprint != fingerprint:
            return Reply(status=422, content={"error": "this Idempotency-Key belongs to another charge"})
        if earlier is not None and earlier.reply is not None:
            headers = {**earlier.reply.headers, "Idempotent-Replayed": "true"}
            return Reply(status=earlier.reply.status, content=earlier.reply.content, headers=headers)
        if earlier is not None or invoice_id in self._being_charged:
            return Reply(status=409, content={"error": f"invoice {invoice_id} is being charged"})
        if invoice_id in self._charges:
            return Reply(status=409, content={"error": f"invoice {invoice_id} is paid"})
        return None

    @contextlib.contextmanager
    def _charging(self, invoice_id: str, customer: str, key: str | None, fingerprint: str) -> Iterator[None]:
        self._in_flight[customer] += 1
        self._being_charged.add(invoice_id)
        if key is not None:
            self._remember(key, _Keyed(fingerprint=fingerprint, reply=None))
        try:
            yield
        finally:
            self._in_flight[customer] -= 1
            if not self._in_flight[customer]:
                del self._in_flight[customer]
            self._being_charged.discard(invoice_id)
            if key is not None and key in self._keyed and self._keyed[key].reply is None:
                del self._keyed[key]  # nothing was done: the key may be tried again

    def _collect(self, invoice_id: str, key: str | None, fingerprint: str) -> Reply:
        charge_id = f"ch-{hashlib.sha256(invoice_id.encode()).hexdigest()[:10]}"
        if invoice_id.endswith(_DECLINED):
            reply = Reply(status=402, content={"error": "the card was declined", "status": "declined"})
        else:
            reply = Reply(status=200, content={"chargeId": charge_id, "status": "paid"})
            self._charges[invoice_id] = charge_id
            if len(self._charges) > REMEMBERED_MAX:
                self._charges.popitem(last=False)
            self._serving.record.on_effect()
        if key is not None:
            self._remember(key, _Keyed(fingerprint=fingerprint, reply=reply))
        return reply

    def _remember(self, key: str, keyed: _Keyed) -> None:
        self._keyed[key] = keyed
        if len(self._keyed) > REMEMBERED_MAX:
            self._keyed.popitem(last=False)


def _invoice(invoice_id: str) -> dict[str, Any]:
    """What every invoice of that id says; made from the id, so that there are as many as one likes."""
    number = int.from_bytes(hashlib.sha256(invoice_id.encode()).digest()[:4])
    return {
        "invoiceId": invoice_id,
        "customerId": f"cust-{number % _CUSTOMERS}",
        "amount_cents": 1_000 + number % 99_000,
        "currency": "EUR",
    }


def _unknown(invoice_id: str) -> Reply:
    return Reply(status=404, content={"error": f"no invoice {invoice_id}"})
