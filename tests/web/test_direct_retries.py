"""Which calls are tried again when their downstream fails, how often, and what their callers are told."""

import asyncio
import contextlib
import gc
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from breaker.core.events import CallRetried, Event, Result
from breaker.gateway.direct_retries import DirectRetries
from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, RawDownstream, Received, raw_downstream, until
from tests.web.raw_caller import ask, chunked, get, raw_caller, request

SOON = {"attempts": 3, "base": "1ms", "cap": "2ms"}
LONG = {
    "attempts": 3,
    "base": "60s",
    "cap": "60s",
}  # with a draw of nearly 1, a pause that no test sees the end of
DURATION = "breaker_call_duration_seconds_sum{operation=desk.get,"
METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS")
KEY = "Idempotency-Key: k-1"


def answer(status: int, *lines: str, body: bytes = b"") -> bytes:
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


HI = answer(200, body=b"hi")
SILENT = b""  # no answer until the gateway gives up
RESET = b"RST"


class Playing:
    """A downstream that gives one answer after the other, whoever asks, and then always the last one."""

    def __init__(self, *answers: bytes | tuple[bytes, ...]) -> None:
        self._answers = answers
        self.requests: list[Received] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            received = await peer.request()
            pieces = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(received)
            if pieces == SILENT:
                await peer.gone()
                return
            if pieces == RESET:
                peer.reset()
                return
            for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
                await peer.send(piece)
                await asyncio.sleep(0.005)  # a packet of its own

    def all(self, name: str) -> list[list[str]]:
        """The values of one header, of each request."""
        found = []
        for received in self.requests:
            lines = [line.partition(": ") for line in received.head.decode("latin-1").split("\r\n")[1:]]
            found.append([value for given, _, value in lines if given.lower() == name.lower()])
        return found


class Desk:
    """A gateway with one operation for each method on /desk/{name}, and what it told of retries."""

    def __init__(self, served: Served, downstream: RawDownstream) -> None:
        self.served, self.downstream = served, downstream
        self.port = served.port
        self.retried: list[CallRetried] = []
        assert served.process
        assert served.process._handler
        self.retries: DirectRetries = served.process._handler._path._retries
        emit = self.retries._emit

        def listen(event: Event) -> None:
            if isinstance(event, CallRetried):
                self.retried.append(event)
            emit(event)

        self.retries._emit = listen

    @property
    def reasons(self) -> list[Result]:
        return [event.reason for event in self.retried]

    def hang_ups(self) -> int:
        """Calls under way whose caller has gone."""
        assert self.served.process
        assert self.served.process._listener
        callers = self.served.process._listener._server.callers
        return sum(caller.call is not None and caller.call.reply.is_gone for caller in callers)

    async def until_pausing(self, count: int) -> None:
        """Wait until so many calls are between two attempts, in which they hold no slot."""
        async with asyncio.timeout(5):
            await until(lambda: sum(budget.retries for budget in self.retries._budgets.values()) == count)


@contextlib.asynccontextmanager
async def desk(
    start: Start, script: Any, *, retry: dict[str, Any] | None = SOON, timeout: str = "5s", **fields: Any
) -> AsyncIterator[Desk]:
    """In the end no slot may be held, and every place in the budget must have been given back."""
    operation: dict[str, Any] = {"max_wait": "0s", "linger": "0s", **fields}
    operation.setdefault("circuit", "off")  # what many failures do besides is told elsewhere
    if retry is not None:
        operation["retry"] = retry
    async with raw_downstream(script) as downstream:
        pipeline = {
            "team": "t", "downstream": {"url": downstream.url, "timeout": timeout},
            "operations": {
                method.lower(): {"match": f"{method} /{{name}}", **operation} for method in METHODS
            },
        }  # fmt: skip
        async with start({"desk": pipeline}) as served:
            found = Desk(served, downstream)
            yield found
            for method in METHODS:
                await served.until_slots(f"desk.{method.lower()}", 0)
            for budget in found.retries._budgets.values():
                assert (budget.calls, budget.retries) == (0, 0)


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """What other tests left behind takes longer to collect than the timeouts here."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def never_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause is as long as it can be."""
    monkeypatch.setattr(random, "random", lambda: 0.999)


