"""
Cluster: each operation on its own node, and what one node fails is nobody else's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import AskError

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError, StoreError, StoreRefusedError, StoreTimeoutError
from breaker.core.events import StoreFailed
from breaker.core.jobs import Queued
from breaker.core.verdict import Admitted, Refused
from breaker.store.address import Node
from breaker.store.checks import check_store, memory_of
from breaker.store.cluster_line import ClusterLine, smallest
from breaker.store.connection import open_client
from breaker.store.keys import Keys, wake_prefix
from breaker.store.scripts import load_scripts
from breaker.store.server_binary import find_server
from breaker.store.slots import key_of, read_table, slot_of
from tests.store.job_servers import StoreServer, server_with_waitaof, wait_until
from tests.store.job_world import JobReplica, a_queue
from tests.store.replicas import Replica, an_operation, rate, slots, until
from tests.store.topologies import ClusterStore, answers, command, node_id

TIMEOUT_MS = 300


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStore]:
    """Three nodes that tests leave as they found them."""
    made = ClusterStore(
        asyncio.run(server_with_waitaof()), tmp_path_factory.mktemp("three"),
        "--appendonly", "yes", "--appendfsync", "everysec",
    )  # fmt: skip
    yield made
    made.close()


@asynccontextmanager
async def replica_of(
    store: ClusterStore, cluster: str, *names: str, **capacity: Any
) -> AsyncIterator[Replica]:
    made = Replica(
        store.url, cluster, *(an_operation(name, **capacity) for name in names), timeout_ms=TIMEOUT_MS
    )
    await made.store.start(made.operations, "v1")
    channel = wake_prefix(cluster) + made.name

    async def listens() -> bool:
        told = [node.client.pubsub_numsub(channel)[0][1] for node in store.nodes if answers(node.client)]
        return sum(told) == 1  # a node counts its own alone

    try:
        await until(listens)
        yield made
    finally:
        await made.store.close()


@asynccontextmanager
async def line_to(store: ClusterStore, timeout_ms: int = TIMEOUT_MS) -> AsyncIterator[ClusterLine]:
    made = ClusterLine(StoreSettings(url=store.url, timeout_ms=timeout_ms), load_scripts())
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def admit(replica: Replica, operation: str) -> Any:
    """What the operation says to one call; a StoreError as it is."""
    try:
        return await replica.store.admit(replica.store.lane(operation), replica.an_ask())
    except StoreError as exc:
        return exc


async def admits(replica: Replica, operation: str) -> bool:
    return isinstance(await admit(replica, operation), Admitted)


def tags(store: ClusterStore) -> list[bytes]:
    """Keys of no operation, one for each node in their order, by which it is found."""
    return [f"probe:{{{name}}}".encode() for name in store.operations()]


async def test_operations_are_spread_and_each_is_limited_on_its_own_node(
    three: ClusterStore, cluster: str
) -> None:
    """Above one store's core, operations go to more of them; a limit stays exact."""
    names = three.operations()
    async with replica_of(three, cluster, *names, limits=rate(1)) as one:
        said = await asyncio.gather(*(admit(one, name) for name in names * 2))
        assert [type(verdict) for verdict in said] == [Admitted] * 3 + [Refused] * 3
        assert one.seen(StoreFailed) == 0
    for at, node in enumerate(three.nodes):
        has = [
            bool(node.client.exists(Keys(cluster, name).named("policy")))
            for name in names
            if name == names[at]
        ]
        others = command(node, "DBSIZE")
        assert has == [True]
        assert others > 0


async def test_replies_come_back_in_the_order_of_the_commands(three: ClusterStore) -> None:
    """Whose reply is whose is told by its place alone."""
    keys = tags(three)
    async with line_to(three) as line:
        await line.exchange([("SET", key, at) for at, key in enumerate(keys)])
        assert await line.exchange([("GET", keys[at]) for at in (2, 0, 1, 0, 2)]) == [
            b"2",
            b"0",
            b"1",
            b"0",
            b"2",
        ]
        await line.exchange([("DEL", key) for key in keys])


async def test_a_job_is_accepted_leased_and_ended_on_a_cluster(three: ClusterStore, cluster: str) -> None:
    """The queue of each operation is on its node, with all that belongs to it."""
    for name in three.operations():
        one = JobReplica(three.url, cluster, a_queue(name), moment=None, timeout_ms=TIMEOUT_MS)
        await one.capacity.publish(one.operations, "v1")
        one.jobs.configure(one.operations, await check_store(StoreSettings(url=three.url)))
        try:
            job = await one.queue()
            leased = await one.one()
            assert leased.head.id == job
            await one.end(leased)
            look = await one.look()
            assert (look.accepted, look.queued, look.unaccounted) == (1, 0, 0)
        finally:
            await one.jobs.close()
            await one.capacity.close()


