"""What bounds further attempts: time, slots, turns, the budget, and callers who have gone."""

import asyncio
import contextlib
import random
import time

import pytest

from breaker.core.events import Result
from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, Received, until
from tests.web.raw_caller import ask, get, raw_caller, request
from tests.web.retry_scene import (
    DURATION,
    HI,
    LONG,
    SILENT,
    SOON,
    Playing,
    answer,
    desk,
)


@pytest.fixture
def never_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause is as long as it can be."""
    monkeypatch.setattr(random, "random", lambda: 0.999)


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


async def test_callers_in_haste_do_not_open_the_circuit(start_gateway: Start) -> None:
    """Their deadline is their own: a downstream that takes its usual time is not ill."""
    down = Playing(SILENT)
    circuit = {"min_calls": 3, "window": "10s"}
    async with desk(start_gateway, down, retry=None, circuit=circuit, timeout="30s") as found:
        for _ in range(5):
            told = await ask(found.port, get("/desk/x", "Request-Timeout: 1"))
            assert told.status == 504
        assert len(down.requests) == 5
