"""
Callers: operational systems that obey `Retry-After`, and write down what they were told.

1. A refused order comes back when its ticket says, as a new call, and not before.
2. What is wrong in itself (4xx but 429) is not tried again.
3. Each call has an `X-Request-Id` of its own, which tells its operation: by it the call is found again
   in what the downstream saw.
4. Who is told that the work is queued follows its job to the end (`followed.py`), and does not call again.
5. Some lose patience and send the same twice. The key makes it one piece of work, whatever both are told.
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
from breaker.demo.followed import Job, follow, job_of, look
from breaker.demo.orders import OPERATIONS, Order, Orders

ATTEMPTS_MAX = 4
ANSWER_S = 40.0  # far above what the gateway promises: a caller that waits so long has lost its call
NO_ANSWER = "no answer"
NOT_SAID = "not said"  # an answer that does not tell whose it is
_COMES_BACK = frozenset({409, 429, 503})  # 409: the same work is in progress; without a ticket it is final
_OK = range(200, 300)
_ANSWERED = (Outcome.FORWARDED, Outcome.DELAYED, Outcome.OVER_CAPACITY, Outcome.REPLAYED)
_LOOKS = 32  # at a time, when all jobs that are left are looked at


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
        joined: Calls that were queued already, as the same piece of work.
        asked: Calls that were queued and had asked for it.

    """

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    waiting: int = 0
    gave_up: int = 0
    joined: int = 0
    asked: int = 0


class Callers:
    """
    Everybody who calls in the demonstration.

    Attributes:
        tallies: By operation.
        jobs: All that became one, by id.
        following: One task for each job that has not ended.
        closing: Set when nobody may come back any more.

    """

    def __init__(self, session: aiohttp.ClientSession, gateway_url: str, run: str) -> None:
        self._session, self._url, self._run = session, gateway_url, run
        self._numbers = itertools.count(1)
        self.orders = Orders(run)
        self.tallies = {operation: Tally() for operation in OPERATIONS}
        self.jobs: dict[str, Job] = {}
        self._direct: dict[str, dict[str, bool | None]] = {operation: {} for operation in OPERATIONS}
        self.following: set[asyncio.Task[None]] = set()
        self.closing = asyncio.Event()

    async def place(self, order: Order) -> None:
        """Call until the order is done, queued, wrong, or out of attempts; then follow its job."""
        if order.is_sent_twice:
            await asyncio.gather(self._place(order), self._place(order))
        else:
            await self._place(order)

    def effects(self, operation: str) -> dict[str, bool | None]:
        """Was it done? By the key that the downstream knows it by; None when nobody was told for sure."""
        jobs = [job for job in self.jobs.values() if job.operation == operation]
        return {
            **self._direct[operation],
            **{job.key: job.status in _OK if job.is_ended else None for job in jobs},
        }

    async def look_at_the_rest(self) -> None:
        """Once more at each job that has not ended: does the gateway still know it?"""
        left = [job for job in self.jobs.values() if not job.is_ended]
        for at in range(0, len(left), _LOOKS):
            await asyncio.gather(
                *(look(self._session, self._page(job), job) for job in left[at : at + _LOOKS])
            )

    async def _place(self, order: Order) -> None:
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
        wait_s = float(ticket) if ticket.isdigit() else None
        if outcome == Outcome.QUEUED:
            self._on_queued(order, request_id, content, answer.headers, wait_s)
        else:
            self._on_effect(order, outcome, answer.status, answer.headers.get("Breaker-Decision", ""))
        return answer.status, wait_s

    def _on_queued(
        self,
        order: Order,
        request_id: str,
        receipt: Mapping[str, Any],
        headers: Mapping[str, str],
        look_after_s: float | None,
    ) -> None:
        tally = self.tallies[order.operation]
        if "Idempotent-Replayed" in headers:
            tally.joined += 1
            return  # whoever was queued first follows it
        tally.asked += "Preference-Applied" in headers
        job = self.jobs[receipt["id"]] = job_of(order, request_id, receipt)
        task = asyncio.get_running_loop().create_task(
            follow(self._session, self._page(job), job, look_after_s or 0.0)
        )
        self.following.add(task)
        task.add_done_callback(self.following.discard)

    def _page(self, job: Job) -> str:
        return f"{self._url}/v1/jobs/{job.id}"

    def _on_effect(self, order: Order, outcome: str, status: int, decision: str) -> None:
        """Remember whether the downstream is to have done it, by the key that it was sent."""
        effects, key = self._direct[order.operation], order.key or decision
        if outcome in _ANSWERED:
            effects[key] = status in _OK
        elif outcome != Outcome.REFUSED:
            effects.setdefault(key, None)


def reason_of(problem: Mapping[str, Any]) -> str:
    """The limit, else the type of the problem: the words of the metric's label."""
    return str(problem.get("policy") or str(problem.get("type", "")).rpartition("/")[2].rpartition("#")[2])


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
