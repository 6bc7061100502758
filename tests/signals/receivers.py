"""
Receivers of alerts: a real Alertmanager, and servers that hold PagerDuty's, Slack's and our webhook's contract strictly.

What they refuse, the real ones refuse too, or would show wrongly; each keeps what it took.
"""

import asyncio
import contextlib
import datetime as dt
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
SLACK_PATH = "/services/T0001/B0001/XXXXsecretXXXX"


@dataclass(slots=True)
class Receiver:
    """
    A server on loopback that takes whatever comes.

    Attributes:
        planned: Answers that are given first, one for each request, instead of its own; None is its own.
        requests: What arrived, also what was refused.

    """

    url: str = ""
    planned: list[web.StreamResponse | None] = field(default_factory=list)
    requests: list[tuple[web.Request, bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request, body))
        planned = self.planned.pop(0) if self.planned else None
        return planned or await self.answer(request, body)

    async def answer(self, _request: web.Request, _body: bytes) -> web.StreamResponse:
        return web.Response(status=204)


AnyReceiver = TypeVar("AnyReceiver", bound=Receiver)


@contextlib.asynccontextmanager
async def serving(receiver: AnyReceiver, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[AnyReceiver]:
    """Let it listen on a free port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        receiver.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Failing(Receiver):
    """One that does what `how` says."""

    how: Callable[[web.Request], Any] | None = None

    async def answer(self, request: web.Request, _body: bytes) -> web.StreamResponse:
        assert self.how is not None
        answer = await self.how(request)
        assert isinstance(answer, web.StreamResponse)
        return answer


# PagerDuty, Events API v2.


@dataclass(slots=True)
class PagerDutyReceiver(Receiver):
    """
    Takes events as PagerDuty does.

    Attributes:
        events: What was taken, in order.
        incidents: By `dedup_key`: triggered, acknowledged or resolved.

    """

    events: list[dict[str, Any]] = field(default_factory=list)
    incidents: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if (request.method, request.path) != ("POST", "/v2/enqueue"):
            return web.Response(status=404)
        if errors := pagerduty_errors(body):
            return web.json_response(
                {"status": "invalid event", "message": "Event object is invalid", "errors": errors},
                status=400,
            )
        event = json.loads(body)
        self.events.append(event)
        key, action = event.get("dedup_key", "made-by-pagerduty"), event["event_action"]
        if action == "trigger" or self.incidents.get(key, "resolved") != "resolved":
            self.incidents[key] = {
                "trigger": "triggered",
                "acknowledge": "acknowledged",
                "resolve": "resolved",
            }[action]
        return web.json_response(
            {"status": "success", "message": "Event processed", "dedup_key": key}, status=202
        )


def pagerduty_throttles(after: str | None = None) -> web.Response:
    """Its words when events come too fast."""
    said = {
        "status": "throttle exceeded",
        "message": "Requests for this service are arriving too quickly.  Please retry later.",
        "errors": ["Enhance Your Calm."],
    }
    return web.json_response(said, status=429, headers={"Retry-After": after} if after else None)


def pagerduty_errors(body: bytes) -> list[str]:
    """What PagerDuty would say is wrong with an event; stricter only where it would drop something silently."""
    try:
        event = json.loads(body)
    except ValueError:
        return ["Invalid JSON"]
    errors = []
    known = {"routing_key", "event_action", "dedup_key", "payload", "links", "images", "client", "client_url"}
    errors += [f"'{name}' is unknown" for name in set(event) - known]
    if len(event.get("routing_key", "")) != 32:
        errors.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    action, key = event.get("event_action"), event.get("dedup_key")
    if action not in ("trigger", "acknowledge", "resolve"):
        errors.append("'event_action' is invalid (must be one of: trigger, acknowledge, resolve)")
    if (key is None and action != "trigger") or not isinstance(key, str | None):
        errors.append("'dedup_key' is missing or blank")
    if key is not None and not 1 <= len(key) <= 255:
        errors.append("Length of 'dedup_key' is incorrect (should be 255 characters or less)")
    if action == "trigger" or "payload" in event:
        errors += _payload_errors(event.get("payload"))
    for link in event.get("links", []):
        if set(link) - {"href", "text"} or not link.get("href", "").startswith(("http://", "https://")):
            errors.append("'links' is invalid")
    if len(body) > 524_288:
        errors.append("Event is larger than 512 KB")
    return errors


def _payload_errors(payload: Any) -> list[str]:
    if not isinstance(payload, dict):
        return ["'payload' is missing or blank"]
    errors = [
        f"'payload.{name}' is missing or blank"
        for name in ("summary", "source", "severity")
        if not payload.get(name)
    ]
    known = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
    errors += [f"'payload.{name}' is unknown" for name in set(payload) - known]
    if len(payload.get("summary", "")) > 1_024:
        errors.append("'payload.summary' is too long (maximum is 1024 characters)")
    if payload.get("severity") not in ("critical", "error", "warning", "info"):
        errors.append("'payload.severity' is invalid (must be one of: critical, error, warning, info)")
    if "timestamp" in payload:
        try:
            dt.datetime.fromisoformat(payload["timestamp"])
        except ValueError:
            errors.append("'payload.timestamp' is invalid (must be ISO 8601)")
    return errors


# Slack, an incoming webhook.


@dataclass(slots=True)
class SlackReceiver(Receiver):
    """
    Takes messages as Slack's incoming webhooks do.

    Attributes:
        messages: What was taken, in order.
        wrong: What was wrong with those that were not; Slack itself says less.

    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def hook(self) -> str:
        return self.url + SLACK_PATH

    async def answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if request.path != SLACK_PATH:
            return web.Response(status=404, text="no_service")
        try:
            message = json.loads(body)
        except ValueError:
            return web.Response(status=400, text="invalid_payload")
        if errors := slack_errors(message):
            self.wrong += errors
            return web.Response(status=400, text=errors[0].partition(":")[0])
        self.messages.append(message)
        return web.Response(text="ok")


def slack_throttles(after: str) -> web.Response:
    """Its words when messages come too fast."""
    return web.Response(status=429, text="rate_limited", headers={"Retry-After": after})


def slack_errors(message: Mapping[str, Any]) -> list[str]:
    """What Slack would refuse, or read as a mention or a link that nobody wrote."""
    if not message.get("text"):
        return ["no_text: there is nothing to notify with"]
    errors = [f"invalid_payload: {name}" for name in set(message) - {"text", "blocks"}]
    errors += _markup_errors(message["text"], 40_000)
    blocks = message.get("blocks", [])
    if len(blocks) > 50:
        errors.append(f"invalid_blocks: {len(blocks)} of them")
    for block in blocks:
        match block:
            case {"type": "header", "text": {"type": "plain_text", "text": text, **rest}}:
                if not 1 <= len(text) <= 150 or set(rest) - {"emoji"}:
                    errors.append(f"invalid_blocks: header {text!r}")
            case {"type": "section", "text": {"type": "mrkdwn", "text": text}}:
                errors += _markup_errors(text, 3_000)
            case {"type": "context", "elements": [*elements]}:
                if not 1 <= len(elements) <= 10:
                    errors.append(f"invalid_blocks: {len(elements)} elements")
                for element in elements:
                    assert set(element) == {"type", "text"}
                    errors += _markup_errors(element["text"], 3_000)
            case _:
                errors.append(f"invalid_blocks: {block!r}")
    return errors


def _markup_errors(text: str, longest: int) -> list[str]:
    if not 1 <= len(text) <= longest:
        return [f"invalid_blocks: {len(text)} characters"]
    bare = re.sub(r"<https?://[^<>|\s]+\|[^<>|]+>", "", text)
    if "<" in bare or ">" in bare or re.search(r"&(?!amp;|lt;|gt;)", bare):
        return [f"invalid_blocks: not escaped: {bare!r}"]
    return []


# Our own webhook.


@dataclass(slots=True)
class WebhookReceiver(Receiver):
    """
    Takes what is signed by its secret, once, as `docs/alert-channels.md` tells receivers to.

    Attributes:
        secret: None: it takes what is unsigned.
        messages: What was taken, in order, each once.

    """

    secret: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if self.secret is not None:
            try:
                Webhook(self.secret).verify(body, dict(request.headers))
            except WebhookVerificationError:
                return web.Response(status=401)
        message = json.loads(body)
        assert message["id"] == request.headers["webhook-id"]
        if message["id"] not in [known["id"] for known in self.messages]:
            self.messages.append(message)
        return web.Response(status=204)


# Alertmanager, a real one.


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """A process of Debian's package."""

    url: str

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Those that fire and have these labels."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found = json.load(answer)
        return [alert for alert in found if labels.items() <= alert["labels"].items()]

    async def wait_for(self, count: int, **labels: str) -> list[dict[str, Any]]:
        """Until so many fire."""
        deadline = time.monotonic() + 10
        while len(found := self.alerts(**labels)) != count:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)
        return found


@contextlib.contextmanager
def alertmanager(folder: Path, *, webhook: str = "http://127.0.0.1:9/") -> Iterator[Alertmanager]:
    """
    Start one on a free port.

    Args:
        webhook: Whom it tells.

    """
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    assert program is not None, "these tests need Alertmanager: install prometheus-alertmanager"
    config = folder / "alertmanager.yaml"
    config.write_text(
        "route: {receiver: hook, group_wait: 0s, group_interval: 1s, group_by: [alertname]}\n"
        f"receivers: [{{name: hook, webhook_configs: [{{url: '{webhook}'}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, f"--config.file={config}", f"--storage.path={folder / 'data'}", "--cluster.listen-address=",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while not _is_ready(url):
            assert process.poll() is None, "Alertmanager did not start"
            assert time.monotonic() < deadline, "Alertmanager did not get ready"
            time.sleep(0.05)
        yield Alertmanager(url)
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