async def test_what_a_202_promises_is_asked_of_the_node_that_has_the_job(
    three: ClusterStore, cluster: str
) -> None:
    """WAITAOF and WAIT follow on each node that accepted; one node without a replica falls short for all."""
    names = three.operations()
    facts = await check_store(StoreSettings(url=three.url))
    assert (facts.fsync, facts.can_wait_aof) == ("everysec", True)
    one = JobReplica(three.url, cluster, *map(a_queue, names), moment=None, timeout_ms=2_000)
    await one.capacity.publish(one.operations, "v1")
    one.jobs.configure(one.operations, facts)
    try:
        lanes = [one.capacity.lane(name) for name in names]
        told = await asyncio.gather(*(one.jobs.accept(lane, one.offer(is_async=True)) for lane in lanes))
        assert [(type(answer), getattr(answer, "reach", None)) for answer in told] == [
            (Queued, (True, 0))
        ] * 3
    finally:
        await one.jobs.close()
        await one.capacity.close()


async def test_a_turn_that_another_replica_grants_is_heard(three: ClusterStore, cluster: str) -> None:
    """A message that is published on one node reaches who listens on another."""
    (name, *_) = three.operations()
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(replica_of(three, cluster, name, limits=slots(1)))
            for _ in range(2)
        ]
        held = await one.hold()
        waiting = await two.wait(two.an_ask(wait_s=5))
        began = time.monotonic()
        one.settle(held)
        assert isinstance(await waiting, Admitted)
        assert time.monotonic() - began < 2, "heard, not found out when its time was up"


async def test_a_node_that_is_killed_fails_its_own_operations_alone(tmp_path: Path, cluster: str) -> None:
    """One third of the operations has a bad time, and the others do not notice."""
    store = ClusterStore(
        await find_server(), tmp_path / "c", "--appendonly", "yes", "--appendfsync", "always"
    )
    try:
        names = store.operations()
        async with replica_of(store, cluster, *names) as one:
            store.nodes[1].kill()
            for _ in range(20):
                said = await asyncio.gather(*(admit(one, name) for name in names))
                assert [isinstance(verdict, Admitted) for verdict in said] == [True, False, True]
            store.nodes[1].start()
            assert await until(lambda: admits(one, names[1]), seconds=8) < 8
    finally:
        store.close()


async def test_a_node_that_hangs_costs_its_timeout_once_and_not_each_exchange(
    three: ClusterStore, cluster: str
) -> None:
    """A machine that is frozen answers nothing, and refuses nothing: it must not slow the others down."""
    names = three.operations()
    async with replica_of(three, cluster, *names) as one:
        three.nodes[2].pause()
        try:
            took, failed = [], []
            for _ in range(10):
                began = time.monotonic()
                said = await asyncio.gather(*(admit(one, name) for name in names))
                took.append(time.monotonic() - began)
                failed.append(said.pop())
                assert [type(verdict) for verdict in said] == [Admitted, Admitted]
            assert isinstance(failed[0], StoreTimeoutError), "it may have happened"
            assert all(isinstance(error, StoreRefusedError) for error in failed[1:]), "nothing was sent"
            assert took[0] >= TIMEOUT_MS * 0.7 / 1_000
            assert max(took[1:]) < TIMEOUT_MS / 2_000
        finally:
            three.nodes[2].resume()
        assert await until(lambda: admits(one, names[2])) < 4


async def test_a_node_is_left_alone_for_a_second(three: ClusterStore) -> None:
    """It is not connected to again by each exchange, either."""
    keys = tags(three)
    async with line_to(three) as line:
        command(three.nodes[0], "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        began = time.monotonic()
        reply = (await line.exchange([("GET", keys[0]), ("GET", keys[1])]))[0]
        assert type(reply) is StoreError
        while isinstance(reply, StoreError):
            assert time.monotonic() - began < 5
            reply, other = await line.exchange([("GET", keys[0]), ("GET", keys[1])])
            assert other is None
        assert time.monotonic() - began >= 1


async def test_a_slot_that_moves_is_refused_and_found_where_it_went(
    three: ClusterStore, cluster: str
) -> None:
    """A rebalanced Cluster: for moments the operation is refused as moving, and then goes on by itself."""
    names = three.operations()
    source, target = three.nodes[0], three.nodes[1]
    slot = slot_of(f"{{{names[0]}}}".encode())
    async with replica_of(three, cluster, *names, limits=slots(3)) as one:
        assert isinstance(await admit(one, names[0]), Admitted)
        moved = False
        try:
            begin_move(slot, source, target)
            error = await admit(one, names[0])
            assert isinstance(error, StoreRefusedError)
            assert "moving" in str(error)
            assert isinstance(await admit(one, names[1]), Admitted)
            end_move(slot, source, target)
            moved = True
            failed = one.seen(StoreFailed)
            assert isinstance(await admit(one, names[0]), Admitted), "at the first try"
            assert (await one.store.look(names[0])).in_use == 2, "with what was held before"
            assert one.seen(StoreFailed) == failed
        finally:
            if moved:
                begin_move(slot, target, source)
            end_move(slot, target, source)
        assert await until(lambda: admits(one, names[0])) < 5


def begin_move(slot: int, source: StoreServer, target: StoreServer) -> None:
    command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
    command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))


