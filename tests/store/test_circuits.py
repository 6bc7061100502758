"""Circuits over all replicas: calls that fail here and there open them for all, or for one."""

from dataclasses import replace

import pytest

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.events import LoneReplica, Result
from breaker.core.model import LEASE_US
from breaker.core.verdict import Policy
from breaker.store import circuits as module
from tests.store.circuit_world import OPEN_US, PROBES, SECOND, Node, nodes, with_circuit
from tests.store.job_world import Moment
from tests.store.replicas import until

NEVER_S = 3_600.0
JITTER_US = OPEN_US // 4


@pytest.fixture
def tells_at_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait for its turn is not told within a test."""
    monkeypatch.setattr(module, "REPORT_S", NEVER_S)


async def open_by(node: Node) -> None:
    """Calls of this replica fail until the circuit is open."""
    await node.calls(4, Result.SERVER_ERROR)
    await node.comes_to(CircuitState.OPEN)


# Opening.


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_two_replicas_of_three_open_it_for_all(store_url: str, cluster: str, failing: int) -> None:
    """One that fails alone is the bad one; two are right, and the third need not find out by itself."""
    async with nodes(store_url, cluster, 3, with_circuit()) as made:
        good = [node for node, _ in made[failing:]]
        for node in good:
            await node.calls(3)
        for node in good:
            await node.all_told()
        for node, calls in [(node, [await node.start() for _ in range(9)]) for node, _ in made[:failing]]:
            for call in calls:
                node.end(call, Result.CONNECT_ERROR)
        if failing > 1:
            await made[2][0].comes_to(CircuitState.OPEN)
            assert [await node.refused_by() for node, _ in made] == [Policy.CIRCUIT] * 3
        else:
            await until_alone(made[0][0])
            assert await made[2][0].state() is CircuitState.CLOSED


async def until_alone(node: Node) -> None:
    async def is_so() -> bool:
        return node.circuits.bars_here(node.operation) is not None

    await until(is_so)


@pytest.mark.usefixtures("tells_at_once_only")
async def test_it_opens_with_the_call_that_is_one_too_many(store_url: str, cluster: str) -> None:
    """Not a quarter of a second later: at a thousand calls a second that were 250 more."""
    async with nodes(store_url, cluster, 1, with_circuit()) as [(node, _)]:
        await node.calls(3, Result.TIMEOUT)
        assert await node.state() is CircuitState.CLOSED
        await node.calls(1, Result.TIMEOUT)
        await node.comes_to(CircuitState.OPEN)


@pytest.mark.parametrize("result", [Result.CLIENT_ERROR, Result.ABANDONED, Result.SLOW_DOWN, Result.OK])
async def test_what_is_no_failure_of_the_downstream_opens_nothing(
    store_url: str, cluster: str, result: Result
) -> None:
    """A caller who sends rubbish, or hangs up, must not close the door to the others."""
    async with nodes(store_url, cluster, 1, with_circuit(consecutive=2)) as [(node, _)]:
        await node.calls(8, result)
        await node.calls(1, Result.SERVER_ERROR)
        await node.all_told()
        assert await node.state() is CircuitState.CLOSED


@pytest.mark.parametrize(("took_ms", "state"), [(99, CircuitState.CLOSED), (100, CircuitState.OPEN)])
async def test_slow_calls_open_it_from_the_stated_time_on(
    store_url: str, cluster: str, took_ms: int, state: CircuitState
) -> None:
    """Both are stated together: from when on a call is slow, and how many of them are too many."""
    async with nodes(store_url, cluster, 1, with_circuit(slow_rate=0.5, slow_call_ms=100)) as [(node, _)]:
        await node.calls(2)
        await node.calls(2, took_us=took_ms * 1_000)
        await node.all_told()
        assert await node.state() is state


async def test_where_calls_are_rare_failures_in_a_row_open_it(store_url: str, cluster: str) -> None:
    """An operation with a call an hour never has ten in a window."""
    moment = Moment()
    operation = with_circuit(min_calls=10, consecutive=3)
    async with nodes(store_url, cluster, 1, operation, moment) as [(node, _)]:
        for _ in range(2):
            await node.calls(1, Result.SERVER_ERROR)
            moment.now_us += 3_600 * SECOND
        assert await node.state() is CircuitState.CLOSED
        await node.calls(1, Result.SERVER_ERROR)
        await node.comes_to(CircuitState.OPEN)


async def test_calls_of_a_generation_ago_say_nothing(store_url: str, cluster: str) -> None:
    """A hundred calls that hung while it opened and closed again fail all at once: that is old news."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(), moment) as [(node, _)]:
        hanging = [await node.start() for _ in range(20)]
        await open_by(node)
        moment.now_us += 2 * OPEN_US
        await node.calls(PROBES)
        await node.comes_to(CircuitState.CLOSED)
        for call in hanging:
            node.end(call, Result.TIMEOUT)
        await node.all_told()
        assert await node.state() is CircuitState.CLOSED
        await open_by(node)


