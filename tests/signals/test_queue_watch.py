"""The watch over the queues of a real store."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from breaker.core.errors import StoreTimeoutError
from breaker.core.events import JobsReclaimed, RoundTripEnded
from breaker.core.job_policy import BANDS, Effects
from breaker.core.jobs import Fate
from breaker.core.model import Capacity, Limits
from breaker.signals.metrics import Metrics
from breaker.signals.watch import LOOKS_MAX, Memory, Watch
from breaker.store.capacity import CircuitLook, Look
from breaker.store.job_desk import QueueLook
from tests.signals.scene import Clock, look, numbers, queue_look
from tests.signals.test_watch import no_limit, sources
from tests.store.job_world import MINUTE, JobReplica, Moment, a_queue, job_replica

TWO_SLOTS = Capacity(limits=Limits(concurrency=2))
OPERATION = a_queue(capacity=TWO_SLOTS, jobs_max=500)


@pytest.fixture
async def one(store_url: str, cluster: str) -> AsyncIterator[JobReplica]:
    """A replica whose time a test moves."""
    async with job_replica(store_url, cluster, OPERATION, moment=Moment()) as one:
        yield one


async def shown(one: JobReplica, metrics: Metrics) -> dict[str, float]:
    """What a replica that looks once exports of the queue: short names, without the operation."""
    asks = sources(one.capacity.look, no_limit, one.desk.look_queue)
    await Watch(asks, metrics).look_at_all()
    return {
        name.removeprefix("breaker_").replace("operation=billing.charge", "").replace(",}", "}").replace("{,", "{"): value
        for name, value in numbers(metrics).items()
    }  # fmt: skip


@pytest.fixture
def metrics(make_metrics: Callable[..., Metrics]) -> Metrics:
    return make_metrics(queues=("billing.charge",))


async def test_the_watch_reads_the_queue_as_it_is(one: JobReplica, metrics: Metrics) -> None:
    """The graph of a queue is the queue, over all replicas."""
    assert one.moment
    await one.queue_many(5)
    await one.queue(not_before_us=one.now_us() + MINUTE)
    await one.end(await one.one(), fate=Fate.DEAD)
    await one.one()
    one.moment.now_us += 3_000_000
    found = await shown(one, metrics)
    states = {
        state: found[f"queue_jobs{{state={state}}}"] for state in ("queued", "scheduled", "running", "dead")
    }
    assert states == {"queued": 3, "scheduled": 1, "running": 1, "dead": 1}
    assert found["queue_oldest_seconds{band=normal}"] == 3
    assert found["queue_bytes{}"] == (await one.look()).bytes_used > 0
    assert found["queue_eta_seconds{band=high}"] == 0
    assert found["queue_eta_seconds{band=low}"] == 30
    assert found["jobs_accepted_total{}"] == 6
    assert found["jobs_unaccounted{}"] == 0


async def test_held_jobs_have_no_eta(one: JobReplica, metrics: Metrics) -> None:
    """Nobody knows when a person resumes."""
    await one.queue_many(2)
    await one.desk.hold(one.operation, "paused", 0, "ann", "month end")
    found = await shown(one, metrics)
    assert (found["queue_jobs{state=held}"], found["queue_jobs{state=queued}"]) == (2, 0)
    assert not any(name.startswith("queue_eta") for name in found)


async def test_jobs_of_an_open_circuit_are_held(one: JobReplica, metrics: Metrics) -> None:
    """On-call must not take a queue that waits for a downstream for one that lacks capacity."""
    await one.queue_many(2)
    await one.capacity.coalescer.run(
        one.capacity.lane(one.operation), "force", one.now_us(), "forced-open", 0, "ann", "the bank is down"
    )
    found = await shown(one, metrics)
    assert (found["circuit_state{state=forced-open}"], found["circuit_state{state=closed}"]) == (1, 0)
    assert (found["queue_jobs{state=held}"], found["queue_jobs{state=queued}"]) == (2, 0)
    assert not any(name.startswith("queue_eta") for name in found)


async def test_jobs_are_held_until_the_downstream_has_had_its_time(metrics: Metrics) -> None:
    """The look at the operation says until when, the one at its queue says what time it is."""
    circuit = CircuitLook(pause_until_us=2_000_000)

    async def look_at(_operation: str) -> Look:
        return look(circuit=circuit)

    held = []
    for now_us in (1_999_999, 2_000_000):

        async def look_queue(_operation: str, now_us: int = now_us) -> QueueLook:
            return queue_look(now_us=now_us, waiting=dict.fromkeys(BANDS, 1))

        await Watch(sources(look_at, look_queue=look_queue), metrics).look_at_all()
        held.append(numbers(metrics)["breaker_queue_jobs{operation=billing.charge,state=held}"])
    assert held == [4, 0]


async def test_a_dead_job_that_was_requeued_finishes_twice(one: JobReplica, metrics: Metrics) -> None:
    """`dead` in the graph of ends stays when somebody redrives, so that no counter falls."""
    job = await one.queue()
    await one.end(await one.one(), fate=Fate.DEAD)
    await one.desk.requeue(one.operation, job)
    await one.end(await one.one())
    found = await shown(one, metrics)
    assert found["jobs_finished_total{result=dead}"] == 1
    assert found["jobs_finished_total{result=succeeded}"] == 1
    assert found["queue_jobs{state=dead}"] == 0


async def test_an_unknown_job_that_was_resolved_stays_counted(
    store_url: str, cluster: str, metrics: Metrics
) -> None:
    """How often nobody knew is what an operator weighs `effects: once` by."""
    operation = a_queue(effects=Effects.ONCE)
    async with job_replica(store_url, cluster, operation) as one:
        job = await one.queue()
        await one.end(await one.one(), fate=Fate.UNKNOWN)
        await one.desk.resolve(one.operation, job, Fate.DEAD)
        found = await shown(one, metrics)
    ends = {
        result: found[f"jobs_finished_total{{result={result}}}"]
        for result in ("unknown", "dead", "succeeded")
    }
    assert ends == {"unknown": 1, "dead": 1, "succeeded": 0}


async def test_a_withdrawn_job_lowers_no_counter(one: JobReplica, metrics: Metrics) -> None:
    """Its caller was told 503; a counter that falls by one would look like a restart of a million."""
    await one.queue()
    offer = one.offer(is_async=True)
    await one.jobs.accept(one.lane, offer)
    before = (await shown(one, metrics))["jobs_accepted_total{}"]
    assert await one.capacity.coalescer.revoke(one.lane, offer)
    found = await shown(one, metrics)
    assert (before, found["jobs_accepted_total{}"], found["jobs_finished_total{result=withdrawn}"]) == (
        2,
        2,
        1,
    )
    assert (await one.look()).accepted == 1, "the ledger leaves it out"


async def test_counters_survive_a_restart(one: JobReplica, make_metrics: Callable[..., Metrics]) -> None:
    """They are the store's: a rolling restart is no gap, and no fall."""
    await one.queue_many(3)
    await one.drain()
    pages = [await shown(one, make_metrics(queues=("billing.charge",))) for _ in range(2)]
    assert [page["jobs_finished_total{result=succeeded}"] for page in pages] == [3, 3]


