"""
Sentinel: the primary dies, another server is the primary, and nobody has to tell the gateways.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError, StoreError
from breaker.core.job_policy import Durability
from breaker.core.jobs import Queued
from breaker.core.state import Ask
from breaker.core.verdict import Admitted
from breaker.store.address import Node, Topology, address_of
from breaker.store.checks import check_store
from breaker.store.connection import open_client
from breaker.store.keys import wake_prefix
from breaker.store.sentinel import ASK_S, Named, Sentinels
from tests.store.job_servers import StoreServer, server_with_waitaof, wait_until
from tests.store.job_world import FACTS, JobReplica, a_queue
from tests.store.replicas import until
from tests.store.topologies import SERVICE, Sentinel, SentinelStore, sentinel_url

REPLICATED = a_queue(durability=Durability.REPLICATED, replicas=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SentinelStore]:
    made = SentinelStore(asyncio.run(server_with_waitaof()), tmp_path / "s", sentinels=3)
    yield made
    made.close()


def primary_of(url: str) -> Sentinels:
    settings = StoreSettings(url=url)
    return Sentinels(settings, address_of(settings))


@pytest.mark.parametrize(("how", "sentinels"), [("dies", 1), ("hangs", 3)])
async def test_a_failover_is_followed_and_what_was_promised_is_there(
    tmp_path: Path, cluster: str, how: str, sentinels: int
) -> None:
    """Under load: decisions fail for seconds and go on by themselves; no job is lost that a 202 called replicated."""
    store = SentinelStore(await server_with_waitaof(), tmp_path / "s", sentinels)
    primary, heir = store.pair.primary, store.pair.replica
    one = JobReplica(store.url, cluster, REPLICATED, moment=None, timeout_ms=300)
    await one.capacity.start(one.operations, "v1")
    one.jobs.configure(one.operations, FACTS)
    promised: list[str] = []
    stop = asyncio.Event()

    async def drive() -> None:
        while not stop.is_set():
            try:
                answer = await one.accept(is_async=True)
            except StoreError:
                answer = None
            if isinstance(answer, Queued) and answer.durability == "replicated: 1":
                promised.append(answer.job)
            await asyncio.sleep(0.002)

    drivers = [asyncio.get_running_loop().create_task(drive()) for _ in range(4)]
    try:
        await until(lambda: has(promised, 50))
        await until(lambda: listens(primary, cluster, one))
        if how == "dies":
            primary.kill()
        else:
            primary.pause()
        took = await until(lambda: is_primary(store.url, heir), seconds=15)
        assert took < 15
        wait_for_heir = await until(lambda: decides(one), seconds=10)
        assert wait_for_heir < 5, "the gateway needs no longer than the sentinels"
        await until(lambda: listens(heir, cluster, one), seconds=8)
        stop.set()
        await asyncio.gather(*drivers)
        states = await asyncio.gather(*(one.state(job) for job in promised))
        assert states == ["queued"] * len(promised)
        assert (await check_store(StoreSettings(url=store.url))).name.startswith("valkey ")
    finally:
        for driver in drivers:
            driver.cancel()
        await one.jobs.close()
        await one.capacity.close()
        store.close()


async def has(jobs: list[str], number: int) -> bool:
    return len(jobs) >= number


async def listens(server: StoreServer, cluster: str, one: JobReplica) -> bool:
    return bool(server.client.pubsub_numsub(wake_prefix(cluster) + one.name)[0][1] == 1)


async def is_primary(url: str, server: StoreServer) -> bool:
    """The sentinels name it, and it knows."""
    try:
        return (await primary_of(url).find_primary()).port == server.port and server.client.role()[
            0
        ] == b"master"
    except RedisConnectionError:
        return False  # nobody is named yet


async def decides(one: JobReplica) -> bool:
    verdict = await one.capacity.admit(one.lane, ask_of(one))
    return isinstance(verdict, Admitted)


def ask_of(one: JobReplica) -> Ask:
    return Ask(id=one.offer().lease_id)


async def test_sentinels_that_are_dead_or_hang_cost_nobody_their_timeout(store: SentinelStore) -> None:
    """One of three hangs: two agree, and that is enough; one that is alone is heard when the time is up."""
    sentinels = primary_of(store.url)
    expected = Node("127.0.0.1", store.pair.primary.port)
    store.sentinels[0].pause()
    try:
        began = time.monotonic()
        assert await sentinels.find_primary() == expected
        assert time.monotonic() - began < ASK_S
        store.sentinels[1].process.kill()
        store.sentinels[1].process.wait()
        assert await sentinels.find_primary() == expected
    finally:
        store.sentinels[0].resume()


async def test_a_server_that_is_no_longer_the_primary_is_not_taken_for_it(tmp_path: Path) -> None:
    """A sentinel that was cut off names the old one, which is a replica by now and says so."""
    binary = await server_with_waitaof()
    server = StoreServer(binary, tmp_path / "server")
    sentinel = Sentinel(binary, tmp_path / "sentinel", server.port, 1)
    settings = StoreSettings(url=sentinel_url(sentinel.port))
    try:
        client = open_client(settings)
        assert await client.ping()
        await client.aclose()
        sentinel.pause()
        server.client.replicaof("127.0.0.1", "1")
        sentinel.resume()
        with pytest.raises(StartError, match=r"is a replica: a failover is under way"):
            await check_store(settings)
    finally:
        sentinel.close()
        server.close()


async def test_sentinels_that_want_a_password_get_that_of_the_store(tmp_path: Path) -> None:
    """One password for both; a sentinel without one is not bothered with it."""
    binary = await server_with_waitaof()
    server = StoreServer(binary, tmp_path / "server")
    server.client.config_set("requirepass", "secret")
    auth = f"sentinel auth-pass {SERVICE} secret"
    closed = Sentinel(binary, tmp_path / "closed", server.port, 1, auth, "requirepass secret")
    free = Sentinel(binary, tmp_path / "free", server.port, 1, auth)
    try:
        for sentinel in (closed, free):
            url = sentinel_url(sentinel.port)
            assert (await check_store(StoreSettings(url=url, password="secret"))).name
            with pytest.raises(StartError, match=r"password"):
                await check_store(StoreSettings(url=url))
    finally:
        closed.close()
        free.close()
        server.close()


async def test_what_is_wrong_with_the_address_is_said(store: SentinelStore) -> None:
    """A wrong name of the service, a sentinel taken for a store, nobody there."""
    port = store.sentinels[0].port
    with pytest.raises(StartError, match=rf"names a primary of 'ordres': 127\.0\.0\.1:{port}: knows no such"):
        await check_store(StoreSettings(url=f"redis+sentinel://127.0.0.1:{port}/ordres"))
    with pytest.raises(StartError, match=r"is a sentinel; set store\.url to redis\+sentinel://"):
        await check_store(StoreSettings(url=f"redis://127.0.0.1:{port}"))
    with pytest.raises(
        StartError, match=r"no sentinel names a primary of 'orders': 127\.0\.0\.1:1: Error 111 "
    ):
        await check_store(StoreSettings(url=sentinel_url(1)))


async def test_a_primary_that_is_down_is_not_waited_for(store: SentinelStore) -> None:
    """Nobody to take over: the sentinels' word is told, instead of a connection that hangs."""
    store.pair.replica.kill()
    store.pair.primary.pause()
    wait_until(lambda: all(b"down" in sentinel.told()[b"flags"] for sentinel in store.sentinels))
    with pytest.raises(StartError, match=r"hold the primary 127\.0\.0\.1:\d+ for down, and have not named"):
        await check_store(StoreSettings(url=store.url))


