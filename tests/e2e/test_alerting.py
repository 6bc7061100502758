"""
Cause to person: three replicas, and both ways to on-call, Prometheus with Alertmanager and the gateways' own.

One long story, because what it starts is heavy: an operation is driven to 130 % of its capacity, another is given more than it
can start within its promise, on-call types the command that stands in the message, and then the store is killed.
"""

import asyncio
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.monitoring import OnCall, monitoring, on_call, rules_that_fail
from tests.e2e.scene import ROOT, Gateway, downstream, gateways, write_config
from tests.store.replicas import Server

WAYS = ("own", "rules")
BUSY, SLOW = "desk.busy", "desk.slow"
QUEUE = "overflow: queue, queue: {{start_within: {promise}, max_jobs: 10000, durability: fsync}}"
ALERTING = """alerts:
  channels: {{person: {{type: webhook, url: '{url}/own'}}}}
  routes: [{{severity: critical, to: [person]}}, {{severity: warning, to: [person]}}]
  group_wait: 1s
  group_interval: 10s
  keep: 5s
"""


async def send(gateways: list[Gateway], name: str, count: int, per_second: float) -> None:
    """Calls at an even pace, spread over the replicas; each becomes a job."""
    loop, answers = asyncio.get_running_loop(), set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> None:
            host, port = gateways[number % len(gateways)].address
            async with session.post(f"http://{host}:{port}/desk/{name}/0") as answer:
                answers.add(answer.status)

        began, calls = loop.time(), []
        for number in range(count):
            await asyncio.sleep(began + number / per_second - loop.time())
            calls.append(loop.create_task(one(number)))
        await asyncio.gather(*calls)
    assert answers <= {200, 202}, answers


def command_in(text: str) -> list[str]:
    """The command that a message names, as a person would type it."""
    found = re.search(r"breaker (ops set .*?--reason \\?\"[^\"]*\")", text)
    assert found, text
    return shlex.split(found[1].replace('\\"', '"'))


async def type_in(gateway: Gateway, command: list[str]) -> str:
    environ = {
        **os.environ,
        "BREAKER_ADMIN_URL": "http://{}:{}".format(*gateway.admin),
        "PYTHONPATH": str(ROOT),
    }
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "breaker", *command], env=environ, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def told_once(person: OnCall, name: str, operation: str = "") -> None:
    """One beginning and one end, by each way."""
    for way in WAYS:
        for status in ("firing", "resolved"):
            found = person.of(way, name, operation, status)
            assert len(found) == 1, (way, name, status, [told.text for told in found])


@pytest.mark.timeout(300)
async def test_on_call_is_told_once_before_the_promise_breaks_and_can_act(
    server: Server, tmp_path: Path
) -> None:
    """The whole point: a person knows in time what is over, how far, and what to type; and is not told twice."""
    async with downstream() as desk, on_call() as person:
        config = write_config(
            tmp_path / "config", url=desk.url, store_url=server.url,
            operations={
                "busy": f"capacity: {{rate: 10/s, burst: 10}}, alerts: {{for: 5s}}, {QUEUE.format(promise='1h')}",
                # Its own overload is told by the promise that it will break.
                "slow": f"capacity: {{rate: 1/s, burst: 1}}, alerts: {{for: 10m}}, {QUEUE.format(promise='50s')}",
            },
        )  # fmt: skip
        with (config / "gateway.yaml").open("a") as file:
            file.write(ALERTING.format(url=person.url))
        async with (
            gateways(config, tmp_path, 3) as replicas,
            monitoring(
                tmp_path / "m",
                config,
                ["{}:{}".format(*one.admin) for one in replicas],
                f"{person.url}/rules",
            ) as prometheus,
        ):
            began = time.monotonic()
            driven = asyncio.gather(
                send(replicas, "busy", 13 * 25, 13), send(replicas, "slow", 80, 20)
            )  # fmt: skip
            for way in WAYS:
                over = await person.until(way, "BreakerOverCapacity", BUSY)
                assert over.severity == "warning"
                risk = await person.until(way, "BreakerPromiseAtRisk", SLOW)
                assert risk.severity == "critical"
                # 80 jobs at 1/s: the promise of 50 s breaks at the 50th second, and not before.
                print(
                    f"{way}: over capacity after {over.at - began:.1f} s, promise at risk after {risk.at - began:.1f} s"
                )
                assert risk.at - began < 50
            await driven
            print(person.of("own", "BreakerPromiseAtRisk", SLOW)[0].text)
            # The first message of each incident names a command, and that ends it.
            for name, operation in (("BreakerOverCapacity", BUSY), ("BreakerPromiseAtRisk", SLOW)):
                print(await type_in(replicas[1], command_in(person.of("own", name, operation)[0].text)))
            for way in WAYS:
                await person.until(way, "BreakerOverCapacity", BUSY, "resolved", 120)
                await person.until(way, "BreakerPromiseAtRisk", SLOW, "resolved", 120)
            told_once(person, "BreakerOverCapacity", BUSY)
            told_once(person, "BreakerPromiseAtRisk", SLOW)
            assert await rules_that_fail(prometheus) == []

            killed = time.monotonic()
            server.kill()
            for way in WAYS:
                down = await person.until(way, "BreakerStoreDown")
                print(f"{way}: told of the lost store after {down.at - killed:.1f} s")
            await asyncio.to_thread(server.start)
            for way in WAYS:
                await person.until(way, "BreakerStoreDown", "", "resolved", 60)
            told_once(person, "BreakerStoreDown")
