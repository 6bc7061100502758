"""However a call ends, its slot comes back and it is counted once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, Script, answering, raw_downstream
from tests.web.raw_caller import ask, chunked, get, raw_caller, request

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LINGER_S = 0.3
TIMEOUT_MS = 300


@contextlib.asynccontextmanager
async def desk(start: Start, script: Script, **fields: Any) -> AsyncIterator[Served]:
    """One slot; `desk.read` and `desk.write` on /desk/{name}. No slot may be held in the end."""
    operation = {
        "capacity": {"concurrency": 1}, "max_wait": "5s", "linger": f"{int(LINGER_S * 1000)}ms", **fields,
    }  # fmt: skip
    async with raw_downstream(script) as downstream:
        pipeline = {
            "team": "t", "downstream": {"url": downstream.url},
            "operations": {"read": {"match": "GET /{name}", **operation}, "write": {"match": "POST /{name}", **operation}},
        }  # fmt: skip
        async with start({"desk": pipeline}) as served:
            yield served
            for name in ("desk.read", "desk.write"):
                await served.until_slots(name, 0)


class Hanging:
    """A downstream that takes a request and keeps silent; `finish` lets it answer."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.gone = asyncio.Event()
        self.finish = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        self.came.set()
        going = asyncio.create_task(peer.gone())
        finishing = asyncio.create_task(self.finish.wait())
        try:
            await asyncio.wait({going, finishing}, return_when=asyncio.FIRST_COMPLETED)
            if going.done():
                self.gone.set()
                return
        finally:
            going.cancel()
            finishing.cancel()
        await asyncio.wait({going})  # it reads, and only one may
        await peer.send(HI)
        await answering(HI)(peer)


async def came(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


@pytest.mark.parametrize("harshly", [False, True])
async def test_a_read_whose_caller_hangs_up_is_given_up(start_gateway: Start, *, harshly: bool) -> None:
    """Nobody reads the answer, and to read again does no harm."""
    downstream = Hanging()
    async with desk(start_gateway, downstream) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(get("/desk/x"))
            await came(downstream.came)
            assert served.slots("desk.read") == 1
            caller.reset() if harshly else caller.hang_up()
        await came(downstream.gone)
        took = await served.until_slots("desk.read", 0)
        assert took < LINGER_S + 0.5
        await served.until_outcomes("desk.read", {"abandoned:hang_up": 1})


async def test_the_slot_of_an_abandoned_call_lingers(start_gateway: Start) -> None:
    """The downstream may not notice that we have gone, and must not get one more on top."""
    downstream = Hanging()
    async with desk(start_gateway, downstream) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(get("/desk/x"))
            await came(downstream.came)
        started = time.monotonic()
        await came(downstream.gone)
        await served.until_slots("desk.read", 0)
        assert time.monotonic() - started > LINGER_S * 0.8


async def test_a_write_whose_caller_hangs_up_is_finished(start_gateway: Start) -> None:
    """Half of a charge is worse than one whose answer nobody reads."""
    downstream = Hanging()
    async with desk(start_gateway, downstream) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(request("POST", "/desk/x", body=b"work"))
            await came(downstream.came)
        await asyncio.sleep(0.05)  # time in which it would be cut, if it were
        assert not downstream.gone.is_set()
        assert served.slots("desk.write") == 1
        downstream.finish.set()
        await served.until_outcomes("desk.write", {"abandoned:hang_up": 1})
        metrics = await served.metrics()
        assert metrics["breaker_downstream_calls_total{operation=desk.write,result=ok}"] == 1


async def test_a_place_in_line_goes_to_the_next(start_gateway: Start) -> None:
    """Else callers that gave up would be served, and those who still wait would not."""
    downstream = Hanging()
    async with desk(start_gateway, downstream) as served:
        async with raw_caller(served.port) as first, raw_caller(served.port) as third:
            await first.send(get("/desk/1"))
            await came(downstream.came)
            async with raw_caller(served.port) as second:
                await second.send(request("GET", "/desk/2"))
                await until_waiting(served, 1)
                await third.send(get("/desk/3"))
                await until_waiting(served, 2)
            await until_waiting(served, 1)
            downstream.finish.set()
            assert (await first.answer()).status == 200
            answer = await third.answer()
            assert (answer.status, answer.one("Breaker-Outcome")) == (200, "delayed")
        await served.until_outcomes("desk.read", {"forwarded": 1, "delayed": 1, "abandoned:hang_up": 1})


async def until_waiting(served: Served, count: int) -> None:
    key = f"brk:{served.cluster}:{{desk.read}}:calls"
    async with asyncio.timeout(5):
        while served.store.hlen(key) != count:
            await asyncio.sleep(0.002)


async def test_a_caller_that_leaves_in_the_middle_of_the_answer_frees_everything(
    start_gateway: Start,
) -> None:
    """A closed browser tab must not drain a big download for nobody."""
    left = asyncio.Event()

    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                await peer.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        finally:
            left.set()

    async with desk(start_gateway, endless) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(get("/desk/x"))
            await caller.head()
        await came(left)
        await served.until_outcomes("desk.read", {"abandoned:hang_up": 1})


@pytest.mark.parametrize("harshly", [False, True])
async def test_a_write_whose_answer_nobody_takes_is_counted(start_gateway: Start, *, harshly: bool) -> None:
    """The downstream has done its work; the caller stopped reading until everything stood still, and left."""
    pieces, size = 400, 80_000
    sent = 0

    async def big(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces * size))
        for _ in range(pieces):
            await peer.send(b"x" * size)
            sent += 1
        await peer.gone()

    async with desk(start_gateway, big) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(request("POST", "/desk/x", body=b"work"))
            await caller.head()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.1)
            assert 0 < sent < pieces
            if harshly:
                caller.reset()
        await served.until_outcomes("desk.write", {"abandoned:hang_up": 1})
        assert sent == pieces


