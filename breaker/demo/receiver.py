"""
Receiver: `python -m breaker.demo.receiver`, the pager of the demonstration. It takes messages about alerts, prints and remembers them.

1. `POST /alertmanager` takes what an Alertmanager sends (its webhook, version 4); `POST` to any other path what the gateway's
   own webhook channel sends (`docs/alert-channels.md`).
2. A message that comes again under its id is one message: its sender did not hear our answer.
3. It remembers the newest only, and of each what is asked for. Nothing is secret here, and no signature is checked.
4. `GET /received?after=N` tells of those with a higher number.

Prints `ready receiver <url>` when it listens. Ends with its parent, and with status 0 on SIGTERM or Ctrl-C.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from breaker.core.notice import Notice
from breaker.core.notify import Kind
from breaker.demo.arrivals import ALERTMANAGER, GATEWAY, Alert, Arrival
from breaker.signals.alert_text import plain, text_of
from breaker.signals.channels import Message
from breaker.store.parent_death import die_with_parent

PORT = 9104
KEPT_MAX = 200  # messages
ALERTS_MAX = 20  # of one message
LINES_MAX, LINE_MAX = 40, 200
_BODY_MAX = 1_048_576  # bytes
_WORDS = ("summary", "description", "impact", "action", "runbook_url")
_SHUTDOWN_S = 1.0


class Pager:
    """What came, numbered from 1."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: deque[Arrival] = deque(maxlen=KEPT_MAX)
        self._ids: deque[str] = deque(maxlen=KEPT_MAX)

    def take(self, way: str, kind: str, text: str, alerts: tuple[Alert, ...], id_: str = "") -> None:
        """
        A message arrived.

        Args:
            id_: Rule 2; empty when its sender gives none.

        """
        if id_ and id_ in self._ids:
            return
        self._ids.append(id_)
        self.count += 1
        arrival = Arrival(
            number=self.count, way=way, kind=kind, text=readable(text), alerts=alerts[:ALERTS_MAX]
        )
        self.kept.append(arrival)
        print(f"{arrival.headline()}\n{arrival.text}", flush=True)  # noqa: T201  (a pager shows what comes)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_BODY_MAX)
        app.add_routes(
            [
                web.get("/received", self._received),
                web.post("/alertmanager", self._from_alertmanager),
                web.post("/{path:.*}", self._from_gateway),
            ]
        )
        return app

    async def _received(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not after.isdecimal():
            raise web.HTTPBadRequest(text="`after` is the number of a message\n")
        newer = [asdict(arrival) for arrival in self.kept if arrival.number > int(after)]
        return web.json_response({"count": self.count, "messages": newer})

    async def _from_gateway(self, request: web.Request) -> web.Response:
        body = await _body_of(request)
        try:
            alerts = tuple(_alert(each["labels"], each["annotations"]) for each in body["alerts"])
            kind, text, id_ = str(Kind(body["kind"])), str(body["text"]), str(body["id"])
        except (LookupError, TypeError, AttributeError, ValueError) as exc:
            raise _not_understood("a message of the gateway", exc) from exc
        self.take(GATEWAY, kind, text, alerts, id_)
        return web.Response(status=204)

    async def _from_alertmanager(self, request: web.Request) -> web.Response:
        body = await _body_of(request)
        try:
            message = message_of(body)
            alerts = tuple(_alert(notice.labels, notice.annotations) for notice in message.notices)
        except (LookupError, TypeError, AttributeError, ValueError) as exc:
            raise _not_understood("a message of an Alertmanager, version 4", exc) from exc
        self.take(ALERTMANAGER, str(message.kind), text_of(message), alerts)
        return web.Response(status=204)


def message_of(body: Mapping[str, Any]) -> Message:
    """
    What an Alertmanager says, in the words of our own channels.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: It is not what version 4 says.

    """
    if body["version"] != "4":
        raise ValueError(f"version {body['version']!r}")
    status = body["status"]
    kind = {"firing": Kind.FIRING, "resolved": Kind.RESOLVED}[status]
    # A group of which some still fire is told as firing, with those that have ended among them.
    notices = tuple(_notice(each) for each in body["alerts"] if each["status"] == status)
    if not notices:
        raise ValueError(f"no alert is {status}")
    now = datetime.now().astimezone()
    return Message(id="", cluster=notices[0].labels["cluster"], kind=kind, notices=notices, made_us=_us(now))


def readable(text: str) -> str:
    """What anybody on this machine may have sent, safe to show on a terminal and bounded."""
    # Command lines stay whole: nothing that we send is longer.
    return "\n".join(
        ("    " if line.startswith("    ") else "") + plain(line, LINE_MAX)
        for line in text.splitlines()[:LINES_MAX]
    )


def _notice(each: Mapping[str, Any]) -> Notice:
    labels = {"alertname": "?", "severity": "?", "cluster": "?"} | {
        str(key): str(value) for key, value in each["labels"].items()
    }
    said = dict.fromkeys(_WORDS, "") | {str(key): str(value) for key, value in each["annotations"].items()}
    ended = _us(_moment(each["endsAt"])) if each["status"] == "resolved" else None
    return Notice(
        id=str(each["fingerprint"]), key="", labels=labels, annotations=said,
        since_us=_us(_moment(each["startsAt"])), ended_us=ended,
    )  # fmt: skip


def _alert(labels: Mapping[str, Any], annotations: Mapping[str, Any]) -> Alert:
    return Alert(
        name=plain(str(labels["alertname"]), LINE_MAX),
        severity=plain(str(labels["severity"]), LINE_MAX),
        operation=plain(str(labels.get("operation", "")), LINE_MAX),
        about=plain(str(labels.get("band") or labels.get("channel") or ""), LINE_MAX),
        # Behind two blanks and a # stands a remark.
        action=plain(str(annotations.get("action", "")).partition("  # ")[0], LINE_MAX),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


async def _body_of(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as exc:
        raise _not_understood("JSON", exc) from exc


def _not_understood(what: str, exc: Exception) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"this is not {what}: {type(exc).__name__} {exc}\n")


def main() -> None:
    """Take messages until told to end; exit status 1 when an address cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m breaker.demo.receiver",
        description="Takes, prints and remembers messages about alerts.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one")
    parser.add_argument("--also", action="append", default=[], metavar="HOST:PORT", help="listen there, too")
    chosen = parser.parse_args()
    die_with_parent()
    also = [urlsplit(f"//{address}") for address in chosen.also]
    try:
        places = [(chosen.host, chosen.port), *((each.hostname or "", each.port or 0) for each in also)]
        asyncio.run(_serve(places))
    except (OSError, OverflowError, ValueError) as exc:
        sys.exit(f"the receiver cannot listen: {exc}; choose another --port")


async def _serve(places: list[tuple[str, int]]) -> None:
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    runner = web.AppRunner(Pager().app(), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        for host, port in places:
            await web.TCPSite(runner, host, port).start()
        print(f"ready receiver http://{places[0][0]}:{runner.addresses[0][1]}", flush=True)  # noqa: T201  (as above)
        await told_to_end.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
