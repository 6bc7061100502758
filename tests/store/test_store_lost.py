"""The store is paused, killed and started again: what happens to calls, and what is left of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from breaker.core.errors import StoreError, StoreRefusedError, StoreTimeoutError
from breaker.core.events import LeasesLost, StoreFailed, StoreRecovered
from breaker.core.verdict import Admitted, Refused
from breaker.store.server_binary import find_server
from tests.store.replicas import Replica, Server, an_operation, rate, replica, slots, until

TIMEOUT_MS = 100
LATE_S = 0.28  # a failed decision comes after 100 ms, and 180 more for a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(asyncio.run(find_server()), tmp_path_factory.mktemp("store"))
    yield server
    server.close()


@asynccontextmanager
async def paused(server: Server) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_calls_into_a_paused_store_fail_soon_and_hold_nothing_afterwards(
    server: Server, cluster: str
) -> None:
    """
    A frozen store runs what was sent to it when it wakes: seen without protection, 64 calls were
    admitted then and held all slots for nobody.
    """
    async with replica(server.url, cluster, an_operation(limits=slots(40)), timeout_ms=TIMEOUT_MS) as one:
        running = [await one.hold() for _ in range(5)]
        async with paused(server):
            for _ in range(4):
                began = time.monotonic()
                ended = await asyncio.gather(*(one.admit() for _ in range(10)), return_exceptions=True)
                assert time.monotonic() - began < LATE_S
                assert all(isinstance(what, StoreError) for what in ended), ended
            for ask in running[:3]:
                one.settle(ask)  # the work is done, whatever the store does
            await asyncio.sleep(1.6)  # a pause of two seconds altogether
        await until(lambda: in_use_is(one, 2))
        await asyncio.sleep(0.3)  # nothing that was on its way adds to it
        assert await one.in_use() == 2
        assert one.seen(StoreRecovered) == 1
        assert one.seen(LeasesLost) == 0


async def test_the_first_call_into_a_paused_store_times_out(server: Server, cluster: str) -> None:
    """It was sent, so it may have happened: another error than those that were never sent."""
    async with replica(server.url, cluster, an_operation(limits=slots(4)), timeout_ms=TIMEOUT_MS) as one:
        async with paused(server):
            with pytest.raises(StoreTimeoutError):
                await one.admit()
        await until(lambda: starts(one))
        await until(lambda: in_use_is(one, 1))


async def test_a_call_that_waits_while_the_store_pauses_gets_its_turn_afterwards(
    server: Server, cluster: str
) -> None:
    """One look at the line that failed must not be the last one: a token is due, and nobody else asks."""
    async with replica(server.url, cluster, an_operation(limits=rate(2)), timeout_ms=TIMEOUT_MS) as one:
        assert isinstance(await one.admit(), Admitted)
        turn = await one.wait(one.an_ask(wait_s=5))
        began = time.monotonic()
        async with paused(server):
            await asyncio.sleep(0.8)  # the look at 500 ms meets a frozen store
        assert isinstance(await turn, Admitted)
        assert time.monotonic() - began < 3, "it was granted, and did not only ask at the end"


async def test_a_killed_store_is_used_again_as_soon_as_it_is_back(server: Server, cluster: str) -> None:
    """Nobody is needed: neither for the connection nor for the slots that were given back meanwhile."""
    async with replica(server.url, cluster, an_operation(limits=slots(3)), timeout_ms=TIMEOUT_MS) as one:
        kept, given_back = await one.hold(), await one.hold()
        server.kill()
        began = time.monotonic()
        with pytest.raises(StoreError):
            await one.admit()
        assert time.monotonic() - began < LATE_S
        one.settle(given_back)
        server.start()
        await until(lambda: in_use_is(one, 1))
        assert isinstance(await one.admit(), Admitted)
        assert list(one.lane.held) == [kept.id]
        assert one.seen(LeasesLost) == 0, "every lease was on disk"


async def test_a_store_that_is_away_is_not_hammered_by_what_waits_for_it(
    server: Server, cluster: str
) -> None:
    """A slot to give back tries four times a second, however many calls failed before."""
    async with replica(server.url, cluster, an_operation(limits=slots(3)), timeout_ms=TIMEOUT_MS) as one:
        ask = await one.hold()
        server.kill()
        one.settle(ask)
        for _ in range(40):
            with pytest.raises(StoreError):
                await one.admit()
        before = len(one.events)
        await asyncio.sleep(1)
        assert 2 <= len(one.events) - before <= 6
        server.start()
        await until(lambda: in_use_is(one, 0))


async def test_what_is_left_to_give_back_is_given_back_at_the_end(server: Server, cluster: str) -> None:
    """A gateway that stops just after the store came back leaves no slot behind."""
    operation = an_operation(limits=slots(3))
    async with replica(server.url, cluster, operation, timeout_ms=TIMEOUT_MS) as other:
        async with replica(server.url, cluster, operation, timeout_ms=TIMEOUT_MS) as one:
            ask = await one.hold()
            async with paused(server):
                with pytest.raises(StoreTimeoutError):
                    await one.admit()  # takes the connection with it, so that what follows is not sent
                one.settle(ask)
                await until(lambda: cannot_connect(one))
        assert await other.in_use() == 0
        assert one.store.coalescer._task is None


async def cannot_connect(one: Replica) -> bool:
    return any(isinstance(event, StoreFailed) and "still being made" in event.detail for event in one.events)


async def test_an_admission_whose_answer_gets_lost_holds_its_slot_for_nobody(
    server: Server, cluster: str, tmp_path: Path
) -> None:
    """The store admitted the call, and its caller was told that it did not start: it is taken back."""
    async with (
        replica(server.url, cluster, an_operation(limits=slots(3))) as other,
        proxy(server, tmp_path / "p") as between,
        replica(f"unix://{tmp_path}/p", cluster, an_operation(limits=slots(3)), timeout_ms=TIMEOUT_MS) as one,
    ):
        between.swallows_answers = True
        with pytest.raises(StoreTimeoutError):
            await one.admit()
        assert await other.in_use() == 1
        between.swallows_answers = False
        assert await until(lambda: in_use_is(other, 0)) < 3


class Proxy:
    """Stands between a replica and the store."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.swallows_answers = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._server.url.removeprefix("unix://"))
        try:
            await asyncio.gather(
                self._pass_on(reader, up_writer), self._pass_on(up_reader, writer, back=True)
            )
        finally:
            up_writer.close()
            writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not (back and self.swallows_answers):
                    writer.write(data)
            writer.close()


@asynccontextmanager
async def proxy(server: Server, path: Path) -> AsyncIterator[Proxy]:
    between = Proxy(server)
    listener = await asyncio.start_unix_server(between.serve, path)
    yield between
    listener.close()


async def test_calls_that_begin_while_the_store_is_still_connecting_fail_at_once_and_hold_nothing(
    server: Server, cluster: str
) -> None:
    """A connection to a frozen store takes long; calls do not wait for it, and none was sent."""
    async with replica(server.url, cluster, an_operation(limits=slots(3)), timeout_ms=TIMEOUT_MS) as one:
        async with paused(server):
            with pytest.raises(StoreTimeoutError):
                await one.admit()
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(StoreRefusedError, match="still being made") as failed:
                    await one.admit()
                assert failed.value.kind == "connection"  # nobody is told that it refuses
                assert time.monotonic() - began < LATE_S
        await until(lambda: starts(one))
        await until(lambda: in_use_is(one, 1))


async def starts(one: Replica) -> bool:
    verdict = await one.admit()
    assert not isinstance(verdict, Refused)
    return isinstance(verdict, Admitted)


async def in_use_is(one: Replica, number: int) -> bool:
    return await one.in_use() == number
