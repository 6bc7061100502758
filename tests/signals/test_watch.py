"""The watch over the store and the loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace

import pytest
from redis import Redis

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreTimeoutError
from breaker.core.events import Event, RoundTripEnded
from breaker.core.jobs import Pace
from breaker.core.promise import Eta
from breaker.core.state import Ask
from breaker.signals.metrics import Metrics
from breaker.signals.watch import LOOKS_MAX, Memory, Sources, Watch
from breaker.store.capacity import CapacityStore, Look
from breaker.store.job_desk import QueueLook
from tests.signals.scene import Clock, look, numbers, operation, queue_look

OPERATION = operation("billing.charge")


async def no_limit() -> Memory:
    return Memory(used=500, most=0)


async def empty(_operation: str) -> QueueLook:
    return queue_look()


async def nothing_removed() -> Mapping[str, int]:
    return {}


def by_the_wall(_operation: str, start_us: int, end_us: int) -> int:
    return max(0, end_us - start_us)


def known(_operation: str, ahead: int, _pace: Pace) -> Eta:
    """A second for each job ahead; nine of ten within ten."""
    return Eta(p50_us=ahead * 1_000_000, p90_us=ahead * 10_000_000)


def sources(
    look: Callable[[str], Awaitable[Look]],
    memory: Callable[[], Awaitable[Memory]] = no_limit,
    look_queue: Callable[[str], Awaitable[QueueLook]] = empty,
    removed: Callable[[], Awaitable[Mapping[str, int]]] = nothing_removed,
) -> Sources:
    return Sources(
        look=look, look_queue=look_queue, memory=memory, removed=removed, forecast=known, spent=by_the_wall
    )


class Looks:
    """What the store would answer next."""

    def __init__(self, *answers: Look | Exception) -> None:
        self.answers = list(answers)

    async def __call__(self, operation: str) -> Look:
        assert operation == "billing.charge"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def capacity(store_url: str, cluster: str, events: list[Event]) -> AsyncIterator[CapacityStore]:
    """Connected, with one operation; its own tasks do not run."""
    settings = StoreSettings(url=store_url, timeout_ms=5_000)
    capacity = CapacityStore(settings, cluster=cluster, replica="REPLICA1", emit=events.append)
    await capacity.publish({"billing.charge": OPERATION}, "v1")
    yield capacity
    await capacity.close()


async def test_the_watch_reads_what_the_store_holds(
    make_metrics: Callable[..., Metrics], capacity: CapacityStore, redis: Redis
) -> None:
    """The dashboards' limits and use are those that the scripts decide by."""
    clock, metrics = Clock(), make_metrics("billing.charge")

    async def memory() -> Memory:
        info = await asyncio.to_thread(redis.info, "memory")
        return Memory(used=info["used_memory"], most=info["used_memory"] * 4)

    watch = Watch(sources(capacity.look, memory), metrics, now=clock)
    await watch.look_at_all()
    lane = capacity.lane("billing.charge")
    for number in range(3):
        await capacity.admit(lane, Ask(id=f"REPLICA1.{number}"))
    clock.seconds += 5
    await watch.look_at_all()
    found = numbers(metrics)
    end = "operation=billing.charge}"
    assert found["breaker_capacity_limit{limit=rate," + end] == 100
    assert found["breaker_capacity_configured{limit=concurrency," + end] == 2
    assert found["breaker_capacity_used{limit=concurrency," + end] == 2
    assert found["breaker_capacity_used{limit=rate," + end] == pytest.approx(0.4)
    assert found["breaker_capacity_wanted{limit=rate," + end] == pytest.approx(0.6)
    assert found["breaker_store_memory_ratio{}"] == 0.25


