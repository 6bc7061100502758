"""Circuits over all replicas: calls that fail here and there, and what starts everywhere afterwards."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.events import LoneReplica, Result
from breaker.core.model import LEASE_US
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.store import circuits as module
from tests.store.circuit_world import OPEN_US, PROBES, SECOND, Node, nodes, with_circuit
from tests.store.job_world import Moment
from tests.store.replicas import an_operation, slots, until

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
            await told(node)
        for node, calls in [(node, [await node.start() for _ in range(9)]) for node, _ in made[:failing]]:
            for call in calls:
                node.end(call, Result.CONNECT_ERROR)
        if failing > 1:
            await made[2][0].comes_to(CircuitState.OPEN)
            assert [await node.refused_by() for node, _ in made] == [Policy.CIRCUIT] * 3
        else:
            await until_alone(made[0][0])
            assert await made[2][0].state() is CircuitState.CLOSED


async def told(node: Node) -> None:
    """Wait until the store knows what this replica sees."""

    async def is_so() -> bool:
        return node.circuits._posts[node.operation].told.calls > 0

    await until(is_so)


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
        await told_or_silent(node)
        assert await node.state() is CircuitState.CLOSED


async def told_or_silent(node: Node) -> None:
    """Wait until nothing is left to tell."""

    async def is_so() -> bool:
        post = node.circuits._posts[node.operation]
        return not post.is_telling and post.told == replace(
            post.window.seen(node.store.clock.now_us()), at_us=post.told.at_us
        )

    await until(is_so)


@pytest.mark.parametrize(("took_ms", "state"), [(99, CircuitState.CLOSED), (100, CircuitState.OPEN)])
async def test_slow_calls_open_it_from_the_stated_time_on(
    store_url: str, cluster: str, took_ms: int, state: CircuitState
) -> None:
    """Both are stated together: from when on a call is slow, and how many of them are too many."""
    async with nodes(store_url, cluster, 1, with_circuit(slow_rate=0.5, slow_call_ms=100)) as [(node, _)]:
        await node.calls(2)
        await node.calls(2, took_us=took_ms * 1_000)
        await told_or_silent(node)
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
        await told_or_silent(node)
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
        await told(good)
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

        moment.now_us += OPEN_US + JITTER_US
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
        await told_or_silent(ill)
        assert await good.state() is CircuitState.CLOSED


async def test_a_lone_probe_that_fails_makes_the_pause_longer(store_url: str, cluster: str) -> None:
    """And one that is lost frees itself after its lease."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, with_circuit(), moment) as [(ill, _), (good, _)]:
        await good.calls(3)
        await told(good)
        await ill.calls(8, Result.CONNECT_ERROR)
        await until_alone(ill)
        moment.now_us += OPEN_US + JITTER_US
        await ill.state()
        ill.end(await ill.start(), Result.CONNECT_ERROR)
        bar = ill.circuits.bars_here(ill.operation)
        assert bar is not None
        assert 2 * (OPEN_US - JITTER_US) - SECOND < bar <= 2 * (OPEN_US + JITTER_US)
        moment.now_us += 2 * (OPEN_US + JITTER_US)
        await ill.state()
        for _ in range(PROBES):
            await ill.start()  # and is never heard of again
        assert ill.circuits.room_here(ill.operation, 64) == 0
        moment.now_us += LEASE_US
        await ill.state()
        assert ill.circuits.bars_here(ill.operation) is None
        assert ill.circuits.room_here(ill.operation, 64) == PROBES


async def test_a_replica_is_not_alone_any_more_once_all_see_it(store_url: str, cluster: str) -> None:
    """Whoever was paged for one bad node: it was not the node, and that alert ends."""
    async with nodes(store_url, cluster, 2, with_circuit()) as [(ill, one), (good, _)]:
        await good.calls(3)
        await told(good)
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
        await told(good)
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


# Probes.


async def test_so_many_probes_go_over_all_replicas_and_no_more(store_url: str, cluster: str) -> None:
    """An ill downstream is tried by three calls, however many replicas have callers that wait."""
    moment = Moment()
    async with nodes(store_url, cluster, 3, with_circuit(), moment) as made:
        await open_by(made[0][0])
        moment.now_us += OPEN_US - JITTER_US - 1
        assert [await node.refused_by() for node, _ in made] == [Policy.CIRCUIT] * 3
        moment.now_us += 2 * JITTER_US + 1
        verdicts = await asyncio.gather(*(node.ask() for _ in range(5) for node, _ in made))
        probes = [verdict for _, verdict in verdicts if isinstance(verdict, Admitted)]
        assert [(verdict.is_probe, verdict.leased) for verdict in probes] == [(True, True)] * PROBES
        refused = {verdict.policy for _, verdict in verdicts if isinstance(verdict, Refused)}
        assert refused == {Policy.CIRCUIT}


async def test_it_closes_when_probes_of_whichever_replicas_have_succeeded(
    store_url: str, cluster: str
) -> None:
    """What a caller does wrong shows, too, that the downstream answers."""
    moment = Moment()
    async with nodes(store_url, cluster, 3, with_circuit(), moment) as made:
        await open_by(made[0][0])
        moment.now_us += OPEN_US + JITTER_US
        for (node, _), result in zip(made, [Result.OK, Result.CLIENT_ERROR, Result.OK], strict=True):
            assert await node.state() is CircuitState.HALF_OPEN
            node.end(await node.start(), result)
        await made[1][0].comes_to(CircuitState.CLOSED)
        assert not (await made[1][0].start()).verdict.is_probe


