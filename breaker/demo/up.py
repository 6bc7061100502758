"""
Up: everything on this machine - store, demo downstreams, gateway, and demonstration calls.

    look      ports, permissions, configuration: one clear line when something is in the way
    start     the receiver of alerts, the downstreams, then the gateway with its embedded store; wait until all
              answer; then Prometheus and Alertmanager, where they are installed
    show      traffic in which each pipeline goes over its capacity in turn, and what becomes of it
    drain     nobody calls any more; what is queued is brought to its end, for a bounded time
    compare   what callers were told, what the gateway counted, what the downstreams saw, what on-call heard
    stop      the gateway drains, then the downstreams end; also on errors
"""

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from rich.console import Console

from breaker.core.config import Config
from breaker.core.errors import StartError
from breaker.demo import monitoring
from breaker.demo.callers import Callers
from breaker.demo.oncall import operations_told
from breaker.demo.orders import OPERATIONS
from breaker.demo.preflight import (
    Address,
    check_ports,
    data_folder,
    downstream_addresses,
    free_receiver,
    gateway_addresses,
    receiver_addresses,
)
from breaker.demo.processes import Processes
from breaker.demo.run import OnCall, Run
from breaker.demo.table import PLAIN_WIDTH
from breaker.demo.view import View
from breaker.policy.load import load

T = TypeVar("T")


async def up(
    folder: Path, environ: Mapping[str, str], *, seconds: float, drives: bool, monitors: bool
) -> int:
    """
    Run everything until Ctrl-C, or so long.

    Args:
        folder: Of the configuration.
        environ: Of the process; the gateway gets it, too.
        seconds: 0 is until Ctrl-C.
        drives: Whether to make demonstration calls.
        monitors: Whether to start Prometheus and Alertmanager, where they are installed.

    Returns:
        0 when callers, gateway and downstreams agree on everything and on-call was told; without calls, 0.

    Raises:
        ConfigError: The files are wrong.
        StartError: Something is in the way, or a process ended by itself.

    """
    config = load(folder, environ)
    if drives:
        _check_drivable(config)
    listen, admin = gateway_addresses(config)
    downstreams = downstream_addresses(config)
    channels = receiver_addresses(config)
    check_ports([listen, admin, *downstreams.values(), *dict.fromkeys(channels.values())])
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
        places = Places(
            gateway=_url(listen), admin=_url(admin),
            downstreams={pipeline: _url(address) for pipeline, address in downstreams.items()},
            receivers=tuple(dict.fromkeys(channels.values())) or (free_receiver(),),
        )  # fmt: skip
        started = await _unless(
            stop, _start(processes, session, folder, places, config if monitors else None)
        )
        if started is None:
            return 0
        for line in _greeting(places, started, data):
            console.print(line, soft_wrap=True)
        view = View(session, places.admin, places.downstreams, places.receiver)
        on_call = OnCall(
            operations=operations_told(config, frozenset(channels), frozenset(OPERATIONS)),
            has_prometheus=bool(started.prometheus and started.alertmanager),
        )
        run = Run(config, console, processes, view, on_call, stop)
        if drives:
            return await run.demonstrate(
                Callers(session, places.gateway, f"demo{secrets.token_hex(3)}"), seconds
            )
        await run.show(run.wait(seconds))
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """
    Where everything is reached.

    Attributes:
        gateway, admin: URLs.
        downstreams: URLs by pipeline.
        receivers: Where the receiver listens; at least one.

    """

    gateway: str
    admin: str
    downstreams: Mapping[str, str]
    receivers: tuple[Address, ...]

    @property
    def receiver(self) -> str:
        return _url(self.receivers[0])


async def _start(
    processes: Processes,
    session: aiohttp.ClientSession,
    folder: Path,
    places: Places,
    monitored: Config | None,
) -> monitoring.Started:
    """All side by side, the gateway last, so that it is stopped first; then what looks at it, where that is wanted."""
    python = [sys.executable, "-m"]
    starting = {}
    first, *more = places.receivers
    listens = ["--host", first.host, "--port", str(first.port)]
    listens += [f"--also={urlsplit(_url(address)).netloc}" for address in more]
    receiver = await processes.start("receiver", [*python, "breaker.demo.receiver", *listens])
    starting[f"{places.receiver}/received"] = receiver
    for pipeline, url in places.downstreams.items():
        parts = urlsplit(url)
        address = ["--host", parts.hostname or "", "--port", str(parts.port)]
        program = [*python, "breaker.demo.downstream", pipeline, *address]
        starting[f"{url}/_control/stats"] = await processes.start(pipeline, program)
    serve = [*python, "breaker", "serve", "--config", str(folder)]
    starting[f"{places.admin}/readyz"] = await processes.start("gateway", serve)
    for url, child in starting.items():
        await processes.wait_ready(child, url, session)
    if monitored is None:
        return monitoring.Started()
    return await monitoring.start(
        monitored, processes, session, admin_url=places.admin, receiver_url=places.receiver
    )


def _greeting(places: Places, started: monitoring.Started, data: Path) -> Iterator[str]:
    yield f"calls {places.gateway}  documentation {places.gateway}/docs"
    yield f"metrics {places.admin}/metrics  logs {data}/*.log"
    running = {"prometheus": started.prometheus, "alertmanager": started.alertmanager}
    told = [f"{name} {url}" for name, url in running.items() if url]
    yield "  ".join([*told, f"alerts arrive at {places.receiver}"])
    yield from started.said


async def _unless(stop: asyncio.Event, doing: Coroutine[Any, Any, T]) -> T | None:
    """What it gave; None when we were told to stop before it was done."""
    task, stopping = asyncio.ensure_future(doing), asyncio.ensure_future(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return None


def _check_drivable(config: Config) -> None:
    way_out = "start without demonstration calls: breaker up --no-traffic"
    if config.gateway.callers is not None:
        raise StartError(
            f"the configuration has callers, whose keys the demonstration does not know; {way_out}"
        )
    missing = [name for name in OPERATIONS if name not in config.operations]
    if missing:
        raise StartError(f"the demonstration calls {', '.join(missing)}, which is not configured; {way_out}")


def _url(address: Address) -> str:
    # Bound to every address, it is reached over loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(address.host, address.host)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"
