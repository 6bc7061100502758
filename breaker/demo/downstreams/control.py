"""
Control: `/_control`, the operator's view of a downstream. A gateway never forwards to it.

    GET  /_control/stats             what was seen; ?starts=1, ?ids=1 and ?keys=1 add the lists
    POST /_control/reset             counters, data and faults begin anew; work in flight goes on
    GET  /_control/faults            the fault that is switched on
    POST /_control/faults {mode}     another one; 400 with one line when it is not understood
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from breaker.demo.downstreams.reply import Reply, read_object
from breaker.demo.downstreams.serving import Serving


def add_control(app: web.Application, serving: Serving, *, forget: Callable[[], None]) -> None:
    """
    Add the routes of the operator.

    Args:
        app: The downstream's application.
        serving: What is looked at and changed.
        forget: Empties the downstream's own data.

    """

    async def stats(request: web.Request) -> web.Response:
        seen: dict[str, Any] = {
            "name": serving.name,
            "workers": serving.capacity.workers,
            "service_ms": round(serving.times.mean_s * 1000),
            **serving.record.stats(),
        }
        if request.query.get("starts") == "1":
            seen["starts"] = serving.record.starts()
        if request.query.get("ids") == "1":
            seen["request_ids"] = serving.record.request_ids()
        if request.query.get("keys") == "1":
            seen["effects_by_key"] = serving.record.effects_by_key()
        return Reply(status=200, content=seen).response()

    async def reset(_request: web.Request) -> web.Response:
        serving.faults.clear()
        serving.record = serving.record.renewed()
        forget()
        return Reply(status=200, content={"reset": True}).response()

    async def faults(_request: web.Request) -> web.Response:
        return Reply(status=200, content=serving.faults.show()).response()

    async def set_faults(request: web.Request) -> web.Response:
        content = await read_object(request)
        problem = content.content["error"] if isinstance(content, Reply) else serving.faults.set(content)
        if problem is not None:
            return Reply(status=400, content={"error": problem}).response()
        return Reply(status=200, content=serving.faults.show()).response()

    app.add_routes(
        [
            web.get("/_control/stats", stats),
            web.post("/_control/reset", reset),
            web.get("/_control/faults", faults),
            web.post("/_control/faults", set_faults),
        ]
    )
