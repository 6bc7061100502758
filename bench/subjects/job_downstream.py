"""
A downstream that notes when each job reaches it, and can keep them from ending.

In the harness' own process and on its event loop: what it measures are milliseconds and seconds.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(slots=True, kw_only=True)
class JobDownstream:
    """
    Attributes:
        starts: Unix times at which each job came, by its number.
        pickups: Seconds from due to arrival, of each arrival.
        may_end: While this is not set, jobs get no answer.
        changed: A job has come.
        open: Connections, with those who serve them.
    """

    port: int = 0
    starts: dict[int, list[float]] = field(default_factory=dict)
    pickups: list[float] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    open: dict[asyncio.StreamWriter, "asyncio.Task[None]"] = field(default_factory=dict)

    async def wait_for_starts(self, count: int, *, seconds: float) -> None:
        """
        Waits until so many jobs have come.

        Raises:
            TimeoutError: They did not.
        """
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: len(self.starts) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self.open[writer] = task
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                body = json.loads(await reader.readexactly(length))
                now = time.time()
                async with self.changed:
                    self.starts.setdefault(int(body["invoice"][-6:]), []).append(now)
                    self.pickups.append(now - float(body["customer"]))
                    self.changed.notify_all()
                await self.may_end.wait()
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the gateway has hung up, or was killed
        finally:
            writer.close()
            del self.open[writer]


@asynccontextmanager
async def job_downstream() -> AsyncIterator[JobDownstream]:
    """One that listens on a port of its own."""
    downstream = JobDownstream()
    server = await asyncio.start_server(downstream.serve, "127.0.0.1", 0)
    downstream.port = server.sockets[0].getsockname()[1]
    try:
        yield downstream
    finally:
        downstream.may_end.set()
        server.close()
        left = list(downstream.open.values())
        for writer in downstream.open:
            writer.close()
        await asyncio.gather(*left)
