"""Dead jobs run again, a few at first, and not into the same wall."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from breaker.core.jobs import Fate, JobHead, JobState, LeasedJob, Reason
from breaker.gateway import redrive
from breaker.gateway.redrive import Progress, Redrive, Stage
from tests.web.admin_scene import CHARGE, Scene, admin_scene

Ending = tuple[Fate, Reason | str]
WELL: Ending = (Fate.SUCCEEDED, "")
FAST = 10_000.0  # jobs per second: not what a test waits for


@pytest.fixture
async def scene(store_url: str, cluster: str) -> AsyncIterator[Scene]:
    async with admin_scene(store_url, cluster) as found:
        yield found


async def dead_heads(scene: Scene) -> AsyncIterator[JobHead]:
    heads, _ = await scene.desk.listed(CHARGE, JobState.DEAD)
    for head in heads:
        yield head


async def redriven(
    scene: Scene, how: Callable[[int], Ending | None], *, rate: float = FAST, wait_s: float = 60.0
) -> list[Progress]:
    """
    Redrive all that is dead, and run it at once.

    Args:
        how: How the n-th job that runs ends, from 1; None: it does not.

    """
    said: list[Progress] = []
    ran = 0
    run = Redrive(scene.desk, scene.jobs, CHARGE, rate=rate, wait_s=wait_s).run(dead_heads(scene))
    async for progress in run:
        said.append(progress)
        for job in await scene.lease():
            ran += 1
            if ending := how(ran):
                scene.end(job, *ending)
    return said


async def test_one_runs_first_and_then_twice_as_many_each_time(scene: Scene) -> None:
    """If the cause is still there, one job finds out, not ten thousand."""
    ids = await scene.dead(20)
    said = await redriven(scene, lambda _: WELL)
    last_of_wave = {progress.wave: progress.done for progress in said if progress.stage is Stage.REDRIVING}
    assert last_of_wave == {1: 1, 2: 3, 4: 7, 8: 15, 16: 20}
    assert said[-1].stage is Stage.DONE
    assert (said[-1].done, said[-1].succeeded, said[-1].failed, said[-1].skipped) == (20, 20, 0, 0)
    assert set(await scene.states(ids)) == {"succeeded"}


async def test_the_next_wave_waits_until_the_one_before_has_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A canary that is still under way has not sung."""
    monkeypatch.setattr(redrive, "BEAT_S", 0.01)
    await scene.dead(3)
    run = Redrive(scene.desk, scene.jobs, CHARGE, rate=FAST).run(dead_heads(scene))
    said = [await anext(run) for _ in range(5)]
    assert [progress.stage for progress in said] == [Stage.REDRIVING] + 4 * [Stage.WAITING]
    assert said[-1].done == 1
    (canary,) = await scene.lease()
    scene.end(canary, *WELL)
    while (progress := await anext(run)).done == 1:
        pass
    assert (progress.stage, progress.wave, progress.succeeded) == (Stage.REDRIVING, 2, 1)
    await run.aclose()


async def test_it_stops_when_the_canary_dies_of_the_same(scene: Scene) -> None:
    """The downstream is as broken as it was: the other thousand would only knock on it again."""
    ids = await scene.dead(9)
    said = await redriven(scene, lambda _: (Fate.DEAD, Reason.BUDGET))
    assert said[-1].stage is Stage.STOPPED
    assert (said[-1].done, said[-1].failed) == (1, 1)
    assert ids[0] in said[-1].detail
    assert "budget" in said[-1].detail
    heads, _ = await scene.desk.listed(CHARGE, JobState.DEAD)
    assert [head.attempt for head in heads] == 8 * [1] + [2]


async def test_it_stops_at_the_first_failure_of_the_same_class_in_a_later_wave(scene: Scene) -> None:
    """What was queued by then runs on; the rest stays as it was."""
    await scene.dead(40)
    said = await redriven(scene, lambda nth: (Fate.DEAD, Reason.BUDGET) if nth == 10 else WELL)
    assert said[-1].stage is Stage.STOPPED
    assert said[-1].failed == 1
    assert 10 <= said[-1].done <= 15
    look = await scene.desk.look_queue(CHARGE)
    assert look.dead == 40 - said[-1].done + 1