# One replica alone.


async def test_a_replica_that_is_alone_opens_only_itself_and_comes_back_by_probes(
    store_url: str, cluster: str
) -> None:
    """A node whose network is ill: the others go on, it says so, and it tries by itself."""
    moment = Moment()
    async with nodes(store_url, cluster, 3, with_circuit(), moment) as made:
        (ill, one), (good, _), _ = made
        await good.calls(3)
        await good.all_told()
        await ill.calls(8, Result.CONNECT_ERROR)
        await until_alone(ill)
        bar = ill.circuits.bars_here(ill.operation)
        assert bar is not None
        assert OPEN_US - JITTER_US - SECOND < bar <= OPEN_US + JITTER_US
        assert ill.circuits.room_here(ill.operation, 64) == 0
        assert [event.is_lone for event in one.events if isinstance(event, LoneReplica)] == [True]
        assert good.circuits.bars_here(good.operation) is None
        assert good.circuits.room_here(good.operation, 64) == 64
        assert await good.state() is CircuitState.CLOSED

        moment.now_us += OPEN_US + JITTER_US + SECOND  # our own estimate of the time goes on meanwhile
        await ill.state()
        assert ill.circuits.bars_here(ill.operation) is None
        assert ill.circuits.room_here(ill.operation, 64) == PROBES
        probes = [await ill.start() for _ in range(PROBES)]
        assert ill.circuits.bars_here(ill.operation) == SECOND, "all of its probes are under way"
        assert ill.circuits.room_here(ill.operation, 64) == 0
        ill.end(probes[0], Result.CLIENT_ERROR)
        ill.end(probes[1])
        assert one.seen(LoneReplica) == 1
        ill.end(probes[2])
        assert [event.is_lone for event in one.events if isinstance(event, LoneReplica)] == [True, False]
        assert ill.circuits.room_here(ill.operation, 64) == 64
        await ill.calls(3)
        await ill.all_told()
        assert await good.state() is CircuitState.CLOSED


async def test_a_lone_probe_that_fails_makes_the_pause_longer(store_url: str, cluster: str) -> None:
    """And one that takes longer than any lease is still under way: it runs here, and it will end."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, with_circuit(), moment) as [(ill, _), (good, _)]:
        await good.calls(3)
        await good.all_told()
        await ill.calls(8, Result.CONNECT_ERROR)
        await until_alone(ill)
        moment.now_us += OPEN_US + JITTER_US + SECOND
        await ill.state()
        ill.end(await ill.start(), Result.CONNECT_ERROR)
        bar = ill.circuits.bars_here(ill.operation)
        assert bar is not None
        assert 2 * (OPEN_US - JITTER_US) - SECOND < bar <= 2 * (OPEN_US + JITTER_US)
        moment.now_us += 2 * (OPEN_US + JITTER_US) + SECOND
        await ill.state()
        slow = [await ill.start() for _ in range(PROBES)]
        for _ in range(2):
            assert ill.circuits.room_here(ill.operation, 64) == 0
            moment.now_us += LEASE_US + SECOND
            await ill.state()
        for call in slow:
            ill.end(call)
        assert ill.circuits.bars_here(ill.operation) is None
        assert ill.circuits.room_here(ill.operation, 64) == 64


async def test_a_replica_is_not_alone_any_more_once_all_see_it(store_url: str, cluster: str) -> None:
    """Whoever was paged for one bad node: it was not the node, and that alert ends."""
    async with nodes(store_url, cluster, 2, with_circuit()) as [(ill, one), (good, _)]:
        await good.calls(3)
        await good.all_told()
        await ill.calls(8, Result.CONNECT_ERROR)
        await until_alone(ill)
        await good.calls(8, Result.CONNECT_ERROR)
        await ill.comes_to(CircuitState.OPEN)
        assert [event.is_lone for event in one.events if isinstance(event, LoneReplica)] == [True, False]
        assert ill.circuits.bars_here(ill.operation) is None, "what holds for all is asked of the store"


@pytest.mark.parametrize("mode", [CircuitMode.SHADOW, CircuitMode.OFF])
async def test_a_lone_replica_is_barred_only_while_circuits_decide(
    store_url: str, cluster: str, mode: CircuitMode
) -> None:
    """Who switches the circuit off, or to shadow, because a node stands alone gets that node back."""
    operation = with_circuit()
    async with nodes(store_url, cluster, 2, operation) as [(ill, one), (good, _)]:
        await good.calls(3)
        await good.all_told()
        await ill.calls(8, Result.CONNECT_ERROR)
        await until_alone(ill)
        changed = replace(operation, circuit=replace(operation.circuit, mode=mode))
        await ill.store.publish({operation.name: changed}, "v2")
        assert ill.circuits.bars_here(ill.operation) is None
        assert ill.circuits.room_here(ill.operation, 64) == 64
        is_over = mode is CircuitMode.OFF
        assert [event.is_lone for event in one.events if isinstance(event, LoneReplica)] == [True] + [
            False
        ] * is_over
