"""
`breaker up` for real: its own processes, ports and store, real calls.

For who runs `make run` for the first time, and for CI, which trusts its exit status.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from breaker.core.errors import StartError
from breaker.demo.up import up
from breaker.store.embedded_folder import make_private, take_gateway_lock

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    8080: ("the gateway's listen", "BREAKER_LISTEN"),
    8081: ("the gateway's admin", "BREAKER_ADMIN"),
    9101: ("the demo downstream support", "pipelines/support.yaml"),
    9102: ("the demo downstream billing", "pipelines/billing.yaml"),
    9103: ("the demo downstream onboarding", "pipelines/onboarding.yaml"),
    9104: ("the receiver of alerts", "alerts.channels.demo.url"),
}
LONGEST_S = 60.0
OPEN, ALWAYS = "mon-fri 08:00-18:00", "mon-sun"
# Told at the first look that finds it, so that a demonstration of seconds is told of, too.
AT_ONCE = {"for: 4s": "for: 0s", "group_wait: 1s": "group_wait: 0s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    A copy of the shipped configuration on ports of its own; `ports` by the shipped number.

    The support desk is open, whatever time it is.
    """

    folder: Path
    ports: dict[int, int]

    @contextlib.contextmanager
    def night(self) -> Iterator[None]:
        """At the desk only those on call are there."""
        file = self.folder / "config/pipelines/support.yaml"
        text = file.read_text()
        file.write_text(text.replace(ALWAYS, "2020-01-01"))
        yield
        file.write_text(text)

    async def up(self, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "breaker", "up", "--config", self.folder / "config", *options,
            cwd=ROOT,
            env=self.environ(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    def environ(self) -> dict[str, str]:
        return {**os.environ, "BREAKER_DATA": str(self.folder / "store")}

    def processes(self) -> set[int]:
        """All that run for this place: their command or their environment names its folder."""
        found = set()
        for entry in Path("/proc").iterdir():
            # A store writes what it is over its environment, so both are looked at.
            for file in ("environ", "cmdline"):
                with contextlib.suppress(OSError):
                    if entry.name.isdigit() and str(self.folder).encode() in (entry / file).read_bytes():
                        found.add(int(entry.name))
        return found - {os.getpid()}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    # All are held until all are known, or the same one could be given out twice.
    with contextlib.ExitStack() as held:
        ports = {}
        for shipped in SHIPPED:
            sock = held.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports[shipped] = sock.getsockname()[1]
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("secrets"))
    for file in (tmp_path / "config").rglob("*.yaml"):
        text = file.read_text().replace(OPEN, ALWAYS)
        for shipped_wait, wait in AT_ONCE.items():
            text = text.replace(shipped_wait, wait)
        for shipped, port in ports.items():
            text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{port}")
        file.write_text(text)
    place = Place(folder=tmp_path, ports=ports)
    yield place
    for pid in place.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr."""
    async with asyncio.timeout(LONGEST_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def gone(place: Place, within_s: float) -> set[int]:
    """What of the place still runs after so long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while (left := place.processes()) and loop.time() < end:
        await asyncio.sleep(0.02)
    return left


async def test_a_demonstration_shows_every_outcome_and_its_numbers_agree(place: Place) -> None:
    """Who sees the product for the first time sees all that it does, and can check that nothing was lost."""
    status, out, err = await ended(await place.up("--demo", "8", "--no-monitoring"))
    print(out, err)
    assert (status, err) == (0, "")
    assert "DIFFER" not in out
    assert "not seen" not in out
    assert re.search(r"^\d+ checks agree", out, re.MULTILINE)
    for shown in ("delayed: callers", "over_capacity: callers", "refused: contract: callers", "refused: tenant: callers",
                  "starts in the tightest window", "most in flight", "no call arrived twice", "queued: callers",
                  "done again under the same key: downstream 0", "202s that the store does not know: gateway 0",
                  "only what cannot be done failed: orders 1, jobs 1 (answered 422)"):  # fmt: skip
        assert shown in out
    for operation in ("support.create-ticket", "billing.charge-invoice"):
        kept = re.search(rf"^agree +{operation} +each 202 .*: callers (\d+), ended (\d+)$", out, re.MULTILINE)
        assert kept
        assert kept[1] == kept[2] != "0"
    batches = re.search(r"went out in batches: jobs (\d+), downstream (\d+) in (\d+) requests", out)
    assert batches
    assert int(batches[3]) < int(batches[1]) == int(batches[2])
    assert re.search(
        r"^support.create-ticket +normal +globex +\d+", out, re.MULTILINE
    )  # what was said, and took
    counted = re.findall(
        r"^agree +(\S+) +forwarded, and arrived: callers (\d+), downstream (\d+)$", out, re.MULTILINE
    )
    assert len(counted) == 5
    assert all(int(callers) == int(downstream) > 0 for _, callers, downstream in counted)
    told = re.search(
        r"message \d+ from the gateway itself: firing BreakerOverCapacity \((\S+?)\)[^\n]*\n +FIRING ", out
    )
    assert told
    assert f"Do: breaker ops set {told[1]} " in out  # as a person reads it, printed when it arrived
    assert re.search(r"^agree +on-call +told of BreakerOverCapacity by the gateway itself", out, re.MULTILINE)
    assert "prometheus http" not in out
    assert "\x1b" not in out  # no colour where there is no terminal
    assert await gone(place, 0) == set()


async def test_a_taken_port_is_one_line_and_status_1(place: Place) -> None:
    """The most frequent reason why a first start fails costs nobody a search."""
    port = place.ports[9102]
    with socket.create_server(("127.0.0.1", port)):
        status, out, err = await ended(await place.up("--demo", "1", "--no-monitoring"))
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert f"port {port} " in err
    assert not (place.folder / "store").exists()  # nothing was begun


@pytest.mark.parametrize(("shipped", "names"), SHIPPED.items())
async def test_a_taken_port_is_named_with_the_setting_that_changes_it(
    place: Place, shipped: int, names: tuple[str, str]
) -> None:
    """Who cannot end the other process changes the port, and must know where."""
    port = place.ports[shipped]
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StartError) as said:
        await up(place.folder / "config", place.environ(), seconds=1, drives=True, monitors=False)
    assert f"port {port} ({names[0]})" in str(said.value)
    assert "end the process" in str(said.value)
    assert names[1] in str(said.value)