async def test_a_call_that_fails_twice_and_then_succeeds_is_one_success(start_gateway: Start) -> None:
    """The caller sees no blip, and the numbers show one call, and what it took."""
    down = Playing(answer(500), answer(503), HI)
    async with desk(start_gateway, down, capacity={"concurrency": 1}) as found:
        said = await ask(found.port, get("/desk/x"))
        assert (said.status, said.body, said.one("Breaker-Outcome")) == (200, b"hi", "forwarded")
        assert len(down.requests) == 3
        assert found.reasons == [Result.SERVER_ERROR, Result.SERVER_ERROR]
        assert {event.operation for event in found.retried} == {"desk.get"}
        await found.served.until_outcomes("desk.get", {"forwarded": 1})
        metrics = await found.served.metrics()
        assert metrics["breaker_downstream_calls_total{operation=desk.get,result=ok}"] == 1


async def test_after_the_last_attempt_its_answer_is_the_callers(start_gateway: Start) -> None:
    """`attempts` counts the first one, and what the downstream says in the end is not replaced by words of ours."""
    down = Playing(answer(500, body=b"1"), answer(502, body=b"2"), answer(503, "X-Why: rest", body=b"3"), HI)
    async with desk(start_gateway, down) as found:
        said = await ask(found.port, get("/desk/x"))
        assert (said.status, said.body, said.one("X-Why")) == (503, b"3", "rest")
        assert said.one("Breaker-Outcome") == "forwarded"
        assert len(down.requests) == 3
        await found.served.until_outcomes("desk.get", {"forwarded": 1})


async def test_only_what_may_be_another_answer_next_time_is_asked_again(start_gateway: Start) -> None:
    """A mistake of the caller stays one, and a method that is not implemented will not be in a second."""
    again = (500, 502, 503, 504, 505, 599)
    final = (200, 302, 400, 404, 408, 409, 425, 429, 499, 501)
    asked: Counter[bytes] = Counter()

    async def script(peer: Peer) -> None:
        while True:
            path = (await peer.request()).head.split(b" ")[1]
            asked[path] += 1
            await peer.send(answer(int(path[1:])) if asked[path] == 1 else HI)

    async with desk(start_gateway, script) as found:
        said = {status: (await ask(found.port, get(f"/desk/{status}"))).status for status in again + final}
    assert said == dict.fromkeys(again, 200) | {status: status for status in final}
    assert asked == {f"/{status}".encode(): 2 if status in again else 1 for status in again + final}


async def test_a_call_that_may_do_harm_twice_is_sent_once(start_gateway: Start) -> None:
    """A second charge is worse than a failed one; with a key the downstream can tell them apart."""
    asked: Counter[bytes] = Counter()

    async def script(peer: Peer) -> None:
        while True:
            head = (await peer.request()).head
            asked[head.split(b" ")[1]] += 1
            is_first = asked[head.split(b" ")[1]] == 1
            await peer.send(answer(503) if is_first else b"HTTP/1.1 204 No Content\r\n\r\n")

    async with desk(start_gateway, script) as found:
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
            sent = request(method, f"/desk/{method}", body=b"{}" if method == "PUT" else None)
            assert (await ask(found.port, sent, is_head=method == "HEAD")).status == 204, method
        for line, status in (("X: y", 503), ("Idempotency-Key:", 503), (KEY, 204)):
            sent = request("POST", f"/desk/POST-{status}-{len(line)}", line, body=b"{}")
            assert (await ask(found.port, sent)).status == status, line
    assert sorted(asked.values()) == [1, 1, 2, 2, 2, 2, 2, 2]


async def test_a_further_attempt_is_the_same_request_and_says_which_it_is(start_gateway: Start) -> None:
    """The downstream finds its key and body again, and can drop repeated work first when it is short of room."""
    down = Playing(answer(500), answer(500), HI)
    async with desk(start_gateway, down) as found:
        lines = (KEY, "X-Request-Id: request-1", "Breaker-Attempt: 7")
        await ask(found.port, request("POST", "/desk/x?a=1", *lines, body=b"work"))
        assert down.all("Breaker-Attempt") == [["7"], ["2"], ["3"]]
        assert down.all("Idempotency-Key") == [["k-1"]] * 3
        assert down.all("X-Request-Id") == [["request-1"]] * 3
        assert {(sent.head.split(b"\r\n")[0], sent.body) for sent in down.requests} == {
            (b"POST /x?a=1 HTTP/1.1", b"work")
        }


