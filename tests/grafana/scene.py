"""
The scene: two gateways under demonstration load, and a Prometheus that scrapes them each second.

Within half a minute everything happens that the dashboards show: one operation queues, one throttles, one lets through;
a downstream fails until its circuit opens, some jobs die, a person pauses one and sets limits. `pictures.py` draws from
the same scene.
"""

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.scene import Gateway, free_address, gateways
from tests.grafana.history import Course, fill
from tests.grafana.shop import Callers, Shop, shop

JOB = "breaker"
START_S = 20.0

GATEWAY = """\
cluster: shop
store: {{url: '{store_url}', timeout: 2s}}
log: {{sample: 0}}
drain: {{timeout: 1s}}
alerts:
  channels: {{oncall: {{type: webhook, url: '{url}/oncall'}}}}
  routes: [{{severity: critical, to: [oncall]}}, {{severity: warning, to: [oncall]}}]
  group_wait: 1s
"""
PIPELINES = {
    "billing": """\
pipeline: billing
team: finance-platform
downstream: {{url: '{url}', timeout: 2s}}
operations:
  charge-invoice:
    match: POST /invoices/{{invoice_id}}/charge
    capacity: {{rate: 20/s, burst: 10, concurrency: 8}}
    overflow: queue
    queue: {{start_within: 30s, max_jobs: 1500, durability: memory}}
    effects: keyed
    retry: {{for: 1m, base: 200ms, cap: 1s, attempts: 3}}
    circuit: {{min_calls: 6, window: 5s, open: 3s, open_max: 4s, ramp: 5s}}
  get-invoice:
    match: GET /invoices/{{invoice_id}}
    capacity: {{rate: 50/s, burst: 20, concurrency: 20}}
    overflow: throttle
    max_wait: 500ms
    retry: {{attempts: 2, base: 100ms, cap: 1s}}
    circuit: {{min_calls: 5, window: 5s, open: 3s, open_max: 4s, ramp: 5s}}
""",
    "support": """\
pipeline: support
team: support-operations
downstream: {{url: '{url}', timeout: 2s}}
tenant: {{pointer: /customerId}}
operations:
  create-ticket:
    match: POST /tickets
    capacity: {{rate: 8/s, burst: 6, concurrency: 3}}
    overflow: queue
    queue:
      start_within: 20s
      max_jobs: 400
      durability: memory
      bands: {{pointer: /plan, values: {{enterprise: critical, business: high, starter: normal, free: low}}, default: normal}}
    effects: keyed
    retry: {{for: 30s, base: 200ms, cap: 1s, attempts: 2}}
    circuit: {{min_calls: 6, window: 5s, open: 3s, open_max: 4s, ramp: 5s}}
""",
    "onboarding": """\
pipeline: onboarding
team: customer-success
downstream: {{url: '{url}', timeout: 2s}}
operations:
  provision-account:
    match: POST /accounts
    capacity: {{rate: 4/s, burst: 4, concurrency: 3}}
    overflow: throttle
    max_wait: 2s
    max_waiting: 6
  send-welcome:
    match: POST /accounts/{{account_id}}/welcome
    capacity: {{rate: 5/s, burst: 5, quota: {{limit: 60000, per: day, timezone: UTC}}}}
    overflow: alert
""",
}
COURSES = [
    Course(operation="billing.charge-invoice", rate=20, slots=8, busy=14, growth=0.022, jobs_max=1_500),
    Course(operation="billing.get-invoice", rate=50, slots=20, busy=24, growth=0.004),
    Course(operation="support.create-ticket", rate=8, slots=3, busy=6.6, growth=0.018, jobs_max=400),
    Course(operation="onboarding.provision-account", rate=4, slots=3, busy=1.6, growth=0.012),
    Course(operation="onboarding.send-welcome", rate=5, slots=5, busy=1.2, growth=0.03, per_day=60_000),
]
RULES = """\
groups:
  - name: scene
    interval: 1s
    rules:
      - alert: BreakerOverCapacity
        expr: max by (operation) (breaker_capacity_wanted / breaker_capacity_limit) > 1
        labels: {severity: warning}
      - alert: BreakerCircuitOpen
        expr: max by (operation) (breaker_circuit_state{state="open"}) == 1
        labels: {severity: warning}
"""


def write_config(folder: Path, url: str, store_url: str) -> Path:
    (folder / "pipelines").mkdir(parents=True)
    (folder / "gateway.yaml").write_text(GATEWAY.format(store_url=store_url, url=url))
    for name, text in PIPELINES.items():
        (folder / "pipelines" / f"{name}.yaml").write_text(text.format(url=url))
    return folder


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """A Prometheus with a history, until the block ends; its address."""
    host, port = free_address()
    fill(folder / "data", COURSES, time.time(), JOB)
    (folder / "rules.yaml").write_text(RULES)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    url = f"http://{host}:{port}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={host}:{port}", "--storage.tsdb.retention.time=30d",
             "--enable-feature=exemplar-storage", "--log.level=warn"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        end = time.monotonic() + START_S
        while not _is_ready(url):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < end, "Prometheus did not become ready"
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def _person(session: aiohttp.ClientSession, gateway: Gateway) -> None:
    """Holds one queue for a moment, and takes a limit down for a while."""
    base = "http://{}:{}/admin/v1/operations".format(*gateway.admin)
    asks: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "support.create-ticket/pause", {"reason": "the desk moves", "expires_in": "6s"}),
        (
            "PUT",
            "billing.charge-invoice/override",
            {"rate": "30/s", "reason": "month end", "expires_in": "1h"},
        ),
    ]
    for method, path, body in asks:
        async with session.request(
            method, f"{base}/{path}", json=body, headers={"Breaker-Author": "ann"}
        ) as answer:
            assert answer.status == 200, await answer.text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a dashboard is drawn from."""

    prometheus: str
    shop: Shop


@asynccontextmanager
async def demonstration(folder: Path, store_url: str) -> AsyncIterator[Scene]:
    """Load goes on until the block ends."""
    async with (
        shop() as below,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        gateways(write_config(folder / "config", below.url, store_url), folder, 2) as two,
    ):
        with prometheus(folder, ["{}:{}".format(*gateway.admin) for gateway in two]) as url:
            callers = Callers(session, two)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(callers.arrive(method, path, per_second))
                    for method, path, per_second in (
                        ("POST", "/billing/invoices/{}/charge", 24.0),
                        ("GET", "/billing/invoices/{}", 12.0),
                        ("POST", "/support/tickets", 9.0),
                        ("POST", "/onboarding/accounts", 6.0),
                        ("POST", "/onboarding/accounts/{}/welcome", 6.5),
                    )
                ]
                tasks.append(group.create_task(_story(session, two, below)))
                try:
                    yield Scene(prometheus=url, shop=below)
                finally:
                    for task in tasks:
                        task.cancel()
            await callers.close()


async def _story(session: aiohttp.ClientSession, two: list[Gateway], below: Shop) -> None:
    """What goes wrong, and what a person does, again and again."""
    while True:
        await asyncio.sleep(4)
        below.ill = True
        await asyncio.sleep(7)
        below.ill = False
        await asyncio.sleep(6)
        await _person(session, two[0])
        await asyncio.sleep(33)
