"""
Streams: work on many jobs tells how far it is while it goes on, one JSON object a line.

The work belongs to its connection. When that ends, or this gateway stops, the work stops where it is:
what is done stays done, the rest is as it was, and asking again goes on with the rest.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

import orjson
from aiohttp import web

from breaker.core.errors import StoreError
from breaker.core.jobs import JobHead, JobState
from breaker.store.job_desk import JobDesk
from breaker.web.admin_audit import Change
from breaker.web.admin_listing import walk
from breaker.web.admin_scope import Scope

LINE_EVERY_S = 0.2  # what comes faster is left out, but for the last line
DONE, COUNTED, STOPPED = "done", "counted", "stopped"
LAST = frozenset({DONE, COUNTED, STOPPED})

STOPPING = web.AppKey("stopping", asyncio.Event)

Line = dict[str, Any]


async def stream(
    request: web.Request, change: Change | None, lines: AsyncGenerator[Line, None]
) -> web.StreamResponse:
    """
    Do the work of which these lines tell, as long as somebody listens.

    Args:
        change: Gets the last line as its outcome; None when nothing is changed.

    """
    stopping = request.config_dict[STOPPING]
    loop = asyncio.get_running_loop()
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    line: Line = {}
    next_s = 0.0
    try:
        async with aclosing(lines):
            async for line in lines:
                if line["stage"] in LAST or stopping.is_set():
                    break
                if loop.time() >= next_s:
                    await response.write(orjson.dumps(line) + b"\n")
                    next_s = loop.time() + LINE_EVERY_S
    except StoreError as exc:
        line = {**line, "stage": STOPPED, "detail": f"the store was lost: {exc}; ask again for the rest"}
    except ConnectionError:
        line = {**line, "stage": STOPPED, "detail": "the connection ended"}
        if change:
            change.outcome = in_words(line)
        return response
    if line["stage"] not in LAST:
        line = {**line, "stage": STOPPED, "detail": "this gateway is stopping: ask again for the rest"}
    if change:
        change.outcome = in_words(line)
    with suppress(ConnectionError):  # it is done, whether or not somebody still listens
        await response.write(orjson.dumps(line) + b"\n")
        await response.write_eof()
    return response


def in_words(line: Line) -> str:
    """`stopped: done 4, total 10 (the connection ended)`."""
    numbers = ", ".join(f"{name} {value}" for name, value in line.items() if isinstance(value, int))
    detail = f" ({line['detail']})" if line.get("detail") else ""
    return f"{line.get('stage', STOPPED)}: {numbers or 'nothing yet'}{detail}"


async def count(desk: JobDesk, scope: Scope, states: Sequence[JobState]) -> AsyncGenerator[Line, None]:
    """How many jobs there are to do; the last line's `total` is the answer."""
    total = 0
    async for heads in walk(desk, scope.operation, states, scope.only):
        total += len(heads)
        yield {"stage": "counting", "done": 0, "total": total}
    yield {"stage": COUNTED, "done": 0, "total": total}


async def each(
    desk: JobDesk,
    scope: Scope,
    states: Sequence[JobState],
    *,
    stage: str,
    act: Callable[[JobHead], Awaitable[bool]],
) -> AsyncGenerator[Line, None]:
    """
    Do the same with each job that is meant, a step at a time; or only count them.

    Args:
        stage: What is being done, for the lines.
        act: False when there was nothing to do any more.

    """
    total = done = skipped = 0
    async for line in count(desk, scope, states):
        total = line["total"]
        if scope.is_dry or line["stage"] != COUNTED:
            yield line
    if scope.is_dry:
        return
    async for heads in walk(desk, scope.operation, states, scope.only):
        did = await asyncio.gather(*(act(head) for head in heads))
        done += sum(did)
        skipped += len(did) - sum(did)
        yield {"stage": stage, "done": done, "skipped": skipped, "total": total}
    yield {"stage": DONE, "done": done, "skipped": skipped, "total": total}
