"""
A real gateway for tests: its files in a folder of the test, its limits in the shared test store.

`start_gateway` runs it in this process, `start_gateway_child` as `python -m breaker serve`: for what is
measured from outside, such as memory. Both listen on free ports, and both must have logged no bug.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from breaker.policy.load import load
from breaker.signals.logs import configure
from breaker.store.keys import wake_prefix
from breaker.web.listener import bind
from breaker.wiring import GatewayProcess

ROOT = Path(__file__).parents[2]
READY_S = 15.0
FREE_S = 5.0

Files = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """
    A gateway that serves.

    Attributes:
        port, admin: TCP ports on loopback.
        pid: Whose memory counts: this very process, unless it is a child.
        process: Only of a gateway in this process.

    """

    port: int
    admin: int
    pid: int
    cluster: str
    store: Redis
    folder: Path
    process: GatewayProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def metrics(self) -> dict[str, float]:
        """`name{label=value,...}` of each sample that is not 0."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.admin}/metrics") as answer,
        ):
            page = await answer.text()
        found = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                if sample.value:
                    found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    async def outcomes(self, operation: str) -> dict[str, int]:
        """How the calls of an operation ended: `outcome` or `outcome:reason` -> how many."""
        found = {}
        for name, value in (await self.metrics()).items():
            if name.startswith("breaker_calls_total{") and f"operation={operation}," in name:
                labels = dict(label.split("=") for label in name[:-1].partition("{")[2].split(","))
                found[":".join(filter(None, (labels["outcome"], labels["reason"])))] = int(value)
        return found

    async def until_outcomes(self, operation: str, wanted: dict[str, int]) -> None:
        """Wait until the calls of an operation have ended so, and no other way."""
        end = time.monotonic() + FREE_S
        while (found := await self.outcomes(operation)) != wanted:
            assert time.monotonic() < end, f"{operation} ended {found}, not {wanted}"
            await asyncio.sleep(0.005)

    def slots(self, operation: str) -> int:
        """Slots that are held: leases that have not expired."""
        now = self.store.time()
        assert isinstance(now, tuple)
        key = f"brk:{self.cluster}:{{{operation}}}:slots"
        held = self.store.zcount(key, f"({now[0] * 1_000_000 + now[1]}", "+inf")
        assert isinstance(held, int)
        return held

    async def until_slots(self, operation: str, count: int) -> float:
        """Wait until so many slots are held; how many seconds that took."""
        started = time.monotonic()
        while self.slots(operation) != count:
            took = time.monotonic() - started
            assert took < FREE_S, f"{self.slots(operation)} slots of {operation} are held, not {count}"
            await asyncio.sleep(0.002)
        return time.monotonic() - started

    def rss(self) -> int:
        """Resident memory, bytes."""
        status = Path(f"/proc/{self.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """Let `peak` begin anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """The most that was resident, bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1_024


class Start(Protocol):
    """What the fixtures give: call it with pipelines by name, and with fields of `gateway.yaml`."""

    def __call__(
        self, pipelines: Files, /, *, secrets: Mapping[str, str] | None = None, **gateway: Any
    ) -> contextlib.AbstractAsyncContextManager[Served]: ...


def write_config(folder: Path, pipelines: Files, gateway: Files, secrets: Mapping[str, str]) -> None:
    """A configuration folder; JSON is YAML, too. A contract that is given as a schema becomes a file."""
    for name in ("pipelines", "contracts", "secrets"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "gateway.yaml").write_text(json.dumps(dict(gateway)))
    for name, content in secrets.items():
        (folder / "secrets" / name).write_text(content)
    for name, pipeline in pipelines.items():
        operations = {}
        for key, operation in pipeline["operations"].items():
            operations[key] = operation
            if isinstance(operation.get("contract"), dict):
                file = folder / "contracts" / f"{name}-{key}.schema.json"
                file.write_text(json.dumps(operation["contract"]))
                operations[key] = {**operation, "contract": f"../contracts/{file.name}"}
        text = json.dumps({"pipeline": name, **pipeline, "operations": operations})
        (folder / "pipelines" / f"{name}.yaml").write_text(text)


def bugs_in(log: str) -> list[str]:
    """Lines that say that the gateway made a mistake; warnings of libraries count."""
    return [
        line
        for line in log.splitlines()
        if '"event":"bug"' in line or "Traceback" in line or '"exception"' in line
    ]


@contextlib.asynccontextmanager
async def serving(folder: Path, store: Redis, store_url: str, cluster: str) -> AsyncIterator[Served]:
    """Serve a folder in this process, until the block ends."""
    environ = {"BREAKER_STORE__URL": store_url, "BREAKER_CLUSTER": cluster, "BREAKER_STORE__TIMEOUT": "2s"}
    config = load(folder, environ)
    log = (folder / "log").open("w+b")
    logs = configure(format="json", level="info", fd=log.fileno())
    callers, admin = bind("127.0.0.1:0", "listen"), bind("127.0.0.1:0", "admin")
    process = GatewayProcess(config, folder, environ, config.gateway.store, logs)
    try:
        await process.start(callers, admin, admin_is_loopback=True)
        # redis-py leaks a connection attempt that is cancelled: do not stop while it listens for wakes.
        channel = wake_prefix(cluster) + process.replica
        while not dict(store.pubsub_numsub(channel))[channel.encode()]:
            await asyncio.sleep(0.001)
        yield Served(
            port=callers.getsockname()[1], admin=admin.getsockname()[1], pid=os.getpid(), cluster=cluster,
            store=store, folder=folder, process=process,
        )  # fmt: skip
    finally:
        await process.stop()
        logs.close()
        log.close()
    assert bugs_in((folder / "log").read_text()) == []


@contextlib.asynccontextmanager
async def serving_child(folder: Path, store: Redis, store_url: str, cluster: str) -> AsyncIterator[Served]:
    """Serve a folder by `python -m breaker serve`, until the block ends."""
    ports = free_ports(2)
    environ = {
        **os.environ,
        "BREAKER_STORE__URL": store_url, "BREAKER_CLUSTER": cluster, "BREAKER_STORE__TIMEOUT": "2s",
        "BREAKER_LISTEN": f"127.0.0.1:{ports[0]}", "BREAKER_ADMIN": f"127.0.0.1:{ports[1]}",
        "BREAKER_LOG__FORMAT": "json", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "breaker",
            "serve",
            "--config",
            str(folder),
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + READY_S
        while not await is_ready(ports[1]):
            said = (folder / "log").read_text()
            assert child.returncode is None, f"the gateway ended with {child.returncode}: {said}"
            assert time.monotonic() < end, f"the gateway did not become ready: {said}"
            await asyncio.sleep(0.02)
        yield Served(
            port=ports[0], admin=ports[1], pid=child.pid, cluster=cluster, store=store, folder=folder
        )  # fmt: skip
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), 30)
        except TimeoutError:
            child.kill()
            await child.wait()
    assert child.returncode == 0
    assert bugs_in((folder / "log").read_text()) == []


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


async def is_ready(admin: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{admin}/readyz") as answer,
        ):
            return answer.status == 200
    except aiohttp.ClientError:
        return False


Serving = Callable[[Path, Redis, str, str], contextlib.AbstractAsyncContextManager[Served]]


def starter(serve: Serving, tmp_path: Path, redis: Redis, store_url: str, cluster: str) -> Start:
    def start(
        pipelines: Files, /, *, secrets: Mapping[str, str] | None = None, **gateway: Any
    ) -> contextlib.AbstractAsyncContextManager[Served]:
        folder = tmp_path / "config"
        write_config(folder, pipelines, gateway, secrets or {})
        return serve(folder, redis, store_url, cluster)

    return start


@pytest.fixture
def start_gateway(tmp_path: Path, redis: Redis, store_url: str, cluster: str) -> Start:
    """Start a gateway in this process."""
    return starter(serving, tmp_path, redis, store_url, cluster)


@pytest.fixture
def start_gateway_child(tmp_path: Path, redis: Redis, store_url: str, cluster: str) -> Start:
    """Start a gateway as a process of its own."""
    return starter(serving_child, tmp_path, redis, store_url, cluster)
