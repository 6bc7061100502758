"""
The demonstration's callers, against a gateway that says what the test wants to hear.

For who reads the demonstration as an example of a caller: what it does with a 202, a 409, a lost job.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from breaker.demo.callers import Callers
from breaker.demo.followed import Job
from breaker.demo.orders import Order
from breaker.demo.traffic import Traffic

CHARGE = "billing.charge-invoice"
SINCE = "2026-11-22T01:00:00.000Z"
Answer = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def calling(answer: Answer) -> AsyncIterator[Callers]:
    """Callers of a server on loopback."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            callers = Callers(session, f"http://{host}:{port}", "demo1")
            yield callers
            for task in callers.following:
                task.cancel()
            await asyncio.gather(*callers.following, return_exceptions=True)
    finally:
        await runner.cleanup()


def order(key: str = "k-1", **more: Any) -> Order:
    return Order(
        operation=CHARGE, method="POST", path="/billing/invoices/i-1/charge", body={}, key=key,
        headers={"Idempotency-Key": key}, **more,
    )  # fmt: skip


def receipt(job: str, **headers: str) -> web.Response:
    body = {
        "id": job, "state": "queued", "band": "normal", "position": 3, "eta": {"p50_ms": 1_000, "p90_ms": 1_500},
    }  # fmt: skip
    return web.json_response(
        body, status=202, headers={"Breaker-Outcome": "queued", "Retry-After": "0", **headers}
    )


def page(state: str, status: int | None) -> web.Response:
    return web.json_response({"state": state, "attempts": 1, "since": SINCE, "status": status})


async def ended(callers: Callers) -> Job:
    await asyncio.gather(*callers.following)
    (job,) = callers.jobs.values()
    return job


async def test_a_queued_call_is_followed_to_its_end_and_not_sent_again() -> None:
    """A caller that polls its job needs no second call, and learns what the downstream said."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path_qs))
        if request.method == "POST":
            return receipt(f"{CHARGE}~1")
        return page("running", None) if len(asked) == 2 else page("succeeded", 200)

    async with calling(answer) as callers:
        await callers.place(order())
        job = await ended(callers)
        look = ("GET", f"/v1/jobs/{CHARGE}~1?wait=20")
        assert asked == [("POST", "/billing/invoices/i-1/charge"), look, look]
        assert (job.state, job.status, job.attempts, job.position) == ("succeeded", 200, 1, 3)
        assert (job.eta_p50_s, job.eta_p90_s, job.key) == (1.0, 1.5, "k-1")
        assert callers.effects(CHARGE) == {"k-1": True}


async def test_a_job_that_is_not_known_any_more_is_lost() -> None:
    """And said so in the verdict, instead of being waited for."""

    async def answer(request: web.Request) -> web.Response:
        return receipt(f"{CHARGE}~1") if request.method == "POST" else web.Response(status=404)

    async with calling(answer) as callers:
        await callers.place(order())
        job = await ended(callers)
        assert (job.state, job.is_ended) == ("", False)
        assert callers.effects(CHARGE) == {"k-1": None}


async def test_what_is_sent_twice_is_one_job() -> None:
    """The second call finds the first in the queue; nobody follows it twice."""
    keys, looks = [], []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            looks.append(request.path)
            return page("dead", 422)
        keys.append(request.headers["Idempotency-Key"])
        is_second = len(keys) == 2
        return receipt(f"{CHARGE}~1", **({"Idempotent-Replayed": "true"} if is_second else {}))

    async with calling(answer) as callers:
        await callers.place(order(is_sent_twice=True))
        await ended(callers)
        tally = callers.tallies[CHARGE]
        assert keys == ["k-1", "k-1"]
        assert looks == [f"/v1/jobs/{CHARGE}~1"]
        assert (tally.sent, tally.outcomes["queued"], tally.joined) == (2, 2, 1)
        assert callers.effects(CHARGE) == {"k-1": False}


async def test_work_in_progress_is_asked_for_again_when_the_ticket_says() -> None:
    """With the same key: the answer of the first call is kept for it."""
    answers = [
        web.json_response(
            {"type": "/docs#in-progress"}, status=409, headers={"Breaker-Outcome": "refused", "Retry-After": "0"}
        ),
        web.json_response({"status": "paid"}, headers={"Breaker-Outcome": "replayed"}),
    ]  # fmt: skip

    async def answer(_: web.Request) -> web.Response:
        return answers.pop(0)

    async with calling(answer) as callers:
        await callers.place(order())
        assert answers == []
        assert callers.tallies[CHARGE].refusals == {"in-progress": 1}
        assert callers.effects(CHARGE) == {"k-1": True}


async def test_a_conflict_without_a_ticket_is_final() -> None:
    """The invoice is paid: coming back would change nothing."""
    answers = [web.json_response({}, status=409, headers={"Breaker-Outcome": "forwarded"})]

    async def answer(_: web.Request) -> web.Response:
        return answers.pop(0)

    async with calling(answer) as callers:
        await callers.place(order())
        assert callers.tallies[CHARGE].sent == 1
        assert callers.effects(CHARGE) == {"k-1": False}


async def test_at_the_end_what_still_waits_is_looked_at_once_more() -> None:
    """Whoever stops early learns what is left, and that it is not lost."""
    looked, is_held = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return receipt(f"{CHARGE}~1")
        if request.query["wait"] == "20":
            looked.set()
            await is_held.wait()
        return page("queued", None)

    async with calling(answer) as callers:
        traffic = Traffic(callers, seconds=1)
        await callers.place(order())
        await looked.wait()
        stop = asyncio.Event()
        stop.set()
        await traffic.finish(stop, 60.0)
        (job,) = callers.jobs.values()
        assert (job.state, job.attempts, job.is_ended) == ("queued", 1, False)
        assert callers.following == set()
        is_held.set()
