"""
The scene: real gateway processes, one store, and a downstream that writes down what it sees.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import breaker

ROOT = Path(breaker.__file__).parents[1]
START_S = 20.0


def free_address() -> tuple[str, int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address: tuple[str, int] = sock.getsockname()
        return address


@dataclass(slots=True)
class Seen:
    """What the downstream saw of one operation: when calls started, and the most at once."""

    starts: list[float] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0


class Downstream:
    """
    Works on each call for as long as its path says (`/narrow/50` is 50 ms), also when nobody waits
    for it any more: a caller that hangs up does not stop the work.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.released = asyncio.Event()
        self._works: set[asyncio.Task[None]] = set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, name, duration = head.split(b" ")[1].decode().split("/")
                work = asyncio.get_running_loop().create_task(self._work(name, duration))
                self._works.add(work)
                work.add_done_callback(self._works.discard)
                await asyncio.shield(work)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()

    async def _work(self, name: str, duration: str) -> None:
        seen = self.seen[name]
        seen.starts.append(time.monotonic())
        seen.in_flight += 1
        seen.peak = max(seen.peak, seen.in_flight)
        try:
            if duration == "released":
                await self.released.wait()
            else:
                await asyncio.sleep(int(duration) / 1_000)
        finally:
            seen.in_flight -= 1


@asynccontextmanager
async def downstream(address: tuple[str, int] | None = None) -> AsyncIterator[Downstream]:
    """Listens here until the block ends."""
    made = Downstream()
    host, port = address or ("127.0.0.1", 0)
    server = await asyncio.start_server(made.serve, host, port)
    made.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield made
    finally:
        server.close()
        for work in made._works:
            work.cancel()


def write_config(
    folder: Path, *, url: str, store_url: str, operations: dict[str, str], timeout: str = "500ms"
) -> Path:
    """
    A configuration with one pipeline, `work`.

    Args:
        operations: Name -> its lines in YAML's flow style, without `match`; POST, but `GET` where
            the name begins with `get`.

    """
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    (folder / "gateway.yaml").write_text(
        f"cluster: e2e\nstore: {{url: '{store_url}', timeout: {timeout}}}\nlog: {{sample: 0}}\n"
        "drain: {timeout: 10s}\n"
    )
    lines = ["pipeline: desk", "team: e2e", f"downstream: {{url: '{url}', timeout: 30s}}", "operations:"]
    for name, what in operations.items():
        method = "GET" if name.startswith("get") else "POST"
        lines.append(f"  {name}: {{match: '{method} /{name}/{{ms}}', {what}}}")
    (folder / "pipelines" / "desk.yaml").write_text("\n".join(lines) + "\n")
    return folder


class Gateway:
    """`breaker serve` as a process of its own, on ports of its own."""

    def __init__(self, config: Path, logs: Path, *, workers: int = 1) -> None:
        self.address, self.admin = free_address(), free_address()
        self._log = logs / f"gateway-{self.address[1]}.log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BREAKER_")}
        environ |= {
            "PYTHONPATH": str(ROOT),
            "BREAKER_LISTEN": "{}:{}".format(*self.address),
            "BREAKER_ADMIN": "{}:{}".format(*self.admin),
        }
        command = [
            sys.executable,
            "-m",
            "breaker",
            "serve",
            "--config",
            str(config),
            "--workers",
            str(workers),
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def ready(self) -> "Gateway":
        await self.until(self._is_ready, START_S)
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self._get("/startupz")[0] == 200 and self._get("/readyz")[0] == 200
        return False

    def _get(self, path: str) -> tuple[int, str]:
        url = "http://{}:{}".format(*self.admin) + path
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    async def get(self, path: str) -> tuple[int, str]:
        """A page of the admin listener."""
        return await asyncio.to_thread(self._get, path)

    async def look(self, operation: str) -> dict[str, Any]:
        """The operation's numbers over all replicas, as `/status` tells them."""
        found: dict[str, Any] = json.loads((await self.get("/status"))[1])["operations"][operation]
        return found

    async def until(self, is_so: Callable[[], bool], seconds: float = 10.0) -> float:
        """Look again until it is so; how long that took."""
        began = time.monotonic()
        while not await asyncio.to_thread(is_so):
            assert time.monotonic() - began < seconds, f"it did not come true; {self.log[-2000:]}"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 15.0) -> int:
        return await asyncio.to_thread(self.process.wait, seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@asynccontextmanager
async def gateways(
    config: Path, logs: Path, count: int = 1, *, workers: int = 1
) -> AsyncIterator[list[Gateway]]:
    """So many gateways on one configuration, started together and ended with the block."""
    made = [Gateway(config, logs, workers=workers) for _ in range(count)]
    try:
        yield [await gateway.ready() for gateway in made]
    finally:
        for gateway in made:
            if gateway.process.poll() is None:
                gateway.signal(signal.SIGTERM)
        for gateway in made:
            await asyncio.to_thread(gateway.close)
