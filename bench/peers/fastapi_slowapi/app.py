"""
What a Python team would write: FastAPI, slowapi on Redis, one shared httpx client.

As the three manuals show it: the limit as a decorator, the client opened in the lifespan. Served
by uvicorn with uvloop and httptools, without its access log.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded

limiter = Limiter(key_func=lambda: "billing.charge", storage_uri=f"redis://127.0.0.1:{os.environ['REDIS']}/0")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    base_url = f"http://127.0.0.1:{os.environ['DOWNSTREAM']}"
    async with httpx.AsyncClient(base_url=base_url) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)


@app.post("/billing/{path:path}")
@limiter.limit(f"{os.environ['RATE']}/second")
async def forward(request: Request, path: str) -> Response:
    headers = {
        name: value for name, value in request.headers.items() if name not in {"host", "content-length"}
    }
    answer = await request.app.state.client.post(f"/{path}", content=await request.body(), headers=headers)
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
