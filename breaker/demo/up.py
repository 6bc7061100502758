"""
Up: everything on this machine - store, demo downstreams, gateway, and demonstration calls.

    look      ports, permissions, configuration: one clear line when something is in the way
    start     the downstreams, then the gateway with its embedded store; wait until all answer
    show      traffic in which each pipeline goes over its capacity in turn, and what becomes of it
    drain     nobody calls any more; what is queued is brought to its end, for a bounded time
    compare   what callers were told, what the gateway counted, what the downstreams saw
    stop      the gateway drains, then the downstreams end; also on errors
"""

import asyncio
import contextlib
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from rich.console import Console

from breaker.core.config import Config
from breaker.core.errors import StartError
from breaker.demo.callers import Callers
from breaker.demo.orders import OPERATIONS
from breaker.demo.preflight import check_ports, data_folder, downstream_addresses, gateway_addresses
from breaker.demo.processes import Processes
from breaker.demo.table import PLAIN_WIDTH, Picture, Screen, summary, waits
from breaker.demo.told import Told
from breaker.demo.traffic import Traffic
from breaker.demo.verdict import checks, not_shown
from breaker.demo.view import Counted, Queue, View
from breaker.demo.waits import groups_of
from breaker.policy.load import load

SHOWN_S = 20.0  # after this long all outcomes must have been seen
_REFRESH_S = 0.5
_TAIL_S = 3.0  # of a run that ends by itself are for the answers; at most a quarter of it
_DRAIN_S = 45.0  # for what is queued then: at night the desk is slow
_DRAIN_STOPPED_S = 3.0  # the same after Ctrl-C


async def up(folder: Path, environ: Mapping[str, str], *, seconds: float, drives: bool) -> int:
    """
    Run everything until Ctrl-C, or so long.

    Args:
        folder: Of the configuration.
        environ: Of the process; the gateway gets it, too.
        seconds: 0 is until Ctrl-C.
        drives: Whether to make demonstration calls.

    Returns:
        0 when callers, gateway and downstreams agree on everything; without calls, 0.

    Raises:
        ConfigError: The files are wrong.
        StartError: Something is in the way, or a process ended by itself.

    """
    config = load(folder, environ)
    if drives:
        _check_drivable(config)
    listen, admin = gateway_addresses(config)
    downstreams = downstream_addresses(config)
    check_ports([listen, admin, *downstreams.values()])
    data = data_folder(environ)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    # Connections are not the limit here: capacity is the gateway's to decide.
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        Processes(data, {**environ, "BREAKER_DATA": str(data)}) as processes,
    ):
        urls = {pipeline: _url(address.host, address.port) for pipeline, address in downstreams.items()}
        gateway_url, admin_url = _url(listen.host, listen.port), _url(admin.host, admin.port)
        starting = _start(processes, session, folder, urls, admin_url)
        if not await _unless(stop, starting):
            return 0
        console.print(f"calls {gateway_url}  documentation {gateway_url}/docs", soft_wrap=True)
        console.print(f"metrics {admin_url}/metrics  logs {data}/*.log", soft_wrap=True)
        view = View(session, admin_url, urls)
        run = _Run(config, console, processes, view, stop)
        if drives:
            return await run.demonstrate(
                Callers(session, gateway_url, f"demo{secrets.token_hex(3)}"), seconds
            )
        await run.show(run.wait(seconds))
        return 0


class _Run:
    """One `breaker up` whose processes all answer."""

    def __init__(
        self, config: Config, console: Console, processes: Processes, view: View, stop: asyncio.Event
    ) -> None:
        self._config, self._console, self._processes, self._view = config, console, processes, view
        self._stop = stop
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
        before, queues_before = await self._view.counted(), await self._queues()
        began_us = time.time_ns() // 1_000
        driven_s = seconds - min(_TAIL_S, seconds / 4)
        traffic = Traffic(callers, seconds=driven_s)
        await self.show(self._drive(traffic, driven_s), callers, traffic)
        told = Told(
            operations=self._config.operations,
            callers=callers,
            before=before,
            after=await self._view.counted(),
            queues_before=queues_before,
            queues=await self._queues(),
            seen=await self._view.seen(lists=True),
            carried=carried,
            began_us=began_us,
            ended_us=time.time_ns() // 1_000,
            # Whoever looks at a demonstration that stays up will call it, too.
            others_may_call=not seconds,
        )
        found, missing = checks(told), not_shown(callers)
        waits(self._console, groups_of(told))
        summary(self._console, found, missing)
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
        self._was_short = was_stopped and time.monotonic() - began_s < SHOWN_S
        # Who pressed Ctrl-C once wants to see how it ends; twice, to be rid of it.
        self._stop.clear()
        await traffic.finish(self._stop, _DRAIN_STOPPED_S if was_stopped else _DRAIN_S)

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
        last, last_s = await self._view.counted(), began
        with Screen(self._console) as screen:
            while True:
                await asyncio.sleep(_REFRESH_S)
                self._processes.bound_logs()
                counted, now, seen = await asyncio.gather(
                    self._view.counted(), self._view.now(), self._view.seen()
                )
                at_s = loop.time()
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
                        coming_back=sum(tally.waiting for tally in callers.tallies.values())
                        if callers
                        else 0,
                    )
                )


async def _start(
    processes: Processes,
    session: aiohttp.ClientSession,
    folder: Path,
    urls: Mapping[str, str],
    admin_url: str,
) -> None:
    """All side by side; the gateway last, so that it is stopped first."""
    python = [sys.executable, "-m"]
    starting = {}
    for pipeline, url in urls.items():
        parts = urlsplit(url)
        address = ["--host", parts.hostname or "", "--port", str(parts.port)]
        program = [*python, "breaker.demo.downstream", pipeline, *address]
        starting[f"{url}/_control/stats"] = await processes.start(pipeline, program)
    serve = [*python, "breaker", "serve", "--config", str(folder)]
    starting[f"{admin_url}/readyz"] = await processes.start("gateway", serve)
    for url, child in starting.items():
        await processes.wait_ready(child, url, session)


async def _unless(stop: asyncio.Event, doing: Awaitable[None]) -> bool:
    """Whether it was done before we were told to stop."""
    task, stopping = asyncio.ensure_future(doing), asyncio.ensure_future(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return False


def _check_drivable(config: Config) -> None:
    way_out = "start without demonstration calls: breaker up --no-traffic"
    if config.gateway.callers is not None:
        raise StartError(
            f"the configuration has callers, whose keys the demonstration does not know; {way_out}"
        )
    missing = [name for name in OPERATIONS if name not in config.operations]
    if missing:
        raise StartError(f"the demonstration calls {', '.join(missing)}, which is not configured; {way_out}")


def _url(host: str, port: int) -> str:
    # Bound to every address, it is reached over loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
