"""
`breaker serve`: validate, listen, serve; reload on SIGHUP; drain on SIGTERM.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from breaker.core.config import Config, StoreSettings
from breaker.core.errors import ConfigError, StartError, StoreError
from breaker.policy.load import load
from breaker.signals.logs import configure
from breaker.store.embedded import EmbeddedStore
from breaker.web.admin import LOOPBACK
from breaker.web.listener import bind, host_and_port
from breaker.wiring import GatewayProcess
from breaker.workers import Workers, worker_sockets

STORE_FOLDER = Path(".run/store")


async def serve(folder: Path, environ: Mapping[str, str], *, workers: int, worker: Path | None) -> int:
    """
    Serve until told to stop.

    Args:
        workers: Processes; more than one makes this one their parent.
        worker: The admin socket of this process, when it is one of several.

    Raises:
        ConfigError: The files are wrong; nothing listened.
        StartError: Ports, permissions or the store are not ready.
    """
    config = load(folder, environ)
    if worker is not None:
        callers, admin = worker_sockets(config.gateway.listen, worker)
        return await run_gateway(config, folder, environ, callers, admin, admin_is_loopback=True)
    if workers > 1:
        # Bound here too, so that a taken port is said once, before anything starts.
        bind(
            config.gateway.listen, "listen"
        ).close()  # alone first: shared, it would join another gateway's port
        sockets = bind(config.gateway.listen, "listen", shared=True), bind(config.gateway.admin, "admin")
        logs = configure(format=config.gateway.log_format, level=config.gateway.log_level)
        async with StoreOf(config.gateway.store) as store, contextlib.AsyncExitStack() as after:
            after.callback(logs.close)
            return await Workers(config, folder, workers, store, *sockets).run()
    callers, admin = bind(config.gateway.listen, "listen"), bind(config.gateway.admin, "admin")
    is_loopback = host_and_port(config.gateway.admin)[0] in LOOPBACK
    return await run_gateway(config, folder, environ, callers, admin, admin_is_loopback=is_loopback)


async def run_gateway(
    config: Config,
    folder: Path,
    environ: Mapping[str, str],
    callers: socket.socket,
    admin: socket.socket,
    *,
    admin_is_loopback: bool,
) -> int:
    """One gateway in this process, until SIGTERM or SIGINT."""
    async with StoreOf(config.gateway.store) as store:
        logs = configure(format=config.gateway.log_format, level=config.gateway.log_level)
        process = GatewayProcess(config, folder, environ, store, logs)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        reloads: set[asyncio.Task[None]] = set()

        def on_hang_up() -> None:
            task = loop.create_task(reload(process))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, on_hang_up)
        try:
            await process.start(callers, admin, admin_is_loopback=admin_is_loopback)
            print(f"breaker: serving {config.gateway.listen}, admin {config.gateway.admin}", file=sys.stderr)
            settle_memory()
            await stop.wait()
        finally:
            await process.stop()
            logs.close()
    return 0


def settle_memory() -> None:
    """
    What lives as long as the process need not be looked at by each collection of garbage.

    Calls make no cycles, so collections find nothing and only cost time: with Python's default of
    one per 700 objects about a tenth of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def reload(process: GatewayProcess) -> None:
    """SIGHUP: what is wrong was emitted as an event; here it goes to the terminal too."""
    try:
        version = await process.reload()
        print(f"breaker: configuration {version} is in force", file=sys.stderr)
    except (ConfigError, StoreError, OSError) as exc:
        print(f"breaker: the old configuration stays in force:\n{exc}", file=sys.stderr)


class StoreOf:
    """
    The store that the settings name; an embedded one is started, kept up, and stopped.

    Restarts are quick because its data is on disk; calls in between are told to come back.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._embedded: EmbeddedStore | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StoreSettings:
        if self._settings.url != "embedded":
            return self._settings
        folder = Path(os.environ.get("BREAKER_DATA", STORE_FOLDER))
        self._embedded = await EmbeddedStore.start(folder)
        print(
            f"breaker: embedded store ({self._embedded.name_and_version}) in {folder}: for one machine",
            file=sys.stderr,
        )
        self._keeper = asyncio.get_running_loop().create_task(self._keep_up(self._embedded))
        return replace(self._settings, url=self._embedded.url)

    async def __aexit__(self, *_: object) -> None:
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._embedded:
            await self._embedded.stop()

    async def _keep_up(self, store: EmbeddedStore) -> None:
        while True:
            status = await store.wait()
            print(f"breaker: the embedded store ended with {status}; it is started again", file=sys.stderr)
            try:
                await store.restart()
            except StartError as exc:
                print(f"breaker: {exc}", file=sys.stderr)
                await asyncio.sleep(1.0)
