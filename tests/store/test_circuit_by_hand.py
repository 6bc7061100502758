"""A person's word about a circuit: one script, and all replicas go by it."""

import asyncio

from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, CircuitPolicy
from breaker.core.events import CircuitMoved, CircuitSeen
from breaker.core.model import CLOCK_SKEW_US, Operation
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.store.circuit_posts import ByHand
from tests.store.replicas import Replica, an_operation, replica, slots

HOUR_US = 3_600_000_000


def an_ill_operation(mode: CircuitMode = CircuitMode.ENFORCE) -> Operation:
    one = an_operation(limits=slots(5))
    return Operation(
        name=one.name, pipeline=one.pipeline, team=one.team, match=one.match, downstream=one.downstream,
        capacity=one.capacity, circuit=CircuitPolicy(mode=mode),
    )  # fmt: skip


async def force(by: Replica, word: ByHand, seconds: float = 0) -> tuple[CircuitState, CircuitState]:
    until_us = by.store.clock.now_us() + int(seconds * 1e6) if seconds else 0
    return await by.store.circuits.force(by.lane.operation, word, until_us, "ann", "INC-7")


async def heard(by: Replica, state: CircuitState) -> None:
    """Wait until this replica has heard of it, without asking the store."""
    while by.lane.circuit is not state:
        await asyncio.sleep(0.002)


async def test_a_word_of_one_replica_holds_on_all_at_once(store_url: str, cluster: str) -> None:
    """Whoever opens a circuit at 3 a.m. must not wait for replicas to find out one by one."""
    one = an_ill_operation()
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        assert isinstance(await theirs.admit(), Admitted)
        assert await force(ours, ByHand.FORCED_OPEN) == (CircuitState.CLOSED, CircuitState.FORCED_OPEN)
        await asyncio.wait_for(heard(theirs, CircuitState.FORCED_OPEN), 1.0)
        verdict = await theirs.admit()
        assert isinstance(verdict, Refused)
        assert verdict.policy is Policy.CIRCUIT
        assert await force(theirs, ByHand.DISABLED) == (CircuitState.FORCED_OPEN, CircuitState.DISABLED)
        await asyncio.wait_for(heard(ours, CircuitState.DISABLED), 1.0)
        assert isinstance(await ours.admit(), Admitted)


async def test_a_replica_that_did_not_hear_is_bound_all_the_same(
    store_url: str, cluster: str, redis: Redis
) -> None:
    """The script decides: a message that was lost costs nothing but a refusal that says why."""
    one = an_ill_operation()
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        theirs.store.wakes.on_circuit = None
        await force(ours, ByHand.FORCED_OPEN, 60)
        assert theirs.lane.circuit is CircuitState.CLOSED
        verdict = await theirs.admit()
        assert isinstance(verdict, Refused)
        # Its end was reckoned by an estimate of the store's clock.
        assert 50_000_000 < verdict.retry_after_us <= 60_000_000 + CLOCK_SKEW_US
        assert redis.hget(f"brk:{cluster}:{{{one.name}}}:circuit", "author") == b"ann"


async def test_a_word_ends_when_its_time_is_up(store_url: str, cluster: str) -> None:
    """Nobody has to be awake for it: from forced open by probes, from disabled at once."""
    one = an_ill_operation()
    async with replica(store_url, cluster, one) as ours:
        await force(ours, ByHand.FORCED_OPEN, 0.001)
        await asyncio.sleep(0.005)
        assert (await ours.store.look(one.name)).circuit.state is CircuitState.HALF_OPEN
        verdict = await ours.admit()
        assert isinstance(verdict, Admitted)
        assert verdict.is_probe
        await force(ours, ByHand.DISABLED, 0.001)
        await asyncio.sleep(0.005)
        assert (await ours.store.look(one.name)).circuit.state is CircuitState.CLOSED


async def test_handing_back_forced_open_tries_by_probes_and_what_was_not_forced_stays(
    store_url: str, cluster: str
) -> None:
    """A queue that waited for an hour is a stampede, also when it was a person who held it."""
    one = an_ill_operation()
    async with replica(store_url, cluster, one) as ours:
        assert await force(ours, ByHand.AUTOMATIC) == (CircuitState.CLOSED, CircuitState.CLOSED)
        await force(ours, ByHand.FORCED_OPEN)
        assert await force(ours, ByHand.AUTOMATIC) == (CircuitState.FORCED_OPEN, CircuitState.HALF_OPEN)
        look = (await ours.store.look(one.name)).circuit
        assert (look.author, look.reason, look.generation) == ("", "", 2)


async def test_a_move_by_hand_is_told_once_with_its_author(store_url: str, cluster: str) -> None:
    """By the replica that was asked, and by no other: moves are summed over replicas."""
    one = an_ill_operation()
    async with replica(store_url, cluster, one) as ours, replica(store_url, cluster, one) as theirs:
        for _ in range(5):
            await force(ours, ByHand.FORCED_OPEN)
            await force(ours, ByHand.DISABLED)
        await asyncio.wait_for(heard(theirs, CircuitState.DISABLED), 1.0)
        moves = [event for event in ours.events if isinstance(event, CircuitMoved)]
        assert [move.generation for move in moves] == list(range(1, 11))
        assert {move.detail for move in moves} == {"ann: INC-7"}
        assert moves[0].was == CircuitState.CLOSED
        assert theirs.seen(CircuitMoved) == 0
        assert theirs.seen(CircuitSeen) > 0


async def test_a_circuit_in_shadow_obeys_a_person(store_url: str, cluster: str) -> None:
    """Rehearsed is what it would do by itself; a person does not rehearse."""
    one = an_ill_operation(CircuitMode.SHADOW)
    async with replica(store_url, cluster, one) as ours:
        await force(ours, ByHand.FORCED_OPEN)
        assert isinstance(await ours.admit(), Refused)
