"""A gateway with an operation for each method, and what its downstream was sent."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, RawDownstream, Received, Script, raw_downstream

MIB = 1_048_576
HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def pipeline(downstream: RawDownstream, **operations: Any) -> dict[str, Any]:
    """One operation per method on every path of one segment, besides those that are given."""
    plain = {method.lower(): {"match": f"{method} /{{name}}"} for method in METHODS}
    return {
        "desk": {"team": "t", "downstream": {"url": downstream.url}, "operations": {**plain, **operations}}
    }


class Seen:
    """A downstream's memory: every request, in order."""

    def __init__(self) -> None:
        self.requests: list[Received] = []

    def answering(self, *pieces: bytes) -> Script:
        async def script(peer: Peer) -> None:
            while True:
                self.requests.append(await peer.request())
                await peer.send(*pieces)

        return script

    @property
    def last(self) -> Received:
        return self.requests[-1]

    @property
    def line(self) -> str:
        return self.last.head.decode("latin-1").split("\r\n")[0]

    def headers(self, name: str) -> list[str]:
        """The values of one header of the last request, in order."""
        lines = [line.partition(": ") for line in self.last.head.decode("latin-1").split("\r\n")[1:]]
        return [value for given, _, value in lines if given.lower() == name.lower()]


@contextlib.asynccontextmanager
async def gateway_to(
    start: Start, script: Script, *, operations: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Served]:
    async with (
        raw_downstream(script) as downstream,
        start(pipeline(downstream, **(operations or {})), **settings) as served,
    ):
        yield served
