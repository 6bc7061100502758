"""
Monitoring: a real Prometheus and a real Alertmanager, and somebody who is told by both ways.
"""

import asyncio
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from breaker.policy.load import load
from breaker.signals.inhibit_rules import inhibit_rules
from breaker.signals.rules import files_of
from tests.e2e.scene import free_address

READY_S = 20.0
SBIN = "/usr/sbin:/usr/local/sbin"


@dataclass(frozen=True, slots=True)
class Told:
    """One alert in one message; `at` is monotonic."""

    at: float
    status: str
    name: str
    operation: str
    severity: str
    id: str
    text: str


@dataclass(slots=True)
class OnCall:
    """Whoever is told: by the gateways (`own`), and by Alertmanager (`rules`)."""

    own: list[Told] = field(default_factory=list)
    rules: list[Told] = field(default_factory=list)
    url: str = ""

    async def hear_own(self, request: web.Request) -> web.Response:
        message = await request.json()
        for alert in message["alerts"]:
            labels = alert["labels"]
            self.own.append(
                Told(time.monotonic(), message["kind"], labels["alertname"], labels.get("operation", ""),
                     labels["severity"], request.headers["webhook-id"], message["text"])
            )  # fmt: skip
        return web.json_response({})

    async def hear_rules(self, request: web.Request) -> web.Response:
        message = await request.json()
        for alert in message["alerts"]:
            labels, annotations = alert["labels"], alert["annotations"]
            self.rules.append(
                Told(time.monotonic(), alert["status"], labels["alertname"], labels.get("operation", ""),
                     labels["severity"], alert["startsAt"], json.dumps({**labels, **annotations}))
            )  # fmt: skip
        return web.json_response({})

    def of(self, way: str, name: str, operation: str = "", status: str = "firing") -> list[Told]:
        """What was heard of one alert by one way, a message that came twice counted once."""
        heard: list[Told] = self.own if way == "own" else self.rules
        found = {
            told.id: told
            for told in heard
            if (told.name, told.operation, told.status) == (name, operation, status)
        }
        return list(found.values())

    async def until(
        self, way: str, name: str, operation: str = "", status: str = "firing", seconds: float = 60
    ) -> Told:
        """Wait until it is heard."""
        end = time.monotonic() + seconds
        while not (found := self.of(way, name, operation, status)):
            heard = [
                (told.status, told.name, told.operation)
                for told in (self.own if way == "own" else self.rules)
            ]
            assert time.monotonic() < end, (
                f"nobody was told by {way} that {name} of {operation} is {status}: {heard}"
            )
            await asyncio.sleep(0.1)
        return found[0]


@asynccontextmanager
async def on_call() -> AsyncIterator[OnCall]:
    """Listens until the block ends."""
    made = OnCall()
    app = web.Application()
    app.router.add_post("/own", made.hear_own)
    app.router.add_post("/rules", made.hear_rules)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, port = free_address()
    await web.TCPSite(runner, host, port).start()
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    assert found, f"{name} is not installed: make test installs it, or apt install {name}"
    return found


@asynccontextmanager
async def monitoring(folder: Path, config: Path, admins: Iterable[str], receiver: str) -> AsyncIterator[str]:
    """
    Prometheus with our rules scrapes these gateways each second, and Alertmanager tells the receiver.

    Args:
        config: Of the gateways; the rules are made from it.
        admins: `host:port` of their admin listeners.

    """
    alertmanager, prometheus = ("{}:{}".format(*free_address()) for _ in range(2))
    folder.mkdir()
    rules = files_of(load(config, {}))
    for name, text in rules.items():
        (folder / name).write_text(text)
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": list(rules),
                "scrape_configs": [{"job_name": "breaker", "static_configs": [{"targets": list(admins)}]}],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            }
        )
    )
    (folder / "alertmanager.yml").write_text(
        json.dumps(
            {
                "route": {
                    "receiver": "on-call", "group_by": ["alertname", "team"], "group_wait": "1s",
                    "group_interval": "1s", "repeat_interval": "1h",
                    "routes": [{"receiver": "nobody", "matchers": ['severity = "none"']}],
                },
                "receivers": [
                    {"name": "on-call", "webhook_configs": [{"url": receiver, "send_resolved": True}]},
                    {"name": "nobody"},
                ],
                "inhibit_rules": inhibit_rules(),
            }
        )
    )  # fmt: skip
    commands = (
        [program("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am",
         f"--web.listen-address={alertmanager}", "--cluster.listen-address="],
        [program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
         f"--web.listen-address={prometheus}", "--log.level=warn"],
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
    try:
        for address in (alertmanager, prometheus):
            await _until_ready(f"http://{address}/-/ready", folder / "log")
        yield f"http://{prometheus}"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await asyncio.to_thread(process.wait, 20)


async def _until_ready(url: str, log: Path) -> None:
    end = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_get, url)
            return
        assert time.monotonic() < end, f"{url} is not ready: {log.read_text()[-2000:]}"
        await asyncio.sleep(0.1)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


async def rules_that_fail(prometheus: str) -> list[str]:
    """Rules whose evaluation failed, with why."""
    found = json.loads(await asyncio.to_thread(_get, f"{prometheus}/api/v1/rules"))
    return [
        f"{rule['name']}: {rule.get('lastError')}"
        for group in found["data"]["groups"]
        for rule in group["rules"]
        if rule["health"] == "err"
    ]