async def test_a_caller_that_leaves_in_the_middle_of_its_upload_breaks_it_off(start_gateway: Start) -> None:
    """The downstream must not take half of a body for a whole one."""
    broken = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        with contextlib.suppress(ConnectionError):
            while data := await peer.reader.read(65_536):
                assert b"0\r\n\r\n" not in data
        broken.set()

    async with desk(start_gateway, script) as served:
        async with raw_caller(served.port) as caller:
            await caller.send(chunked("POST", "/desk/x", b"one").removesuffix(b"0\r\n\r\n"))
            await served.until_slots("desk.write", 1)
        await came(broken)
        await until_one(served, "desk.write")
        assert (await served.outcomes("desk.write")).keys() <= {"abandoned:hang_up", "failed:bad-request"}


async def until_one(served: Served, operation: str) -> None:
    async with asyncio.timeout(5):
        while sum((await served.outcomes(operation)).values()) != 1:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("method", "outcome"), [("GET", "failed"), ("POST", "unknown")])
async def test_a_downstream_that_hangs_is_a_timeout(start_gateway: Start, method: str, outcome: str) -> None:
    """Whoever charges a card must be told that it may have been charged."""
    downstream = Hanging()
    fields = {"downstream": {"timeout": f"{TIMEOUT_MS}ms"}}
    async with desk(start_gateway, downstream, **fields) as served:
        answer = await ask(served.port, request(method, "/desk/x", body=b""))
        assert (answer.status, answer.kind) == (504, "downstream-timeout")
        assert answer.one("Breaker-Outcome") == outcome
        await came(downstream.gone)
        operation = "desk.read" if method == "GET" else "desk.write"
        await served.until_outcomes(operation, {f"{outcome}:downstream-timeout": 1})


@pytest.mark.parametrize(("method", "outcome"), [("GET", "failed"), ("POST", "unknown")])
async def test_the_callers_own_deadline_ends_the_call(
    start_gateway: Start, method: str, outcome: str
) -> None:
    """It is told that it was its own, so that it looks for the cause in the right place."""
    downstream = Hanging()
    async with desk(start_gateway, downstream) as served:
        started = time.monotonic()
        answer = await ask(served.port, request(method, "/desk/x", "Request-Timeout: 0.2", body=b""))
        assert (answer.status, answer.kind) == (504, "deadline")
        assert answer.one("Breaker-Outcome") == outcome
        assert 0.15 < time.monotonic() - started < 2
        await came(downstream.gone)


async def test_the_callers_deadline_ends_its_wait_in_line(start_gateway: Start) -> None:
    """It never ran, and says so."""
    downstream = Hanging()
    async with desk(start_gateway, downstream) as served, raw_caller(served.port) as first:
        await first.send(get("/desk/1"))
        await came(downstream.came)
        answer = await ask(served.port, get("/desk/2", "Request-Timeout: 0.2"))
        assert (answer.status, answer.kind, answer.one("Breaker-Outcome")) == (504, "deadline", "refused")
        downstream.finish.set()
        assert (await first.answer()).status == 200
        await served.until_outcomes("desk.read", {"forwarded": 1, "refused:deadline": 1})