async def test_it_does_not_finish_a_wave_in_which_one_has_failed_already(scene: Scene) -> None:
    """At ten a second a wave of 256 takes half a minute; that is long enough to see a wall."""
    await scene.dead(20)
    said = await redriven(scene, lambda nth: (Fate.DEAD, Reason.BUDGET) if nth == 8 else WELL, rate=25)
    assert said[-1].stage is Stage.STOPPED
    assert 8 <= said[-1].done < 15


async def test_a_failure_of_another_class_is_counted_and_goes_on(scene: Scene) -> None:
    """The cause that was mended is mended; this is another one."""
    await scene.dead(3)
    said = await redriven(scene, lambda nth: (Fate.DEAD, Reason.CALLER) if nth == 1 else WELL)
    assert said[-1].stage is Stage.DONE
    assert (said[-1].done, said[-1].succeeded, said[-1].failed) == (3, 2, 1)


async def test_a_class_counts_from_when_a_job_of_it_was_redriven(scene: Scene) -> None:
    """Of a mixed lot, each cause may show itself through any of its jobs."""
    await scene.dead(1, Reason.CALLER)
    await scene.dead(2, Reason.BUDGET)
    said = await redriven(scene, lambda nth: (Fate.DEAD, Reason.CALLER) if nth == 3 else WELL)
    assert said[-1].stage is Stage.STOPPED
    assert "caller" in said[-1].detail


async def test_jobs_that_end_otherwise_are_told_apart(scene: Scene) -> None:
    """Cancelled while it waited again: neither a success nor a failure."""
    await scene.dead(1)
    said = []
    async for progress in Redrive(scene.desk, scene.jobs, CHARGE, rate=FAST).run(dead_heads(scene)):
        said.append(progress)
        for head in (await scene.desk.listed(CHARGE, JobState.QUEUED))[0]:
            await scene.desk.cancel(CHARGE, head.id)
    assert (said[-1].stage, said[-1].otherwise, said[-1].succeeded) == (Stage.DONE, 1, 0)


async def test_no_more_jobs_a_second_than_the_rate_are_queued(scene: Scene) -> None:
    """A downstream that has just come back is not thrown over again."""
    await scene.dead(7)
    started = time.monotonic()
    said = await redriven(scene, lambda _: WELL, rate=50)
    assert said[-1].done == 7
    assert time.monotonic() - started >= 6 / 50


async def test_a_wave_that_does_not_end_stops_it_and_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cause that lasts may only show as retries, and they may go on for hours."""
    monkeypatch.setattr(redrive, "BEAT_S", 0.01)
    ids = await scene.dead(3)
    said = await redriven(scene, lambda nth: WELL if nth == 1 else None, wait_s=0.05)
    assert said[-1].stage is Stage.STOPPED
    assert said[-1].done == 3
    assert "2 jobs" in said[-1].detail
    assert ids[1] in said[-1].detail


async def test_a_job_that_is_not_dead_any_more_is_skipped(scene: Scene) -> None:
    """Somebody else was quicker; it must not run twice."""
    ids = await scene.dead(2)
    heads = [head async for head in dead_heads(scene)]
    await scene.desk.discard(CHARGE, heads[0].id)

    async def stale() -> AsyncIterator[JobHead]:
        for head in heads:
            yield head

    said: list[Progress] = []
    async for progress in Redrive(scene.desk, scene.jobs, CHARGE, rate=FAST).run(stale()):
        said.append(progress)
        await scene.run(*WELL)
    assert (said[-1].done, said[-1].skipped, said[-1].succeeded) == (1, 1, 1)
    assert await scene.states(ids) == ["discarded", "succeeded"]


async def test_an_end_of_which_no_message_comes_is_found_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of the store can get lost."""
    monkeypatch.setattr(redrive, "POLL_MIN_S", 0.01)
    scene.capacity.wakes.on_ended = lambda _: None
    await scene.dead(1)
    said = await redriven(scene, lambda _: WELL)
    assert (said[-1].stage, said[-1].succeeded) == (Stage.DONE, 1)


async def test_leaving_it_leaves_nothing_behind(scene: Scene) -> None:
    """The operator hung up: nobody looks any more, and what was queued runs."""
    await scene.dead(2)
    before = asyncio.all_tasks()
    run = Redrive(scene.desk, scene.jobs, CHARGE, rate=FAST).run(dead_heads(scene))
    await anext(run)
    assert len(asyncio.all_tasks()) == len(before) + 1
    await run.aclose()
    assert asyncio.all_tasks() == before
    leased: tuple[LeasedJob, ...] = await scene.lease()
    assert len(leased) == 1
