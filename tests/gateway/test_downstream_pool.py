"""
Which connection a call gets, and that every end of a call gives its place back.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from breaker.gateway.downstream import ConnectFailed, Disconnected, TimedOut
from tests.gateway.raw_downstream import Peer, answering, call, pool_to, raw_downstream, until, whole

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


class Gate:
    """A script that answers each request with its path, once the test lets it."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._open: dict[bytes, asyncio.Event] = {}

    def let(self, path: bytes) -> None:
        self._open.setdefault(path, asyncio.Event()).set()

    async def __call__(self, peer: Peer) -> None:
        while True:
            path = (await peer.request()).head.split(b" ")[1]
            self.asked.append(path)
            await self._open.setdefault(path, asyncio.Event()).wait()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))


async def test_last_used_connection_is_used_next() -> None:
    """Few busy connections instead of many half-idle ones: the rest can time out."""
    numbers: list[int] = []
    gate = Gate()

    async def script(peer: Peer) -> None:
        while True:
            path = (await peer.request()).head.split(b" ")[1]
            numbers.append(peer.number)
            if path != b"/":
                await gate._open.setdefault(path, asyncio.Event()).wait()
            await peer.send(HI)

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        first = asyncio.create_task(call(pool, target=b"/1"))
        await until(lambda: len(numbers) == 1)
        second = asyncio.create_task(call(pool, target=b"/2"))
        await until(lambda: len(numbers) == 2)
        gate.let(b"/2")
        await second
        gate.let(b"/1")
        await first
        assert (pool.idle, pool.opened) == (2, 2)
        for _ in range(3):
            await call(pool)
        assert numbers == [1, 2, 1, 1, 1]


async def test_answers_of_concurrent_calls_are_not_mixed_up() -> None:
    """Each of many callers gets the answer to its own question."""
    gate = Gate()
    paths = [b"/%d" % n for n in range(50)]
    async with raw_downstream(gate) as downstream, pool_to(downstream.url, connections_max=7) as pool:
        for path in paths:
            gate.let(path)
        answers = await asyncio.gather(*(call(pool, target=path) for path in paths))
        assert [answer.body for answer in answers] == paths
        assert (downstream.connections, pool.opened, pool.idle, pool.busy) == (7, 7, 7, 0)


async def test_idle_connection_is_closed_after_its_time() -> None:
    """We close before the downstream does, so that no call meets a closing connection."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.gone()
        gone.set()

    loop = asyncio.get_running_loop()
    async with raw_downstream(script) as downstream, pool_to(downstream.url, idle_s=0.1) as pool:
        await call(pool)
        start = loop.time()
        await gone.wait()
        assert 0.08 < loop.time() - start < 2
        assert (pool.idle, pool.busy) == (0, 0)


async def test_sweep_spares_what_was_just_used() -> None:
    """One timer serves all idle connections, each with its own time."""
    async with raw_downstream(answering(HI)) as downstream, pool_to(downstream.url, idle_s=0.2) as pool:
        await asyncio.gather(call(pool), call(pool))
        assert pool.idle == 2
        for _ in range(15):  # keeps the last one in use while the other one grows old
            await asyncio.sleep(0.02)
            await call(pool)
        assert (pool.idle, pool.opened) == (1, 2)


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_idle_connection_that_hears_something_is_gone(farewell: bytes) -> None:
    """An answer nobody asked for must not wait there for the next caller."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        if peer.number == 1:
            await go_on.wait()
            await peer.send(farewell)
            if farewell:
                await peer.gone()
        else:
            await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        await call(pool)
        assert pool.idle == 1
        go_on.set()
        await until(lambda: pool.idle == 0)
        assert (await call(pool, method=b"POST", body=b"x")).status == 200
        assert downstream.connections == 2


async def dying(peer: Peer) -> None:
    """Answers the first request of a connection, and closes at the second without a byte."""
    await peer.request()
    await peer.send(HI)
    await peer.request()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"])
async def test_idempotent_call_on_a_dying_connection_goes_out_once_more(method: bytes) -> None:
    """A downstream that restarts or closes idle connections costs its callers nothing."""
    async with raw_downstream(dying) as downstream, pool_to(downstream.url) as pool:
        await call(pool)
        assert (await call(pool, method=method)).status == 200
        assert downstream.connections == 2


async def test_second_try_takes_a_new_connection_and_is_the_last() -> None:
    """Other idle connections are as old as the one that died; and one more try is enough."""
    heads: list[tuple[int, bytes]] = []
    both = asyncio.Event()

    async def script(peer: Peer) -> None:
        for _ in range(2):
            heads.append((peer.number, (await peer.request()).head[:3]))
            if peer.number > 2 or (len(heads) > 2 and both.is_set()):
                return
            if len(heads) == 2:
                both.set()
            await both.wait()
            await peer.send(HI)

    async with raw_downstream(script) as downstream, pool_to(downstream.url, connections_max=2) as pool:
        await asyncio.gather(call(pool), call(pool))
        assert pool.idle == 2
        with pytest.raises(Disconnected) as caught:
            await call(pool, method=b"PUT", body=b"x")
        assert caught.value.sent
        assert sorted(number for number, head in heads if head == b"PUT")[1:] == [3]
        assert (downstream.connections, pool.busy, pool.idle) == (3, 0, 0)


