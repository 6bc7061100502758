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
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

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
}
LONGEST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A copy of the shipped configuration on ports of its own; `ports` by the shipped number."""

    folder: Path
    ports: dict[int, int]

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
        text = file.read_text()
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
    status, out, err = await ended(await place.up("--demo", "8"))
    print(out, err)
    assert (status, err) == (0, "")
    assert "DIFFER" not in out
    assert "not seen" not in out
    assert re.search(r"^\d+ checks agree", out, re.MULTILINE)
    for shown in ("delayed: callers", "over_capacity: callers", "refused: contract: callers", "refused: tenant: callers",
                  "starts in the tightest window", "most in flight", "no call arrived twice"):  # fmt: skip
        assert shown in out
    counted = re.findall(
        r"^agree +(\S+) +forwarded, and arrived: callers (\d+), downstream (\d+)$", out, re.MULTILINE
    )
    assert len(counted) == 5
    assert all(int(callers) == int(downstream) > 0 for _, callers, downstream in counted)
    assert "\x1b" not in out  # no colour where there is no terminal
    assert await gone(place, 0) == set()


async def test_a_taken_port_is_one_line_and_status_1(place: Place) -> None:
    """The most frequent reason why a first start fails costs nobody a search."""
    port = place.ports[9102]
    with socket.create_server(("127.0.0.1", port)):
        status, out, err = await ended(await place.up("--demo", "1"))
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
        await up(place.folder / "config", place.environ(), seconds=1, drives=True)
    assert f"port {port} ({names[0]})" in str(said.value)
    assert "end the process" in str(said.value)
    assert names[1] in str(said.value)


async def test_a_data_folder_that_cannot_be_used_is_said_before_anything_starts(place: Place) -> None:
    """With the setting that changes it."""
    (place.folder / "store").write_text("a file, where the folder should be")
    with pytest.raises(StartError, match=r"cannot use the data folder .*BREAKER_DATA="):
        await up(place.folder / "config", place.environ(), seconds=1, drives=True)


async def test_a_configuration_with_callers_cannot_be_driven(place: Place) -> None:
    """Instead of a demonstration that is nothing but 401."""
    with (place.folder / "config/gateway.yaml").open("a") as file:
        file.write("\ncallers:\n  - {id: crm, key_sha256_file: crm, operations: ['*']}\n")
    (place.folder / "config/crm").write_text("0" * 64)
    with pytest.raises(StartError, match="--no-traffic"):
        await up(place.folder / "config", place.environ(), seconds=1, drives=True)


async def test_a_gateway_that_does_not_start_says_why_itself(place: Place) -> None:
    """Its log is not what a person must read first."""
    lock = take_gateway_lock(make_private(place.folder / "store"))
    try:
        status, _, err = await ended(await place.up("--demo", "1"))
    finally:
        os.close(lock)
    assert status == 1
    assert f"gateway did not start: another live gateway (pid {os.getpid()})" in err
    assert await gone(place, 0) == set()


async def test_ctrl_c_stops_everything_and_is_no_error(place: Place) -> None:
    """A demonstration that stays up ends when it is told to, with its comparison."""
    process = await place.up("--demo", "0")
    assert process.stdout is not None
    while b" s  launch" not in (line := await process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    status, out, _ = await ended(process)
    assert status == 0
    assert re.search(r"^\d+ checks agree", out, re.MULTILINE)
    assert await gone(place, 0) == set()


async def test_a_killed_parent_leaves_nothing_behind(place: Place) -> None:
    """kill -9, or a closed laptop terminal: the ports and the store are free for the next start."""
    process = await place.up("--no-traffic")
    assert process.stdout is not None
    assert b"calls http" in await process.stdout.readline()
    assert len(place.processes()) == 6  # it, three downstreams, the gateway, the store
    process.kill()
    await process.wait()
    assert await gone(place, 10.0) == set()
