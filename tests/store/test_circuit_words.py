"""What a downstream, a person and a replica's own path say of a circuit: pauses, force, shadow, and what is told when."""

from dataclasses import replace

import pytest
from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, SlowDown
from breaker.core.events import CircuitMoved, CircuitSeen, Result, SlowedDown
from breaker.core.model import Operation
from breaker.core.verdict import Admitted, Policy, Refused
from breaker.store import circuits as module
from breaker.store.circuits import ByHand
from tests.store.circuit_world import OPEN_US, PROBES, SECOND, Node, nodes, windows, with_circuit
from tests.store.job_world import Loss, Moment
from tests.store.replicas import an_operation, commands, replica, slots, until

NEVER_S = 3_600.0
JITTER_US = OPEN_US // 4


@pytest.fixture
def tells_at_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait for its turn is not told within a test."""
    monkeypatch.setattr(module, "REPORT_S", NEVER_S)


async def until_told(node: Node) -> None:
    async def is_so() -> bool:
        return not node.circuits._telling

    await until(is_so)


# Slow down.


@pytest.mark.parametrize("circuit", list(CircuitMode))
async def test_a_downstream_that_asks_for_time_gets_it_from_all(
    store_url: str, cluster: str, circuit: CircuitMode
) -> None:
    """Also without a circuit: `Retry-After` is the downstream's word, not ours."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, with_circuit(mode=circuit), moment) as [(node, one), (other, _)]:
        await node.calls(1, Result.SLOW_DOWN, retry_after_us=3 * SECOND)
        await until_told(node)
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
        await until_told(node)
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
        await until_told(node)
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
        await until_told(node)
        assert await node.refused_by("acme") is Policy.SLOW_DOWN


async def test_concurrency_adapts_for_all(store_url: str, cluster: str) -> None:
    """Two replicas whose calls time out in the same moment take one step down, not two."""
    moment = Moment()
    operation = replace(with_circuit(an_operation(limits=slots(10)), min_calls=100), adaptive_min=2)
    async with nodes(store_url, cluster, 2, operation, moment) as [(node, _), (other, _)]:
        for one in (node, other):
            await one.calls(1, Result.SLOW_DOWN)
        found = []
        for _ in range(2):

            async def is_lower() -> bool:
                found.append((await node.store.look(node.operation)).limits.concurrency)
                return not (
                    node.circuits._posts[node.operation].has_news
                    or other.circuits._posts[node.operation].has_news
                )

            await until(is_lower)
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
        await until_told(node)
        assert await node.state() is CircuitState.DISABLED
        moment.now_us = end_us
        assert await node.state() is CircuitState.CLOSED
        await node.calls(1, Result.SERVER_ERROR)
        await until_told(node)
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
        await until_told(node)
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
        await until_told(node)
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
        await until_told(node)
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
        await until_told(ours[1])
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
