"""
What is no proper request: it gets a 4xx or a clean close, and the connection ends.

Each case runs against a gateway of its own, which serves as before when the case is over, holds no slot,
and has let nothing through to the downstream that was not a request of its own.
"""

import asyncio
import contextlib
import gzip
import re
import resource
import socket
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, raw_downstream
from tests.web.raw_caller import Answer, ask, chunked, get, raw_caller, request

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
HEAD_TIMEOUT_S = BODY_TIMEOUT_S = 0.3
MIB = 1_048_576
HOST = b"Host: a\r\n"
POST = b"POST /desk/streamed HTTP/1.1\r\n" + HOST


class Desk:
    """A gateway with short deadlines, and what its downstream got."""

    def __init__(self) -> None:
        self.served: Served
        self.got: list[bytes] = []

    async def downstream(self, peer: Peer) -> None:
        while True:
            received = await peer.request()
            self.got.append(received.head.split(b"\r\n")[0])
            await peer.send(HI)


@contextlib.asynccontextmanager
async def desk(start: Start, **gateway: Any) -> AsyncIterator[Desk]:
    found = Desk()
    limits = {
        "capacity": {"concurrency": 4},
        "body_timeout": f"{int(BODY_TIMEOUT_S * 1000)}ms",
        "linger": "0s",
    }
    async with raw_downstream(found.downstream) as downstream:
        operations = {
            "get": {"match": "GET /x", **limits},
            "streamed": {"match": "POST /streamed", **limits},
            "read": {"match": "POST /read", "contract": {"type": "object"}, "max_body": "1MiB", **limits},
        }
        pipeline = {"team": "t", "downstream": {"url": downstream.url}, "operations": operations}
        settings: dict[str, Any] = {"limits": {"head_timeout": f"{int(HEAD_TIMEOUT_S * 1000)}ms"}, **gateway}
        async with start({"desk": pipeline}, **settings) as served:
            found.served = served
            yield found
            got = list(found.got)
            assert (await ask(served.port, get("/desk/x"))).status == 200
            assert found.got == [*got, b"GET /x HTTP/1.1"]
            for name in operations:
                await served.until_slots(f"desk.{name}", 0)


async def said_to(served: Served, *pieces: bytes) -> list[int]:
    """The statuses of all that is answered until the gateway closes, which it must."""
    async with raw_caller(served.port) as caller:
        with contextlib.suppress(ConnectionError):
            await caller.send(*pieces)
        text = await caller.ended()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", text)]