async def test_second_try_without_a_connection_may_still_have_been_sent() -> None:
    """The first try may have reached the downstream: to say otherwise would be a promise."""
    asked = asyncio.Event()
    leave = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        asked.set()
        await leave.wait()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        await call(pool)
        task = asyncio.create_task(call(pool))
        await asked.wait()
        downstream.stop()
        leave.set()
        with pytest.raises(ConnectFailed) as caught:
            await task
        assert (caught.value.sent, pool.busy) == (True, 0)


async def one_piece() -> AsyncIterator[bytes]:
    yield b"x"


@pytest.mark.parametrize(
    ("method", "body"),
    [(b"POST", b"x"), (b"PATCH", b"x"), (b"POST", None), (b"PUT", one_piece)],
)
async def test_other_calls_on_a_dying_connection_are_not_repeated(
    method: bytes, body: bytes | Callable[[], AsyncIterator[bytes]] | None
) -> None:
    """An invoice may have been charged: only the caller can know whether to try again."""
    async with raw_downstream(dying) as downstream, pool_to(downstream.url) as pool:
        await call(pool)
        with pytest.raises(Disconnected) as caught:
            await call(pool, method=method, body=body() if callable(body) else body)
        assert caught.value.sent
        assert (downstream.connections, pool.busy) == (1, 0)


async def test_answer_that_had_begun_is_not_asked_for_again() -> None:
    """The downstream has heard the call: a second one would be another."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        await peer.send(b"H")

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        await call(pool)
        with pytest.raises(Disconnected):
            await call(pool)
        assert downstream.connections == 1


async def test_call_whose_deadline_has_passed_is_not_sent() -> None:
    """Nobody waits for it any more, so that the downstream need not do it; the caller knows that it did not."""
    gate = Gate()
    gate.let(b"/1")
    async with raw_downstream(gate) as downstream, pool_to(downstream.url) as pool:
        await call(pool, target=b"/1")
        with pytest.raises(TimedOut) as caught:
            await call(pool, target=b"/2", timeout_s=0)
        assert (caught.value.phase, caught.value.sent) == ("connect", False)
        assert (gate.asked, pool.idle) == ([b"/1"], 1)


async def test_callers_wait_for_a_connection_in_order() -> None:
    """At the bound nobody is passed by, and nobody waits beyond the deadline."""
    gate = Gate()
    async with raw_downstream(gate) as downstream, pool_to(downstream.url, connections_max=1) as pool:
        tasks = []
        for n in range(4):
            tasks.append(asyncio.create_task(call(pool, target=b"/%d" % n)))
            await until(lambda n=n: len(pool._waiting) == n if n else gate.asked == [b"/0"])  # type: ignore[misc]
        with pytest.raises(TimedOut) as caught:
            await call(pool, target=b"/late", timeout_s=0.05)
        assert (caught.value.phase, caught.value.sent) == ("connect", False)
        tasks[1].cancel()
        for n in (0, 2, 3):
            gate.let(b"/%d" % n)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.asked == [b"/0", b"/2", b"/3"]
        assert (downstream.connections, pool.idle, pool.busy) == (1, 1, 0)


async def test_waiting_caller_takes_the_place_of_a_closed_connection() -> None:
    """A place that comes back with a connection's end is as good as one that comes back with an answer."""
    last = HI.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    async with (
        raw_downstream(answering(last)) as downstream,
        pool_to(downstream.url, connections_max=1) as pool,
    ):
        answers = await asyncio.gather(*(call(pool, method=b"POST", body=b"x") for _ in range(5)))
        assert [answer.body for answer in answers] == [b"hi"] * 5
        assert (downstream.connections, pool.busy, pool.idle) == (5, 0, 0)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_place_handed_to_a_caller_that_just_left_goes_to_the_next(is_answered: bool) -> None:
    """A caller who hangs up in the same moment takes no place with it."""
    gate = Gate()
    async with raw_downstream(gate) as downstream, pool_to(downstream.url, connections_max=1) as pool:
        first = asyncio.create_task(call(pool, target=b"/1"))
        await until(lambda: gate.asked == [b"/1"])
        second = asyncio.create_task(call(pool, target=b"/2"))
        third = asyncio.create_task(call(pool, target=b"/3"))
        await until(lambda: len(pool._waiting) == 2)
        (connection,) = pool._open
        if is_answered:
            connection.data_received(HI)
        else:
            connection.connection_lost(None)
        second.cancel()  # in the same turn of the loop: the place is on its way to it
        await asyncio.wait([second])
        if is_answered:
            assert pool.opened == 1
            connection.data_received(HI)  # the third's, on the same connection
        else:
            gate.let(b"/3")
        results = await asyncio.gather(first, second, third, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert not isinstance(results[2], BaseException)
        assert b"/2" not in gate.asked
        assert (pool.busy, pool.idle) == (0, 1)


async def test_caller_that_left_just_before_its_turn_is_passed_over() -> None:
    """The other order of the same moment."""
    gate = Gate()
    gate.let(b"/3")
    async with raw_downstream(gate) as downstream, pool_to(downstream.url, connections_max=1) as pool:
        first = asyncio.create_task(call(pool, target=b"/1"))
        await until(lambda: gate.asked == [b"/1"])
        second = asyncio.create_task(call(pool, target=b"/2"))
        third = asyncio.create_task(call(pool, target=b"/3"))
        await until(lambda: len(pool._waiting) == 2)
        (connection,) = pool._open
        second.cancel()
        connection.connection_lost(None)  # in the same turn of the loop: its place goes to the third
        results = await asyncio.gather(first, second, third, return_exceptions=True)
        assert isinstance(results[0], Disconnected)
        assert isinstance(results[1], asyncio.CancelledError)
        assert not isinstance(results[2], BaseException)
        assert gate.asked == [b"/1", b"/3"]


async def blocked() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


@pytest.mark.parametrize("stage", ["head", "small body", "request body", "stream", "waiting", "connecting"])
async def test_cancelled_call_gives_its_connection_back_at_once(stage: str) -> None:
    """A caller that hangs up frees its place in the same moment, wherever the call stood."""
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if stage == "small body":
            await peer.send(HI[:-1])
        if stage == "stream":
            await peer.send(LONG)
        heard.set()
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url, connections_max=1) as pool:

        async def one() -> None:
            body = blocked() if stage == "request body" else None
            await whole(await call(pool, method=b"POST", body=body))

        holder = asyncio.create_task(one()) if stage == "waiting" else None
        if holder is not None:
            await heard.wait()
        task = asyncio.create_task(one())
        if stage == "waiting":
            await until(lambda: len(pool._waiting) == 1)
        elif stage == "connecting":
            await until(lambda: pool.busy == 1)
        else:
            await heard.wait()
            await asyncio.sleep(0.01)
        assert pool.busy == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if holder is not None:
            assert (pool.busy, len(pool._waiting)) == (1, 0)
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder
        assert (pool.busy, pool.idle) == (0, 0)