async def test_a_short_body_that_comes_late_is_sent_again(start_gateway: Start) -> None:
    """Many clients send head and body in two packets; whether a call is repeated must not depend on that."""
    down = Playing(answer(500), HI)
    async with desk(start_gateway, down) as found, raw_caller(found.port) as caller:
        whole = request("PUT", "/desk/x", body=b"work")
        await caller.send(whole[:-4])
        async with asyncio.timeout(5):  # it is being forwarded, and has no body yet
            await until(lambda: any(budget.calls for budget in found.retries._budgets.values()))
        await caller.send(b"wo")
        await caller.send(b"rk")
        assert (await caller.answer()).status == 200
        assert [sent.body for sent in down.requests] == [b"work", b"work"]


async def test_a_body_that_is_here_is_sent_again_however_it_came(start_gateway: Start) -> None:
    """What was read once is gone from the connection; an empty second request would be a wrong one."""
    down = Playing(answer(500), answer(500), HI)
    async with desk(start_gateway, down) as found:
        assert (await ask(found.port, chunked("PUT", "/desk/x", b"wo", b"rk"))).status == 200
        assert [sent.body for sent in down.requests] == [b"work"] * 3


async def test_a_body_of_unknown_length_on_its_way_is_sent_once(start_gateway: Start) -> None:
    """It is passed on as it comes, and kept nowhere."""
    down = Playing(answer(500), HI)
    async with desk(start_gateway, down) as found, raw_caller(found.port) as caller:
        sent = chunked("PUT", "/desk/x", b"wo", b"rk")
        await caller.send(sent[:-5])
        async with asyncio.timeout(5):
            await until(lambda: any(budget.calls for budget in found.retries._budgets.values()))
        await caller.send(sent[-5:])
        assert (await caller.answer()).status == 500
        assert [sent.body for sent in down.requests] == [b"work"]


