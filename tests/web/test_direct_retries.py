"""Which calls are tried again when their downstream fails, and what their callers are told."""

import asyncio
from collections import Counter

import pytest

from breaker.core.events import Result
from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Peer, Received, until
from tests.web.raw_caller import ask, chunked, get, raw_caller, request
from tests.web.retry_scene import (
    HI,
    KEY,
    RESET,
    Playing,
    answer,
    desk,
)


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
