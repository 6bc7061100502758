"""Waiting calls: in arrival order over all replicas, each on a real store and in real time."""

import asyncio
import time

import pytest
from redis import Redis

from breaker.core.model import LEASE_US, WAITER_LAPSE_US
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.store.keys import OPERATION_KEYS, Keys, wake_prefix
from breaker.store.parts import HEAD_SIZE
from tests.store.replicas import SCRIPTS, Replica, an_operation, commands, rate, replica, slots, until

LONG_S = 8.0  # what waits so long and is not woken has failed


async def test_waiting_calls_start_in_order_of_arrival_over_all_replicas(
    store_url: str, cluster: str
) -> None:
    """Whoever came first, whichever replica the load balancer sent him to."""
    operation = an_operation(limits=slots(1))
    async with replica(store_url, cluster, operation) as one, replica(store_url, cluster, operation) as two:
        running = one, await one.hold()
        started: list[int] = []
        line = []

        async def take_turn(number: int, turn: "asyncio.Task[Admitted | Refused]") -> None:
            assert isinstance(await turn, Admitted)
            started.append(number)

        for number, at in enumerate([two, one, two, two, one]):
            ask = at.an_ask(wait_s=LONG_S)
            line.append((at, ask, asyncio.create_task(take_turn(number, await at.wait(ask)))))
        for at, ask, turn in line:
            running[0].settle(running[1])
            await turn
            at.store.hold(at.lane, ask)
            running = at, ask
        assert started == [0, 1, 2, 3, 4]


async def test_a_replica_is_woken_by_another_ones_grant(store_url: str, redis: Redis, cluster: str) -> None:
    """A slot that comes back at one replica starts the call that waits at the other, at once."""
    operation = an_operation(limits=slots(1))
    with redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.psubscribe(wake_prefix(cluster) + "*")
        channel.get_message(timeout=1)
        async with (
            replica(store_url, cluster, operation) as one,
            replica(store_url, cluster, operation) as two,
        ):
            running, ask = await one.hold(), two.an_ask(wait_s=LONG_S)
            turn = await two.wait(ask)
            one.settle(running)
            began = time.monotonic()
            assert await turn == Admitted(leased=True, delayed=True)
            assert time.monotonic() - began < LONG_S / 2, "it was woken, and did not only ask at the end"
        message = channel.get_message(timeout=5)
        assert message
        assert message["channel"].decode() == wake_prefix(cluster) + two.name
        assert message["data"].decode() == f"billing.charge {ask.id}"


async def test_a_lost_wake_costs_only_time(store_url: str, cluster: str) -> None:
    """The call's own timer asks the store, and learns that it was granted: the slot is not held for nobody."""
    operation = an_operation(limits=slots(1))
    deaf = Replica(store_url, cluster, operation)
    await deaf.store.publish(deaf.operations, "v1")  # never started, so it does not listen
    async with replica(store_url, cluster, operation) as one:
        running, ask = await one.hold(), deaf.an_ask(wait_s=0.4)
        turn = await deaf.wait(ask)
        one.settle(running)
        assert await turn == Admitted(leased=True, delayed=True)
        assert await one.in_use() == 1
    await deaf.store.close()


async def test_a_caller_that_hangs_up_gives_its_place_to_the_next(store_url: str, cluster: str) -> None:
    """Those behind a caller who lost patience."""
    operation = an_operation(limits=slots(1))
    async with replica(store_url, cluster, operation) as one:
        running = await one.hold()
        impatient = await one.wait(one.an_ask(wait_s=LONG_S))
        patient = await one.wait(one.an_ask(wait_s=LONG_S))
        await asyncio.sleep(0)  # both stand at their waiter
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        one.settle(running)
        assert isinstance(await patient, Admitted)
        assert await one.in_use() == 1


async def test_a_call_that_waited_in_vain_gets_a_ticket(store_url: str, cluster: str) -> None:
    """Refused after its time, with the limit's name and a moment to come back."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        await one.hold()
        verdict = await (await one.wait(one.an_ask(wait_s=0.05)))
        assert isinstance(verdict, Refused)
        assert verdict.policy is Policy.SLOTS
        assert verdict.retry_after_us > 0
        assert (await one.store.look("billing.charge")).waiting == 0


async def test_the_line_is_bounded_over_all_replicas(store_url: str, cluster: str) -> None:
    """`waiting_max` is not per replica."""
    operation = an_operation(limits=slots(1), waiting_max=2)
    async with replica(store_url, cluster, operation) as one, replica(store_url, cluster, operation) as two:
        await one.hold()
        turns = [await at.wait(at.an_ask(wait_s=LONG_S)) for at in (one, two)]
        assert isinstance(await two.admit(two.an_ask(wait_s=LONG_S)), Refused)
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)


async def test_a_tenant_at_its_own_cap_blocks_nobody_else(store_url: str, cluster: str) -> None:
    """Acme's import waits for acme's own slot; beta's call starts at once."""
    operation = an_operation(limits=slots(3), per_tenant=slots(1))
    async with replica(store_url, cluster, operation) as one:
        running = await one.hold(one.an_ask("acme"))
        turn = await one.wait(one.an_ask("acme", wait_s=LONG_S))
        assert isinstance(await one.admit(one.an_ask("beta")), Admitted)
        assert not turn.done()
        one.settle(running)
        assert isinstance(await turn, Admitted)