def then_reset(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        peer.reset()

    return script


@pytest.mark.parametrize(
    ("method", "kind", "status"), [("GET", "downstream-unreachable", 502), ("POST", "outcome-unknown", 504)]
)
@pytest.mark.parametrize(
    "said",
    [(), (b"HTTP/1.1 200 OK\r\nContent-Le",), (b"SSH-2.0-OpenSSH_9\r\n",), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",)],
)  # fmt: skip
async def test_an_answer_that_never_came_whole_is_none(
    start_gateway: Start, method: str, kind: str, status: int, said: tuple[bytes, ...]
) -> None:
    """Nothing of it was passed on yet, so that the caller gets a clear word."""
    async with desk(start_gateway, then_reset(*said)) as served:
        answer = await ask(served.port, request(method, "/desk/x", body=b""))
        assert (answer.status, answer.kind) == (status, kind)
        outcome = "failed" if method == "GET" else "unknown"
        assert answer.one("Breaker-Outcome") == outcome
        await served.until_outcomes(
            "desk.read" if method == "GET" else "desk.write", {f"{outcome}:{kind}": 1}
        )


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_breaks_off_is_never_taken_for_a_whole_one(
    start_gateway: Start, framing: bytes
) -> None:
    """A truncated invoice list that looks complete loses money silently."""
    piece = b"x" * 70_000
    body = b"%x\r\n%b\r\n" % (len(piece), piece) if b"chunked" in framing else piece
    said = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(said)
        await came(sent)
        peer.reset()

    async with desk(start_gateway, script) as served, raw_caller(served.port) as caller:
        await caller.send(get("/desk/x"))
        head = await caller.head()
        sent.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.body(head)
        await served.until_outcomes("desk.read", {"failed:cut": 1})


async def test_a_body_that_drips_is_cut_at_the_timeout(start_gateway: Start) -> None:
    """It would hold a slot for ever."""

    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    async with (
        desk(start_gateway, drip, downstream={"timeout": f"{TIMEOUT_MS}ms"}) as served,
        raw_caller(served.port) as caller,
    ):
        await caller.send(get("/desk/x"))
        head = await caller.head()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.body(head)
        await served.until_outcomes("desk.read", {"failed:cut": 1})


async def test_an_answer_that_says_it_is_too_large_is_refused(start_gateway: Start) -> None:
    """Before a byte of it was passed on."""
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 140000\r\n\r\n"
    async with desk(start_gateway, answering(said), downstream={"max_response": "100KB"}) as served:
        answer = await ask(served.port, get("/desk/x"))
        assert (answer.status, answer.kind) == (502, "downstream-unreachable")
        assert "max_response" in answer.problem["detail"]
        await served.until_outcomes("desk.read", {"failed:downstream-unreachable": 1})


async def test_an_answer_that_becomes_too_large_breaks_off(start_gateway: Start) -> None:
    """Its head is out, so that only a visible break is honest."""
    chunk = b"%x\r\n%b\r\n" % (70_000, b"x" * 70_000)
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk)
        await came(begun)
        await peer.send(chunk, b"0\r\n\r\n")
        await peer.gone()

    async with (
        desk(start_gateway, script, downstream={"max_response": "100KB"}) as served,
        raw_caller(served.port) as caller,
    ):
        await caller.send(get("/desk/x"))
        head = await caller.head()
        begun.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.body(head)
        await served.until_outcomes("desk.read", {"failed:cut": 1})


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_downstream_that_is_not_there_was_never_called(start_gateway: Start, method: str) -> None:
    """So the outcome is known, also of a write."""
    async with raw_downstream(answering(HI)) as gone:
        url = gone.url
    async with desk(start_gateway, answering(HI), downstream={"url": url}) as served:
        answer = await ask(served.port, request(method, "/desk/x", body=b""))
        assert (answer.status, answer.kind) == (502, "downstream-unreachable")
        assert answer.one("Breaker-Outcome") == "failed"


async def test_a_downstream_that_speaks_no_tls_is_not_called(start_gateway: Start) -> None:
    """A misdirected connection must not carry what was meant to be secret."""
    async with raw_downstream(Peer.gone) as plain:
        url = plain.url.replace("http://", "https://")
        fields = {"downstream": {"url": url, "connect_timeout": "300ms"}}
        async with desk(start_gateway, answering(HI), **fields) as served:
            answer = await ask(served.port, request("POST", "/desk/x", body=b"secret"))
            assert answer.status in (502, 504)
            assert answer.one("Breaker-Outcome") == "failed"