SMUGGLED = b"GET /desk/x HTTP/1.1\r\n" + HOST + b"\r\n"
BROKEN = {
    "length-and-chunked": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunked-and-length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two-lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + SMUGGLED,
    "two-equal-lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    "list-of-lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello" + SMUGGLED,
    "signed-length": POST + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
    "negative-length": POST + b"Content-Length: -5\r\n\r\nhello" + SMUGGLED,
    "hex-length": POST + b"Content-Length: 0x5\r\n\r\nhello" + SMUGGLED,
    "length-with-spaces": POST + b"Content-Length: 5 5\r\n\r\nhello" + SMUGGLED,
    "length-too-big-for-64-bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "unknown-coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "coding-not-chunked": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-not-last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-twice": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunked-in-quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + SMUGGLED,
    "vertical-tab-in-coding": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space-before-colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space-in-name": POST + b"Transfer Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space-before-first-header": b"POST /desk/streamed HTTP/1.1\r\n Host: a\r\n\r\n",
    "folded-line": POST + b"X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-in-http-1-0": b"POST /desk/streamed HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "bare-lf-after-header": POST + b"X-A: 1\nContent-Length: 5\r\n\r\nhello",
    "bare-lf-everywhere": b"GET /desk/x HTTP/1.1\nHost: a\n\n",
    "bare-cr-in-value": POST + b"X-A: 1\rTransfer-Encoding: chunked\r\n\r\n",
    "nul-in-value": POST + b"X-A: a\x00b\r\n\r\n",
    "nul-in-name": POST + b"X\x00A: b\r\n\r\n",
    "empty-name": POST + b": b\r\n\r\n",
    "no-colon": POST + b"nothing\r\n\r\n",
    "two-hosts": b"GET /desk/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no-host": b"GET /desk/x HTTP/1.1\r\n\r\n",
    "nul-in-target": b"GET /desk/x\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw-bytes-in-target": b"GET /desk/\xe2\x82\xac HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw-bytes-in-query": b"GET /desk/x?\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "space-in-target": b"GET /desk/x y HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form": b"GET http://a/desk/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form-of-another": b"GET http://10.0.0.1/desk/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "two-slashes": b"GET //desk/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority-form": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown-method": b"get /desk/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "no-version": b"GET /desk/x\r\n\r\n",
    "version-2": b"GET /desk/x HTTP/2.0\r\n" + HOST + b"\r\n",
    "version-0-9": b"GET /desk/x HTTP/0.9\r\n" + HOST + b"\r\n",
    "version-with-letters": b"GET /desk/x HTTP/1.x\r\n" + HOST + b"\r\n",
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "noise": bytes(range(128, 256)) * 8,
    "long-target": b"GET /desk/" + b"x" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long-header": POST + b"X-A: " + b"x" * 70_000 + b"\r\n\r\n",
    "long-name": POST + b"X" * 70_000 + b": a\r\n\r\n",
    "200-headers": POST + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    "2-MB-of-headers": POST + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 8_000) for n in range(250)) + b"\r\n",
}
CHUNKED = {name: POST + b"Transfer-Encoding: chunked\r\n\r\n" + body for name, body in {
    "no-number": b"zz\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "prefixed": b"0x5\r\nhello\r\n0\r\n\r\n",
    "signed": b"+5\r\nhello\r\n0\r\n\r\n",
    "spaced": b"5 \r\nhello\r\n0\r\n\r\n",
    "empty-size": b"\r\nhello\r\n0\r\n\r\n",
    "too-big-for-64-bits": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "data-longer-than-size": b"3\r\nhello\r\n0\r\n\r\n",
    "data-shorter-than-size": b"7\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "bare-lf-after-size": b"5\nhello\r\n0\r\n\r\n",
    "bare-lf-after-data": b"5\r\nhello\n0\r\n\r\n",
    "extension-with-lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "trailer-bomb": b"0\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + b"\r\n",
}.items()}  # fmt: skip
STALLED = [
    b"Content-Length: 100\r\n\r\n{",
    b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":',
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a=b;" * 100_000,
]


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_a_broken_head_is_refused_and_the_connection_closed(start_gateway: Start, raw: bytes) -> None:
    """What two readers understand in two ways is how requests are smuggled past limits and keys."""
    async with desk(start_gateway) as found:
        statuses = await said_to(found.served, raw)
        assert len(statuses) <= 1
        assert all(400 <= status < 500 for status in statuses)
        assert found.got == []


@pytest.mark.parametrize("raw", CHUNKED.values(), ids=CHUNKED)
async def test_broken_chunks_are_refused_and_the_connection_closed(start_gateway: Start, raw: bytes) -> None:
    """The body was being passed on; its end was never told, so that the downstream cannot take it for whole."""
    async with desk(start_gateway) as found:
        statuses = await said_to(found.served, raw)
        assert statuses == [400]
        assert found.got == []


@pytest.mark.parametrize("raw", CHUNKED.values(), ids=CHUNKED)
async def test_broken_chunks_of_a_body_that_is_read_are_refused(start_gateway: Start, raw: bytes) -> None:
    """Likewise where the contract wants all of it first."""
    async with desk(start_gateway) as found:
        statuses = await said_to(found.served, raw.replace(b"/streamed", b"/read"))
        assert statuses == [400]
        assert found.got == []


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0", "foo"])
async def test_an_upgrade_is_not_taken(start_gateway: Start, upgrade: str) -> None:
    """Behind one, a tunnel would run past everything. The request itself is an ordinary one."""
    async with desk(start_gateway) as found, raw_caller(found.served.port) as caller:
        lines = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABk")
        answer = await caller.ask(get("/desk/x", *lines, "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"))
        assert answer.status in (200, 400)
        if answer.status == 200:
            assert not answer.has("Upgrade")
            assert (await caller.ask(get("/desk/x"))).status == 200
            found.got.clear()


