"""
Fleet: gateway processes on fixed addresses, which are killed, stopped, frozen and started again.

The store is `tests.store.replicas.Server`: a process with every write on disk, tormented the same way.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from breaker.store.parent_death import launch_command
from tests.e2e.scene import ROOT
from tests.gateway.gateway_process import bugs_in, is_ready

READY_S = 60.0  # three at a time on a busy machine
ENDED_S = 20.0
_PORTS = range(12_000, 32_000)


def fixed_address() -> tuple[str, int]:
    """A free port that the kernel gives to nobody who connects: it must be free at each new start."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return "127.0.0.1", port


class Replica:
    """One gateway, again and again on the same two ports."""

    def __init__(self, name: str, config: Path, logs: Path, store: str | None = None) -> None:
        self.name = name
        self._config, self._log, self._store = config, logs / f"{name}.log", store
        self._callers, self._admin = fixed_address(), fixed_address()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._callers)

    @property
    def admin_url(self) -> str:
        return "http://{}:{}".format(*self._admin)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def log(self) -> str:
        """What all its lives have said."""
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> None:
        """Start, or start again; `ready` waits for it."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BREAKER_")}
        environ |= {
            "PYTHONPATH": str(ROOT),
            "BREAKER_LISTEN": "{}:{}".format(*self._callers),
            "BREAKER_ADMIN": "{}:{}".format(*self._admin),
            "BREAKER_LOG__FORMAT": "json",
        }
        if self._store:
            environ["BREAKER_STORE__URL"] = self._store
        program = [sys.executable, "-m", "breaker", "serve", "--config", str(self._config)]
        with self._log.open("ab") as log:
            # It dies with us: a drill that was killed must not leave gateways behind.
            self._process = subprocess.Popen(launch_command(program), env=environ, stdout=log, stderr=log)

    async def ready(self) -> None:
        end = time.monotonic() + READY_S
        while not await is_ready(self._admin[1]):
            assert self.process.poll() is None, f"{self.name} ended: {self.log[-2000:]}"
            assert time.monotonic() < end, f"{self.name} did not become ready: {self.log[-2000:]}"
            await asyncio.sleep(0.05)

    async def kill(self) -> float:
        """SIGKILL; when that was, in monotonic seconds."""
        at = time.monotonic()
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        return at

    async def stop(self) -> int:
        """SIGTERM, and wait for its end; its exit status."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, ENDED_S)

    def reload(self) -> None:
        """SIGHUP: it reads its files again."""
        self.process.send_signal(signal.SIGHUP)

    @property
    def memory(self) -> int:
        """What is resident now, bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def has_port(self, port: int) -> bool:
        return has_port(self.process.pid, port)

    async def close(self) -> None:
        """End it, whatever it is doing."""
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        try:
            await self.stop()
        except subprocess.TimeoutExpired:
            await self.kill()


def has_port(pid: int, port: int) -> bool:
    """Whether this process has a TCP connection from this local port (proc(5), net/tcp)."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].partition(":")[2], 16) == port:
            inodes.add(f"socket:[{words[9]}]")
    with contextlib.suppress(OSError):  # dead, or closed meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if str(descriptor.readlink()) in inodes:
                return True
    return False


class Fleet:
    """All gateways of a drill."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    async def start(self) -> None:
        """Start all of them, and wait until all are ready."""
        for replica in self.replicas:
            replica.start()
        await asyncio.gather(*(replica.ready() for replica in self.replicas))

    def with_port(self, port: int) -> Replica | None:
        """Who called from this port; None when that connection is gone."""
        return next((replica for replica in self.replicas if replica.has_port(port)), None)

    def bugs(self) -> list[str]:
        """Lines of all logs that say that a gateway made a mistake."""
        return [f"{replica.name}: {line}" for replica in self.replicas for line in bugs_in(replica.log)]


@asynccontextmanager
async def fleet(config: Path, logs: Path, count: int, stores: Mapping[int, str] = {}) -> AsyncIterator[Fleet]:
    """
    So many gateways on one configuration, which end with the block.

    Args:
        stores: Where some of them find the store, by their number; the others go by the configuration.

    """
    made = Fleet([Replica(f"gateway-{number}", config, logs, stores.get(number)) for number in range(count)])
    try:
        await made.start()
        yield made
    finally:
        await asyncio.gather(*(replica.close() for replica in made.replicas))