@pytest.mark.parametrize(
    ("result", "changes"),
    [(Result.SERVER_ERROR, {}), (Result.TIMEOUT, {}), (Result.OK, {"took_us": SECOND})],
)
async def test_one_probe_that_fails_opens_it_for_longer(
    store_url: str, cluster: str, result: Result, changes: dict[str, Any]
) -> None:
    """Also one that is slow, where slow calls count."""
    moment = Moment()
    operation = with_circuit(slow_rate=0.9, slow_call_ms=1_000)
    async with nodes(store_url, cluster, 2, operation, moment) as [(node, _), (other, _)]:
        await open_by(node)
        moment.now_us += OPEN_US + JITTER_US
        good, bad = await other.start(), await node.start()
        node.end(bad, result, **changes)
        await node.comes_to(CircuitState.OPEN)
        other.end(good)
        look = (await other.store.look(other.operation)).circuit
        pause = look.until_us - look.since_us
        assert 2 * (OPEN_US - JITTER_US) <= pause <= 2 * (OPEN_US + JITTER_US)


@pytest.mark.parametrize("result", [Result.ABANDONED, Result.SLOW_DOWN])
async def test_a_probe_that_says_nothing_frees_its_place(
    store_url: str, cluster: str, result: Result
) -> None:
    """Its caller hung up: the next one is a probe at once, and not after a lease."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(probes=1), moment) as [(node, _)]:
        await open_by(node)
        moment.now_us += OPEN_US + JITTER_US
        node.end(await node.start(), result)
        await until_free(node)
        assert (await node.start()).verdict.is_probe


async def until_free(node: Node) -> None:
    """A probe that was under way is over."""

    async def is_so() -> bool:
        return not node.circuits._telling

    await until(is_so)


async def test_a_probe_that_never_started_frees_its_place(store_url: str, cluster: str) -> None:
    """Its caller hung up while we asked."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(probes=1), moment) as [(node, one)]:
        await open_by(node)
        moment.now_us += OPEN_US + JITTER_US
        ask, verdict = await node.ask()
        assert isinstance(verdict, Admitted)
        assert await node.refused_by() is Policy.CIRCUIT
        one.capacity.coalescer.withdraw(one.lane, ask)
        assert (await node.start()).verdict.is_probe


async def test_a_lost_probe_frees_itself_after_its_lease(store_url: str, cluster: str) -> None:
    """The replica that made it died."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(probes=1), moment) as [(node, _)]:
        await open_by(node)
        moment.now_us += OPEN_US + JITTER_US
        await node.ask()
        moment.now_us += LEASE_US - 1
        assert await node.refused_by() is Policy.CIRCUIT
        moment.now_us += 1
        assert (await node.start()).verdict.is_probe


async def test_a_probe_may_run_for_long(store_url: str, cluster: str, redis: Redis) -> None:
    """Its lease is renewed; only one of a replica that died ends by itself. Nor does the store forget it meanwhile."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(probes=1), moment) as [(node, one)]:
        await open_by(node)
        moment.now_us += OPEN_US + JITTER_US
        probe = await node.start()
        for _ in range(12):
            moment.now_us += LEASE_US - 1
            await one.capacity._renew(node.lane, [(probe.ask.id, "")])
        assert redis.pttl(node.lane.keys[-1] + b":p") > 3_600_000
        assert await node.refused_by() is Policy.CIRCUIT
        node.end(probe)
        await node.comes_to(CircuitState.CLOSED)


async def test_the_clock_goes_back_and_nothing_is_cut_off_for_that_long(store_url: str, cluster: str) -> None:
    """By an hour: neither a pause nor a lost probe lasts for an hour more."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(probes=1), moment) as [(node, _)]:
        await open_by(node)
        moment.now_us -= 3_600 * SECOND
        assert await node.state() is CircuitState.HALF_OPEN
        _, lost = await node.ask()
        assert isinstance(lost, Admitted)
        moment.now_us -= 3_600 * SECOND
        assert (await node.start()).verdict.is_probe


# After closing.


async def test_limits_rise_after_closing(store_url: str, cluster: str) -> None:
    """What waited is a stampede otherwise: a tenth, half of it in the middle, all at the end."""
    moment = Moment()
    operation = with_circuit(an_operation(limits=slots(20)), ramp_ms=10_000)
    async with nodes(store_url, cluster, 1, operation, moment) as [(node, _)]:
        await open_by(node)
        moment.now_us += OPEN_US + JITTER_US
        await node.calls(PROBES)
        await node.comes_to(CircuitState.CLOSED)
        found = []
        for passed in (0, 5 * SECOND, 5 * SECOND - 1, 1):
            moment.now_us += passed
            look = await node.store.look(node.operation)
            found.append(look.limits.concurrency)
            assert look.stated.concurrency == 20
        assert found == [2, 11, 19, 20]