def end_move(slot: int, source: StoreServer, target: StoreServer) -> None:
    """All of its keys go over, and all nodes are told."""
    while keys := command(source, "CLUSTER", "GETKEYSINSLOT", slot, 1_000):
        command(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "REPLACE", "KEYS", *keys)
    for node in (target, source):
        command(node, "CLUSTER", "SETSLOT", slot, "NODE", node_id(target))


async def test_a_key_that_has_gone_ahead_is_asked_for_where_it_is(three: ClusterStore) -> None:
    """ASK: the slot is still the source's, and this key is no longer there."""
    source, target = three.nodes[0], three.nodes[2]
    key = tags(three)[0]
    slot = slot_of(key)
    settings = StoreSettings(url=three.url)
    client = open_client(settings)
    async with line_to(three) as line:
        assert await line.exchange([("SET", key, "here")]) == [b"OK"]
        begin_move(slot, source, target)
        try:
            command(source, "MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
            with pytest.raises(AskError):
                source.client.get(key)
            assert await line.exchange([("GET", key), ("GET", tags(three)[1])]) == [b"here", None]
            assert await client.get(key) == b"here"
        finally:
            end_move(slot, source, target)
        assert await client.get(key) == b"here", "and by MOVED"
        assert await line.exchange([("DEL", key)]) == [1]
        begin_move(slot, target, source)
        end_move(slot, target, source)
    await client.aclose()


async def test_a_node_that_lost_its_scripts_is_given_them_again(three: ClusterStore, cluster: str) -> None:
    """SCRIPT FLUSH on one of three, or its restart: nobody notices."""
    names = three.operations()
    async with replica_of(three, cluster, *names) as one:
        command(three.nodes[1], "SCRIPT", "FLUSH")
        said = await asyncio.gather(*(admit(one, name) for name in names))
        assert [type(verdict) for verdict in said] == [Admitted] * 3
        assert one.seen(StoreFailed) == 0


async def test_a_replica_that_takes_over_is_found(tmp_path: Path, cluster: str) -> None:
    """A node dies for good; the Cluster promotes its replica, and its operations come back by themselves."""
    store = ClusterStore(await find_server(), tmp_path / "c", "--repl-ping-replica-period", "1")
    try:
        names = store.operations()
        heir = store.add_replica(store.nodes[0])
        async with replica_of(store, cluster, *names, limits=rate(1_000)) as one:
            assert await admits(one, names[0])
            assert store.nodes[0].client.wait(1, 2_000) == 1
            store.nodes[0].kill()
            assert await until(lambda: admits(one, names[0]), seconds=15) < 15
            assert heir.client.exists(Keys(cluster, names[0]).named("policy"))
    finally:
        store.close()


async def test_a_cluster_is_judged_by_its_weakest_node(three: ClusterStore) -> None:
    """One node that evicts is one that forgets; and all nodes stand in the line of the start."""
    settings = StoreSettings(url=three.url)
    facts = await check_store(settings)
    assert facts.name.startswith("Cluster of 3: valkey ")
    assert facts.warnings == ()
    third = three.nodes[2]
    try:
        third.client.config_set("maxmemory-policy", "allkeys-lru")
        third.client.config_set("appendonly", "no")
        command(three.nodes[0], "CONFIG", "SET", "cluster-require-full-coverage", "yes")
        facts = await check_store(settings)
        evicts, forgets, covers = facts.warnings
        assert f"node 127.0.0.1:{third.port}: maxmemory-policy is allkeys-lru" in evicts
        assert f"node 127.0.0.1:{third.port}: appendonly is off" in forgets
        assert "one node that is down stops the operations of all" in covers
        assert (facts.fsync, facts.can_wait_aof) == ("off", False)
    finally:
        third.client.config_set("maxmemory-policy", "noeviction")
        third.client.config_set("appendonly", "yes")
        command(three.nodes[0], "CONFIG", "SET", "cluster-require-full-coverage", "no")


async def test_a_cluster_with_holes_is_refused(three: ClusterStore) -> None:
    """Operations whose slot nobody serves would fail, one by one."""
    node, slot = three.nodes[2], 16_383
    command(node, "CLUSTER", "DELSLOTS", slot)
    settings = StoreSettings(url=f"redis+cluster://127.0.0.1:{node.port}")
    try:
        with pytest.raises(StartError, match="serves 16383 of 16384 slots"):
            await check_store(settings)
        line = ClusterLine(settings, {})
        await line.open()
        key = next(key for number in range(100_000) if slot_of(key := str(number).encode()) == slot)
        (reply,) = await line.exchange([("GET", key)])
        assert isinstance(reply, StoreRefusedError)
        assert str(reply) == "no node of the Cluster serves slot 16383 now"
        await line.close()
    finally:
        command(node, "CLUSTER", "ADDSLOTS", slot)
    wait_until(three.is_well)


async def test_a_url_of_the_wrong_kind_is_refused_with_the_right_one(three: ClusterStore) -> None:
    """`redis://` to a Cluster would lose two operations of three."""
    with pytest.raises(StartError, match=r"node of a Cluster; set store\.url to redis\+cluster://"):
        await check_store(StoreSettings(url=f"redis://127.0.0.1:{three.nodes[0].port}"))
    with pytest.raises(StartError, match=r"127\.0\.0\.1:1: Error 111 "):
        await check_store(StoreSettings(url="redis+cluster://127.0.0.1:1"))


async def test_the_memory_of_a_cluster_is_that_of_its_fullest_node(three: ClusterStore) -> None:
    """The first one that is full refuses."""
    client = open_client(StoreSettings(url=three.url))
    three.nodes[1].client.config_set("maxmemory", "64mb")
    try:
        used, most = await memory_of(client)
        assert most == 64 * 1024 * 1024
        assert 0 < used < most
    finally:
        three.nodes[1].client.config_set("maxmemory", "0")
    await client.aclose()


async def test_a_line_without_any_node_says_so_and_leaves_nothing_behind(three: ClusterStore) -> None:
    """Also what was left to be connected to ends with the line."""
    line = ClusterLine(StoreSettings(url="redis+cluster://127.0.0.1:1"), {})
    with pytest.raises(StoreError, match=r"no node of the Cluster says who has which slot: 127\.0\.0\.1:1"):
        await line.open()
    with pytest.raises(StoreError, match="no connection"):
        await line.exchange([("GET", b"a")])
    async with line_to(three):
        pass
    before = len(asyncio.all_tasks())
    async with line_to(three):
        three.nodes[0].pause()
        three.nodes[0].resume()
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ((b"EVALSHA", b"sha", 2, b"{a}1", b"{a}2", b""), b"{a}1"),
        (("EVALSHA", "sha", 1, "{a}1"), b"{a}1"),
        (("EVAL", "return 1", 0), None),
        (("XADD", "stream", "*", "a", "b"), b"stream"),
        (("CONFIG GET", "appendfsync"), None),
        (("WAITAOF", 1, 0, 500), None),
        (("PING",), None),
    ],
)
def test_the_key_of_a_command_is_found(sent: tuple[Any, ...], key: bytes | None) -> None:
    """A command at the wrong node costs a second one."""
    assert key_of(sent) == key


def test_a_node_that_does_not_know_its_address_is_where_it_was_asked() -> None:
    """As behind a forwarded port; and what nobody serves is nobody's."""
    table = read_table([[1, 2, [b"", 7001, b"id"]], [3, 3, [b"::1", 7002, b"id"]]], Node("h", 7000))
    assert table.owners[:5] == (None, Node("h", 7001), Node("h", 7001), Node("::1", 7002), None)
    assert [str(node) for node in table.nodes] == ["h:7001", "[::1]:7002"]
    assert table.missing == 16_381


@pytest.mark.parametrize(
    ("said", "is_told"),
    [
        ([2, 1, 3], 1),
        ([[1, 2], [0, 3]], [0, 2]),
        ([2, StoreTimeoutError("late")], 2),
    ],
)
def test_what_all_nodes_can_say_is_the_smallest(said: list[Any], is_told: Any) -> None:
    """A 202 never promises more than the worst of its nodes; one that failed has failed its own jobs."""
    assert smallest(said) == is_told
