"""
Bodies that are too long to hold: both ways, with bounded memory, and with ends that are told apart.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from breaker.gateway.downstream import BodyStream, Disconnected, TimedOut
from breaker.gateway.http1 import WHOLE_MAX
from breaker.gateway.response import BUFFER_HIGH
from tests.gateway.raw_downstream import Peer, Received, call, pool_to, raw_downstream, until, whole

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"
MIB = 1_048_576
READ = 262_144  # the most that the event loop hands over at once


async def repeated(piece: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield piece


@pytest.mark.parametrize(("size", "is_whole"), [(WHOLE_MAX, True), (WHOLE_MAX + 1, False)])
async def test_body_is_whole_up_to_a_size_and_a_stream_beyond(size: int, is_whole: bool) -> None:
    """Small answers cost one step; large ones do not have to fit into memory."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % size)
        await head_seen.wait()
        await peer.send(b"x")
        await asyncio.sleep(0.02)  # the head must have been read alone: there is no event for that
        await peer.send(b"x" * (size - 1))
        await peer.gone()

    head_seen = asyncio.Event()
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        task = asyncio.create_task(call(pool))
        if is_whole:
            head_seen.set()
        response = await task
        assert (response.stream is None) == is_whole
        head_seen.set()
        assert await whole(response) == b"x" * size
        await until(lambda: pool.idle == 1)


async def test_100_mb_down_never_hold_more_than_the_buffer() -> None:
    """A reader slower than the downstream slows the downstream down, and fills no memory."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % (100 * MIB))
        for _ in range(100):
            await peer.send(b"x" * MIB)
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool, timeout_s=30)
        assert isinstance(response.stream, BodyStream)
        await until(lambda: response.stream is not None and response.stream.buffered >= BUFFER_HIGH)
        peak = total = 0
        async for piece in response.stream:
            peak = max(peak, response.stream.buffered + len(piece))
            total += len(piece)
        assert total == 100 * MIB
        assert BUFFER_HIGH <= peak < BUFFER_HIGH + READ
        assert pool.idle == 1


@pytest.mark.parametrize("content_length", [None, 100 * MIB])
async def test_100_mb_up_are_taken_no_faster_than_the_downstream_reads(content_length: int | None) -> None:
    """The caller's upload waits for the downstream instead of piling up here."""
    taken = 0
    reading = asyncio.Event()
    received = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1600):
            taken += 65_536
            yield b"x" * 65_536

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.head()
        await reading.wait()
        end = 100 * MIB if content_length else 100 * MIB + 1600 * len(b"10000\r\n\r\n") + len(b"0\r\n\r\n")
        while received < end:
            received += len(await peer.reader.read(MIB))
        assert received == end
        await peer.send(HI)
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        task = asyncio.create_task(
            call(pool, method=b"PUT", body=upload(), content_length=content_length, timeout_s=30)
        )
        seen = -1
        while seen != taken:  # until nothing more is taken
            seen = taken
            await asyncio.sleep(0.05)
        assert 0 < taken < 20 * MIB  # what the sockets hold
        reading.set()
        assert (await task).body == b"hi"
        assert (taken, pool.idle) == (100 * MIB, 1)


