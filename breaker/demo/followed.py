"""
Followed: a job as its caller knows it, from the 202 to its end.

Whoever was told "queued" looks when it was told to (`Retry-After`), and from then on holds a call to the
job's own page until the job has ended. What was promised, and what became of it, stands here for the verdict.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp

from breaker.core.jobs import JobState
from breaker.demo.orders import Order

HOLD_S = 20  # a call to a job's page is held by the gateway for so long
AGAIN_S = 1.0  # after a page could not be had
_OK, _NO_SUCH_JOB = 200, 404
_MARGIN_S = 10.0


@dataclass(slots=True, kw_only=True)
class Job:
    """
    What the caller of a job was told.

    Attributes:
        id: With its operation.
        request_id: Of the call that became the job; a downstream that gets the job alone sees the same.
        key: That the downstream knows the work by.
        told_s: When the 202 came, seconds since 1970.
        position: Jobs that were to go before it, as the 202 said; None when it did not know.
        eta_p50_s, eta_p90_s: Seconds from then to its start, as the 202 said; None when it did not know.
        state: Empty when nobody knows the job any more.
        attempts: How often it was leased; one whose answer got lost on the way did not reach the downstream.
        status: Of the downstream's answer; None when there is none (yet).
        ended_s: Seconds since 1970, by the store's clock; 0 when it has not.

    """

    id: str
    order: Order
    request_id: str
    key: str
    told_s: float
    band: str
    position: int | None
    eta_p50_s: float | None
    eta_p90_s: float | None
    state: str = JobState.QUEUED
    attempts: int = 0
    status: int | None = None
    ended_s: float = 0.0

    @property
    def operation(self) -> str:
        return self.order.operation

    @property
    def arrivals(self) -> tuple[int, int]:
        """How often the downstream saw it, at least and at most."""
        return (int(self.status is not None), self.attempts) if self.is_ended else (0, max(1, self.attempts))

    @property
    def is_ended(self) -> bool:
        return self.ended_s > 0

    def learn(self, page: Mapping[str, Any]) -> None:
        """What its page says now."""
        self.state, self.attempts, self.status = page["state"], page["attempts"], page.get("status")
        # `held` is how a queued job is shown, and no state of its own.
        if self.state in list(JobState) and JobState(self.state).is_ended:
            self.ended_s = datetime.fromisoformat(page["since"]).timestamp()


def job_of(order: Order, request_id: str, receipt: Mapping[str, Any]) -> Job:
    """What a 202 says."""
    eta = receipt.get("eta") or {}
    return Job(
        id=receipt["id"], order=order, request_id=request_id, key=order.key or receipt["id"], told_s=time.time(),
        band=receipt["band"], position=receipt.get("position"), eta_p50_s=_seconds(eta.get("p50_ms")), eta_p90_s=_seconds(eta.get("p90_ms")),
    )  # fmt: skip


async def follow(session: aiohttp.ClientSession, url: str, job: Job, look_after_s: float) -> None:
    """
    Until it has ended, or is not known.

    Args:
        url: Of its page.
        look_after_s: When it makes sense to look, as the 202 said.

    """
    await asyncio.sleep(look_after_s)
    while job.state and not job.is_ended:
        if not await look(session, url, job, hold_s=HOLD_S):
            await asyncio.sleep(AGAIN_S)


async def look(session: aiohttp.ClientSession, url: str, job: Job, *, hold_s: int = 0) -> bool:
    """One look at its page, held until it has ended; whether there was an answer."""
    timeout = aiohttp.ClientTimeout(total=hold_s + _MARGIN_S)
    try:
        async with session.get(f"{url}?wait={hold_s}", timeout=timeout) as answer:
            if answer.status == _OK:
                job.learn(await answer.json())
            elif answer.status == _NO_SUCH_JOB:
                job.state = ""
            return answer.status in (_OK, _NO_SUCH_JOB)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1_000
