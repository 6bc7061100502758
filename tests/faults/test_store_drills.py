"""
Store drills: everything that can be wrong with the store, one after the other, under load, on the same gateways.

Nobody does anything about it: the gateways notice, each call has a true answer soon, and all is as before
when the store is well. Rows: `docs/faults.md`.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError

from tests.faults.call_drill import LIMITS, CallDrill, call_drill
from tests.faults.calls import statuses, words
from tests.faults.checker import LEASE_S
from tests.faults.circuit_view import total
from tests.faults.proxy import Poison, Proxy, address_of, proxy
from tests.store.replicas import Server, until

pytestmark = pytest.mark.timeout(240)

IS_FULL = bool(
    os.environ.get("BREAKER_FULL")
)  # as `make faults` says; else only some of them, for `make test`
ILL_S = 1.5
NOTICED_S = 0.6  # a store that is away has been found out by then
MODES = {"read": "local_share", "other": "allow", "brief": "refuse"}
BACK_S = 15.0
BALLAST = 2_000  # keys to load
ANSWER_S = (
    2.5  # the slowest answer, on a busy machine: the wait for a turn, a timeout of the store, and the work
)
# What is flushed is forgotten, and what runs is counted again with the next renewal: twice the limit, at most.
FORGETFUL_LIMITS = {name: 2 * limit for name, limit in LIMITS.items()}


@pytest.fixture
def seed() -> int:
    """The same in each run, but for `make faults`, which tells another one; printed with the verdict."""
    return int(os.environ.get("BREAKER_SEED", "20261122"))


class Torment:
    """A store, the way to it, and what is done to them; each ends with its block."""

    def __init__(self, server: Server, way: Proxy) -> None:
        self.server, self.way = server, way

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        self.server.pause()
        yield
        self.server.resume()

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        self.server.kill()
        yield
        await asyncio.to_thread(self.server.start)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """It has restarted and reads its data for a while, telling so whoever asks."""
        client: Redis = self.server.client
        client.mset({f"ballast:{number}": "x" * 1_000 for number in range(BALLAST)})
        client.bgrewriteaof()
        await until(self._is_rewritten)
        self.server.kill()
        started_as: Any = self.server.process.args
        command = [*started_as, "--key-load-delay", str(int(ILL_S * 1e6 / BALLAST)),
                   "--loading-process-events-interval-bytes", "1024"]  # fmt: skip
        self.server.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        await until(self._is_loading)
        yield
        await until(self._is_loaded, seconds=BACK_S)
        client.delete(*(f"ballast:{number}" for number in range(BALLAST)))

    async def _is_rewritten(self) -> bool:
        told = self.server.client.info("persistence")
        return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]

    async def _is_loading(self) -> bool:
        try:
            self.server.client.ping()
        except BusyLoadingError:
            return True
        except RedisError:
            pass  # it does not listen yet
        return False

    async def _is_loaded(self) -> bool:
        with contextlib.suppress(RedisError):
            return bool(self.server.client.ping())
        return False

    @asynccontextmanager
    async def slow(self) -> AsyncIterator[None]:
        self.way.poison(Poison(latency_ms=200))
        yield
        self.way.heal()

    @asynccontextmanager
    async def partitioned(self) -> AsyncIterator[None]:
        self.way.poison(Poison(is_black_hole=True))
        yield
        self.way.heal()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        await self.way.down()
        yield
        await self.way.up()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        self.server.client.config_set("maxmemory", "1mb")
        yield
        self.server.client.config_set("maxmemory", "0")

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[None]:
        self.server.client.replicaof("127.0.0.1", "9")
        yield
        self.server.client.replicaof("NO", "ONE")

    @asynccontextmanager
    async def disk_full(self) -> AsyncIterator[None]:
        """A snapshot cannot be written, so that writes are refused (MISCONF): a folder stands in its place."""
        client: Redis = self.server.client
        in_the_way = Path(str(client.config_get("dir")["dir"])) / "dump.rdb"
        in_the_way.mkdir()
        client.config_set("save", "3600 1")
        client.bgsave()
        await until(lambda: self._snapshot_is("err"))
        yield
        in_the_way.rmdir()
        client.bgsave()
        await until(lambda: self._snapshot_is("ok"))
        client.config_set("save", "")

    async def _snapshot_is(self, word: str) -> bool:
        told = self.server.client.info("persistence")
        return bool(told["rdb_last_bgsave_status"] == word)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """A script that does not end: everything is answered with BUSY."""
        client: Redis = self.server.client
        client.config_set("lua-time-limit", "20")

        def loop() -> None:
            with contextlib.suppress(RedisError):
                client.eval("while true do end", 0)

        endless = asyncio.get_running_loop().create_task(asyncio.to_thread(loop))
        yield
        killer = Redis.from_url(self.server.url)
        killer.script_kill()
        killer.close()
        await endless

    @asynccontextmanager
    async def flushed(self) -> AsyncIterator[None]:
        self.server.client.flushall()
        yield


async def is_served(scene: CallDrill, name: str) -> bool:
    """Both operations again, by every gateway."""
    numbers = range(2 * len(scene.fleet.replicas))
    told = await asyncio.gather(*(scene.callers.call("read", f"{name}-{number}") for number in numbers))
    return {each.status for each in told} == {200}


async def endure(
    scene: CallDrill, name: str, torment: Callable[[], contextlib.AbstractAsyncContextManager[None]]
) -> None:
    """Calls before it, through it and after it; a line of what was seen."""
    load = asyncio.ensure_future(
        scene.callers.drive(
            ["read", "other", "brief"], seconds=ILL_S + 1, per_second=60, name=f"{name}{scene.seed}"
        )
    )
    await asyncio.sleep(0.5)
    async with torment():
        began = time.monotonic()
        await asyncio.sleep(ILL_S)
    ended = time.monotonic()
    told = await load
    numbers = iter(range(10_000))
    await until(lambda: is_served(scene, f"again-{name}{scene.seed}-{next(numbers)}"), seconds=BACK_S)
    back_s = time.monotonic() - ended
    meanwhile = sorted((each for each in told if began <= each.began <= ended), key=lambda each: each.began)
    first = meanwhile[0].took_s if meanwhile else 0
    later = sorted(each.took_s for each in meanwhile[len(meanwhile) // 2 :])
    print(
        f"{name}: {dict(words(meanwhile))}; the first in {first * 1e3:.0f} ms, "
        f"half of the later ones within {later[len(later) // 2] * 1e3:.1f} ms; all well {back_s:.1f} s after it"
    )
    if torment.__name__ != "flushed":  # that store answers, and is told the limits again at once
        known = [each for each in meanwhile if began + NOTICED_S < each.began < ended - 0.2]
        found = {mode: statuses(each for each in known if each.operation == mode) for mode in MODES}
        assert set(found["brief"]) == {"503 degraded"}, f"{name}: {found}"
        assert found["other"].keys() | found["read"].keys() == {"200"}, f"{name}: {found}"
    assert max(each.took_s for each in told) < ANSWER_S
    assert {each.status for each in told} <= {200, 503}


async def all_alarms_have_ended(scene: CallDrill) -> bool:
    """Whoever was told that it began is told that it is over."""
    logs = [replica.log for replica in scene.fleet.replicas]
    return all(log.count('"degraded_began"') == log.count('"degraded_ended"') for log in logs)


async def test_whatever_is_wrong_with_the_store_each_answer_is_true_and_all_is_well_again(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """Rows 5, 7 and 9: never a 500, never a hang, no slot for nobody; and no person is needed."""
    async with (
        proxy(address_of(server.url), seed=seed) as way,
        call_drill(
            tmp_path, server, seed=seed, store_timeout="100ms", service_ms=20,
            stores=dict.fromkeys(range(2), f"redis://{way.address}"),
            changes={name: {"when_store_down": mode} for name, mode in MODES.items()},
        ) as scene,
    ):  # fmt: skip
        torment = Torment(server, way)
        faults: tuple[Callable[[], contextlib.AbstractAsyncContextManager[None]], ...] = (
            torment.stopped,
            torment.killed,
            torment.full,
            torment.flushed,
        )
        if IS_FULL:
            faults += (
                torment.unreachable, torment.slow, torment.partitioned, torment.read_only, torment.disk_full, torment.busy,
                torment.loading,
            )  # fmt: skip
        for fault in faults:
            await endure(scene, fault.__name__, fault)
        await scene.until_free("read", seconds=LEASE_S)
        await scene.until_free("other", seconds=LEASE_S)
        await until(lambda: all_alarms_have_ended(scene), seconds=BACK_S)
        violations = await scene.verdict(limits=FORGETFUL_LIMITS)
        forgot = await total(scene, "breaker_store_resets_total", "")

    assert violations == []
    assert forgot >= len(scene.fleet.replicas), "each notices by itself what was flushed"
    for replica in scene.fleet.replicas:
        assert replica.log.count('"degraded_began"') >= len(faults) - 1