async def test_a_downstream_can_say_never(start_gateway: Start) -> None:
    """It knows best what is no use, or not safe."""
    down = Playing(answer(503, "breaker-retry: Never"), HI)
    async with desk(start_gateway, down) as found:
        assert (await ask(found.port, get("/desk/x"))).status == 503
        assert len(down.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_downstream_that_asks_for_time_gets_it(start_gateway: Start, status: int) -> None:
    """Asking sooner would be one more useless call; and of the deadline only what is left is passed on."""
    down = Playing(answer(status, "Retry-After: 1"), HI)
    async with desk(start_gateway, down, timeout="20s", max_wait="5s") as found:
        started = time.monotonic()
        said = await ask(found.port, get("/desk/x", "Request-Timeout: 10"))
        took = time.monotonic() - started
        assert said.status == 200
        assert took >= 1.0
        assert found.reasons == [Result.SLOW_DOWN]
        assert down.all("Request-Timeout") == [["9"], ["8"]]
        await found.served.until_outcomes("desk.get", {said.one("Breaker-Outcome"): 1})
        metrics = await found.served.metrics()
        (duration_s,) = [value for name, value in metrics.items() if name.startswith(DURATION)]
        assert duration_s >= 1.0
        assert metrics["breaker_downstream_duration_seconds_sum{operation=desk.get}"] < 0.9


@pytest.mark.parametrize("status", [429, 503])
async def test_a_moment_behind_the_deadline_is_the_callers_to_wait_for(
    start_gateway: Start, status: int
) -> None:
    """It is told at once, while it can still do something else."""
    down = Playing(answer(status, "Retry-After: 3"), HI)
    async with desk(start_gateway, down) as found:
        started = time.monotonic()
        said = await ask(found.port, get("/desk/x", "Request-Timeout: 2.5"))
        assert time.monotonic() - started < 2.0
        assert (said.status, said.one("Retry-After"), len(down.requests)) == (status, "3", 1)


@pytest.mark.usefixtures("never_soon")
@pytest.mark.parametrize("bound", ["for", "deadline"])
async def test_a_pause_that_would_end_too_late_is_not_begun(start_gateway: Start, bound: str) -> None:
    """The caller learns of the failure now, and not of a deadline later."""
    down = Playing(answer(500, body=b"why"), HI)
    retry = LONG | {"for": "50s"} if bound == "for" else LONG
    async with desk(start_gateway, down, retry=retry) as found:
        lines = ["Request-Timeout: 50"] if bound == "deadline" else []
        said = await ask(found.port, get("/desk/x", *lines))
        assert (said.status, said.body, len(down.requests)) == (500, b"why", 1)


async def test_a_timeout_is_tried_again_while_time_is_left(start_gateway: Start) -> None:
    """`downstream.timeout` ends an attempt, not the call."""
    down = Playing(SILENT, HI)
    async with desk(start_gateway, down, timeout="200ms") as found:
        assert (await ask(found.port, get("/desk/x"))).status == 200
        assert found.reasons == [Result.TIMEOUT]
        await found.served.until_outcomes("desk.get", {"forwarded": 1})


async def test_the_deadline_ends_it_all(start_gateway: Start) -> None:
    """A caller that said how long it waits is not kept longer, however many attempts there are."""
    down = Playing(SILENT)
    async with desk(start_gateway, down, timeout="700ms") as found:
        started = time.monotonic()
        said = await ask(found.port, get("/desk/x", "Request-Timeout: 0.9"))
        assert 0.9 <= time.monotonic() - started < 1.4
        assert (said.status, said.kind, len(down.requests)) == (504, "deadline", 2)
        await found.served.until_outcomes("desk.get", {"failed:deadline": 1})


async def test_for_ends_further_attempts(start_gateway: Start) -> None:
    """Whoever configures 2 s for all attempts does not get 2 s and one more timeout."""
    down = Playing(SILENT)
    async with desk(start_gateway, down, timeout="700ms", retry=SOON | {"for": "900ms"}) as found:
        started = time.monotonic()
        assert (await ask(found.port, get("/desk/x"))).kind == "downstream-timeout"
        assert 0.9 <= time.monotonic() - started < 1.4
        assert len(down.requests) == 2


async def test_for_does_not_cut_the_first_attempt_short(start_gateway: Start) -> None:
    """Without retries it would have had its whole timeout; they must not make a call fail sooner."""
    down = Playing(SILENT)
    async with desk(start_gateway, down, timeout="400ms", retry=SOON | {"for": "100ms"}) as found:
        started = time.monotonic()
        assert (await ask(found.port, get("/desk/x"))).kind == "downstream-timeout"
        assert time.monotonic() - started >= 0.4
        assert len(down.requests) == 1


async def test_what_cannot_be_reached_is_tried_as_often_and_fails_once(start_gateway: Start) -> None:
    """A restart of the downstream takes seconds, and each call that fails is counted as one."""
    async with desk(start_gateway, Playing(HI)) as found:
        found.downstream.stop()
        said = await ask(found.port, get("/desk/x"))
        assert (said.status, said.kind) == (502, "downstream-unreachable")
        assert found.reasons == [Result.CONNECT_ERROR, Result.CONNECT_ERROR]
        await found.served.until_outcomes("desk.get", {"failed:downstream-unreachable": 1})


async def test_an_answer_that_breaks_off_before_its_head_is_tried_again(start_gateway: Start) -> None:
    """A replica of the downstream that dies takes no caller with it."""
    down = Playing(RESET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", HI)
    async with desk(start_gateway, down, timeout="200ms") as found:
        assert (await ask(found.port, get("/desk/x"))).body == b"hi"
        assert found.reasons == [Result.SERVER_ERROR, Result.TIMEOUT]


async def test_nothing_is_tried_again_once_its_answer_has_begun(start_gateway: Start) -> None:
    """Two beginnings of an answer in one would be a wrong answer."""
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"

    async def script(peer: Peer) -> None:
        await down(peer)

    down = Playing(begun)
    async with desk(start_gateway, script, timeout="200ms") as found, raw_caller(found.port) as caller:
        await caller.send(get("/desk/x"))
        with pytest.raises(asyncio.IncompleteReadError):
            await caller.answer()
        assert len(down.requests) == 1
        await found.served.until_outcomes("desk.get", {"failed:cut": 1})


async def test_a_failure_that_comes_in_chunks_is_tried_again(start_gateway: Start) -> None:
    """Whether a call is repeated must not depend on how a downstream frames its errors, or how they are cut."""
    head = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n"
    down = Playing((head, b"2\r\nno\r\n", b"0\r\n\r\n"), HI)
    async with desk(start_gateway, down) as found:
        assert (await ask(found.port, get("/desk/x"))).status == 200
        assert len(down.requests) == 2


async def test_a_failure_with_a_long_body_passes_as_it_comes(start_gateway: Start) -> None:
    """It is not kept in memory for the chance of another attempt, and not a byte of it is lost."""
    chunks = [bytes([65 + number]) * 20_000 for number in range(8)]
    framed = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    down = Playing((b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", *framed, b"0\r\n\r\n"), HI)
    async with desk(start_gateway, down) as found:
        said = await ask(found.port, get("/desk/x"))
        assert (said.status, said.body, len(down.requests)) == (500, b"".join(chunks), 1)


async def test_once_an_attempt_may_have_had_its_effect_the_call_may_have(start_gateway: Start) -> None:
    """That the last attempt was not even connected says nothing of the one that timed out before."""
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        found.downstream.stop()
        await peer.gone()

    async with desk(start_gateway, script, timeout="200ms") as found:
        said = await ask(found.port, request("POST", "/desk/x", KEY, body=b"pay"))
        assert (said.status, said.kind, said.one("Breaker-Outcome")) == (504, "outcome-unknown", "unknown")
        assert found.reasons == [Result.TIMEOUT, Result.CONNECT_ERROR]
        assert len(seen) == 1
        await found.served.until_outcomes("desk.post", {"unknown:outcome-unknown": 1})


async def test_a_call_that_is_refused_on_its_way_back_gets_the_failure(start_gateway: Start) -> None:
    """Limits hold for attempts as for calls; but the caller asked once, and it was its downstream that failed."""
    down = Playing(answer(500, body=b"why"), HI)
    async with desk(start_gateway, down, capacity={"rate": "1/min", "burst": 1}) as found:
        said = await ask(found.port, get("/desk/x"))
        assert (said.status, said.body, said.one("Breaker-Outcome")) == (500, b"why", "forwarded")
        assert (len(down.requests), found.reasons) == (1, [])
        await found.served.until_outcomes("desk.get", {"forwarded": 1})


async def test_a_further_attempt_waits_for_its_turn_like_any_start(start_gateway: Start) -> None:
    """Its slot was given back before the pause, so whoever waited has it now."""
    order: list[bytes] = []
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.request()
            order.append(received.head.split(b" ")[1])
            if order == [b"/first"]:
                await until_waiting(found.served, 1)
                await peer.send(answer(500))
            elif order[-1] == b"/second":
                await release.wait()
                await peer.send(HI)
            else:
                await peer.send(HI)

    async with (
        desk(start_gateway, script, capacity={"concurrency": 1}, max_wait="5s") as found,
        raw_caller(found.port) as first,
        raw_caller(found.port) as second,
    ):
        await first.send(get("/desk/first"))
        async with asyncio.timeout(5):
            await until(lambda: bool(order))
        await second.send(get("/desk/second"))
        async with asyncio.timeout(5):
            await until(lambda: order[-1] == b"/second")
        await until_waiting(found.served, 1)
        assert found.served.slots("desk.get") == 1
        release.set()
        assert (await second.answer()).status == 200
        said = await first.answer()
        assert (said.status, said.one("Breaker-Outcome")) == (200, "delayed")
        assert order == [b"/first", b"/second", b"/first"]


async def test_an_attempt_that_may_still_run_keeps_its_slot_beside_the_next(start_gateway: Start) -> None:
    """The downstream may not have noticed that its time was up, and then works on both."""
    slots: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        slots.append(found.served.slots("desk.get"))
        await (peer.gone() if len(slots) == 1 else peer.send(HI))

    limits = {"concurrency": 2}
    async with desk(start_gateway, script, timeout="300ms", linger="1s", capacity=limits) as found:
        assert (await ask(found.port, get("/desk/x"))).status == 200
        assert slots == [1, 2]


async def until_waiting(served: Served, count: int) -> None:
    key = f"brk:{served.cluster}:{{desk.get}}:calls"
    async with asyncio.timeout(5):
        while served.store.hlen(key) != count:
            await asyncio.sleep(0.002)


@pytest.mark.usefixtures("never_soon")
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_caller_that_hangs_up_in_a_pause_ends_its_call(start_gateway: Start, method: str) -> None:
    """Nothing is under way that had to be finished, so nothing is begun for nobody; and no slot was held."""
    down = Playing(answer(500))
    operation = f"desk.{method.lower()}"
    async with desk(start_gateway, down, retry=LONG, capacity={"concurrency": 1}) as found:
        async with raw_caller(found.port) as caller:
            await caller.send(request(method, "/desk/x"))
            await found.until_pausing(1)
            await found.served.until_slots(operation, 0)
        await found.served.until_outcomes(operation, {"abandoned:hang_up": 1})
        assert (len(down.requests), found.reasons) == (1, [])


async def test_a_call_whose_caller_has_gone_is_not_tried_again(start_gateway: Start) -> None:
    """A write is finished for a caller that hung up, but what failed then is not begun anew for nobody."""
    came, fail = asyncio.Event(), asyncio.Event()
    seen: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            came.set()
            await fail.wait()
            await peer.send(answer(500))

    async with desk(start_gateway, script) as found:
        async with raw_caller(found.port) as caller:
            await caller.send(request("PUT", "/desk/x", body=b"work"))
            await asyncio.wait_for(came.wait(), 5)
        async with asyncio.timeout(5):
            await until(lambda: found.hang_ups() == 1)
        fail.set()
        await found.served.until_outcomes("desk.put", {"abandoned:hang_up": 1})
        assert len(seen) == 1


@pytest.mark.usefixtures("never_soon")
async def test_few_calls_at_once_are_tried_again(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downstream that fails everybody gets little more than its calls; the others learn of it at once."""
    down = Playing(answer(500))
    async with desk(start_gateway, down, retry=LONG) as found:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(1, 4):
                pausing = await stack.enter_async_context(raw_caller(found.port))
                await pausing.send(get("/desk/x"))
                await found.until_pausing(number)
            assert (await ask(found.port, get("/desk/x"))).status == 500
            assert (await ask(found.port, get("/desk/x"))).status == 500
            assert (await ask(found.port, request("POST", "/desk/x"))).status == 500
            assert len(down.requests) == 6
        await found.served.until_outcomes("desk.get", {"forwarded": 2, "abandoned:hang_up": 3})
        await found.until_pausing(0)
        monkeypatch.setattr(random, "random", lambda: 0.0)
        assert (await ask(found.port, get("/desk/x"))).status == 500
        assert len(down.requests) == 9


@pytest.mark.parametrize("status", [500, 503])
async def test_an_operation_that_does_not_say_retry_repeats_nothing(
    start_gateway: Start, status: int
) -> None:
    """Whoever calls may repeat it already, and one layer that does is enough."""
    down = Playing(answer(status), HI)
    async with desk(start_gateway, down, retry=None) as found:
        assert (await ask(found.port, get("/desk/x"))).status == status
        assert len(down.requests) == 1
        assert found.retries._budgets == {}


async def test_callers_in_haste_do_not_open_the_circuit(start_gateway: Start) -> None:
    """Their deadline is their own: a downstream that takes its usual time is not ill."""
    down = Playing(SILENT)
    circuit = {"min_calls": 3, "window": "10s"}
    async with desk(start_gateway, down, retry=None, circuit=circuit, timeout="30s") as found:
        for _ in range(5):
            told = await ask(found.port, get("/desk/x", "Request-Timeout: 1"))
            assert told.status == 504
        assert len(down.requests) == 5