async def test_both_bodies_can_flow_at_once() -> None:
    """A downstream may answer while it reads: a converter does."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % (8 * MIB))
        for _ in range(128):
            await peer.send(await peer.reader.readexactly(65_536))
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        body = repeated(b"x" * 65_536, 128)
        response = await call(pool, method=b"POST", body=body, content_length=8 * MIB)
        assert response.body is None
        assert len(await whole(response)) == 8 * MIB
        assert pool.idle == 1


async def test_connection_with_a_slow_reader_serves_the_next_call() -> None:
    """The body is here but not read yet: the next call must not wait for that reader."""
    size = BUFFER_HIGH

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % size)
        await head_seen.wait()
        await peer.send(b"x" * size)
        await peer.request()
        await peer.send(HI)
        await peer.gone()

    head_seen = asyncio.Event()
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool)
        head_seen.set()
        await until(lambda: pool.idle == 1)
        assert (await call(pool, timeout_s=1)).body == b"hi"
        assert await whole(response) == b"x" * size
        assert downstream.connections == 1


@pytest.mark.parametrize("content_length", [None, 100 * MIB])
async def test_early_answer_is_delivered_and_stops_the_upload(content_length: int | None) -> None:
    """A downstream that refuses a large body says why; the caller must see that and not a broken pipe."""
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(refusal)

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        for _ in range(5):
            body = repeated(b"x" * 65_536, 1600)
            response = await call(pool, method=b"POST", body=body, content_length=content_length)
            assert (response.status, response.body) == (413, b"big")
            assert (pool.idle, pool.busy) == (0, 0)


async def test_early_answer_is_delivered_while_the_caller_still_thinks() -> None:
    """It does not wait for the next piece of a body that nobody wants."""
    left = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(HI)
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        assert (await call(pool, method=b"POST", body=body())).body == b"hi"
        assert (pool.idle, pool.busy) == (0, 0)
        await left.wait()


@pytest.mark.parametrize("count", [1, 3])
async def test_body_of_another_length_than_stated_is_never_completed(count: int) -> None:
    """One byte more would be read as the start of the next request on that connection."""
    seen = bytearray()

    async def script(peer: Peer) -> None:
        await peer.head()
        while piece := await peer.reader.read(100):
            seen.extend(piece)

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(ValueError, match="request body has"):
            await call(pool, method=b"POST", body=repeated(b"a", count), content_length=2)
        assert (pool.idle, pool.busy) == (0, 0)
        with pytest.raises(ValueError, match="request body has"):
            await call(pool, method=b"POST", body=b"a" * count, content_length=2)
    assert len(seen) <= 2


async def test_error_in_the_callers_body_is_the_calls_error() -> None:
    """A caller that breaks off its upload: the downstream must not see a complete body."""
    seen: list[Received] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError("caller went away")

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(RuntimeError, match="went away"):
            await call(pool, method=b"POST", body=body())
        assert (pool.idle, pool.busy) == (0, 0)
    assert seen == []


async def test_error_in_the_callers_body_after_the_answer_began_ends_the_stream() -> None:
    """A reader of the answer is told in the terms of the downstream."""
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await begun.wait()
        raise RuntimeError("caller went away")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"Content-Length: 100000\r\n\r\n")
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool, method=b"POST", body=body())
        begun.set()
        with pytest.raises(Disconnected, match="request body"):
            await whole(response)
        assert pool.busy == 0


async def endless(peer: Peer) -> None:
    await peer.head()
    await peer.send(OK + b"Content-Length: 10000000\r\n\r\nx")
    await peer.gone()


async def test_stream_ends_at_the_deadline_of_its_call() -> None:
    """The deadline bounds everything up to the last byte, also when the reader is slow."""
    async with raw_downstream(endless) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool, timeout_s=0.1)
        with pytest.raises(TimedOut) as caught:
            await whole(response)
        assert (caught.value.phase, caught.value.sent, pool.busy) == ("body", True, 0)
        assert response.stream is not None
        with pytest.raises(TimedOut):  # and stays ended
            await anext(response.stream)


async def test_stream_that_cannot_be_completed_holds_nothing_back() -> None:
    """What is left in the buffer of a body that broke off must neither be read nor kept."""
    broken = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"Content-Length: 100000\r\n\r\nx")
        await broken.wait()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool)
        broken.set()
        await until(lambda: pool.busy == 0)
        assert response.stream is not None
        with pytest.raises(Disconnected):
            await anext(response.stream)
        assert response.stream.buffered == 0


async def test_closed_stream_frees_its_connection_at_once() -> None:
    """A gateway whose caller has gone stops the downstream's work."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await endless(peer)
        gone.set()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool)
        assert response.stream is not None
        assert await anext(response.stream) == b"x"
        response.stream.close()
        assert (pool.idle, pool.busy) == (0, 0)
        with pytest.raises(Disconnected, match="not read"):
            await anext(response.stream)
        await gone.wait()


async def test_closing_a_complete_stream_leaves_the_connection_alone() -> None:
    """It may be serving somebody else by then."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nhi\r\n")
        await head_seen.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.request()
        await second.wait()
        await peer.send(HI)
        await peer.gone()

    head_seen, second = asyncio.Event(), asyncio.Event()
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool)
        head_seen.set()
        await until(lambda: pool.idle == 1)
        task = asyncio.create_task(call(pool))
        await until(lambda: pool.busy == 1)
        assert response.stream is not None
        response.stream.close()
        second.set()
        assert (await task).body == b"hi"
        assert downstream.connections == 1
