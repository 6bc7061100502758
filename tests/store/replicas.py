"""
Replicas and stores of these tests: as many CapacityStores as a test wants, and servers to torment.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError
from breaker.core.events import Event
from breaker.core.ids import base32
from breaker.core.model import Capacity, Downstream, Limits, Match, Operation, Rate
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Refused, Verdict
from breaker.store.capacity import CapacityStore
from breaker.store.connection import open_client
from breaker.store.keys import wake_prefix
from breaker.store.scripts import load_scripts
from breaker.store.server_binary import ServerBinary

SCRIPTS = load_scripts()
VERBS = {script.sha.decode(): verb for verb, script in SCRIPTS.items()}
_replicas = count()


def an_operation(name: str = "billing.charge", *, waiting_max: int = 1_000, **capacity: Any) -> Operation:
    return Operation(
        name=name, pipeline="billing", team="finance", match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:9"), waiting_max=waiting_max, capacity=Capacity(**capacity),
    )  # fmt: skip


def slots(number: int) -> Limits:
    return Limits(concurrency=number)


def rate(limit: int, *, burst: int = 1, period_us: int = 1_000_000) -> Limits:
    return Limits(rate=Rate(limit=limit, period_us=period_us, burst=burst))


class Replica:
    """A replica that shares the capacity of these operations, and what it emitted."""

    def __init__(self, url: str, cluster: str, *operations: Operation, timeout_ms: int = 2_000) -> None:
        self.events: list[Event] = []
        self.name = base32(next(_replicas), 8)
        self.operations: Mapping[str, Operation] = {operation.name: operation for operation in operations}
        self.store = CapacityStore(
            StoreSettings(url=url, timeout_ms=timeout_ms), cluster=cluster, replica=self.name,
            emit=self.events.append,
        )  # fmt: skip
        self.lane = self.store.lane(operations[0].name)
        self._numbers = count()

    def an_ask(self, tenant: str = "", *, wait_s: float = 0, cost: int = 1) -> Ask:
        id_ = f"{self.name}.{next(self._numbers):08}"
        return Ask(id=id_, tenant=tenant, cost=cost, wait_us=int(wait_s * 1e6))

    async def admit(self, ask: Ask | None = None) -> Verdict | None:
        return await self.store.admit(self.lane, ask or self.an_ask())

    async def hold(self, ask: Ask | None = None) -> Ask:
        """A call that starts, and holds its slot until it is settled."""
        ask = ask or self.an_ask()
        verdict = await self.store.admit(self.lane, ask)
        assert isinstance(verdict, Admitted), verdict
        self.store.hold(self.lane, ask)
        return ask

    def settle(self, ask: Ask) -> None:
        self.store.settle(self.lane, ask)

    async def wait(self, ask: Ask) -> "asyncio.Task[Admitted | Refused]":
        """Join the line for the ask's whole time; the turn comes with the task's end."""
        verdict = await self.store.admit(self.lane, ask)
        assert verdict is not None
        assert type(verdict).__name__ == "Waiting", verdict
        return asyncio.get_running_loop().create_task(
            self.store.wait_for_turn(self.lane, ask, ask.wait_us / 1e6)
        )

    async def in_use(self) -> int:
        return (await self.store.look(self.lane.operation)).in_use

    def seen(self, kind: type[Event]) -> int:
        """How many events of a kind were emitted."""
        return sum(isinstance(event, kind) for event in self.events)


@asynccontextmanager
async def replica(
    url: str, cluster: str, *operations: Operation, timeout_ms: int = 2_000
) -> AsyncIterator[Replica]:
    """
    A replica that decides, renews and listens until the block ends.

    Args:
        timeout_ms: Of a round trip; patient where the test is not about that, for busy machines.

    """
    made = Replica(url, cluster, *operations, timeout_ms=timeout_ms)
    await made.store.start(made.operations, "v1")
    client = open_client(StoreSettings(url=url))
    try:

        async def listens() -> bool:
            found: Any = await client.pubsub_numsub(wake_prefix(cluster) + made.name)
            return bool(found[0][1] == 1)

        await until(listens)
        yield made
    finally:
        await client.aclose()
        await made.store.close()


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> float:
    """Ask again until it is so; how many seconds that took."""
    began = time.monotonic()
    while True:
        try:
            if await is_so():
                return time.monotonic() - began
        except StoreError:
            pass  # not yet
        assert time.monotonic() - began < seconds, "it did not come true"
        await asyncio.sleep(0.01)


class Commands:
    """What the store was sent between two moments, by MONITOR."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis, self._prefix = redis, prefix
        self.sent: list[str] = []

    def count(self, verb: str) -> int:
        return self.sent.count(verb)


@contextmanager
def commands(redis: Redis, cluster: str) -> Iterator[Commands]:
    """The verbs that were sent for this cluster while the block ran; complete once it has ended."""
    found = Commands(redis, cluster)
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
        yield found
        redis.echo(f"end of {cluster}")
        while (command := monitor.next_command()["command"]) != f"ECHO end of {cluster}":
            words = command.split(" ")
            if words[0] == "EVALSHA" and f"brk:{cluster}:" in command:
                found.sent.append(VERBS[words[1]])


class Server:
    """A store of one test, which may be paused, killed and started again; every write is on disk."""

    def __init__(self, binary: ServerBinary, folder: Path) -> None:
        self._binary, self.folder = binary, folder
        self.url = f"unix://{folder}/s"
        self.client = Redis.from_url(self.url)
        self.process = self.start()

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start, or start again on the same data; writes beyond a limit of its file size fail, as on a full disk."""
        self.process = subprocess.Popen(
            [str(self._binary.path), "--port", "0", "--unixsocket", f"{self.folder}/s", "--save", "",
             "--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "always", *options],
            stdout=subprocess.DEVNULL,
            restore_signals=False,  # SIGXFSZ, which would end it
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "the store did not start"
            time.sleep(0.01)
        return self.process

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
