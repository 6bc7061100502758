"""A caller that named a place is told there of the end of its job, in a way that it can trust."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.gateway.gateway_process import Start
from tests.gateway.raw_downstream import Peer, Received, raw_downstream
from tests.web.job_scene import Desk, Scene, answer, document, job_scene

SECRET = "whsec_" + "bmljZSBhbmQgbG9uZyBzZWNyZXQgZm9yIGEgdGVzdA=="
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """A receiver of callbacks, and what it was told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Received] = asyncio.Queue()
        self.url = ""

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.told.put_nowait(await peer.request())
            await peer.send(TAKEN)

    async def next(self) -> dict[str, Any]:
        """The next event, once its signature was found right."""
        received = await asyncio.wait_for(self.told.get(), 10)
        lines = received.head.decode().split("\r\n")
        assert lines[0] == "POST /hook?token=1 HTTP/1.1"
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        event = Webhook(SECRET).verify(received.body, headers)
        assert event["id"] == headers["webhook-id"]
        assert headers["content-type"] == "application/cloudevents+json"
        assert event == json.loads(received.body)
        return dict(event)


@asynccontextmanager
async def told_scene(start: Start, desk: Desk) -> AsyncIterator[tuple[Scene, Receiver]]:
    receiver = Receiver()
    async with raw_downstream(receiver) as server:
        receiver.url = f"{server.url}/hook?token=1"
        callback = {"allow": [server.url], "secret_file": "../secrets/callbacks"}
        gateway = {"secrets": {"callbacks": SECRET}}
        async with job_scene(start, desk=desk, callback=callback, gateway=gateway) as scene:
            yield scene, receiver


@pytest.mark.parametrize(("status", "state"), [(201, "succeeded"), (422, "dead")])
async def test_the_end_of_a_job_is_told_signed(start_gateway: Start, status: int, state: str) -> None:
    """A caller need not ask; and nobody else can tell it that a payment succeeded."""
    async with told_scene(start_gateway, Desk(lambda _: answer(status))) as (scene, receiver):
        job = await scene.queue("1", f"Breaker-Callback: {receiver.url}")
        event = await receiver.next()
        assert (event["type"], event["subject"]) == (f"breaker.job.{state}", job["id"])
        assert (event["data"]["state"], event["data"]["status"]) == (state, status)
        assert event["data"]["links"]["job"] == job["links"]["self"]
        shown = await scene.job(job["id"])
        assert shown["state"] == state
        assert event["time"] == shown["since"]
        assert receiver.told.empty()


async def test_an_end_without_an_attempt_is_told_as_well(start_gateway: Start) -> None:
    """Every end is told, also that nothing was done."""
    async with told_scene(start_gateway, Desk()) as (scene, receiver):
        await scene.fill()
        job = document(await scene.call("1", f"Breaker-Callback: {receiver.url}"))
        assert (await scene.own("DELETE", job["links"]["self"])).status == 200
        started = time.monotonic()
        event = await receiver.next()
        assert time.monotonic() - started < 4, "it was found, not told"
        assert (event["type"], event["data"]["attempts"], event["data"]["status"]) == (
            "breaker.job.cancelled",
            0,
            None,
        )


async def test_nobody_is_called_but_whom_the_operation_allows(start_gateway: Start) -> None:
    """A gateway that calls wherever it is told is a way into the company's network."""
    async with told_scene(start_gateway, Desk()) as (scene, receiver):
        port = receiver.url.split(":")[2].split("/")[0]
        for url in (
            "https://hooks.example.com/", "http://127.0.0.1:1/hook", f"http://localhost:{port}/hook",
            f"https://127.0.0.1:{port}/hook", f"http://a@127.0.0.1:{port}/hook", "nowhere",
        ):  # fmt: skip
            told = await scene.call("1", f"Breaker-Callback: {url}")
            assert (told.status, told.kind) == (400, "bad-request"), url
        assert scene.desk.seen == []
        assert receiver.told.empty()


async def test_a_call_that_is_answered_directly_calls_nobody_back(start_gateway: Start) -> None:
    """Its caller has the answer; only jobs end behind its back."""
    async with told_scene(start_gateway, Desk()) as (scene, receiver):
        assert (await scene.call("1", f"Breaker-Callback: {receiver.url}")).status == 201
        job = await scene.queue("2", f"Breaker-Callback: {receiver.url}")
        assert (await receiver.next())["subject"] == job["id"]
        assert receiver.told.empty()
