"""
Judge: a downstream as a process of its own, which knows what really happened. `python -m tests.faults.judge`.

1. A call is `POST /{operation}/{order}`, or a batch at `/{operation}/batch`. What is wanted is the order; the
   key is only how the gateway names it. So an order that comes under two keys is found out.
2. An order takes effect when its work is done, once per key if there is one and the operation honours keys,
   else each time.
3. A call is in flight until its work is done, also when its caller has gone; one that hangs, until then.
4. Who fails and who hangs is drawn from the seed, the order and how often it came: the same in each run.
5. Some orders say in their body what shall happen: `refuse` is a 422, and `alarm` tells the test and hangs.
6. A whole operation may be ill (`ills.py`): from the moment in which it is told, until it is told that it is well.

Under `/_judge`: GET `report`, POST `settings`, GET `alarms?after=N`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from breaker.store.parent_death import die_with_parent
from tests.faults.ills import Busy, Ill, answer_ill

OVER_MAX = 10_000
STARTS_MAX = 200_000
ALARM_WAIT_S = 20.0
_BODY_MAX = 8_388_608


@dataclass(slots=True, kw_only=True)
class Settings:
    """
    What the judge does.

    Attributes:
        limits: The most calls that may be in flight, by operation.
        forgetful: Operations that do not honour keys.
        service_ms: How long a call takes; a batch takes no longer.
        fail_share, hang_share: Of calls, 0..1. A call that hangs has taken effect.
        ills: What is wrong with an operation, by its name; the words of `ills.Ill`.
        busy_status, retry_after_s, retry_after_is_date: What an operation says that is `busy`.

    """

    limits: dict[str, int] = field(default_factory=dict)
    forgetful: list[str] = field(default_factory=list)
    service_ms: float = 10
    fail_share: float = 0
    hang_share: float = 0
    seed: int = 1
    ills: dict[str, str] = field(default_factory=dict)
    busy_status: int = 503
    retry_after_s: int = 1
    retry_after_is_date: bool = False


@dataclass(slots=True)
class Order:
    """What came of one order; `failures` are those of its calls that were answered with a complete 500."""

    requests: int = 0
    effects: int = 0
    failures: int = 0
    keys: list[str] = field(default_factory=list)

    def seen(self) -> dict[str, Any]:
        return {
            "requests": self.requests, "effects": self.effects, "failures": self.failures, "keys": self.keys,
        }  # fmt: skip


@dataclass(slots=True)
class Seen:
    """
    What came for one operation.

    Attributes:
        over: Starts above the limit: monotonic seconds, calls in flight, and of these without a caller.
        starts: When calls came, monotonic seconds, in order.

    """

    in_flight: int = 0
    abandoned: int = 0
    in_flight_max: int = 0
    batches: int = 0
    over: list[tuple[float, int, int]] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    answered: dict[str, bool] = field(default_factory=dict)  # keys that had their effect


Item = tuple[str, str, Mapping[str, Any]]  # order, key, body


class JudgeProcess:
    """The calls, and what is kept of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: dict[str, Seen] = {}
        self._alarms: list[dict[str, Any]] = []
        self._alarmed = asyncio.Event()
        self._works: set[asyncio.Task[list[int]]] = set()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_BODY_MAX)
        app.add_routes(
            [
                web.get("/_judge/report", self._report),
                web.get("/_judge/alarms", self._wait_for_alarms),
                web.post("/_judge/settings", self._change),
                web.post("/{operation}/batch", self._batch),
                web.post("/{operation}/{order}", self._single),
            ]
        )
        return app

    async def _single(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        item = (request.match_info["order"], request.headers.get("Idempotency-Key", ""), body)
        if ill := self._ill_of(request):
            return await self._serve_ill(request, [item], ill)
        statuses = await self._serve(request, [item])
        return web.json_response({"order": item[0]}, status=statuses[0])

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        items = [
            (item["params"]["order"], item["idempotency_key"], item["body"])
            for item in (await request.json())["items"]
        ]
        self._seen_of(request).batches += 1
        if ill := self._ill_of(request):
            return await self._serve_ill(request, items, ill)
        statuses = await self._serve(request, items)
        if statuses == [500]:
            return web.json_response({}, status=500)
        results = [
            {"status": status, "body": {"order": order}}
            for status, (order, _, _) in zip(statuses, items, strict=True)
        ]
        return web.json_response({"results": results})

    async def _serve(self, request: web.Request, items: list[Item]) -> list[int]:
        """The status of each item, or [500] for all of them."""
        seen = self._seen_of(request)
        self._note_start(request.match_info["operation"], seen, items)
        fate = self._fate(seen, items)
        work = asyncio.get_running_loop().create_task(self._work(request, seen, items, fate))
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        try:
            statuses = await asyncio.shield(work)
            if statuses == [500]:
                for order, _, _ in items:  # not where nobody is there to hear it: that outcome is not known
                    seen.orders[order].failures += 1
            if fate == "hang" or any(body.get("do") == "alarm" for _, _, body in items):
                await asyncio.Event().wait()  # until the caller goes, and aiohttp cancels this
        except asyncio.CancelledError:
            if not work.done():  # it goes on without a caller
                seen.abandoned += 1
                with contextlib.suppress(asyncio.CancelledError):
                    await work
                seen.abandoned -= 1
            raise
        finally:
            seen.in_flight -= 1
        return statuses

    def _ill_of(self, request: web.Request) -> Ill | None:
        ill = Ill(self._settings.ills.get(request.match_info["operation"], Ill.NONE))
        return None if ill is Ill.NONE else ill

    async def _serve_ill(self, request: web.Request, items: list[Item], ill: Ill) -> web.StreamResponse:
        """As long as its answer takes, or its caller stays: who hangs here works on nothing."""
        seen, settings = self._seen_of(request), self._settings
        self._note_start(request.match_info["operation"], seen, items)
        try:
            await asyncio.sleep(settings.service_ms / 1_000)
            if ill.has_effect:
                for item in items:
                    self._do(request.match_info["operation"], seen, item)
            busy = Busy(settings.busy_status, settings.retry_after_s, is_date=settings.retry_after_is_date)
            response = await answer_ill(request, ill, busy)
            if ill.is_known:
                for order, _, _ in items:
                    seen.orders[order].failures += 1
            return response
        finally:
            seen.in_flight -= 1

    def _note_start(self, operation: str, seen: Seen, items: list[Item]) -> None:
        seen.in_flight += 1
        seen.in_flight_max = max(seen.in_flight_max, seen.in_flight)
        if len(seen.starts) < STARTS_MAX:
            seen.starts.append(time.monotonic())
        if (
            seen.in_flight > self._settings.limits.get(operation, seen.in_flight)
            and len(seen.over) < OVER_MAX
        ):
            seen.over.append((time.monotonic(), seen.in_flight, seen.abandoned))
        for order, key, _ in items:
            note = seen.orders.setdefault(order, Order())
            note.requests += 1
            if key not in note.keys:
                note.keys.append(key)

    def _fate(self, seen: Seen, items: list[Item]) -> str:
        order = items[0][0]
        what = f"{self._settings.seed}:{order}:{seen.orders[order].requests}".encode()
        drawn = int.from_bytes(hashlib.sha256(what).digest()[:8]) / 2**64
        if drawn < self._settings.fail_share:
            return "fail"
        return "hang" if drawn < self._settings.fail_share + self._settings.hang_share else "work"

    async def _work(self, request: web.Request, seen: Seen, items: list[Item], fate: str) -> list[int]:
        for order, _, body in items:
            if body.get("do") == "alarm":
                peer = request.transport.get_extra_info("peername") if request.transport else None
                self._alarms.append({"order": order, "port": peer[1] if peer else 0})
                self._alarmed.set()
                return [200] * len(items)
        await asyncio.sleep(self._settings.service_ms / 1_000)
        if fate == "fail":
            return [500]
        return [self._do(request.match_info["operation"], seen, item) for item in items]

    def _do(self, operation: str, seen: Seen, item: Item) -> int:
        order, key, body = item
        if body.get("do") == "refuse":
            return 422
        if not key or operation in self._settings.forgetful or key not in seen.answered:
            seen.answered[key] = True
            seen.orders[order].effects += 1
        return 200

    def _seen_of(self, request: web.Request) -> Seen:
        return self._seen.setdefault(request.match_info["operation"], Seen())

    async def _report(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                name: {
                    "in_flight": seen.in_flight, "in_flight_max": seen.in_flight_max, "batches": seen.batches,
                    "over": seen.over, "starts": seen.starts, "orders": {order: note.seen() for order, note in seen.orders.items()},
                }
                for name, seen in self._seen.items()
            }
        )  # fmt: skip

    async def _change(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            setattr(self._settings, name, value)  # slots: a name that there is not is an error
        return web.json_response({})

    async def _wait_for_alarms(self, request: web.Request) -> web.Response:
        after = int(request.query["after"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALARM_WAIT_S):
                while len(self._alarms) <= after:
                    self._alarmed.clear()
                    await self._alarmed.wait()
        return web.json_response({"alarms": self._alarms[after:]})


async def _run(settings: Settings) -> None:
    told_to_end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_end.set)
    runner = web.AppRunner(
        JudgeProcess(settings).app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"ready http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await told_to_end.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.judge")
    parser.add_argument("settings", help="JSON, see Settings")
    die_with_parent()
    asyncio.run(_run(Settings(**json.loads(parser.parse_args().settings))))


if __name__ == "__main__":
    main()
