"""
Load: callers on raw sockets, who know exactly what happened to each of their calls.

An HTTP library would retry, pool and close behind our back, and that is what is tested here.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    How one call ended.

    Attributes:
        status: 0 when there was no answer.
        kind: The problem type of an answer of the gateway's own; `broken` without any answer.
        began, ended: Monotonic seconds.

    """

    status: int
    kind: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Caller:
    """
    One caller with one connection, and the addresses of all gateways.

    It goes to the next gateway when a connection is refused, or was closed before anything was
    sent on it. Once a call was sent, whatever happens is that call's end.
    """

    def __init__(self, addresses: Sequence[Address], first: int = 0) -> None:
        self._addresses = itertools.islice(itertools.cycle(addresses), first % len(addresses), None)
        self._tries = 2 * len(addresses)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, path: str) -> Answer:
        began = time.monotonic()
        try:
            return await self._exchange(method, path, began)
        except (OSError, EOFError) as exc:
            self.close()
            return Answer(status=0, kind=f"broken: {exc!r}", began=began, ended=time.monotonic())

    async def _exchange(self, method: str, path: str, began: float) -> Answer:
        reader, writer = await self._connected()
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        status = int(status_line.split(" ")[1])
        kind = ""
        if headers.get("content-type", "").startswith("application/problem+json"):
            problem: dict[str, Any] = json.loads(body)
            kind = str(problem["type"]).rsplit("/", maxsplit=1)[-1].rsplit("#", maxsplit=1)[-1]
        return Answer(status=status, kind=kind, headers=headers, began=began, ended=time.monotonic())

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader and self._writer and not self._reader.at_eof() and not self._writer.is_closing():
            return self._reader, self._writer
        self.close()
        for _ in range(self._tries - 1):
            with contextlib.suppress(ConnectionRefusedError):
                return await self._connect()
        return await self._connect()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._reader, self._writer = await asyncio.open_connection(*next(self._addresses))
        return self._reader, self._writer

    def close(self) -> None:
        """Hang up, whatever is under way."""
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None


@dataclass(slots=True)
class Load:
    """What all callers met."""

    answers: list[Answer] = field(default_factory=list)
    hung_up: int = 0

    def counts(self) -> Counter[str]:
        return Counter(f"{answer.status} {answer.kind}".strip() for answer in self.answers)

    @property
    def failed(self) -> Counter[str]:
        """What is neither an answer of the downstream nor a refusal for want of capacity."""
        fine = ("200", "503 over-capacity", "429 tenant-limit")
        return Counter({what: number for what, number in self.counts().items() if what not in fine})


async def drive(
    addresses: Sequence[Address],
    path: str,
    *,
    seconds: float,
    per_second: float,
    callers: int,
    method: str = "POST",
    patience_s: Sequence[float] | None = None,
) -> Load:
    """
    So many callers offer so many calls a second, evenly spread.

    Args:
        patience_s: After one of these, in seconds, a caller hangs up; None waits for the answer.

    """
    load, dice = Load(), Random(5)
    begin = time.monotonic() + 0.05
    pause = callers / per_second

    async def one(number: int) -> None:
        caller = Caller(addresses, number)
        due = begin + number / per_second
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += pause
            if patience_s is None:
                load.answers.append(await caller.call(method, path))
                continue
            call = asyncio.ensure_future(caller.call(method, path))
            done, _ = await asyncio.wait([call], timeout=dice.choice(patience_s))
            if done:
                load.answers.append(call.result())
            else:
                call.cancel()
                caller.close()
                load.hung_up += 1
        caller.close()

    await asyncio.gather(*(one(number) for number in range(callers)))
    return load