async def test_the_jobs_of_a_dead_replica_are_told_of(one: JobReplica) -> None:
    """Its own log ends in the middle: whoever takes its jobs over says so."""
    assert one.moment
    await one.queue_many(2)
    await one.queue(expiry_us=one.now_us() + MINUTE)
    assert len((await one.lease(2)).jobs) == 2
    assert not any(isinstance(event, JobsReclaimed) for event in one.events)
    one.moment.now_us += 2 * MINUTE
    await one.lease(0)
    assert [event for event in one.events if isinstance(event, JobsReclaimed)] == [
        JobsReclaimed(one.operation, 2, 1)
    ]


async def test_looks_at_queues_share_round_trips(
    store_url: str, cluster: str, make_metrics: Callable[..., Metrics]
) -> None:
    """Looking at many queues must not cost the callers many round trips: one for as many as one carries."""
    operations = [a_queue(f"billing.charge-{number}") for number in range(LOOKS_MAX + 1)]
    async with job_replica(store_url, cluster, *operations) as one:
        metrics = make_metrics(queues=tuple(one.operations))
        one.events.clear()
        asks = sources(one.capacity.look, no_limit, one.desk.look_queue)
        await Watch(asks, metrics).look_at_all()
        assert one.seen(RoundTripEnded) == 2
    assert sum(name.startswith("breaker_queue_bytes") for name in numbers(metrics)) == LOOKS_MAX + 1


async def test_only_operations_with_a_queue_are_asked_for_it(make_metrics: Callable[..., Metrics]) -> None:
    """The others would be asked for nothing, every 5 s, by every replica."""
    asked = []

    async def look_queue(operation: str) -> QueueLook:
        asked.append(operation)
        raise StoreTimeoutError("gone")

    async def any_look(_operation: str) -> Any:
        return look()

    metrics = make_metrics("support.create", queues=("billing.charge",))
    await Watch(sources(any_look, no_limit, look_queue), metrics).look_at_all()
    assert asked == ["billing.charge"]


async def test_the_watch_remembers_how_full_the_store_is(metrics: Metrics, clock: Clock) -> None:
    """Results are dropped by this number, also while the store is silent for a moment."""
    answers: list[Memory | StoreTimeoutError] = [
        Memory(used=95, most=100), StoreTimeoutError("gone"), Memory(used=95, most=0),
    ]  # fmt: skip

    async def memory() -> Memory:
        answer = answers.pop(0)
        if isinstance(answer, Memory):
            return answer
        raise answer

    async def any_look(_operation: str) -> Any:
        return look()

    watch = Watch(sources(any_look, memory), metrics, now=clock)
    seen = [watch.memory_ratio]
    for _ in range(3):
        await watch.look_at_all()
        seen.append(watch.memory_ratio)
    assert seen == [0, 0.95, 0.95, 0]
