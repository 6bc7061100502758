"""What a downstream and a person say of a circuit: pauses, force, shadow."""

from dataclasses import replace

import pytest

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, SlowDown
from breaker.core.events import CircuitMoved, Result, SlowedDown
from breaker.core.verdict import Policy, Refused
from breaker.store.circuit_posts import ByHand
from tests.store.circuit_world import OPEN_US, PROBES, SECOND, nodes, with_circuit
from tests.store.job_world import Moment
from tests.store.replicas import an_operation, slots

NEVER_S = 3_600.0
JITTER_US = OPEN_US // 4


# Slow down.


@pytest.mark.parametrize("circuit", list(CircuitMode))
async def test_a_downstream_that_asks_for_time_gets_it_from_all(
    store_url: str, cluster: str, circuit: CircuitMode
) -> None:
    """Also without a circuit: `Retry-After` is the downstream's word, not ours."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, with_circuit(mode=circuit), moment) as [(node, one), (other, _)]:
        await node.calls(1, Result.SLOW_DOWN, retry_after_us=3 * SECOND)
        await node.all_told()
        _, verdict = await other.ask("acme")
        assert isinstance(verdict, Refused)
        assert (verdict.policy, verdict.retry_after_us) == (Policy.SLOW_DOWN, 3 * SECOND)
        assert SlowedDown(node.operation, "", 3.0) in one.events
        moment.now_us += 3 * SECOND - 1
        assert await other.refused_by() is Policy.SLOW_DOWN
        moment.now_us += 1
        assert not (await other.start()).verdict.is_probe, "it is no failure"


async def test_no_pause_is_longer_than_the_longest(store_url: str, cluster: str) -> None:
    """A downstream that says `Retry-After: 1000000` has a bug; we need not stand still for that."""
    moment = Moment()
    operation = replace(with_circuit(), slow_down_max_ms=7_000)
    async with nodes(store_url, cluster, 1, operation, moment) as [(node, one)]:
        await node.calls(1, Result.SLOW_DOWN, retry_after_us=1_000_000 * SECOND)
        await node.all_told()
        assert SlowedDown(node.operation, "", 7.0) in one.events
        moment.now_us += 7 * SECOND - 1
        assert await node.refused_by() is Policy.SLOW_DOWN
        moment.now_us += 1
        await node.start()


async def test_a_downstream_may_ask_one_tenant_alone(store_url: str, cluster: str) -> None:
    """One partner's quota at the downstream is used up: the others go on, on all replicas."""
    moment = Moment()
    operation = replace(with_circuit(), slow_down=SlowDown.TENANT)
    async with nodes(store_url, cluster, 2, operation, moment) as [(node, one), (other, _)]:
        node.end(await node.start("acme"), Result.SLOW_DOWN, retry_after_us=3 * SECOND)
        await node.all_told()
        assert await other.refused_by("acme") is Policy.TENANT_SLOW_DOWN
        await other.start("beta")
        await other.start()
        assert SlowedDown(node.operation, "acme", 3.0) in one.events
        moment.now_us += 3 * SECOND
        await other.start("acme")


async def test_a_call_without_a_tenant_pauses_the_operation(store_url: str, cluster: str) -> None:
    """There is nobody else to pause."""
    operation = replace(with_circuit(), slow_down=SlowDown.TENANT)
    async with nodes(store_url, cluster, 1, operation, Moment()) as [(node, _)]:
        await node.calls(1, Result.SLOW_DOWN, retry_after_us=3 * SECOND)
        await node.all_told()
        assert await node.refused_by("acme") is Policy.SLOW_DOWN


async def test_concurrency_adapts_for_all(store_url: str, cluster: str) -> None:
    """Two replicas whose calls time out in the same moment take one step down, not two."""
    moment = Moment()
    operation = replace(with_circuit(an_operation(limits=slots(10)), min_calls=100), adaptive_min=2)
    async with nodes(store_url, cluster, 2, operation, moment) as [(node, _), (other, _)]:
        for one in (node, other):
            await one.calls(1, Result.SLOW_DOWN)
            await one.all_told()
        look = await node.store.look(node.operation)
        assert (look.limits.concurrency, look.stated.concurrency) == (7, 10)


# By hand.


