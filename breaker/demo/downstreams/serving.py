"""
Serving: the path of a call through a downstream, from arrival to the last byte.

    arrive    refused by a fault, or because the capacity is full
    work      in a task of its own, that goes on to its end when the caller hangs up, like a real system
    send      in the manner of the fault that hit the call
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

from aiohttp import web

from breaker.demo.downstreams.capacity import Capacity, ServiceTimes
from breaker.demo.downstreams.faults import Drip, Errors, Fault, Faults, Hang, Huge, Reset, RetryAfter, Slow
from breaker.demo.downstreams.record import Record
from breaker.demo.downstreams.reply import Reply

_CHUNK = b" " * 65_536
_SLOW = 2.0  # a call that took longer than so many times the mean is slow
NO_ANSWER = "no answer"


class Serving:
    """
    Takes the calls of one downstream to its workers.

    Args:
        name: `support`, `billing` or `onboarding`.
        capacity: Its workers.
        mean_s: Mean service time of a piece of work, in seconds.
        full: What a call gets that finds the capacity full; None when that cannot be.
        seed: Of service times and faults.

    """

    def __init__(
        self, *, name: str, capacity: Capacity, mean_s: float, full: Reply | None, seed: int
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.times = ServiceTimes(mean_s=mean_s, seed=seed)
        self.faults = Faults(seed=seed)
        self.record = Record(slow_after_s=_SLOW * mean_s)
        self._full = full
        self._working: set[asyncio.Task[Reply | None]] = set()

    async def answer(
        self, request: web.Request, reply: Reply, *, refused: bool = False
    ) -> web.StreamResponse:
        """Answer without any work: the call is wrong, or `refused` by a limit."""
        self.record.on_answer_at_once(request.headers.get("X-Request-Id"), reply.status, refused=refused)
        return reply.response()

    async def serve(
        self,
        request: web.Request,
        effect: Callable[[], Reply],
        *,
        held: AbstractContextManager[None] | None = None,
        share: float = 1.0,
        beside: bool = False,
    ) -> web.StreamResponse:
        """
        Take a call to a worker, and answer it.

        Args:
            request: Its body has been read.
            effect: What the worker does in the end; its reply is the answer.
            held: Entered before anything else can happen, left when the work is done.
            share: Of the service time that this kind of work takes; above 1 for work in bulk.
            beside: It takes no worker, and finds no capacity full.

        """
        fault = self.faults.draw()
        if isinstance(fault, RetryAfter):
            wait = {"Retry-After": str(fault.seconds)}
            busy = Reply(status=fault.status, content={"error": "come back later"}, headers=wait)
            return await self.answer(request, busy, refused=True)
        if not beside and self._full is not None and self.capacity.is_full(self.record.in_flight):
            return await self.answer(request, self._full, refused=True)

        self.record.on_start(request.headers.get("X-Request-Id"), beside=beside)
        ending = ExitStack()
        ending.enter_context(held or nullcontext())
        task = asyncio.create_task(self._work(fault, effect, ending, share, beside))
        # asyncio keeps only a weak reference to a task, and this one may outlive its caller.
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        try:
            reply = await asyncio.shield(task)
            if reply is None:
                _reset(request)
                return web.Response()
            return await _send(request, reply, fault)
        except (asyncio.CancelledError, ConnectionResetError):
            # aiohttp cancels the handler when the caller hangs up; the task goes on.
            self.record.on_abandon()
            raise

    async def _work(
        self, fault: Fault, effect: Callable[[], Reply], ending: ExitStack, share: float, beside: bool
    ) -> Reply | None:
        began, service_s = asyncio.get_running_loop().time(), self.times.draw() * share
        outcome = NO_ANSWER
        try:
            async with nullcontext() if beside else self.capacity.worker():
                reply = await self._do(fault, effect, service_s, beside)
            if reply is not None:
                outcome = str(reply.status)
            return reply
        finally:
            ending.close()
            # Work in bulk is as slow as its parts are, not as they are together.
            took_s = (asyncio.get_running_loop().time() - began) / max(1.0, share)
            self.record.on_finish(outcome, took_s=took_s, beside=beside)

    async def _do(
        self, fault: Fault, effect: Callable[[], Reply], service_s: float, beside: bool
    ) -> Reply | None:
        """What a worker does with a call; None when it never answers."""
        if isinstance(fault, Errors):
            return Reply(status=fault.status, content={"error": "internal error"})
        if beside:
            await asyncio.sleep(service_s)
        elif not await self.capacity.spend(service_s):
            return Reply(status=504, content={"error": "this took too long and was given up"})
        if isinstance(fault, Slow):
            await asyncio.sleep(fault.seconds)
        reply = effect()
        if isinstance(fault, Hang):
            await self.faults.wait_changed(fault.seconds)
            return None
        return reply


async def _send(request: web.Request, reply: Reply, fault: Fault) -> web.StreamResponse:
    if not isinstance(fault, Drip | Reset | Huge):
        return reply.response()
    if isinstance(fault, Reset) and fault.at == "start":
        _reset(request)
        return web.Response()
    body = reply.body()
    length = fault.bytes if isinstance(fault, Huge) else len(body)
    response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
    response.content_type = "application/json"
    response.content_length = length
    await response.prepare(request)
    if isinstance(fault, Huge):
        for sent in range(0, length, len(_CHUNK)):
            await response.write(_CHUNK[: length - sent])
    elif isinstance(fault, Drip):
        for at in range(len(body)):
            await asyncio.sleep(fault.seconds / len(body))
            await response.write(body[at : at + 1])
    else:
        await response.write(body[: len(body) // 2])
        _reset(request)
    return response


def _reset(request: web.Request) -> None:
    """End the connection with a TCP reset, not with an orderly end."""
    if request.transport is None:
        return
    connection = request.transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