async def test_call_cancelled_as_its_answer_comes_leaves_the_next_call_alone() -> None:
    """By then its connection serves somebody else, who must not lose an answer to it."""
    gate = Gate()
    async with raw_downstream(gate) as downstream, pool_to(downstream.url, connections_max=1) as pool:
        first = asyncio.create_task(call(pool, target=b"/1"))
        await until(lambda: gate.asked == [b"/1"])
        second = asyncio.create_task(call(pool, target=b"/2"))
        await until(lambda: len(pool._waiting) == 1)
        (connection,) = pool._open
        connection.data_received(HI)  # hands the connection over ...
        first.cancel()  # ... in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await first
        connection.data_received(HI)
        assert (await second).body == b"hi"


async def test_cancelled_connect_gives_its_place_back() -> None:
    """Also when the downstream does not even accept."""
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        async with pool_to(f"http://127.0.0.1:{deaf.getsockname()[1]}", connections_max=1) as pool:
            first = asyncio.create_task(call(pool))
            second = asyncio.create_task(call(pool))
            await until(lambda: len(pool._waiting) == 1)
            first.cancel()
            await until(lambda: len(pool._waiting) == 0)
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert pool.busy == 0


async def test_drain_lets_calls_finish_and_takes_no_new_ones() -> None:
    """A replica that stops loses no answer."""
    gate = Gate()
    async with raw_downstream(gate) as downstream, pool_to(downstream.url) as pool:
        gate.let(b"/idle")
        await call(pool, target=b"/idle")
        task = asyncio.create_task(call(pool, target=b"/1"))
        await until(lambda: b"/1" in gate.asked)
        drained = asyncio.create_task(pool.drain())
        await asyncio.sleep(0)
        with pytest.raises(ConnectFailed):
            await call(pool)
        assert not drained.done()
        gate.let(b"/1")
        assert (await task).body == b"/1"
        await drained
        assert (pool.idle, pool.busy) == (0, 0)


async def test_close_ends_calls_under_way_and_waiting() -> None:
    """After close nothing hangs, and each call knows whether it was sent."""
    gate = Gate()
    async with raw_downstream(gate) as downstream, pool_to(downstream.url, connections_max=1) as pool:
        sent = asyncio.create_task(call(pool, target=b"/1"))
        await until(lambda: gate.asked == [b"/1"])
        waiting = asyncio.create_task(call(pool, target=b"/2"))
        await until(lambda: len(pool._waiting) == 1)
        await pool.close()
        with pytest.raises(Disconnected) as under_way:
            await sent
        with pytest.raises(ConnectFailed) as never_sent:
            await waiting
        assert (under_way.value.sent, never_sent.value.sent) == (True, False)
