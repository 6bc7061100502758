"""
Charge: what somebody wants to be paid, alone or as an item of a batch, as it is read from a call.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from breaker.demo.downstreams.keyed import fingerprint
from breaker.demo.downstreams.reply import Reply

ITEMS_MAX = 100
_INVOICE_ID = re.compile(r"(?=.*\d)[A-Za-z0-9_.-]{1,64}")
_CUSTOMERS = 50
_CLOSED = "-closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """
    One charge of one invoice.

    Attributes:
        key: The `Idempotency-Key`, if there is one.
        content: The body of a single charge.
        fingerprint: The same for a single charge and for the item of a batch that repeats it.

    """

    invoice_id: str
    key: str | None
    content: Mapping[str, Any]
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.invoice_id, self.content))

    @property
    def customer(self) -> str:
        """Who is charged; by default whom the invoice was made for."""
        return str(self.content.get("customerId") or invoice(self.invoice_id)["customerId"])

    def refusal(self) -> Reply | None:
        """Why it can never be made: no contract can know which accounts are closed."""
        if not is_invoice_id(self.invoice_id):
            return unknown(self.invoice_id)
        if self.customer.endswith(_CLOSED):
            return Reply(status=422, content={"error": f"the account {self.customer} is closed"})
        return None


def read_batch(content: Mapping[str, Any]) -> list[Charge] | Reply:
    """The charges of a batch in their order, or what the batch gets as a whole."""
    items = content.get("items")
    if not isinstance(items, list) or not items:
        return _unreadable("items is not a list with at least one charge")
    if len(items) > ITEMS_MAX:
        return Reply(status=413, content={"error": f"at most {ITEMS_MAX} items, not {len(items)}"})
    charges = []
    for index, item in enumerate(items):
        match item:
            case {"idempotency_key": str(key), "params": {"invoice_id": str(id_)}, "body": dict(body)} if key:
                charges.append(Charge(invoice_id=id_, key=key, content=body))
            case _:
                return _unreadable(f"items/{index} needs idempotency_key, params.invoice_id and body")
    return charges


def is_invoice_id(invoice_id: str) -> bool:
    return _INVOICE_ID.fullmatch(invoice_id) is not None


def invoice(invoice_id: str) -> dict[str, Any]:
    """What every invoice of that id says; made from the id, so that there are as many as one likes."""
    number = int.from_bytes(hashlib.sha256(invoice_id.encode()).digest()[:4])
    return {
        "invoiceId": invoice_id,
        "customerId": f"cust-{number % _CUSTOMERS}",
        "amount_cents": 1_000 + number % 99_000,
        "currency": "EUR",
    }


def unknown(invoice_id: str) -> Reply:
    return Reply(status=404, content={"error": f"no invoice {invoice_id}"})


def _unreadable(why: str) -> Reply:
    return Reply(status=400, content={"error": why})