@pytest.mark.parametrize("drip", [False, True])
@pytest.mark.parametrize("after", [b"", SMUGGLED])
async def test_a_head_that_does_not_come_is_cut(start_gateway: Start, after: bytes, *, drip: bool) -> None:
    """Slow-loris: a connection costs an attacker nothing, and must cost us nothing for long."""
    async with desk(start_gateway) as found, raw_caller(found.served.port) as caller:
        if after:
            assert (await caller.ask(after)).status == 200
        started = time.monotonic()
        await caller.send(b"GET /desk/x HTTP/1.1\r\nX-A: ")
        ending = asyncio.create_task(caller.ended())
        while drip and not ending.done():
            with contextlib.suppress(ConnectionError):
                await caller.send(b"x")
            await asyncio.sleep(0.02)
        text = await ending
        assert HEAD_TIMEOUT_S * 0.9 < time.monotonic() - started < HEAD_TIMEOUT_S + 2
        assert text == b"" or text.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_says_nothing_is_cut(start_gateway: Start) -> None:
    """Likewise."""
    async with desk(start_gateway) as found, raw_caller(found.served.port) as caller:
        assert (await caller.ended()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("target", ["read", "streamed"])
async def test_a_body_that_does_not_come_is_cut(start_gateway: Start, target: str) -> None:
    """aiohttp by itself waits for ever."""
    async with desk(start_gateway) as found:
        raws = [POST.replace(b"streamed", target.encode()) + raw for raw in STALLED]
        started = time.monotonic()
        assert await asyncio.gather(*(said_to(found.served, raw) for raw in raws)) == [[408]] * len(raws)
        assert BODY_TIMEOUT_S * 0.9 < time.monotonic() - started < BODY_TIMEOUT_S + 4
        assert found.got == []


async def test_a_body_that_drips_is_cut_where_all_of_it_is_needed(start_gateway: Start) -> None:
    """Each byte is in time, and the whole is not."""
    async with desk(start_gateway) as found, raw_caller(found.served.port) as caller:
        await caller.send(request("POST", "/desk/read", "Content-Length: 100000"))
        answering = asyncio.create_task(caller.answer())
        while not answering.done():
            with contextlib.suppress(ConnectionError):
                await caller.send(b" ")
            await asyncio.sleep(0.02)
        assert (await answering).kind == "request-timeout"


@pytest.mark.parametrize("target", ["read", "streamed"])
async def test_a_body_shorter_than_its_length_is_never_passed_on_as_whole(
    start_gateway: Start, target: str
) -> None:
    """The caller closed in the middle: nobody is left to be answered."""
    async with desk(start_gateway) as found:
        async with raw_caller(found.served.port) as caller:
            await caller.send(request("POST", f"/desk/{target}", "Content-Length: 100"), b'{"a":')
            caller.writer.write_eof()
            await caller.ended()
        await found.served.until_slots(f"desk.{target}", 0)
        assert found.got == []


def deep(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


BODIES = {
    "depth-bomb": ((), deep(100_000)),
    "depth-bomb-of-lists": ((), b"[" * 500_000),
    "gzip-bomb": (("Content-Encoding: gzip",), gzip.compress(b" " * 64 * MIB)),
    "deflate-bomb": (("Content-Encoding: deflate",), zlib.compress(b" " * 64 * MIB)),
    "bad-gzip": (("Content-Encoding: gzip",), b"\x1f\x8bnope"),
    "plain-called-gzip": (("Content-Encoding: gzip",), b"{}"),
    "half-gzip": (("Content-Encoding: gzip",), gzip.compress(b'{"a": 1}')[:-6]),
    "gzip-and-more": (("Content-Encoding: gzip",), gzip.compress(b"{}") + b"more"),
    "unknown-coding": (("Content-Encoding: br",), b"{}"),
    "gzip-twice": (("Content-Encoding: gzip, gzip",), gzip.compress(gzip.compress(b"{}"))),
    "not-json": ((), b"\x00\x01\x02"),
    "not-a-number": ((), b'{"a": NaN}'),
    "number-bomb": ((), b'{"a": 1e999999999}'),
    "lone-surrogate": ((), b'{"a": "\\ud800"}'),
    "too-large": ((), b'{"a": "' + b"x" * MIB + b'"}'),
}


@pytest.mark.parametrize(("lines", "body"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_cannot_be_looked_into_is_refused(
    start_gateway: Start, lines: tuple[str, ...], body: bytes, framing: str
) -> None:
    """Plain aiohttp answers a broken gzip with 500, and a bomb with all the memory there is."""
    async with desk(start_gateway) as found:
        if framing == "length":
            raw = request("POST", "/desk/read", *lines, body=body)
        else:
            raw = chunked("POST", "/desk/read", *pieces_of(body), lines=lines)
        before = found.served.rss()
        found.served.forget_peak()
        async with raw_caller(found.served.port) as caller:
            with contextlib.suppress(ConnectionError):
                await caller.send(raw)
            answer = await caller.answer()
            assert answer.kind in ("bad-request", "payload-too-large", "contract")
            assert answer.has("Connection") == (answer.kind != "contract")
        assert found.served.peak() - before < 20 * MIB
        assert found.got == []


def pieces_of(body: bytes) -> list[bytes]:
    return [body[at : at + 50_000] for at in range(0, len(body), 50_000)]


async def test_a_deep_body_within_bounds_passes(start_gateway: Start) -> None:
    """The bound is far from what anybody means."""
    async with desk(start_gateway) as found:
        raw = request("POST", "/desk/read", "Content-Encoding: gzip", body=gzip.compress(deep(100)))
        assert (await ask(found.served.port, raw)).status == 200


async def test_memory_stays_flat_under_broken_requests(start_gateway_child: Start) -> None:
    """Each of them alone may be small; what they leave behind adds up."""
    hostile = [*BROKEN.values(), *CHUNKED.values()]
    async with desk(start_gateway_child) as found:

        async def all_of_them() -> None:
            for at in range(0, len(hostile), 8):
                await asyncio.gather(*(said_to(found.served, raw) for raw in hostile[at : at + 8]))

        await all_of_them()
        before = found.served.rss()
        for _ in range(3):
            await all_of_them()
        assert found.served.rss() - before < 10 * MIB


async def test_5000_idle_connections_do_not_stand_in_the_way(start_gateway_child: Start) -> None:
    """Browsers and pools keep connections that they do not use."""
    count = 5_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1_000:
        pytest.skip(f"LOUD: only {hard} files may be open (ulimit -Hn), and this needs {count + 1_000}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 1_000), hard))
    idle: list[socket.socket] = []
    try:
        async with desk(
            start_gateway_child, limits={"head_timeout": "60s", "connections": count + 100}
        ) as found:
            before = found.served.rss()
            for at in range(count):
                idle.append(socket.create_connection(("127.0.0.1", found.served.port), timeout=5))
                if at % 500 == 0:
                    await asyncio.sleep(0)
            started = time.monotonic()
            answers = await asyncio.gather(*(ask(found.served.port, get("/desk/x")) for _ in range(50)))
            assert [answer.status for answer in answers] == [200] * 50
            assert time.monotonic() - started < 4
            assert found.served.rss() - before < count * 20_000  # bytes for each
            found.got.clear()
            for sock in idle:
                sock.close()
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_connections_beyond_the_limit_are_told_so(start_gateway: Start) -> None:
    """A clear word instead of a time-out."""
    async with desk(start_gateway, limits={"connections": 2, "head_timeout": "5s"}) as found:
        port = found.served.port
        async with raw_caller(port) as first, raw_caller(port) as second:
            assert [(await caller.ask(get("/desk/x"))).status for caller in (first, second)] == [200, 200]
            async with raw_caller(port) as third:
                answer: Answer = await third.answer()
                assert (answer.status, answer.kind) == (503, "over-capacity")
                assert await third.ended() == b""
            first.hang_up()
            second.hang_up()
        await until_served(port)
        found.got.clear()


async def until_served(port: int) -> None:
    """Wait until the gateway has noticed that callers have gone."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                if (await ask(port, get("/desk/x"))).status == 200:
                    return
            await asyncio.sleep(0.005)
