"""
Workers: several gateway processes on one port (SO_REUSEPORT), and one parent that watches them.

Each worker is a whole replica, with an admin socket of its own; the parent's admin listener merges
their metrics, with a `worker` label, because a registry shared by processes loses exemplars.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import structlog

from breaker.core.config import Config, StoreSettings
from breaker.core.errors import ConfigError, Problem, StartError
from breaker.policy.load import load
from breaker.signals.merge import merge
from breaker.store.parent_death import launch_command
from breaker.web.admin import LOOPBACK, AdminListener, admin_app
from breaker.web.listener import bind, host_and_port

ASK_S = 2.0
RELOAD_S = 10.0  # a worker that is still starting answers when it has started
RESTART_S = 1.0
POLL_S = 0.1
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


def worker_sockets(listen: str, worker: Path) -> tuple[socket.socket, socket.socket]:
    """The shared callers' socket, and the worker's own admin socket at this path."""
    admin = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    admin.bind(str(worker))
    admin.listen()
    admin.setblocking(False)
    return bind(listen, "listen", shared=True), admin


class Workers:
    """The parent of several gateway processes."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        count: int,
        store: StoreSettings,
        callers: socket.socket,
        admin: socket.socket,
    ) -> None:
        self._config, self._folder, self._count, self._store = config, folder, count, store
        self._callers, self._admin = callers, admin
        self._scratch = Path(tempfile.mkdtemp(prefix="breaker-"))
        self._in_force = self._scratch / "in-force"
        self._put_in_force(config)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """
        Keep the workers up until SIGTERM, then drain them all.

        Raises:
            StartError: A worker could not start.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        is_loopback = host_and_port(self._config.gateway.admin)[0] in LOOPBACK
        app = admin_app(
            self,
            is_loopback=is_loopback,
            operators=lambda: self._config.gateway.operators,
            workers=lambda: [self._scratch / str(worker) for worker in range(self._count)],
        )
        listener = AdminListener(app)
        keepers = [loop.create_task(self._keep_up(worker)) for worker in range(self._count)]
        try:
            await listener.start(self._admin)
            # Bound only to claim the port: a socket that listens and is never read would lose calls.
            self._callers.close()
            stopping = loop.create_task(stop.wait())
            done, _ = await asyncio.wait([stopping, *keepers], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
            stopping.cancel()
        finally:
            self._stopping.set()
            self._tell(signal.SIGTERM)
            await asyncio.gather(*keepers, return_exceptions=True)
            await listener.stop()
            shutil.rmtree(self._scratch, ignore_errors=True)
        return 0

    async def _keep_up(self, worker: int) -> None:
        """One worker: started, and started again when it dies; but not when it could not start at all."""
        has_served = False
        while not self._stopping.is_set():
            process = await self._start(worker)
            ended = asyncio.create_task(process.wait())
            while not has_served and not ended.done():
                answer = await self._ask(worker, "/startupz")
                has_served = answer is not None and answer[0] == HTTPStatus.OK
                await asyncio.wait([ended], timeout=POLL_S)
            status = await ended
            if self._stopping.is_set():
                return
            if not has_served and status > 0:
                raise StartError(f"worker {worker} could not start; its last line says why")
            structlog.get_logger().error("worker_ended", worker=worker, status=status)
            await asyncio.sleep(RESTART_S)

    async def _start(self, worker: int) -> asyncio.subprocess.Process:
        (self._scratch / str(worker)).unlink(missing_ok=True)
        environ = os.environ | {"BREAKER_STORE__URL": self._store.url}
        command = [sys.executable, "-m", "breaker", "serve", "--config", str(self._in_force)]
        command += ["--worker", str(self._scratch / str(worker))]
        process = await asyncio.create_subprocess_exec(
            *launch_command(command), env=environ, start_new_session=True
        )
        self._processes[worker] = process
        if self._stopping.is_set():
            process.terminate()
        return process

    def _put_in_force(self, config: Config) -> None:
        """
        Keep a copy of files that are right.

        A worker that is started again must not read what somebody is writing just now.
        """
        # Not by its version: that leaves secrets out, which may have been renewed.
        copy = Path(tempfile.mkdtemp(prefix=f"{config.version}-", dir=self._scratch)) / "config"
        shutil.copytree(self._folder, copy)
        link = self._scratch / "next"
        link.unlink(missing_ok=True)
        link.symlink_to(copy)
        link.rename(self._in_force)

    def _on_hang_up(self) -> None:
        # By their admin sockets: a signal would kill a worker that is still starting.
        task = asyncio.get_running_loop().create_task(self._reload_and_tell())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_tell(self) -> None:
        log = structlog.get_logger()
        try:
            log.info("workers_reloaded", version=await self.reload())
        except ConfigError as exc:
            log.error("workers_refused", detail=str(exc))  # noqa: TRY400 - the problems say it, not our stack

    def _tell(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _ask(
        self, worker: int, path: str, accept: str = "", method: str = "GET", seconds: float = ASK_S
    ) -> tuple[int, str] | None:
        """A worker's answer; None when it does not give one."""
        connector = aiohttp.UnixConnector(str(self._scratch / str(worker)))
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:  # noqa: SIM117
                async with session.request(
                    method, f"http://worker{path}", headers={"Accept": accept}
                ) as answer:
                    return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    # What the admin listener tells of.

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        answers = await asyncio.gather(
            *(self._ask(worker, "/metrics", accept) for worker in range(self._count))
        )
        pages = {
            str(worker): answer[1]
            for worker, answer in enumerate(answers)
            if answer and answer[0] == HTTPStatus.OK
        }
        return merge(pages).encode(), OPENMETRICS if "openmetrics" in accept else PLAIN

    async def is_ready(self) -> tuple[bool, str]:
        if self._stopping.is_set():
            return False, "draining"
        ready = await self._count_of("/readyz")
        return ready > 0, f"{ready} of {self._count} workers are ready"

    async def is_started(self) -> bool:
        return await self._count_of("/startupz") == self._count

    async def _count_of(self, path: str) -> int:
        answers = await asyncio.gather(*(self._ask(worker, path) for worker in range(self._count)))
        return sum(answer is not None and answer[0] == HTTPStatus.OK for answer in answers)

    async def status(self) -> dict[str, Any]:
        answers = await asyncio.gather(*(self._ask(worker, "/status") for worker in range(self._count)))
        return {
            "pid": os.getpid(),
            "workers": {
                str(worker): orjson.loads(answer[1]) if answer else None
                for worker, answer in enumerate(answers)
            },
        }

    async def reload(self) -> str:
        config = load(self._folder, os.environ)  # a bad file reaches no worker
        self._put_in_force(config)
        answers = await asyncio.gather(
            *(
                self._ask(worker, "/admin/v1/reload", method="POST", seconds=RELOAD_S)
                for worker in range(self._count)
            )
        )
        failed = [worker for worker, answer in enumerate(answers) if not answer or answer[0] != HTTPStatus.OK]
        if failed:
            message = f"workers {failed} did not take the new configuration; see their log"
            raise ConfigError([Problem(file=str(self._folder), line=0, column=0, message=message)])
        self._config = config
        return config.version