def test_the_newest_configuration_counts() -> None:
    """And within one, that somebody still reaches the primary."""
    old = Named(epoch=1, is_up=True, primary=Node("a", 1))
    new = Named(epoch=2, is_up=False, primary=Node("b", 1))
    assert max(old, new) is new
    assert max(new, Named(epoch=2, is_up=True, primary=Node("b", 1))).is_up


def test_an_address_is_taken_apart() -> None:
    """All that a URL of several servers can say."""
    told = address_of(StoreSettings(url="rediss+sentinel://u:p%40@a:1,[::1]/orders/3"))
    assert (told.topology, told.service, told.database, told.is_tls) == (Topology.SENTINEL, "orders", 3, True)
    assert told.seeds == (Node("a", 1), Node("::1", 26_379))
    assert (told.username, told.password) == ("u", "p@")
    server = told.of_server(StoreSettings(url="any", ca_file="ca"), Node("::1", 7))
    assert (server.url, server.username, server.password, server.ca_file) == (
        "rediss://[::1]:7/3",
        "u",
        "p@",
        "ca",
    )
    plain = told.of_sentinel(server, Node("a", 1), with_password=False)
    assert (plain.url, plain.username, plain.password) == ("rediss://a:1", None, None)
    assert address_of(StoreSettings(url="redis+cluster://h")).seeds == (Node("h", 6_379),)
    assert address_of(StoreSettings(url="unix:///s")).topology is Topology.STANDALONE


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a:1", "redis+cluster://a:b", "redis+cluster://", "redis+ring://a", "redis+sentinel://a/s/x"]
)  # fmt: skip
def test_an_address_that_cannot_be_understood_is_refused(url: str) -> None:
    """The configuration's check comes before; a URL from elsewhere does not crash either."""
    with pytest.raises(StartError, match="store url"):
        address_of(StoreSettings(url=url))
