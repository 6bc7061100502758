"""Start-up checks: what a store must be, on servers that are not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError, StoreError
from breaker.store.checks import check_store, memory_of
from breaker.store.connection import open_client
from breaker.store.server_binary import find_server
from tests.store.replicas import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that may be misconfigured at will."""
    server = Server(asyncio.run(find_server()), tmp_path)
    yield server
    server.close()


def test_a_proper_store_is_named_and_nothing_is_warned_of(server: Server) -> None:
    """The line in the log of every start."""
    server.client.config_set("maxmemory-policy", "noeviction")
    facts = asyncio.run(check_store(StoreSettings(url=server.url)))
    assert facts.warnings == ()
    name, version = facts.name.split(" ")
    assert name in ("valkey", "redis")
    assert int(version.split(".")[0]) >= 7


@pytest.mark.parametrize(
    ("setting", "value", "said", "mended"),
    [
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        ("appendonly", "no", "appendonly is off", "CONFIG SET appendonly yes"),
        ("appendfsync", "no", "appendfsync is no", "CONFIG SET appendfsync everysec"),
    ],
)  # fmt: skip
def test_a_store_that_may_forget_is_said_with_the_way_out(
    server: Server, setting: str, value: str, said: str, mended: str
) -> None:
    """On-call, before the night in which it matters; typing what is said mends it."""
    server.client.config_set(setting, value)
    settings = StoreSettings(url=server.url)
    (warning,) = asyncio.run(check_store(settings)).warnings
    assert said in warning
    assert warning.endswith(mended)
    server.client.execute_command(*mended.split(" "))  # type: ignore[no-untyped-call]
    assert asyncio.run(check_store(settings)).warnings == ()


def test_a_store_that_is_not_there_is_refused_with_its_address(tmp_path: Path) -> None:
    """The first start on a new machine."""
    with pytest.raises(StartError, match=rf"{tmp_path}/none cannot be reached: .*; is it running"):
        asyncio.run(check_store(StoreSettings(url=f"unix://{tmp_path}/none")))


def test_a_wrong_password_is_refused_and_names_the_setting(server: Server) -> None:
    """Not "cannot be reached": the person looks for another thing."""
    server.client.config_set("requirepass", "secret")
    with pytest.raises(StartError, match=r"refused the password: .*; set store\.password_file"):
        asyncio.run(check_store(StoreSettings(url=server.url, password="wrong")))
    with pytest.raises(StartError, match=r"refused the password: .*; set store\.password_file"):
        asyncio.run(check_store(StoreSettings(url=server.url)))
    assert asyncio.run(check_store(StoreSettings(url=server.url, password="secret"))).name


def test_a_replica_is_refused_and_names_its_primary(server: Server) -> None:
    """Scripts that write would fail one by one instead."""
    server.client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    with pytest.raises(StartError, match=r"is a replica of 127\.0\.0\.1:1; set store\.url to the primary"):
        asyncio.run(check_store(StoreSettings(url=server.url)))


def test_an_address_that_cannot_be_understood_is_refused() -> None:
    """A typing mistake in the scheme."""
    with pytest.raises(StartError, match="store url 'rediss//store:6379'"):
        asyncio.run(check_store(StoreSettings(url="rediss//store:6379")))


async def test_memory_is_told_with_its_limit(server: Server) -> None:
    """The gauge that says when a store will be full."""
    client = open_client(StoreSettings(url=server.url))
    used, most = await memory_of(client)
    assert used > 100_000
    assert most == 0
    server.client.config_set("maxmemory", "100mb")
    assert (await memory_of(client))[1] == 100 * 1024 * 1024
    server.kill()
    with pytest.raises(StoreError, match="cannot be reached"):
        await memory_of(client)
    await client.aclose()


def test_the_check_leaves_no_connection_behind(server: Server) -> None:
    """Reloads and restarts on a store with few connections."""
    watcher: Redis = server.client
    before = watcher.info("clients")["connected_clients"]
    for _ in range(3):
        asyncio.run(check_store(StoreSettings(url=server.url)))
    assert watcher.info("clients")["connected_clients"] == before
