"""
Billing: an API that knows its limits and says so.

Eight calls at once; the ninth gets 503 with `Retry-After`. A customer may have two charges in flight; the
third gets 429. An invoice is charged once: a repeat with the same `Idempotency-Key` gets the first answer.

A batch is one call for one worker, who goes through its items one after the other: the first takes as long
as a charge, each further one a tenth of that. So a customer's own limit does not hold inside of a batch.
Its items are otherwise charged by the rules of a charge, and each has an answer of its own.

Reading invoices and charges takes no worker: they come from a replica of the data.
"""

import contextlib
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence

from aiohttp import web

from breaker.demo.downstreams.capacity import Strict
from breaker.demo.downstreams.charge import Charge, invoice, is_invoice_id, read_batch, unknown
from breaker.demo.downstreams.control import add_control
from breaker.demo.downstreams.keyed import KeyedAnswers
from breaker.demo.downstreams.reply import Reply, read_object
from breaker.demo.downstreams.serving import Serving

WORKERS = 8
SERVICE_S = 0.12
CHARGES_PER_CUSTOMER = 2
FURTHER_ITEM_SHARE = 0.1
BODY_MAX = 4_194_304  # bytes
_READ_SHARE = 0.25
REMEMBERED_MAX = 100_000  # charges; the oldest are forgotten
_DECLINED = "402"
_FULL = Reply(status=503, content={"error": "all workers are busy"}, headers={"Retry-After": "1"})


