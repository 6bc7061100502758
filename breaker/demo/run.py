"""
Run: one `breaker up` whose processes all answer: what it shows, and what it says in the end.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

import aiohttp
from rich.console import Console

from breaker.core.config import Config
from breaker.core.errors import StartError
from breaker.core.model import Operation
from breaker.demo.arrivals import ALERTMANAGER, GATEWAY, Arrivals
from breaker.demo.callers import Callers
from breaker.demo.oncall import OTHER_WAIT_S, WAIT_S, is_due, on_call_checks
from breaker.demo.processes import Processes
from breaker.demo.table import Picture, Screen, summary, waits
from breaker.demo.told import Told
from breaker.demo.traffic import Traffic
from breaker.demo.verdict import checks, not_shown
from breaker.demo.view import Counted, Queue, View
from breaker.demo.waits import groups_of

SHOWN_S = 20.0  # after this long all outcomes must have been seen
_REFRESH_S = 0.5
_TAIL_S = 3.0  # of a run that ends by itself are for the answers; at most a quarter of it
_DRAIN_S = 45.0  # for what is queued then: at night the desk is slow
_DRAIN_STOPPED_S = 3.0  # the same after Ctrl-C
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCall:
    """
    Who is told, and by whom.

    Attributes:
        operations: Those of which the gateway tells the receiver.
        has_prometheus: Prometheus and Alertmanager run, and tell it too.

    """

    operations: Mapping[str, Operation]
    has_prometheus: bool


class Run:
    """One `breaker up` whose processes all answer."""

    def __init__(
        self,
        config: Config,
        console: Console,
        processes: Processes,
        view: View,
        on_call: OnCall,
        stop: asyncio.Event,
    ) -> None:
        self._config, self._console, self._processes, self._view = config, console, processes, view
        self._on_call, self._stop = on_call, stop
        self._arrivals = Arrivals()
        self._ran_s = 0.0
        self._was_short = False  # told to stop before everything was shown
        self._pipelines = {name: operation.pipeline for name, operation in config.operations.items()}

    async def show(
        self, job: Awaitable[None], callers: Callers | None = None, traffic: Traffic | None = None
    ) -> None:
        """
        Show what happens until the job is done.

        Raises:
            StartError: A process ended by itself, or does not answer.

        """
        watching = [
            asyncio.ensure_future(job),
            asyncio.ensure_future(self._refresh(callers, traffic)),
            asyncio.ensure_future(self._processes.wait_any_end()),
        ]
        try:
            ended, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            if watching[2] in ended:
                raise StartError(str(watching[2].result()))
            for task in ended:
                task.result()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise StartError(
                f"the gateway or a downstream does not answer: {type(exc).__name__} {exc}"
            ) from exc
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def wait(self, seconds: float) -> None:
        """So long, or until told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds or None)

    async def demonstrate(self, callers: Callers, seconds: float) -> int:
        """Drive calls, and compare at the end; the exit status."""
        carried = await self._view.reset()
        before, queues_before = await self._view.metrics(), await self._queues()
        began_us = time.time_ns() // 1_000
        driven_s = seconds - min(_TAIL_S, seconds / 4)
        traffic = Traffic(callers, seconds=driven_s)
        await self.show(self._drive(traffic, driven_s), callers, traffic)
        after = await self._view.metrics()
        told = Told(
            operations=self._config.operations,
            callers=callers,
            before=before.counted,
            after=after.counted,
            store_errors=after.store_errors - before.store_errors,
            queues_before=queues_before,
            queues=await self._queues(),
            seen=await self._view.seen(lists=True),
            carried=carried,
            began_us=began_us,
            ended_us=time.time_ns() // 1_000,
            # Whoever looks at a demonstration that stays up will call it, too.
            others_may_call=not seconds,
        )
        on_call, remarks = on_call_checks(
            self._arrivals, is_due=self._is_due, has_prometheus=self._on_call.has_prometheus
        )
        found, missing = [*checks(told), *on_call], not_shown(callers)
        waits(self._console, groups_of(told))
        summary(self._console, found, missing, remarks)
        all_agree = all(check.agrees for check in found)
        return 0 if all_agree and (not missing or self._was_short) else 1

    async def _drive(self, traffic: Traffic, seconds: float) -> None:
        began_s = time.monotonic()
        driving = asyncio.ensure_future(traffic.run())
        try:
            waiting = asyncio.ensure_future(self.wait(seconds))
            ended, _ = await asyncio.wait([driving, waiting], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            driving.cancel()
        was_stopped = self._stop.is_set()
        self._ran_s = time.monotonic() - began_s
        self._was_short = was_stopped and self._ran_s < SHOWN_S
        # Who pressed Ctrl-C once wants to see how it ends; twice, to be rid of it.
        self._stop.clear()
        await traffic.finish(self._stop, _DRAIN_STOPPED_S if was_stopped else _DRAIN_S)
        if not was_stopped and self._is_due:
            await self._wait_told(GATEWAY, WAIT_S)
            if self._on_call.has_prometheus:
                await self._wait_told(ALERTMANAGER, OTHER_WAIT_S)

    @property
    def _is_due(self) -> bool:
        return is_due(self._on_call.operations, self._ran_s)

    async def _wait_told(self, way: str, most_s: float) -> None:
        """Until it told that something is over capacity, so long, or until we are told to stop."""
        end_s = time.monotonic() + most_s
        while not (self._arrivals.over_capacity_by(way) or self._stop.is_set() or time.monotonic() > end_s):
            await self.wait(_LOOK_EVERY_S)

    async def _queues(self) -> dict[str, Queue]:
        """
        Of the operations that have one.

        Raises:
            StartError: The gateway cannot read its store.

        """
        now = await self._view.now()
        missing = [name for name in self._config.operations if name not in now]
        if missing:
            raise StartError(f"the gateway cannot read the store: nothing is known of {', '.join(missing)}")
        return {name: each.queue for name, each in now.items() if each.queue is not None}

    async def _refresh(self, callers: Callers | None, traffic: Traffic | None) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        last, last_s = (await self._view.metrics()).counted, began
        with Screen(self._console) as screen:
            while True:
                await asyncio.sleep(_REFRESH_S)
                self._processes.bound_logs()
                said, now, seen, arrived = await asyncio.gather(
                    self._view.metrics(),
                    self._view.now(),
                    self._view.seen(),
                    self._view.arrived(after=self._arrivals.count),
                )
                at_s, counted = loop.time(), said.counted
                screen.tell(at_s - began, self._arrivals.take(arrived))
                per_second = {
                    name: (counted[name].outcomes.total() - last.get(name, Counted()).outcomes.total())
                    / (at_s - last_s)
                    for name in self._pipelines
                    if name in counted
                }
                last, last_s = counted, at_s
                screen.show(
                    Picture(
                        at_s=at_s - began,
                        stage=traffic.stage if traffic else "",
                        pipelines=self._pipelines,
                        counted=counted,
                        now=now,
                        seen=seen,
                        per_second=per_second,
                        firing=said.firing,
                        arrivals=self._arrivals,
                        coming_back=sum(tally.waiting for tally in callers.tallies.values())
                        if callers
                        else 0,
                    )
                )
