"""Tasks end when they are asked to, however often that takes."""

import asyncio

from breaker.store.ending import end


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    """A gateway whose store was gone hung in its stop for ever, because one redis-py call had swallowed it."""
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end([task])
    assert task.cancelled()
    assert swallowed == 3


async def test_what_has_ended_is_left_alone() -> None:
    """Its result may still be wanted."""

    async def done() -> int:
        return 7

    task = asyncio.create_task(done())
    await task
    await end([task])
    assert task.result() == 7
