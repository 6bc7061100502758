"""
What a downstream may answer, and what a request looks like: framing, right and wrong.
"""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from breaker.gateway.downstream import (
    ConnectFailed,
    Disconnected,
    Malformed,
    TimedOut,
    TooLarge,
)
from tests.gateway.raw_downstream import Peer, Received, answering, call, pool_to, raw_downstream, whole

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def test_request_carries_what_the_call_says_and_nothing_else() -> None:
    """The downstream sees the caller's headers as they were, and a host of its own."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(HI)

    async with raw_downstream(script) as downstream, pool_to(downstream.url + "/api/") as pool:
        host = downstream.url.removeprefix("http://").encode()
        await call(pool, method=b"POST", target=b"/a?b=%20&b", headers=b"X-A: 1\r\nx-a:2\r\n", body=b"body")
        await call(pool, method=b"GET")
        await call(pool, method=b"POST")
        await call(pool, method=b"PUT", body=pieces_of(b"ab", b"", b"c"))
        await call(pool, method=b"PUT", body=pieces_of(b"ab", b"", b"c"), content_length=3)
    start = b" HTTP/1.1\r\nHost: " + host + b"\r\n"
    assert seen == [
        Received(head=b"POST /api/a?b=%20&b" + start + b"X-A: 1\r\nx-a:2\r\nContent-Length: 4", body=b"body"),
        Received(head=b"GET /api/" + (start)[:-2], body=b""),
        Received(head=b"POST /api/" + start + b"Content-Length: 0", body=b""),
        Received(head=b"PUT /api/" + start + b"Transfer-Encoding: chunked", body=b"abc"),
        Received(head=b"PUT /api/" + start + b"Content-Length: 3", body=b"abc"),
    ]
    assert downstream.connections == 1


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GET", b"/a\r\nX: 1", b""),
        (b"GET", b"/a\nb", b""),
        (b"GET", b"/a b", b""),
        (b"GET", b"/a\x00", b""),
        (b"GET", b"http://elsewhere/", b""),
        (b"GET", b"", b""),
        (b"GET /x HTTP/1.1\r\n", b"/", b""),
        (b"GET", b"/", b"X: 1\r\n\r\nGET /x HTTP/1.1\r\n"),
        (b"GET", b"/", b"X: a\nb\r\n"),
        (b"GET", b"/", b"X: a\rb\r\n"),
        (b"GET", b"/", b"X: a\x00b\r\n"),
        (b"GET", b"/", b"X: a"),
        (b"GET", b"/", b"X : a\r\n"),
        (b"GET", b"/", b" folded\r\n"),
        (b"GET", b"/", b"A: 1\r\ntransfer-Encoding: chunked\r\n"),
        (b"GET", b"/", b"CONTENT-LENGTH: 3\r\n"),
        (b"GET", b"/", b"Host: elsewhere\r\n"),
        (b"GET", b"/", b"Connection: close\r\n"),
    ],
)
async def test_request_that_could_be_read_as_two_is_not_sent(
    method: bytes, target: bytes, headers: bytes
) -> None:
    """A caller must not be able to put a second request on our connection to the downstream."""
    async with raw_downstream(answering(HI)) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(ValueError, match="misread"):
            await call(pool, method=method, target=target, headers=headers)
        assert downstream.connections == 0


GOOD = {
    "content length": (HI, 200, b"hi"),
    "length 0": (OK + b"content-length:0\r\n\r\n", 200, b""),
    "chunked": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\nTrailer: no\r\n\r\n",
        200,
        b"hi!",
    ),
    "100 and 103 before": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + HI,
        200,
        b"hi",
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
    "1.0 kept alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        200,
        b"hi",
    ),
}


@pytest.mark.parametrize("in_bytes", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", GOOD)
async def test_answer_is_understood_and_its_connection_used_again(name: str, in_bytes: bool) -> None:
    """However the network cuts it, the caller gets the downstream's answer, and the next call its own."""
    answer, status, body = GOOD[name]
    pieces = [answer[n : n + 1] for n in range(len(answer))] if in_bytes else [answer]
    async with raw_downstream(answering(*pieces)) as downstream, pool_to(downstream.url) as pool:
        for _ in range(3):
            response = await call(pool)
            assert (response.status, await whole(response)) == (status, body)
            assert all(header[0] not in (b"Trailer", b"Link") for header in response.headers)
        assert (downstream.connections, pool.idle, pool.busy) == (1, 1, 0)


ONCE = {
    "connection close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", True),
    "until close": (OK + b"\r\nhi", False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", True),
    "a second answer behind it": (HI + b"HTTP/1.1 500 Theirs\r\nContent-Length: 0\r\n\r\n", True),
    "rubbish behind it": (HI + b"?", True),
    "rubbish behind close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi?", True),
}


