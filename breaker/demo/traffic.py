"""
Traffic: how much is ordered, and when. Each pipeline goes over its capacity in turn.

    launch      onboarding   more sign-ups than provisioning takes, a partner who imports, welcomes to all
    outage      support      more tickets than the desk picks up, most of them from one customer
    month-end   billing      more charges than the provider takes, one customer over his own share, an invoice
                             that cannot be charged, reads

Between its turns a pipeline has a little traffic, so that one sees it recover. Arrivals are even, and do
not wait for answers: people do not stop signing up because others wait.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from breaker.demo.callers import Callers
from breaker.demo.orders import Order

STAGE_S = 6.0
PLACED_MAX = 500  # orders of one stream that are under way; beyond that arrivals are skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """
    One kind of arrivals.

    Attributes:
        order: Makes the next; None when there is nothing to order yet.
        stage: In which it surges.
        calm, surge: Arrivals per second, outside and inside of that stage; 0 is none.

    """

    order: Callable[[], Order | None]
    stage: str
    calm: float
    surge: float


STAGES = ("launch", "outage", "month-end")
LAST_STAGE = "the end"  # calls under way are answered, nobody calls any more


class Traffic:
    """
    Drives all streams.

    Attributes:
        stage: The one that is on.

    """

    def __init__(self, callers: Callers, *, seconds: float) -> None:
        """
        Prepare all streams.

        Args:
            callers: Place the orders.
            seconds: How long it will go on; 0 when that is not known. All stages fit into it.

        """
        orders = callers.orders
        self._callers = callers
        self._stage_s = min(STAGE_S, seconds / len(STAGES)) if seconds else STAGE_S
        self.stage = STAGES[0]
        self._placed: set[asyncio.Task[None]] = set()
        self._streams = (
            Stream(order=orders.sign_up, stage="launch", calm=0.6, surge=7),
            Stream(order=orders.partner_sign_up, stage="launch", calm=0, surge=5),
            Stream(order=orders.welcome, stage="launch", calm=0.8, surge=14),
            Stream(order=orders.ticket, stage="outage", calm=1, surge=10),
            Stream(order=orders.heavy_ticket, stage="outage", calm=0, surge=8),
            Stream(order=orders.charge, stage="month-end", calm=3, surge=40),
            Stream(order=orders.heavy_charge, stage="month-end", calm=0, surge=12),
            # One, in the middle of the stage.
            Stream(order=orders.closed_charge, stage="month-end", calm=0, surge=1.7 / self._stage_s),
            Stream(order=orders.invoice, stage="month-end", calm=6, surge=90),
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._turn())
            for stream in self._streams:
                group.create_task(self._arrive(stream))

    async def finish(self, stop: asyncio.Event, most_s: float) -> None:
        """
        Nobody comes back any more; wait for the calls that are under way, and for what is queued.

        Args:
            stop: Nobody wants to wait for the queue any more.
            most_s: Seconds that it may take to drain; what waits then is only looked at once more.

        """
        self.stage = LAST_STAGE
        self._callers.closing.set()
        await asyncio.gather(*self._placed)
        if following := set(self._callers.following):
            stopping = asyncio.ensure_future(stop.wait())
            drained = asyncio.ensure_future(asyncio.wait(following))
            await asyncio.wait({stopping, drained}, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
            for task in (stopping, drained, *following):
                task.cancel()
            await asyncio.gather(stopping, drained, *following, return_exceptions=True)
        await self._callers.look_at_the_rest()

    async def _turn(self) -> None:
        while True:
            for stage in STAGES:
                self.stage = stage
                await asyncio.sleep(self._stage_s)

    async def _arrive(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        under_way = 0

        def on_end(task: asyncio.Task[None]) -> None:
            nonlocal under_way
            under_way -= 1
            self._placed.discard(task)

        at = loop.time()
        while True:
            per_second = stream.surge if self.stage == stream.stage else stream.calm
            if not per_second:
                await asyncio.sleep(self._stage_s / 10)
                at = loop.time()
                continue
            # Due times are added up, so that a late loop does not make fewer arrivals.
            at += 1 / per_second
            await asyncio.sleep(at - loop.time())
            order = stream.order() if under_way < PLACED_MAX else None
            if order is not None:
                under_way += 1
                task = loop.create_task(self._callers.place(order))
                self._placed.add(task)
                task.add_done_callback(on_end)
