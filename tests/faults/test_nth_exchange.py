"""
SQLite's loop: the first exchange with the store fails, then the second, ... until the story ends without a fault.

After each of them: nobody holds a slot, the ledger is 0, no job is lost or has run twice, and what callers
were told is true.
"""

import asyncio
from itertools import count

import pytest
from redis import Redis

from tests.faults.broken_line import Fault
from tests.faults.store_story import CHARGE, KEYS, SLOTS, StoreStory
from tests.store.job_world import FACTS, balances

AT_ONCE = 16  # stories that are told side by side, each in a cluster of its own
EXCHANGES_MIN = 12  # a story with fewer would prove little


async def tell(url: str, cluster: str, redis: Redis, fault: Fault, fails_at: int) -> bool:
    """One story, in which the exchange of this number goes wrong, and its end; whether there was such a one."""
    story = StoreStory(url, f"{cluster}n{fails_at}", fault)
    await story.replica.capacity.publish(story.replica.operations, "v1")
    story.replica.jobs.configure(story.replica.operations, FACTS)
    try:
        await story.play(fails_at)
        await check(story, redis)
    except Exception as exc:
        exc.add_note(f"exchange {fails_at}: {fault}")
        raise
    finally:
        await story.close()
    return story.line.is_broken


async def check(story: StoreStory, redis: Redis) -> None:
    assert story.held_max <= SLOTS, "more ran at once than there are slots"
    assert await story.in_use() == (0, 0), "a slot is held for nobody"
    once = dict.fromkeys(KEYS, 1) | {"kept": 1, "released": 2, "retried": 2}
    del once["cancelled"]
    assert story.ran == once, "run twice, or never"
    ends = {key: await story.replica.state(job) for key, job in story.jobs.items()}
    assert ends == dict.fromkeys(KEYS, "succeeded") | {"dead": "dead", "cancelled": "cancelled"}
    for is_later in (False, True):
        look = await story.look()
        assert (look.unaccounted, look.lost) == (0, 0), look
        assert look.late <= 1, "only an ack whose answer got lost is said again"
        assert (look.queued, look.scheduled, look.running) == (0, 0, 0), look
        assert look.accepted == len(KEYS), "a job of which nobody was told"
        assert (look.succeeded, look.dead_total, look.cancelled) == (3, 1, 1), look
        await balances(story.replica, redis, CHARGE.name)
        if not is_later:
            # What lapses after a lease must not bring anything to light, either.
            story.pass_a_lease()
            assert await story.replica.leased() == []


@pytest.mark.parametrize("fault", list(Fault))
async def test_whichever_exchange_with_the_store_fails_every_answer_stays_true(
    store_url: str, redis: Redis, cluster: str, fault: Fault
) -> None:
    """A reply is lost in production once a day, at the one place of which nobody has thought."""
    for first in count(1, AT_ONCE):
        async with asyncio.TaskGroup() as group:
            told = [
                group.create_task(tell(store_url, cluster, redis, fault, number))
                for number in range(first, first + AT_ONCE)
            ]
        if not any(task.result() for task in told):
            break
    assert first > EXCHANGES_MIN
