"""Circuits over all replicas: what an open one lets through, and how it comes back."""

import asyncio
from typing import Any

import pytest
from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.events import Result
from breaker.core.model import LEASE_US
from breaker.core.verdict import Admitted, Policy, Refused
from tests.store.circuit_world import OPEN_US, PROBES, SECOND, Node, nodes, with_circuit
from tests.store.job_world import Moment
from tests.store.replicas import an_operation, slots

NEVER_S = 3_600.0
JITTER_US = OPEN_US // 4


async def open_by(node: Node) -> None:
    """Calls of this replica fail until the circuit is open."""
    await node.calls(4, Result.SERVER_ERROR)
    await node.comes_to(CircuitState.OPEN)


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
        await node.quiet()
        assert (await node.start()).verdict.is_probe


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
