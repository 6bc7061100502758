"""
The plain floor in Python: an aiohttp server that forwards with an aiohttp client, and limits nothing.

It has no store, no limits, no keys and no log: what is above this figure pays for its features
with better machinery, what is below pays in calls.
"""

import os
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, TCPConnector, web

SESSION = web.AppKey("session", ClientSession)
HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding", "date", "server"}


async def forward(request: web.Request) -> web.Response:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    body = await request.read()
    path = request.path_qs.removeprefix("/billing")
    async with request.app[SESSION].request(request.method, path, data=body, headers=headers) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        return web.Response(body=await answer.read(), status=answer.status, headers=kept)


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(
        f"http://127.0.0.1:{os.environ['DOWNSTREAM']}", connector=TCPConnector(limit=256)
    ) as client:
        app[SESSION] = client
        yield


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/billing/{path:.*}", forward)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