class BillingApi:
    """Charges invoices. Every id with a digit in it is an invoice; one that ends in 402 is declined."""

    def __init__(self, *, seed: int) -> None:
        capacity = Strict(workers=WORKERS)
        self._serving = Serving(name="billing", capacity=capacity, mean_s=SERVICE_S, full=_FULL, seed=seed)
        self._in_flight: Counter[str] = Counter()
        self._being_charged: set[str] = set()
        self._forget()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_MAX)
        app.add_routes(
            [
                web.get("/invoices/{id}", self._read),
                web.post("/invoices/{id}/charge", self._charge),
                web.post("/invoices/charge-batch", self._charge_batch),
                web.get("/charges/{key}", self._read_charge),
            ]
        )
        add_control(app, self._serving, forget=self._forget)
        return app

    def _forget(self) -> None:
        self._charges: OrderedDict[str, str] = OrderedDict()
        self._paid_by_key: OrderedDict[str, Reply] = OrderedDict()
        self._answers = KeyedAnswers()

    async def _read(self, request: web.Request) -> web.StreamResponse:
        return await self._serving.serve(request, lambda: self._find(request), share=_READ_SHARE, beside=True)

    def _find(self, request: web.Request) -> Reply:
        invoice_id = request.match_info["id"]
        if not is_invoice_id(invoice_id):
            return unknown(invoice_id)
        charge_id = self._charges.get(invoice_id)
        status = "paid" if charge_id else "open"
        return Reply(status=200, content={**invoice(invoice_id), "status": status, "chargeId": charge_id})

    async def _read_charge(self, request: web.Request) -> web.StreamResponse:
        """Did the charge with this key happen? For whoever lost the answer."""
        return await self._serving.serve(
            request, lambda: self._find_charge(request.match_info["key"]), share=_READ_SHARE, beside=True
        )

    def _find_charge(self, key: str) -> Reply:
        if key in self._paid_by_key:
            return self._paid_by_key[key]
        if self._answers.is_open(key):
            # Not 404: whoever believes that would charge again.
            busy = {"error": "the charge with this key is being made"}
            return Reply(status=409, content=busy, headers={"Retry-After": "1"})
        return Reply(status=404, content={"error": "no charge was made with this key"})

    async def _charge(self, request: web.Request) -> web.StreamResponse:
        content = await read_object(request)
        if isinstance(content, Reply):
            return await self._serving.answer(request, content)
        charge = Charge(
            invoice_id=request.match_info["id"], key=request.headers.get("Idempotency-Key"), content=content
        )
        known = self._known(charge)
        if known is not None:
            return await self._serving.answer(request, known)
        if self._in_flight[charge.customer] >= CHARGES_PER_CUSTOMER:
            busy = Reply(
                status=429,
                content={"error": f"customer {charge.customer} has {CHARGES_PER_CUSTOMER} charges in flight"},
                headers={"Retry-After": "1"},
            )
            return await self._serving.answer(request, busy, refused=True)
        return await self._serving.serve(
            request, lambda: self._collect(charge), held=self._charging_alone(charge)
        )

    async def _charge_batch(self, request: web.Request) -> web.StreamResponse:
        content = await read_object(request)
        charges = content if isinstance(content, Reply) else read_batch(content)
        if isinstance(charges, Reply):
            return await self._serving.answer(request, charges)
        work = self._work_of(charges)
        if not work:
            return await self._serving.answer(request, self._collect_all(charges, work))
        return await self._serving.serve(
            request,
            lambda: self._collect_all(charges, work),
            held=self._charging([charges[index] for index in work]),
            share=1 + FURTHER_ITEM_SHARE * (len(work) - 1),
        )

    def _work_of(self, charges: Sequence[Charge]) -> list[int]:
        """The items that are work, by index. Of two with one key, or one invoice, only the first is."""
        work, keys, invoices = [], set(), set()
        for index, charge in enumerate(charges):
            is_first = charge.key not in keys and charge.invoice_id not in invoices
            if is_first and self._known(charge) is None:
                work.append(index)
                keys.add(charge.key)
                invoices.add(charge.invoice_id)
        return work

    def _known(self, charge: Charge) -> Reply | None:
        """The answer that needs no work, if there is one."""
        invoice_id = charge.invoice_id
        refusal = charge.refusal() or self._answers.earlier(charge.key, charge.fingerprint)
        if refusal is not None:
            return refusal
        if invoice_id in self._charges:
            return Reply(status=409, content={"error": f"invoice {invoice_id} is paid"})
        if invoice_id in self._being_charged:
            return Reply(status=409, content={"error": f"invoice {invoice_id} is being charged"})
        return None

    @contextlib.contextmanager
    def _charging_alone(self, charge: Charge) -> Iterator[None]:
        self._in_flight[charge.customer] += 1
        try:
            with self._charging([charge]):
                yield
        finally:
            self._in_flight[charge.customer] -= 1
            if not self._in_flight[charge.customer]:
                del self._in_flight[charge.customer]

    @contextlib.contextmanager
    def _charging(self, charges: Sequence[Charge]) -> Iterator[None]:
        with contextlib.ExitStack() as ending:
            for charge in charges:
                self._being_charged.add(charge.invoice_id)
                ending.callback(self._being_charged.discard, charge.invoice_id)
                ending.enter_context(self._answers.working(charge.key, charge.fingerprint))
            yield

    def _collect_all(self, charges: Sequence[Charge], work: Sequence[int]) -> Reply:
        """Charge the items of a batch in their order; what is not `work` has its answer from elsewhere."""
        results = []
        for index, charge in enumerate(charges):
            known = None if index in work else self._known(charge)
            reply = known or self._collect(charge)
            results.append({"status": reply.status, "body": reply.content})
        return Reply(status=200, content={"results": results})

    def _collect(self, charge: Charge) -> Reply:
        charge_id = f"ch-{hashlib.sha256(charge.invoice_id.encode()).hexdigest()[:10]}"
        if charge.invoice_id.endswith(_DECLINED):
            reply = Reply(status=402, content={"error": "the card was declined", "status": "declined"})
        else:
            reply = Reply(status=200, content={"chargeId": charge_id, "status": "paid"})
            self._charges[charge.invoice_id] = charge_id
            if len(self._charges) > REMEMBERED_MAX:
                self._charges.popitem(last=False)
            if charge.key is not None:
                self._note_paid(charge.key, charge.invoice_id, charge_id)
            self._serving.record.on_effect(charge.key)
        self._answers.keep(charge.key, charge.fingerprint, reply)
        return reply

    def _note_paid(self, key: str, invoice_id: str, charge_id: str) -> None:
        paid = {"idempotencyKey": key, "invoiceId": invoice_id, "chargeId": charge_id, "status": "paid"}
        self._paid_by_key[key] = Reply(status=200, content=paid)
        if len(self._paid_by_key) > REMEMBERED_MAX:
            self._paid_by_key.popitem(last=False)
