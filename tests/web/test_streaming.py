"""How bodies and connections pass: framing, pipelining, and as fast as the slower side takes them."""

import asyncio

from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Peer, answering
from tests.web.forwarding_scene import HI, MIB, Seen, gateway_to
from tests.web.raw_caller import ask, chunked, get, raw_caller, request


async def test_chunks_and_lengths_both_pass(start_gateway: Start) -> None:
    """The framing is each side's own; the bytes are the caller's."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served, raw_caller(served.port) as caller:
        assert (await caller.ask(chunked("POST", "/desk/x", b"one", b"two" * 1_000))).status == 200
        assert seen.last.body == b"one" + b"two" * 1_000
        await caller.ask(request("POST", "/desk/x", body=b"y" * 200_000))
        assert (seen.last.body, seen.headers("content-length")) == (b"y" * 200_000, ["200000"])
        await caller.ask(request("POST", "/desk/x", body=b""))
        assert (seen.last.body, seen.headers("content-length")) == (b"", ["0"])
        await caller.ask(chunked("POST", "/desk/x"))
        assert seen.last.body == b""


async def test_pipelined_requests_are_answered_in_order(start_gateway: Start) -> None:
    """Which answer belongs to which request is told by nothing else."""

    async def script(peer: Peer) -> None:
        while True:
            name = (await peer.request()).head.split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + name)

    async with gateway_to(start_gateway, script) as served, raw_caller(served.port) as caller:
        await caller.send(
            get("/desk/1") + request("POST", "/desk/2", body=b"body") + chunked("PUT", "/desk/3", b"x")
        )
        assert [(await caller.answer()).body for _ in range(3)] == [b"/1", b"/2", b"/3"]


async def test_a_caller_of_http_1_0_gets_no_chunks(start_gateway: Start) -> None:
    """They would be noise to it: the end of the connection is the end of the body."""
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n%b\r\n0\r\n\r\n" % (b"x" * 65_536)
    async with gateway_to(start_gateway, answering(said)) as served:
        answer = await ask(served.port, b"GET /desk/x HTTP/1.0\r\n\r\n")
        assert answer.body == b"x" * 65_536
        assert answer.one("Connection") == "close"


async def test_a_caller_of_http_1_0_may_stay(start_gateway: Start) -> None:
    """It says so itself, and must be told that it may."""
    async with gateway_to(start_gateway, answering(HI)) as served, raw_caller(served.port) as caller:
        for _ in range(2):
            answer = await caller.ask(b"GET /desk/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (answer.body, answer.one("Connection")) == (b"hi", "keep-alive")


async def test_close_is_honoured(start_gateway: Start) -> None:
    """The caller's wish ends the caller's connection, and the downstream's ends the downstream's."""
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI)) as served, raw_caller(served.port) as caller:
        answer = await caller.ask(get("/desk/x", "Connection: close"))
        assert answer.one("Connection") == "close"
        assert await caller.ended() == b""
        assert seen.headers("connection") == []


async def test_leave_to_send_comes_only_after_admission(start_gateway: Start) -> None:
    """A refused caller learns it before it sends 2 GB."""
    busy = {"match": "PUT /busy/{name}", "capacity": {"rate": "1/h"}, "max_wait": "0s"}
    seen = Seen()
    async with gateway_to(start_gateway, seen.answering(HI), operations={"busy": busy}) as served:
        for target in ("/desk/x", "/desk/busy/x"):
            async with raw_caller(served.port) as caller:
                await caller.send(request("PUT", target, "Expect: 100-continue", "Content-Length: 4"))
                assert (await caller.answer()).status == 100
                await caller.send(b"body")
                assert (await caller.answer()).status == 200
                assert seen.last.body == b"body"
                assert seen.headers("expect") == []
        async with raw_caller(served.port) as caller:
            await caller.send(request("PUT", "/desk/busy/x", "Expect: 100-continue", "Content-Length: 4"))
            assert (await caller.answer()).status == 503
        async with raw_caller(served.port) as caller:
            await caller.send(request("PUT", "/desk/none/x", "Expect: 100-continue", "Content-Length: 4"))
            assert (await caller.answer()).status == 404


async def test_a_body_under_way_has_its_first_bytes_through_before_its_last_are_sent(
    start_gateway: Start,
) -> None:
    """Uploads and event streams live from it."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.reader.readuntil(b"first\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.wait()
        await peer.reader.readuntil(b"0\r\n\r\n")
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async with gateway_to(start_gateway, script) as served, raw_caller(served.port) as caller:
        await caller.send(request("POST", "/desk/x", "Transfer-Encoding: chunked"), b"5\r\nfirst\r\n")
        await caller.head()
        async with asyncio.timeout(5):
            assert await caller.reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
        go_on.set()
        await caller.send(b"0\r\n\r\n")
        async with asyncio.timeout(5):
            assert await caller.reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


async def test_huge_bodies_pass_and_leave_memory_flat(start_gateway_child: Start) -> None:
    """Exports and uploads of 64 MiB stream through; a few of them at once would else be the end."""
    size = 64 * MIB

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if head.startswith(b"GET"):
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for _ in range(64):
                    await peer.send(b"x" * MIB)
            else:
                left = size
                while left:
                    left -= len(await peer.reader.read(min(left, MIB)))
                await peer.send(HI)

    async with gateway_to(start_gateway_child, script) as served, raw_caller(served.port) as caller:
        before = served.rss()
        await caller.send(get("/desk/x"))
        assert (await caller.head()).one("Content-Length") == str(size)
        async with asyncio.timeout(30):
            left = size
            while left:
                left -= len(await caller.reader.read(min(left, MIB)))
        await caller.send(request("PUT", "/desk/x", f"Content-Length: {size}"), *[b"x" * MIB] * 64)
        assert (await caller.answer()).body == b"hi"
        assert served.rss() - before < 30 * MIB


async def test_a_slow_reader_holds_the_downstream_back(start_gateway_child: Start) -> None:
    """Else the gateway would have to keep what the caller does not take."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            sent += 65_536

    async with gateway_to(start_gateway_child, script) as served, raw_caller(served.port) as caller:
        before = served.rss()
        await caller.send(get("/desk/x"))
        await caller.head()
        was = -1
        while was != sent:
            was = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 30 * MIB  # what the kernel keeps, and a little
        assert served.rss() - before < 5 * MIB


async def test_a_slow_downstream_holds_the_caller_back(start_gateway_child: Start) -> None:
    """Likewise the other way."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    quick = {"match": "POST /quick/{name}", "downstream": {"timeout": "2s"}}
    async with (
        gateway_to(start_gateway_child, script, operations={"quick": quick}) as served,
        raw_caller(served.port) as caller,
    ):
        before = served.rss()
        await caller.send(request("POST", "/desk/quick/x", "Transfer-Encoding: chunked"))
        sent, was = 0, -1

        async def pour() -> None:
            nonlocal sent
            while True:
                caller.writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await caller.writer.drain()
                sent += 65_536

        pouring = asyncio.create_task(pour())
        while was != sent:
            was = sent
            await asyncio.sleep(0.2)
        pouring.cancel()
        assert 0 < sent < 30 * MIB
        assert served.rss() - before < 5 * MIB
        caller.reset()
