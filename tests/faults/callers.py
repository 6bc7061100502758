"""
Callers: systems that hand in orders, and come back with the same key until they have a final answer.

They note what they were told. One who gave up knows nothing, and the checker holds nobody to it, but
that it took effect at most once.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.faults import offers
from tests.faults.checker import Accepted, Answered

ATTEMPT_S = 4.0
PAUSE_S = 0.1
PAUSE_MAX_S = 1.0  # also where a refusal says later: a drill is short
_HANDED_IN_MAX = 100  # of one drive, at the same moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One order of a caller; the body is sent as it is."""

    operation: str
    order: str
    body: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"key-{self.order}"


@dataclass(slots=True)
class Notes:
    """
    What all callers were told.

    Attributes:
        refusals: Answers and broken connections after which somebody came back, by what they were.
        gave_up: Orders without any final answer.

    """

    accepted: list[Accepted] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    gave_up: list[Wanted] = field(default_factory=list)


class Callers:
    """Hand in orders at the gateways of these addresses, in turn, whoever is alive."""

    def __init__(self, urls: Sequence[str], session: aiohttp.ClientSession) -> None:
        self.notes = Notes()
        self._urls, self._session = urls, session
        self._next = 0

    async def drive(self, orders: Sequence[Wanted], *, per_second: float, patience_s: float) -> None:
        """
        Hand in all orders, evenly spread; until each has its final answer, or patience ends.

        Args:
            orders: In their order.
            per_second: Of the beginnings; whoever comes back is not counted.
            patience_s: From its first attempt on, in seconds.

        """
        loop = asyncio.get_running_loop()
        begin, free = loop.time(), asyncio.Semaphore(_HANDED_IN_MAX)
        async with asyncio.TaskGroup() as group:
            for number, wanted in enumerate(orders):
                await asyncio.sleep(begin + number / per_second - loop.time())
                await free.acquire()
                group.create_task(self._hand_in(wanted, patience_s, free.release))

    async def _hand_in(self, wanted: Wanted, patience_s: float, done: Callable[[], None]) -> None:
        end = time.monotonic() + patience_s
        pause_s = PAUSE_S
        try:
            while not await self._attempt(wanted):
                if time.monotonic() > end:
                    self.notes.gave_up.append(wanted)
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        finally:
            done()

    async def _attempt(self, wanted: Wanted) -> bool:
        """Whether the answer was final."""
        self._next += 1
        url = self._urls[self._next % len(self._urls)] + offers.path_of(wanted.operation, wanted.order)
        try:
            async with self._session.post(
                url,
                json={"order": wanted.order, **wanted.body},
                headers={**offers.ASYNC, offers.KEY: wanted.key},
                timeout=aiohttp.ClientTimeout(total=ATTEMPT_S),
            ) as answer:
                content = await answer.json(content_type=None) if answer.status == offers.ACCEPTED else {}
                if answer.status in offers.COME_BACK and offers.REPLAYED not in answer.headers:
                    self.notes.refusals[str(answer.status)] += 1
                    return False
                self._note(wanted, answer, content)
                return True
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            self.notes.refusals[type(exc).__name__] += 1
            return False

    def _note(self, wanted: Wanted, answer: aiohttp.ClientResponse, content: Mapping[str, object]) -> None:
        if answer.status == offers.ACCEPTED:
            told = offers.read_accepted(content)
            self.notes.accepted.append(
                Accepted(
                    operation=wanted.operation, order=wanted.order, key=wanted.key, job=told.job,
                    at=time.monotonic(), durability=told.durability,
                )
            )  # fmt: skip
            return
        self.notes.answered.append(
            Answered(
                operation=wanted.operation, order=wanted.order, key=wanted.key, status=answer.status
            )
        )  # fmt: skip


async def follow(
    session: aiohttp.ClientSession, urls: Sequence[str], jobs: Sequence[str], *, seconds: float
) -> dict[str, offers.Job | None]:
    """
    Ask for jobs, now here and now there, until all have ended or time is over.

    A job that is not found is asked for again, at every gateway, before it is believed to be lost.
    """
    found: dict[str, offers.Job | None] = {}
    end = time.monotonic() + seconds
    free = asyncio.Semaphore(16)

    async def look(number: int, job: str) -> None:
        async with free:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                found[job] = await offers.read_job(session, urls[number % len(urls)], job)

    turn = 0
    while True:
        left = [job for job in jobs if not ((told := found.get(job)) and told.is_ended)]
        if not left or (time.monotonic() > end and turn >= len(urls)):
            return found
        turn += 1
        await asyncio.gather(*(look(number + turn, job) for number, job in enumerate(left)))
        await asyncio.sleep(0.2)
