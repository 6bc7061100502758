"""
Embedded store: a real Valkey or Redis that this gateway starts, watches and stops.

For one machine and one gateway. It is the same store as in production, with the same promises:

1. No TCP port: a unix socket in a folder that only this user can enter.
2. Every write is on disk before it is answered (`appendfsync always`), and nothing is ever evicted.
3. It ends with the gateway, also when that is killed (`parent_death.py`).
4. Its folder has one owner (`embedded_folder.py`), and a server of an earlier run that is still there
   is asked to leave before ours is started.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from breaker.core.errors import StartError
from breaker.store import parent_death
from breaker.store.embedded_folder import make_private, socket_path, take_gateway_lock, try_lock
from breaker.store.server_binary import ServerBinary, find_server

READY_TIMEOUT_S = 120.0  # a large append-only file takes a while to load
_STOP_TIMEOUT_S = 10.0
_LEAVE_TIMEOUT_S = 10.0  # for a server of an earlier run
_LOOK_EVERY_S = 0.02
_REPLY_TIMEOUT_S = 1.0
_LOG_MAX = 1_048_576  # bytes; one older log is kept
_TAIL_MAX = 4_096  # bytes of it that are looked at for an error message
_TAIL_LINES = 5


class EmbeddedStore:
    """
    A running server and the folder that it owns.

    Made by `start`; `url`, `pid` and `name_and_version` say what is running.
    """

    def __init__(self, *, folder: Path, server: ServerBinary, socket: Path, lock: int) -> None:
        self._folder = folder
        self._server = server
        self._socket = socket
        self._lock: int | None = lock
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline: int | None = None

    @classmethod
    async def start(cls, folder: Path, *, ready_timeout_s: float = READY_TIMEOUT_S) -> Self:
        """
        Start the server on a data folder, and wait until it answers.

        Args:
            folder: Made when missing. Only this user may enter it afterwards.
            ready_timeout_s: How long loading the data may take, in seconds.

        Raises:
            StartError: No server, no permission, a folder in use, or a server that does not come up.

        """
        server = await find_server()
        lock = None
        try:
            folder = make_private(folder)
            lock = take_gateway_lock(folder)
            store = cls(folder=folder, server=server, socket=socket_path(folder), lock=lock)
            await store._run(ready_timeout_s)
        except OSError as exc:
            _close(lock)
            raise StartError(f"cannot use the store's folder {folder}: {exc.strerror or exc}") from exc
        except BaseException:
            _close(lock)
            raise
        return store

    @property
    def url(self) -> str:
        """`unix:///...`, percent-encoded, as redis-py takes it."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        """Process id of the server, or of the last one when it has ended."""
        return self._running().pid

    @property
    def name_and_version(self) -> str:
        """`valkey 9.1.2` or `redis 7.0.15`."""
        return str(self._server)

    async def wait(self) -> int:
        """Until the server has ended, by itself or by `stop`; its exit status, negative for a signal."""
        return await self._running().wait()

    async def restart(self, *, ready_timeout_s: float = READY_TIMEOUT_S) -> None:
        """
        Start a server that has ended again, on the same data and the same socket.

        Raises:
            StartError: It does not come up, or `stop` was called.

        """
        if self._lock is None:
            raise StartError(f"the embedded store in {self._folder} was stopped; start a new one")
        await self._end()
        try:
            await self._run(ready_timeout_s)
        except OSError as exc:
            raise StartError(f"cannot use the store's folder {self._folder}: {exc.strerror or exc}") from exc

    async def stop(self) -> None:
        """End the server and give the folder back. Nothing is lost; calling it again does nothing."""
        await self._end()
        self._socket.unlink(missing_ok=True)
        if self._socket.parent != self._folder:
            # Ours alone; if somebody put a file there, or removed it, that is no reason to fail.
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()
        _close(self._lock)
        self._lock = None

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise StartError(f"the embedded store in {self._folder} never ran")
        return self._process

    async def _run(self, ready_timeout_s: float) -> None:
        server_lock = await _take_server_lock(self._folder, self._socket)
        try:
            self._process = await self._spawn(server_lock)
            os.ftruncate(server_lock, 0)
            os.pwrite(server_lock, str(self._process.pid).encode(), 0)
        finally:
            # Ours only; the server holds the lock from here on, until it ends.
            os.close(server_lock)
        try:
            await self._wait_ready(self._process, ready_timeout_s)
        except BaseException:
            # Also when cancelled: nobody else knows of this process yet.
            await self._end()
            raise

    async def _spawn(self, server_lock: int) -> asyncio.subprocess.Process:
        inherited = [server_lock]
        lifeline = parent_death.NO_LIFELINE
        if parent_death.is_lifeline_needed():
            lifeline, self._lifeline = os.pipe()
            inherited.append(lifeline)
        command = parent_death.launch_command(self._command(), lifeline=lifeline)
        try:
            with _open_log(self._folder / "store.log") as log:
                return await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=inherited,
                    # Ctrl-C goes to the whole foreground group: the store must outlive the
                    # gateway's draining, not end with the same key press.
                    start_new_session=True,
                )
        finally:
            if lifeline != parent_death.NO_LIFELINE:
                os.close(lifeline)

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "store.log",  # below `dir`
        }
        return [
            str(self._server.path),
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
        ]

    async def _wait_ready(self, process: asyncio.subprocess.Process, ready_timeout_s: float) -> None:
        who = f"the embedded store ({self._server} at {self._server.path})"
        async with _client(self._socket) as client:
            try:
                async with asyncio.timeout(ready_timeout_s):
                    while not await _answers(client):
                        if process.returncode is not None:
                            raise StartError(
                                f"{who} ended with status {process.returncode} before it was ready; "
                                + _tail(self._folder / "store.log")
                            )
                        await asyncio.sleep(_LOOK_EVERY_S)
            except TimeoutError as exc:
                raise StartError(
                    f"{who} was not ready after {ready_timeout_s:g} s; " + _tail(self._folder / "store.log")
                ) from exc

    async def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        _close(self._lifeline)
        self._lifeline = None


async def _take_server_lock(folder: Path, socket: Path) -> int:
    """Wait until no server of an earlier run uses the folder; it is asked to leave."""
    file = folder / "server.lock"
    try:
        async with asyncio.timeout(_LEAVE_TIMEOUT_S):
            while (lock := try_lock(file)) is None:
                # Over its socket, not by a signal: a process id may be somebody else's by now.
                async with _client(socket) as client:
                    with contextlib.suppress(RedisError, OSError):
                        await client.shutdown(nosave=True)
                await asyncio.sleep(_LOOK_EVERY_S)
            return lock
    except TimeoutError as exc:
        raise StartError(
            f"a store of an earlier run (pid {file.read_text() or 'unknown'}) still uses {folder} "
            "and does not leave; end that process"
        ) from exc


def _client(socket: Path) -> Redis:
    return Redis(
        unix_socket_path=str(socket),
        socket_timeout=_REPLY_TIMEOUT_S,
        socket_connect_timeout=_REPLY_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False  # no socket yet, or still loading: the caller asks again, and knows when to stop


def _open_log(file: Path) -> IO[bytes]:
    if file.exists() and file.stat().st_size > _LOG_MAX:
        file.replace(file.with_suffix(".log.1"))
    return file.open("ab")


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_MAX))
        lines = file.read().decode(errors="replace").split("\n")
    last = [line.strip() for line in lines if line.strip()][-_TAIL_LINES:]
    return f"its log {log} ends: " + " | ".join(last) if last else f"its log {log} is empty"


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