@pytest.mark.parametrize("name", ONCE)
async def test_answer_is_delivered_and_its_connection_not_used_again(name: str) -> None:
    """Bytes that belong to no call must never become another caller's answer."""
    answer, keep = ONCE[name]
    async with raw_downstream(answering(answer, keep=keep)) as downstream, pool_to(downstream.url) as pool:
        for _ in range(2):
            response = await call(pool)
            assert (response.status, await whole(response)) == (200, b"hi")
            assert (pool.idle, pool.busy) == (0, 0)
        assert downstream.connections == 2


BROKEN = {
    "not http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "http/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "length and chunked": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "signed length": OK + b"Content-Length: +2\r\n\r\nhi",
    "empty length": OK + b"Content-Length:\r\n\r\nhi",
    "gzip coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "1.0 and chunked": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
    "space before colon": OK + b"Content-Length : 2\r\n\r\nhi",
    "nul in a header": OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nhi",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "103 with an answer as its body": b"HTTP/1.1 103 Hints\r\nContent-Length: %d\r\n\r\n" % len(HI) + HI + HI,
    "257 headers": OK + b"".join(b"X-%d: 1\r\n" % n for n in range(257)) + b"\r\n",
    "65 KiB of head": OK + b"X: " + b"a" * 66_000 + b"\r\nContent-Length: 2\r\n\r\nhi",
    "head without end": OK + b"X: " + b"a" * 300_000,
    "103s without end": b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * 10_000,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_answer_that_can_be_read_in_two_ways_is_refused(name: str) -> None:
    """Response smuggling: what we read and what the caller's client reads must be the same."""
    async with raw_downstream(answering(BROKEN[name])) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(Malformed) as caught:
            await call(pool)
        assert caught.value.sent
        assert (downstream.connections, pool.busy, pool.idle) == (1, 0, 0)


@pytest.mark.parametrize(
    "tail", [b"2x\r\nhi", b"2\r\nhi!\r\n", b"fffffffffffffffff\r\n", b"0\r\n" + b"T: x\r\n" * 60_000]
)
async def test_chunks_that_break_after_the_head_break_the_stream(tail: bytes) -> None:
    """A reader that already has some of a body is told, not left with what looks like an end."""
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
    async with raw_downstream(answering(head, tail)) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(Malformed):
            await whole(await call(pool))
        assert (pool.busy, pool.idle) == (0, 0)


async def test_headers_keep_order_case_and_repetition() -> None:
    """Two cookies stay two, and a caller finds a header as the downstream wrote it."""
    answer = (
        b"HTTP/1.1 201 All \xe9\r\nSet-Cookie: a=1\r\nX-E:\r\nset-cookie: b=2\r\ncontent-LENGTH: 0\r\n\r\n"
    )
    async with raw_downstream(answering(answer)) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool)
    assert response.reason == "All é"
    assert response.headers == [
        (b"Set-Cookie", b"a=1"),
        (b"X-E", b""),
        (b"set-cookie", b"b=2"),
        (b"content-LENGTH", b"0"),
    ]


@pytest.mark.parametrize(
    ("framing", "connections"),
    [
        (b"Content-Length: 1234\r\n", 1),
        (b"Content-Length: 0\r\n", 1),
        (b"Transfer-Encoding: chunked\r\n", 2),  # bytes too many could hide from the parser
        (b"", 2),
    ],
)
async def test_head_has_no_body_whatever_its_framing_says(framing: bytes, connections: int) -> None:
    """HEAD describes a body that does not come; waiting for it would hang every such call."""
    answer = answering(OK + framing + b"\r\n")
    async with raw_downstream(answer) as downstream, pool_to(downstream.url) as pool:
        for _ in range(2):
            response = await call(pool, method=b"HEAD")
            assert (response.status, response.body, response.stream) == (200, b"", None)
        assert downstream.connections == connections


async def test_body_after_head_is_never_the_next_answer() -> None:
    """A downstream that sends a body to HEAD has broken that connection, and only that."""
    answer = answering(HI)
    async with raw_downstream(answer) as downstream, pool_to(downstream.url) as pool:
        assert (await call(pool, method=b"HEAD")).body == b""
        assert pool.idle == 0
        assert (await call(pool)).body == b"hi"
        assert downstream.connections == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "before its answer"),
        (b"HTTP/1.1 20", "in the middle"),
        (OK + b"Content-Length: 3\r\n\r\nhi", "in the middle"),
    ],
)
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_answer_that_breaks_off_is_an_error(answer: bytes, words: str, is_reset: bool) -> None:
    """Half an answer is none, and the caller must know that the work may have been done."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        if is_reset:
            peer.reset()

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(Disconnected, match=words if not is_reset else "closed the connection") as caught:
            await call(pool)
        assert caught.value.sent
        assert (downstream.connections, pool.busy) == (1, 0)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 70_000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    ],
)
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
async def test_stream_that_breaks_off_is_an_error(answer: bytes, is_reset: bool) -> None:
    """A body cut short must not look complete."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await go_on.wait()
        if is_reset:
            peer.reset()

    go_on = asyncio.Event()
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        response = await call(pool)
        go_on.set()
        with pytest.raises(Disconnected) as caught:
            await whole(response)
        assert caught.value.sent
        assert pool.busy == 0