async def test_a_person_opens_it_for_all_until_it_is_handed_back(store_url: str, cluster: str) -> None:
    """Who, why and until when is there for whoever looks; what comes after is found out by probes."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, with_circuit(), moment) as [(node, one), (other, _)]:
        was, now = await node.circuits.force(node.operation, ByHand.FORCED_OPEN, 0, "ann", "they migrate")
        assert (was, now) == (CircuitState.CLOSED, CircuitState.FORCED_OPEN)
        moment.now_us += 10**12
        assert await other.refused_by() is Policy.CIRCUIT
        look = (await other.store.look(other.operation)).circuit
        assert (look.state, look.author, look.reason, look.until_us) == (
            CircuitState.FORCED_OPEN, "ann", "they migrate", 0
        )  # fmt: skip
        [moved] = [event for event in one.events if isinstance(event, CircuitMoved)]
        assert moved == CircuitMoved(node.operation, "closed", "forced-open", 1, "ann: they migrate")
        was, now = await other.circuits.force(node.operation, ByHand.AUTOMATIC, 0, "bob", "done")
        assert (was, now) == (CircuitState.FORCED_OPEN, CircuitState.HALF_OPEN)
        look = (await node.store.look(node.operation)).circuit
        assert (look.state, look.author, look.reason) == (CircuitState.HALF_OPEN, "", "")
        assert (await node.start()).verdict.is_probe


async def test_a_forced_circuit_ends_by_itself(store_url: str, cluster: str) -> None:
    """A person who goes home: probes in the morning, and no name beside a state that nobody forced."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(), moment) as [(node, _)]:
        end_us = moment.now_us + 60 * SECOND
        await node.circuits.force(node.operation, ByHand.FORCED_OPEN, end_us, "ann", "the night")
        moment.now_us = end_us - 1
        _, verdict = await node.ask()
        assert isinstance(verdict, Refused)
        assert (verdict.policy, verdict.retry_after_us) == (Policy.CIRCUIT, 1)
        moment.now_us = end_us
        assert (await node.start()).verdict.is_probe
        look = (await node.store.look(node.operation)).circuit
        assert (look.state, look.author, look.reason) == (CircuitState.HALF_OPEN, "", "")


async def test_a_person_closes_it_and_nothing_opens_it(store_url: str, cluster: str) -> None:
    """Someone knows better: calls go, whatever becomes of them, until the time is up."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, with_circuit(), moment) as [(node, _)]:
        end_us = moment.now_us + 60 * SECOND
        await node.calls(4, Result.SERVER_ERROR)
        await node.comes_to(CircuitState.OPEN)
        await node.circuits.force(node.operation, ByHand.DISABLED, end_us, "ann", "a false alarm")
        await node.calls(20, Result.SERVER_ERROR)
        await node.all_told()
        assert await node.state() is CircuitState.DISABLED
        moment.now_us = end_us
        assert await node.state() is CircuitState.CLOSED
        await node.calls(1, Result.SERVER_ERROR)
        await node.all_told()
        await node.calls(4, Result.SERVER_ERROR)
        await node.comes_to(CircuitState.OPEN)


async def test_there_is_nothing_to_hand_back_where_nobody_holds_it(store_url: str, cluster: str) -> None:
    """The second of two people who say `automatic`."""
    async with nodes(store_url, cluster, 1, with_circuit()) as [(node, one)]:
        found = await node.circuits.force(node.operation, ByHand.AUTOMATIC, 0, "ann", "why not")
        assert found == (CircuitState.CLOSED, CircuitState.CLOSED)
        assert one.seen(CircuitMoved) == 0


# Shadow.


async def test_a_circuit_in_shadow_says_what_it_would_do_and_bars_nothing(
    store_url: str, cluster: str
) -> None:
    """Who rehearses a circuit sees what it would have refused, and no caller notices."""
    moment = Moment()
    operation = with_circuit(an_operation(limits=slots(1_000)), mode=CircuitMode.SHADOW)
    async with nodes(store_url, cluster, 1, operation, moment) as [(node, _)]:
        assert (await node.start()).verdict.shadow is None
        await node.calls(4, Result.SERVER_ERROR)
        await node.comes_to(CircuitState.OPEN)
        assert [(await node.start()).verdict.shadow for _ in range(3)] == [Policy.CIRCUIT] * 3
        moment.now_us += OPEN_US + JITTER_US
        started = [await node.start() for _ in range(PROBES + 2)]
        assert [call.verdict.shadow for call in started] == [None] * PROBES + [Policy.CIRCUIT] * 2
        for call in started:
            node.end(call)
        await node.comes_to(CircuitState.CLOSED)
        assert (await node.store.look(node.operation)).limits.concurrency == 1_000, "and there is no ramp"
