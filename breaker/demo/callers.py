"""
Callers: operational systems that obey `Retry-After`, and write down what they were told.

1. A refused order comes back when its ticket says, as a new call, and not before.
2. What is wrong in itself (4xx but 429) is not tried again.
3. Each call has an `X-Request-Id` of its own, which tells its operation: by it the call is found again
   in what the downstream saw.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from breaker.core.events import Outcome
from breaker.demo.orders import OPERATIONS, Order, Orders

ATTEMPTS_MAX = 4
ANSWER_S = 40.0  # far above what the gateway promises: a caller that waits so long has lost its call
NO_ANSWER = "no answer"
NOT_SAID = "not said"  # an answer that does not tell whose it is
_COMES_BACK = frozenset({429, 503})


@dataclass(slots=True)
class Tally:
    """
    What the callers of one operation did and were told.

    Attributes:
        sent: Calls, attempts included.
        outcomes: Of their answers, by `Breaker-Outcome`.
        refusals: Of the refused, by the limit or the problem type.
        statuses: Of their answers.
        waiting: Orders that wait for their ticket.
        gave_up: Orders whose attempts are used up.

    """

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    waiting: int = 0
    gave_up: int = 0


class Callers:
    """
    Everybody who calls in the demonstration.

    Attributes:
        tallies: By operation.
        closing: Set when nobody may come back any more.

    """

    def __init__(self, session: aiohttp.ClientSession, gateway_url: str, run: str) -> None:
        self._session, self._url, self._run = session, gateway_url, run
        self._numbers = itertools.count(1)
        self.orders = Orders(run)
        self.tallies = {operation: Tally() for operation in OPERATIONS}
        self.closing = asyncio.Event()

    async def place(self, order: Order) -> None:
        """Call until the order is done, wrong, or out of attempts."""
        tally = self.tallies[order.operation]
        for attempt in range(1, ATTEMPTS_MAX + 1):
            status, wait_s = await self._call(order, tally)
            if status not in _COMES_BACK or wait_s is None:
                return
            if attempt == ATTEMPTS_MAX:
                tally.gave_up += 1
                return
            tally.waiting += 1
            try:
                await asyncio.wait_for(self.closing.wait(), wait_s)
            except TimeoutError:
                continue
            finally:
                tally.waiting -= 1
            return

    def operation_of(self, request_id: str) -> str | None:
        """Whose call that was; None when it was not one of ours."""
        run, _, rest = request_id.partition("-")
        index = rest.partition("-")[0]
        return OPERATIONS[int(index)] if run == self._run and index.isdigit() else None

    async def _call(self, order: Order, tally: Tally) -> tuple[int, float | None]:
        """One call: its status, and seconds until the ticket; status 0 when there was no answer."""
        request_id = f"{self._run}-{OPERATIONS.index(order.operation)}-{next(self._numbers):06}"
        headers = {**order.headers, "X-Request-Id": request_id}
        if order.body is not None:
            headers["Content-Type"] = "application/json"
        tally.sent += 1
        try:
            async with self._session.request(
                order.method,
                self._url + order.path,
                headers=headers,
                data=None if order.body is None else orjson.dumps(order.body),
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            tally.outcomes[NO_ANSWER] += 1
            return 0, None
        content = _object(body)
        outcome = answer.headers.get("Breaker-Outcome", NOT_SAID)
        tally.outcomes[outcome] += 1
        tally.statuses[answer.status] += 1
        if outcome == Outcome.REFUSED:
            tally.refusals[reason_of(content)] += 1
        self.orders.on_answer(order, content)
        ticket = answer.headers.get("Retry-After", "")
        return answer.status, float(ticket) if ticket.isdigit() else None


def reason_of(problem: Mapping[str, Any]) -> str:
    """The limit, else the type of the problem: the words of the metric's label."""
    return str(problem.get("policy") or str(problem.get("type", "")).rpartition("/")[2].rpartition("#")[2])


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
