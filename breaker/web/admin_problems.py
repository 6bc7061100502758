"""
Problems of the admin listener: RFC 9457, with the status as the whole of their type.

Whoever gets one reads its `detail`, which names the thing, the value and the way out. No program has to
tell them apart further than by status, so they have no pages of their own.
"""

from http import HTTPStatus

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from breaker.core.errors import StoreError


class AdminProblem(Exception):  # noqa: N818 - what is wrong with what was asked; not an error of ours
    """
    What was asked cannot be done.

    Args:
        status: 4xx or 503.
        detail: For the person: the thing, the value, the way out.

    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def answer_of(problem: AdminProblem, request: web.Request) -> web.Response:
    members = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.path,
    }
    headers = {"Cache-Control": "no-store"}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Breaker-Key realm="breaker admin"'
    return web.Response(
        body=orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status=problem.status,
        content_type="application/problem+json",
        headers=headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The middleware of `/admin/v1` that turns what was raised into answers."""
    try:
        return await handler(request)
    except AdminProblem as exc:
        return answer_of(exc, request)
    except StoreError as exc:
        return answer_of(
            AdminProblem(503, f"the store did not do it: {exc}; look before you repeat it"), request
        )
    except web.HTTPException as exc:
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        detail = {
            HTTPStatus.NOT_FOUND: f"there is no {request.path}; docs/admin.md lists what there is",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.path} does not take {request.method}",
        }.get(HTTPStatus(exc.status), exc.reason)
        answer = answer_of(AdminProblem(exc.status, detail), request)
        if "Allow" in exc.headers:
            answer.headers["Allow"] = exc.headers["Allow"]
        return answer