async def test_waiting_calls_of_a_dead_replica_lapse(store_url: str, redis: Redis, cluster: str) -> None:
    """Its callers are gone with it; those behind them lose two seconds, not their turn."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        running = await one.hold()
        waits_and_dies(redis, cluster, wait_us=60_000_000)
        turn = await one.wait(one.an_ask(wait_s=LONG_S))

        async def is_alone() -> bool:
            return (await one.store.look("billing.charge")).waiting == 1

        took = await until(is_alone)
        assert WAITER_LAPSE_US / 1e6 - 0.5 < took < WAITER_LAPSE_US / 1e6 + 1.5
        one.settle(running)
        assert isinstance(await turn, Admitted)


async def test_a_line_of_the_dead_does_not_stand_before_calls_that_cannot_wait(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """Nobody alive waits, so nobody would look whose turn it is: every call would be refused for minutes."""
    async with replica(store_url, cluster, an_operation(limits=rate(5))) as one:
        assert isinstance(await one.admit(), Admitted)
        waits_and_dies(redis, cluster, wait_us=60_000_000)

        async def starts() -> bool:
            return isinstance(await one.admit(), Admitted)

        await until(starts)


async def test_a_call_that_joins_a_foreign_line_learns_its_turn_at_once(
    store_url: str, redis: Redis, cluster: str
) -> None:
    """The look that was planned for the others is half a second away; a token is due much sooner."""
    async with replica(store_url, cluster, an_operation(limits=rate(20))) as one:
        assert isinstance(await one.admit(), Admitted)
        waits_and_dies(redis, cluster, wait_us=8_000_000)
        assert isinstance(await one.admit(), Refused)  # now it knows that somebody waits, and plans a look
        assert one.lane.grant_timer
        began = time.monotonic()
        assert isinstance(await (await one.wait(one.an_ask(wait_s=LONG_S))), Admitted)
        assert time.monotonic() - began < 0.4


async def test_while_nobody_waits_no_grant_is_sent(store_url: str, redis: Redis, cluster: str) -> None:
    """The waiting line costs nothing to those who never wait."""
    async with replica(store_url, cluster, an_operation(limits=slots(50))) as one:
        with commands(redis, cluster) as sent:
            for _ in range(20):
                one.settle(await one.hold())
                assert isinstance(await one.admit(one.an_ask(wait_s=1)), Admitted)
            await until(lambda: all_given_back(one))
        assert sent.count("admit") == 40
        assert sent.count("settle") == 20
        assert sent.count("grant") == 0


async def all_given_back(one: Replica) -> bool:
    return await one.in_use() == 20  # those that were never settled


@pytest.mark.parametrize("holds", [0, 1])
async def test_an_idle_replica_sends_nothing(store_url: str, redis: Redis, cluster: str, holds: int) -> None:
    """A thousand replicas at night; a call that is under way is renewed every few seconds, and no more."""
    async with replica(store_url, cluster, an_operation(limits=slots(4))) as one:
        for _ in range(holds):
            await one.hold()
        with commands(redis, cluster) as sent:
            await asyncio.sleep(1)  # silence has no event
        assert sent.sent == []


async def test_the_line_empties_and_looking_ends(store_url: str, redis: Redis, cluster: str) -> None:
    """Looking whose turn it is stops with the last waiting call."""
    async with replica(store_url, cluster, an_operation(limits=slots(1))) as one:
        running = await one.hold()
        turn = await one.wait(one.an_ask(wait_s=LONG_S))
        one.settle(running)
        assert isinstance(await turn, Admitted)
        await until(lambda: nobody_waits(one))
        with commands(redis, cluster) as sent:
            await asyncio.sleep(0.7)  # longer than the pause between two looks
        assert sent.sent == []


async def nobody_waits(one: Replica) -> bool:
    return one.lane.waiting == 0 and one.lane.grant_timer is None


def waits_and_dies(redis: Redis, cluster: str, *, wait_us: int) -> None:
    """A call of a replica that joins the line now, and of which nothing is heard again."""
    reply = redis.eval(
        SCRIPTS["admit"].text, len(OPERATION_KEYS), *Keys(cluster, "billing.charge").all,
        "", "", "", "DEADDEAD", LEASE_US, "DEADDEAD.00000000", "", 1, wait_us,
    )  # fmt: skip
    assert reply[HEAD_SIZE] == 4, "it waits"