async def test_all_looks_share_a_round_trip(
    make_metrics: Callable[..., Metrics], capacity: CapacityStore, events: list[Event]
) -> None:
    """Looking at many operations must not cost the callers many round trips."""
    names = [f"billing.charge-{number}" for number in range(LOOKS_MAX + 1)]
    await capacity.publish({name: replace(OPERATION, name=name) for name in names}, "v1")
    events.clear()
    metrics = make_metrics(*names)
    await Watch(sources(capacity.look), metrics).look_at_all()
    assert sum(isinstance(event, RoundTripEnded) for event in events) == 2
    assert sum(name.startswith("breaker_capacity_limit") for name in numbers(metrics)) == 2 * len(names)


async def test_the_first_look_has_no_rate(make_metrics: Callable[..., Metrics], clock: Clock) -> None:
    """A restarted replica must not report the whole history as this moment's demand."""
    metrics = make_metrics("billing.charge")
    answers = Looks(look(started=9_000, wanted=9_000), look(started=9_100, wanted=9_300))
    watch = Watch(sources(answers), metrics, now=clock)
    await watch.look_at_all()
    name = "breaker_capacity_wanted{limit=rate,operation=billing.charge}"
    assert name not in numbers(metrics)
    clock.seconds += 5
    await watch.look_at_all()
    assert numbers(metrics)[name] == 60


async def test_a_flushed_store_makes_no_negative_rate(
    make_metrics: Callable[..., Metrics], clock: Clock
) -> None:
    """Counters that start again are skipped for one look, and compared from there."""
    metrics = make_metrics("billing.charge")
    answers = Looks(look(started=500, wanted=500), look(started=3, wanted=3), look(started=13, wanted=13))
    watch = Watch(sources(answers), metrics, now=clock)
    name, seen = "breaker_capacity_used{limit=rate,operation=billing.charge}", []
    for _ in range(3):
        await watch.look_at_all()
        seen.append(numbers(metrics).get(name))
        clock.seconds += 5
    assert seen == [None, None, 2]


async def test_a_store_that_fails_leaves_the_gauges_to_age_out(
    make_metrics: Callable[..., Metrics], clock: Clock
) -> None:
    """One lost look is no gap in the graph; three are."""
    metrics = make_metrics("billing.charge")
    lost = StoreTimeoutError("gone")

    async def memory() -> Memory:
        raise lost

    watch = Watch(sources(Looks(look(), lost, lost, lost), memory), metrics, now=clock)
    shown = []
    for _ in range(4):
        await watch.look_at_all()
        shown.append("breaker_capacity_limit{limit=rate,operation=billing.charge}" in numbers(metrics))
        clock.seconds += 5
    assert shown == [True, True, True, False]


@pytest.mark.usefixtures("restored")
async def test_a_mistake_of_ours_is_told_and_does_not_end_the_watch(
    make_metrics: Callable[..., Metrics], capsys: pytest.CaptureFixture[str]
) -> None:
    """A watch that died would look like a store that is never read."""
    metrics = make_metrics("billing.charge")
    recovered = asyncio.Event()

    async def memory() -> Memory:
        recovered.set()
        return Memory(used=1, most=2)

    watch = Watch(sources(Looks(ValueError("a bug"), *[look()] * 1_000), memory), metrics, look_s=0.001)
    watch.start()
    async with asyncio.timeout(5):
        await recovered.wait()
    await watch.close()
    assert "watch_failed" in capsys.readouterr().out
    assert numbers(metrics)["breaker_store_memory_ratio{}"] == 0.5


async def test_what_blocks_the_loop_is_measured(make_metrics: Callable[..., Metrics]) -> None:
    """Lag delays every call; without it the dashboards blame the downstream."""
    metrics = make_metrics()
    watch = Watch(sources(Looks()), metrics, lag_s=0.01)
    watch.start()
    time.sleep(0.08)
    measured = "breaker_loop_lag_seconds_count{}"
    async with asyncio.timeout(5):
        while numbers(metrics)[measured] < 2:
            await asyncio.sleep(0.001)
    await watch.close()
    found = numbers(metrics)
    assert (
        found["breaker_loop_lag_seconds_bucket{le=0.05}"] < found["breaker_loop_lag_seconds_bucket{le=+Inf}"]
    )
    assert 0.06 < found["breaker_loop_lag_seconds_sum{}"] < 5