async def test_a_data_folder_that_cannot_be_used_is_said_before_anything_starts(place: Place) -> None:
    """With the setting that changes it."""
    (place.folder / "store").write_text("a file, where the folder should be")
    with pytest.raises(StartError, match=r"cannot use the data folder .*BREAKER_DATA="):
        await up(place.folder / "config", place.environ(), seconds=1, drives=True, monitors=False)


async def test_a_configuration_with_callers_cannot_be_driven(place: Place) -> None:
    """Instead of a demonstration that is nothing but 401."""
    with (place.folder / "config/gateway.yaml").open("a") as file:
        file.write("\ncallers:\n  - {id: crm, key_sha256_file: crm, operations: ['*']}\n")
    (place.folder / "config/crm").write_text("0" * 64)
    with pytest.raises(StartError, match="--no-traffic"):
        await up(place.folder / "config", place.environ(), seconds=1, drives=True, monitors=False)


async def test_a_gateway_that_does_not_start_says_why_itself(place: Place) -> None:
    """Its log is not what a person must read first."""
    lock = take_gateway_lock(make_private(place.folder / "store"))
    try:
        status, _, err = await ended(await place.up("--demo", "1", "--no-monitoring"))
    finally:
        os.close(lock)
    assert status == 1
    assert f"gateway did not start: another live gateway (pid {os.getpid()})" in err
    assert await gone(place, 0) == set()


async def test_ctrl_c_stops_everything_and_is_no_error(place: Place) -> None:
    """A demonstration that stays up ends when it is told to, with its comparison."""
    process = await place.up("--demo", "0", "--no-monitoring")
    assert process.stdout is not None
    while b" s  launch" not in (line := await process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    status, out, _ = await ended(process)
    assert status == 0
    assert re.search(r"^\d+ checks agree", out, re.MULTILINE)
    assert await gone(place, 0) == set()


async def test_what_still_waits_when_it_is_stopped_is_said_and_run_by_the_next_start(place: Place) -> None:
    """
    At night the desk is slow, and nobody waits for it in front of a terminal: nothing is lost for that.

    By then Prometheus and Alertmanager, which run beside, have told on-call of it as well.
    """
    with place.night():
        process = await place.up("--demo", "0")
        assert process.stdout is not None
        awaited = [rb"outage .* jobs waiting (?:[2-9]\d|\d{3}),",
                   rb"message \d+ from Prometheus and Alertmanager: firing BreakerOverCapacity"]  # fmt: skip
        while awaited:
            line = await process.stdout.readline()
            assert line
            awaited = [each for each in awaited if not re.search(each, line)]
        process.send_signal(signal.SIGINT)
        status, out, _ = await ended(process)
    print(out)
    assert status == 0
    assert await gone(place, 0) == set()
    left = re.search(r"each 202 .*: callers (\d+), ended (\d+), waiting (\d+)$", out, re.MULTILINE)
    assert left
    assert int(left[1]) == int(left[2]) + int(left[3])
    assert int(left[3]) > 0
    _, out, _ = await ended(await place.up("--demo", "2", "--no-monitoring"))
    print(out)
    assert "DIFFER" not in out
    again = re.search(r"create-ticket +ledger since the store began: accepted (\d+), succeeded (\d+)", out)
    assert again
    assert int(again[1]) >= int(left[1])
    assert int(again[2]) > int(left[2])


async def test_a_killed_parent_leaves_nothing_behind(place: Place) -> None:
    """kill -9, or a closed laptop terminal: the ports and the store are free for the next start."""
    process = await place.up("--no-traffic")
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode() for _ in range(3)]
    assert "calls http" in lines[0]
    addresses = re.fullmatch(
        r"prometheus (\S+)  alertmanager (\S+)  alerts arrive at http://127.0.0.1:(\d+)\n", lines[2]
    )
    assert addresses
    assert int(addresses[3]) == place.ports[9104]
    # It, three downstreams, the gateway, the store, the receiver, and the two that look at it.
    assert len(place.processes()) == 9
    await until_scraped(addresses[1])
    process.kill()
    await process.wait()
    assert await gone(place, 10.0) == set()


async def until_scraped(prometheus: str) -> None:
    """The gateway is among what this Prometheus sees, and the rules have been judged."""
    async with asyncio.timeout(LONGEST_S), aiohttp.ClientSession() as session:
        for query in ('up{job="breaker"} == 1', 'ALERTS{alertname="BreakerWatchdog"}'):
            found: list[object] = []
            while not found:
                async with session.get(f"{prometheus}/api/v1/query", params={"query": query}) as answer:
                    found = (await answer.json())["data"]["result"]
                await asyncio.sleep(0.05)
