"""What replicas tell the store of their calls and when, and what they hear."""

from dataclasses import replace

import pytest
from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, SlowDown
from breaker.core.events import CircuitMoved, CircuitSeen, Result
from breaker.core.model import Operation
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.store import circuits as module
from tests.store.circuit_world import OPEN_US, PROBES, SECOND, Node, nodes, windows, with_circuit
from tests.store.job_world import Loss, Moment
from tests.store.replicas import commands, replica, until

NEVER_S = 3_600.0
JITTER_US = OPEN_US // 4


@pytest.fixture
def tells_at_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait for its turn is not told within a test."""
    monkeypatch.setattr(module, "REPORT_S", NEVER_S)


# What is told, and when.


@pytest.mark.usefixtures("tells_at_once_only")
async def test_calls_that_succeed_are_told_when_there_is_time(
    store_url: str, cluster: str, redis: Redis
) -> None:
    """A thousand calls a second must not be a thousand reports."""
    async with nodes(store_url, cluster, 1, with_circuit()) as [(node, _)]:
        with commands(redis, cluster) as sent:
            await node.calls(50)
            await node.calls(3, Result.SERVER_ERROR)
            await node.state()
        assert sent.count("admit") == 53
        assert sent.count("report") == 0


async def test_what_many_calls_say_is_one_report(store_url: str, cluster: str, redis: Redis) -> None:
    """Sums are told, and only what has changed; with the last call's age all is told that there was."""
    operation = with_circuit(window_ms=200)
    async with nodes(store_url, cluster, 1, operation) as [(node, _)]:
        started = [await node.start() for _ in range(50)]
        with commands(redis, cluster) as sent:
            for call in started:
                node.end(call)
            await until_silent(node)
        assert sent.count("report") <= 3, "when they ended, when they were forgotten, and perhaps in between"
        assert windows(redis, node) == {}
        assert node.circuits._dirty == {}


async def until_silent(node: Node) -> None:
    """Nothing is planned any more: without calls nothing will be sent."""

    async def is_so() -> bool:
        return node.circuits._timer is None and not node.circuits._telling

    await until(is_so)


async def test_an_operation_without_a_circuit_tells_nothing(
    store_url: str, cluster: str, redis: Redis
) -> None:
    """Nobody asks for it; and no timer runs for ever because of it."""
    async with nodes(store_url, cluster, 1, with_circuit(mode=CircuitMode.OFF)) as [(node, _)]:
        with commands(redis, cluster) as sent:
            await node.calls(5, Result.SERVER_ERROR)
            await until_silent(node)
        assert sent.count("report") == 0
        assert node.circuits._dirty == {}


async def test_what_was_lost_on_the_way_is_told_again(store_url: str, cluster: str) -> None:
    """The store was away while a probe ended: the circuit must not wait for its lease."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(probes=1), moment) as [(node, one)]:
        await node.calls(4, Result.SERVER_ERROR)
        await node.comes_to(CircuitState.OPEN)
        moment.now_us += OPEN_US + JITTER_US
        probe = await node.start()
        one.line.loses = Loss.QUESTION
        node.end(probe)
        await node.quiet()
        one.line.loses = None
        assert await node.state() is CircuitState.HALF_OPEN
        await node.comes_to(CircuitState.CLOSED)


async def test_a_window_that_was_lost_on_the_way_is_told_again(store_url: str, cluster: str) -> None:
    """Four failures that the store did not hear of are four failures."""
    async with nodes(store_url, cluster, 1, with_circuit(), Moment()) as [(node, one)]:
        started = [await node.start() for _ in range(4)]
        one.line.loses = Loss.QUESTION
        for call in started:
            node.end(call, Result.SERVER_ERROR)
        await node.quiet()
        one.line.loses = None
        await node.comes_to(CircuitState.OPEN)


async def test_a_pause_that_was_lost_on_the_way_is_told_again(store_url: str, cluster: str) -> None:
    """Of the tenant and of the operation, the longest that was asked for."""
    operation = replace(with_circuit(), slow_down=SlowDown.TENANT)
    async with nodes(store_url, cluster, 1, operation, Moment()) as [(node, one)]:
        ours, others = await node.start("acme"), await node.start()
        one.line.loses = Loss.QUESTION
        node.end(ours, Result.SLOW_DOWN, retry_after_us=9 * SECOND)
        node.end(others, Result.SLOW_DOWN, retry_after_us=2 * SECOND)
        await node.quiet()
        one.line.loses = None

        async def is_heard() -> bool:
            _, verdict = await node.ask("acme")
            return isinstance(verdict, Refused)

        await until(is_heard)
        assert await node.refused_by() is Policy.SLOW_DOWN


# What replicas hear.


async def test_all_replicas_hear_of_each_move_and_one_tells_of_it(store_url: str, cluster: str) -> None:
    """A graph of moves that counts each once, and a state that is everywhere at once without a call."""
    operation = with_circuit(open_ms=50, ramp_ms=1_000)
    async with (
        replica(store_url, cluster, operation) as one,
        replica(store_url, cluster, operation) as two,
        replica(store_url, cluster, operation) as three,
    ):
        ours = [Node(made.store, operation.name) for made in (one, two, three)]
        await all_hear(ours, CircuitState.CLOSED)
        await ours[0].calls(4, Result.SERVER_ERROR)
        await all_hear(ours, CircuitState.OPEN)
        await ours[1].comes_to(CircuitState.HALF_OPEN)
        probes = [await ours[1].start() for _ in range(PROBES)]
        await all_hear(ours, CircuitState.HALF_OPEN)
        for probe in probes:
            ours[1].end(probe)
        await all_hear(ours, CircuitState.CLOSED)
        await ours[1].all_told()
        moves = [
            (event.was, event.state, event.generation)
            for made in (one, two, three)
            for event in made.events
            if isinstance(event, CircuitMoved)
        ]
        assert moves == [("closed", "open", 1), ("open", "half-open", 2), ("half-open", "closed", 3)]
        seen = [
            [event.state for event in made.events if isinstance(event, CircuitSeen)]
            for made in (one, two, three)
        ]
        assert seen == [["closed", "open", "half-open", "closed"]] * 3


async def all_hear(ours: list[Node], state: CircuitState) -> None:
    async def is_so() -> bool:
        return all(node.lane.circuit is state for node in ours)

    await until(is_so)


@pytest.mark.parametrize(
    ("operation", "is_asked"), [(with_circuit(), True), (with_circuit(mode=CircuitMode.OFF), False)]
)
async def test_the_store_is_asked_also_for_what_has_no_limits_while_a_circuit_is_not_closed(
    store_url: str, cluster: str, operation: Operation, *, is_asked: bool
) -> None:
    """Calls without limits need no store, except while some of them may be probes."""
    async with nodes(store_url, cluster, 1, operation) as [(node, _)]:
        await node.state()
        assert not node.circuits.is_barred(node.lane)
        await node.calls(4, Result.SERVER_ERROR)
        if is_asked:
            await node.comes_to(CircuitState.OPEN)
        assert node.circuits.is_barred(node.lane) is is_asked
        _, verdict = await node.ask()
        assert isinstance(verdict, Refused if is_asked else Admitted)
