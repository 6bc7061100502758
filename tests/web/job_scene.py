"""
The scene of the tests of jobs: a real gateway with a queue, before a downstream that does what a test says.

`desk.work` is `POST /desk/tasks/{id}` with one slot and nothing that limits the pace, so that what cannot start
waits until a test lets the downstream answer.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, Received, raw_downstream
from tests.web.raw_caller import Answer, ask, request

WORK = "desk.work"
QUEUE: dict[str, Any] = {"start_within": "1m", "max_jobs": 100, "durability": "memory"}
PATIENCE_S = 10.0


def answer(
    status: int = 201,
    body: bytes = b'{"done": true}',
    *lines: str,
    media: str = "application/json",
) -> bytes:
    """A whole answer of a downstream."""
    head = [
        f"HTTP/1.1 {status} Told",
        f"Content-Type: {media}",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def header(received: Received, name: str) -> str | None:
    """The value of a header that stands once in a request, or None."""
    found = [
        value.strip()
        for key, _, value in (
            line.partition(":") for line in received.head.decode("latin-1").split("\r\n")[1:]
        )
        if key.lower() == name.lower()
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


@dataclass(slots=True)
class Desk:
    """
    A downstream.

    Attributes:
        seen: What it was sent, in order.
        answers: What it says to a request; None says nothing until the caller has gone.
        open: While it is set answers are given at once, else when it is set.

    """

    answers: Callable[[Received], bytes | None] = lambda _: answer()
    seen: list[Received] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, peer: Peer) -> None:
        while True:
            received = await peer.request()
            self.seen.append(received)
            self.changed.set()
            await self.open.wait()
            said = self.answers(received)
            if said is None:
                await peer.gone()
                return
            await peer.send(said)

    def of(self, name: str) -> list[Received]:
        """What it was sent on a path that ends so."""
        return [received for received in self.seen if received.head.split(b" ", 2)[1].endswith(name.encode())]

    async def until_seen(self, count: int) -> None:
        """Wait until it was sent so many requests."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.seen) < count:
                self.changed.clear()
                await self.changed.wait()


@dataclass(slots=True, kw_only=True)
class Scene:
    """A gateway that serves, and its downstream."""

    served: Served
    desk: Desk

    @property
    def store(self) -> Redis:
        return self.served.store

    async def call(self, path: str = "1", *lines: str, body: bytes = b"{}", method: str = "POST") -> Answer:
        """One call of the operation."""
        return await ask(
            self.served.port,
            request(method, f"/desk/tasks/{path}", *lines, body=body),
            is_head=method == "HEAD",
        )

    async def own(self, method: str, target: str, *lines: str) -> Answer:
        """One request to the gateway's own pages."""
        return await ask(self.served.port, request(method, target, *lines), is_head=method == "HEAD")

    async def queue(self, path: str = "1", *lines: str, body: bytes = b"{}") -> dict[str, Any]:
        """A job that is not waited for; what its 202 says."""
        told = await self.call(path, "Prefer: respond-async", *lines, body=body)
        assert told.status == 202, told
        return document(told)

    async def job(self, id_: str, *lines: str, wait: int = 0) -> dict[str, Any]:
        """A job as its caller sees it; with `wait` when it has ended."""
        told = await self.own("GET", f"/v1/jobs/{id_}" + (f"?wait={wait}" if wait else ""), *lines)
        assert told.status == 200, told
        return document(told)

    async def ended(self, id_: str) -> dict[str, Any]:
        """A job that has ended by now, or does soon."""
        found = await self.job(id_, wait=4)
        assert found["state"] not in ("scheduled", "queued", "held", "running"), found
        return found

    async def fill(self) -> None:
        """Use up the one slot: a job runs from now on, until `desk.open`."""
        self.desk.open.clear()
        count = len(self.desk.seen)
        await self.queue("filler")
        await self.desk.until_seen(count + 1)


def document(told: Answer) -> dict[str, Any]:
    """The JSON object that an answer is."""
    assert told.one("Content-Type") == "application/json", told
    found = json.loads(told.body)
    assert isinstance(found, dict)
    return found


def pipeline(url: str, *, queue: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The pipeline `desk`; `fields` are of its operation, `queue` of its queue."""
    work = {
        "match": "POST /tasks/{id}", "capacity": {"concurrency": 1}, "overflow": "queue", "retry": {"base": "1ms"},
        **fields, "queue": {**QUEUE, **(queue or {})},
    }  # fmt: skip
    other = {"match": "GET /other"}
    return {"team": "t", "downstream": {"url": url}, "operations": {"work": work, "other": other}}


@contextlib.asynccontextmanager
async def job_scene(
    start: Start,
    *,
    desk: Desk | None = None,
    queue: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    **fields: Any,
) -> AsyncIterator[Scene]:
    """
    A gateway and its downstream, which answers at once.

    Args:
        gateway: Fields of `gateway.yaml`, and `secrets`.

    """
    desk = desk or Desk()
    desk.open.set()
    async with raw_downstream(desk) as downstream:
        told = pipeline(downstream.url, queue=queue, **fields)
        async with start({"desk": told}, **(gateway or {})) as served:
            try:
                yield Scene(served=served, desk=desk)
            finally:
                desk.open.set()  # nothing that runs must hold the gateway's stop up
