"""
A gateway whose calls are tried again, before a downstream that fails as it is told.

Garbage is not collected while it runs: what other tests left behind takes longer to collect than the timeouts here.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

from breaker.core.events import CallRetried, Event, Result
from breaker.gateway.direct_retries import DirectRetries
from tests.gateway.gateway_process import Served, Start
from tests.gateway.raw_downstream import Peer, RawDownstream, Received, raw_downstream, until

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
            gc.disable()
            try:
                yield found
            finally:
                gc.enable()
            for method in METHODS:
                await served.until_slots(f"desk.{method.lower()}", 0)
            for budget in found.retries._budgets.values():
                assert (budget.calls, budget.retries) == (0, 0)