HANGS = {
    "nothing": (b"", "response"),
    "half a head": (b"HTTP/1.1 200 OK\r\nX: ", "response"),
    "only 103": (b"HTTP/1.1 103 Hints\r\n\r\n", "response"),
    "half a body": (OK + b"Content-Length: 3\r\n\r\nhi", "body"),
}


@pytest.mark.parametrize("name", HANGS)
async def test_answer_that_does_not_end_ends_at_the_deadline(name: str) -> None:
    """A hanging downstream costs a caller its deadline and not more, and the place is free again."""
    answer, phase = HANGS[name]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.gone()

    loop = asyncio.get_running_loop()
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        start = loop.time()
        with pytest.raises(TimedOut) as caught:
            await call(pool, timeout_s=0.1)
        assert 0.09 < loop.time() - start < 1
        assert (caught.value.phase, caught.value.sent) == (phase, True)
        assert pool.busy == 0


async def test_dripping_head_cannot_outlive_the_deadline() -> None:
    """A byte now and then is no progress."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"X: ")
        while True:
            await peer.send(b"a")
            await asyncio.sleep(0.01)

    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        with pytest.raises(TimedOut) as caught:
            await call(pool, timeout_s=0.1)
        assert caught.value.phase == "response"


async def test_later_call_with_an_earlier_deadline_ends_at_its_own() -> None:
    """Connections share one timer among their calls; each call has its own deadline all the same."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        await peer.gone()

    loop = asyncio.get_running_loop()
    async with raw_downstream(script) as downstream, pool_to(downstream.url) as pool:
        for first, second in ((30.0, 0.1), (0.05, 0.2)):
            await call(pool, timeout_s=first)
            start = loop.time()
            with pytest.raises(TimedOut):
                await call(pool, timeout_s=second)
            assert second - 0.01 < loop.time() - start < second + 1


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 11\r\n\r\n" + b"x" * 11,
        OK + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
        OK + b"Connection: close\r\n\r\n" + b"x" * 11,
    ],
)
async def test_answer_one_byte_over_response_max_is_refused(answer: bytes) -> None:
    """The largest answer that an operation allows passes, one byte more does not."""
    async with raw_downstream(answering(answer, keep=False)) as downstream:
        async with pool_to(downstream.url, response_max=11) as pool:
            assert await whole(await call(pool)) == b"x" * 11
            assert (await call(pool, method=b"HEAD")).status == 200
        async with pool_to(downstream.url, response_max=10) as pool:
            with pytest.raises(TooLarge) as caught:
                await whole(await call(pool))
            assert caught.value.sent
            assert pool.busy == 0


async def test_answer_that_announces_too_much_is_refused_at_its_head() -> None:
    """A gigabyte that will be thrown away need not be waited for."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"Content-Length: 100000\r\n\r\n")
        await peer.gone()

    async with raw_downstream(script) as downstream, pool_to(downstream.url, response_max=99_999) as pool:
        with pytest.raises(TooLarge):
            await call(pool)


async def test_no_connection_means_nothing_was_sent() -> None:
    """The caller may safely try again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with pool_to(f"http://127.0.0.1:{unused.getsockname()[1]}") as pool:
            with pytest.raises(ConnectFailed) as caught:
                await call(pool)
            assert (caught.value.sent, pool.busy) == (False, 0)
            with pytest.raises(TimedOut) as late:
                await call(pool, timeout_s=0)
            assert (late.value.phase, late.value.sent) == ("connect", False)


async def test_connecting_takes_no_longer_than_its_own_timeout() -> None:
    """A black hole is noticed after the connect timeout, not after the whole call's."""
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())  # the backlog is full: further connections are not answered
        async with pool_to(f"http://127.0.0.1:{deaf.getsockname()[1]}", connect_timeout_ms=100) as pool:
            start = loop.time()
            with pytest.raises(TimedOut) as caught:
                await call(pool)
            assert loop.time() - start < 2
            assert (caught.value.phase, caught.value.sent, pool.busy) == ("connect", False, 0)
