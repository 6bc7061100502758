"""
Orders: what the demonstration's callers want, with the content of real calls.

Each is one thing that a person or a system wants done; it may take several calls, because a caller
that is refused comes back. So all that makes it the same thing (its key, its reference) stands here.
"""

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

CUSTOMERS = ("acme", "initech", "umbrella", "hooli", "stark", "wayne", "wonka", "tyrell",
             "cyberdyne", "soylent", "aperture", "oscorp", "virtucon", "gringotts", "vandelay", "dunder")  # fmt: skip
HEAVY_CUSTOMER = "globex"
CLOSED_CUSTOMER = "pied-piper-closed"  # no contract can know that; the billing API says so
PARTNER = "partner-north"
ACCOUNTS_MAX = 1_000  # the newest are welcomed
_BREAKS_CONTRACT_EVERY = 6
_SUBJECTS = ("Cannot log in since this morning", "Export stops after 1,000 rows", "Invoice shows the old address",
             "Webhook is called twice", "How do I add a colleague?")  # fmt: skip
_PLANS = ("enterprise", "business", "starter", "free")
_DOLLARS_EVERY = 4  # customers
_SENT_TWICE_EVERY = 9  # charges
_MONTH = "11"  # ends every invoice's name; the billing API declines names that end in 402


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    One thing that is wanted.

    Attributes:
        operation: `pipeline.operation`.
        path: Below the gateway.
        body: None for a read.
        headers: The same at every attempt.
        tenant: On whose behalf.
        key: Its `Idempotency-Key`, or empty.
        is_sent_twice: Its sender lost patience, and sends it again before it has an answer.
        is_wrong: It can never be done.

    """

    operation: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""
    key: str = ""
    is_sent_twice: bool = False
    is_wrong: bool = False


class Orders:
    """Makes orders; no two of them are the same."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._numbers = itertools.count(1)
        self._sign_ups = itertools.count(1)
        self._accounts: deque[tuple[str, str]] = deque(maxlen=ACCOUNTS_MAX)

    def ticket(self) -> Order:
        number = next(self._numbers)
        return self._ticket(number, number % 6)

    def heavy_ticket(self) -> Order:
        """A customer whose own users are all locked out at once: every one of them writes."""
        return self._ticket(next(self._numbers), None)

    def charge(self) -> Order:
        number = next(self._numbers)
        return self._charge(number, number % len(CUSTOMERS))

    def heavy_charge(self) -> Order:
        return self._charge(next(self._numbers), None)

    def closed_charge(self) -> Order:
        """An invoice that slipped through: its sender does not wait for the answer, and hears of it later."""
        order = self._charge(next(self._numbers), None, CLOSED_CUSTOMER)
        return replace(order, headers={**order.headers, "Prefer": "respond-async"}, is_wrong=True)

    def invoice(self) -> Order:
        number = next(self._numbers)
        return Order(
            operation="billing.get-invoice", method="GET", path=f"/billing/invoices/inv-{number % 500}"
        )

    def sign_up(self) -> Order:
        """A customer signs up; one in six forms lacks what the contract asks for."""
        body = self._account(next(self._numbers))
        if next(self._sign_ups) % _BREAKS_CONTRACT_EVERY == 0:
            del body["assignedAccountManager"]
            body["kickoffCallScheduled"] = "next Tuesday"
        return self._provision(body)

    def partner_sign_up(self) -> Order:
        """A partner imports his customers: all of them are on his account."""
        return self._provision(self._account(next(self._numbers)), {"Breaker-Tenant": PARTNER})

    def welcome(self) -> Order | None:
        """None as long as there is nobody to welcome."""
        if not self._accounts:
            return None
        self._accounts.rotate()
        account_id, customer = self._accounts[0]
        return Order(
            operation="onboarding.send-welcome",
            method="POST",
            path=f"/onboarding/accounts/{account_id}/welcome",
            body={"customerId": customer},  # where the gateway finds on whose behalf it is
        )

    def on_answer(self, order: Order, answer: Mapping[str, Any]) -> None:
        """Accounts that were made can be welcomed."""
        account_id, customer = answer.get("accountId"), answer.get("customerId")
        is_account = order.operation == "onboarding.provision-account"
        if is_account and isinstance(account_id, str) and isinstance(customer, str):
            self._accounts.append((account_id, customer))

    def _ticket(self, number: int, index: int | None) -> Order:
        """Of one of the customers, or of the heavy one."""
        customer = HEAVY_CUSTOMER if index is None else CUSTOMERS[index]
        body = {
            "customerId": customer,  # named in the ticket itself: the gateway finds it there
            "subject": _SUBJECTS[number % len(_SUBJECTS)],
            "body": "It worked yesterday, and nothing was changed on our side.",
            "plan": "business" if index is None else _PLANS[index % len(_PLANS)],
            "channel": "web",
            "reference": f"{self._run}-{number}",
        }
        return Order(
            operation="support.create-ticket",
            method="POST",
            path="/support/tickets",
            body=body,
            tenant=customer,
        )

    def _charge(self, number: int, index: int | None, customer: str = HEAVY_CUSTOMER) -> Order:
        """For one of the customers, or for the one that is named."""
        customer = customer if index is None else CUSTOMERS[index]
        key = f"{self._run}-{number}"
        return Order(
            operation="billing.charge-invoice",
            method="POST",
            path=f"/billing/invoices/{key}-{_MONTH}/charge",
            body={
                "amount": 1_900 + number,
                "currency": "EUR" if index is None or index % _DOLLARS_EVERY else "USD",
                "customerId": customer,
                "paymentMethod": "card",
            },
            # The same at each attempt: that is what makes it safe to come back.
            headers={"Breaker-Tenant": customer, "Idempotency-Key": key},
            tenant=customer,
            key=key,
            is_sent_twice=number % _SENT_TWICE_EVERY == 0,
        )

    def _provision(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Order:
        return Order(
            operation="onboarding.provision-account",
            method="POST",
            path="/onboarding/accounts",
            body=body,
            headers=headers or {},
        )

    def _account(self, number: int) -> dict[str, Any]:
        return {
            "customerId": f"{self._run}-{number}",
            "companyName": f"Company {number}",
            "plan": _PLANS[number % len(_PLANS)],
            "tier": "standard",
            "assignedAccountManager": "jo.meyer@example.com",
            "kickoffCallScheduled": "2026-07-06T09:30:00+02:00",
            "requiredIntegrations": ["salesforce", "slack"],
            "onboardingChecklist": {
                "welcomeEmailSent": False,
                "kickoffCallCompleted": False,
                "technicalSetupInitiated": False,
                "firstValueDelivered": False,
            },
        }


OPERATIONS = (
    "support.create-ticket",
    "billing.charge-invoice",
    "billing.get-invoice",
    "onboarding.provision-account",
    "onboarding.send-welcome",
)
