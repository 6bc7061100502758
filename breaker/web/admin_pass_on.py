"""
Passing on: the parent of several workers has no store of its own, so a worker answers for it.

Who asks has been found out here; the worker is told the name, and trusts the parent (see `operators.py`).
"""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import aiohttp
from aiohttp import web

from breaker.web.admin_problems import AdminProblem
from breaker.web.operators import PERSON

CONNECT_S = 2.0
CHUNK = 65_536


def pass_on(sockets: Callable[[], Iterable[Path]]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """
    A handler that lets the first worker answer that can be reached.

    Args:
        sockets: The admin sockets of the workers, in the file system.

    """

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Breaker-Author": request[PERSON].id}
        if "Content-Type" in request.headers:
            headers["Content-Type"] = request.headers["Content-Type"]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        for socket in sockets():
            connector = aiohttp.UnixConnector(str(socket))
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                try:
                    answer = await session.request(
                        request.method, f"http://worker{request.path_qs}", headers=headers, data=body or None
                    )
                except aiohttp.ClientConnectorError:
                    continue  # it is being started again; nothing was sent, so another may be asked
                except aiohttp.ClientError as exc:
                    raise AdminProblem(
                        503, f"the worker broke off: {exc}; look before you repeat it"
                    ) from exc
                return await copied(request, answer)
        raise AdminProblem(503, "no worker can be reached; try again in a moment")

    return handler


async def copied(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """The worker's answer, as it comes. When our own caller leaves, the worker's work ends too."""
    names = ("Content-Type", "Cache-Control", "X-Accel-Buffering", "Allow")
    headers = {name: answer.headers[name] for name in names if name in answer.headers}
    response = web.StreamResponse(status=answer.status, headers=headers)
    async with answer:
        await response.prepare(request)
        try:
            async for part in answer.content.iter_any():
                await response.write(part)
        except aiohttp.ClientError:
            # Half an answer must not look like a whole one.
            if request.transport is not None:
                request.transport.abort()
            return response
    await response.write_eof()
    return response
