"""
Tallies of calls: what several replicas counted, summed over the windows that alerts look back on, at given times.

The times are less than a year after 1970, so that no store takes them for its clock.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from breaker.store.keys import Keys
from breaker.store.server_binary import find_server
from breaker.store.tallies import NAMES, RECENT_S, WINDOWS, Tallies
from tests.store.replicas import Server, an_operation, replica

CHARGE = "billing.charge"
SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
START = 1_000 * HOUR  # a whole hour


@pytest.fixture
async def both(store_url: str, cluster: str) -> AsyncIterator[tuple[Tallies, Tallies]]:
    """Those of two replicas."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(replica(store_url, cluster, an_operation())) for _ in "ab"]
        yield Tallies(made[0].store), Tallies(made[1].store)


@pytest.fixture
def one(both: tuple[Tallies, Tallies]) -> Tallies:
    return both[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A store of its own, whose memory can be full."""
    server = Server(asyncio.run(find_server()), tmp_path)
    yield server
    server.close()


def tally_key(cluster: str) -> str:
    return Keys(cluster, CHARGE).named("policy") + ":tally"


def fields(redis: Redis, cluster: str) -> list[str]:
    found: Any = redis.hkeys(tally_key(cluster))
    return [name.decode() for name in found]


async def recent(tallies: Tallies, now_us: int, name: str = "refused") -> int:
    return (await tallies.read(CHARGE, is_long=False, now_us=now_us)).recent[name]


async def windows(tallies: Tallies, now_us: int) -> dict[int, tuple[int, int]]:
    return dict((await tallies.read(CHARGE, is_long=True, now_us=now_us)).windows)


async def test_what_two_replicas_count_is_one_sum(both: tuple[Tallies, Tallies]) -> None:
    """An alert is about the operation; which replica a call met is chance."""
    one, other = both
    await one.add(CHARGE, {"all": 70, "bad": 7, "queued": 1}, START)
    await other.add(CHARGE, {"all": 30, "bad": 3, "delayed": 2}, START + SECOND)
    for asked in both:
        found = await asked.read(CHARGE, is_long=True, now_us=START + 2 * SECOND)
        assert found.recent == dict.fromkeys(NAMES, 0) | {"all": 100, "bad": 10, "queued": 1, "delayed": 2}
        assert found.windows == dict.fromkeys(WINDOWS, (100, 10))


async def test_nothing_is_read_of_an_operation_that_nobody_called(one: Tallies) -> None:
    """Its first call must not be what breaks the evaluator."""
    found = await one.read("billing.unknown", is_long=True, now_us=START)
    assert set(found.recent.values()) == {0}
    assert set(found.windows.values()) == {(0, 0)}


async def test_the_windows_are_read_only_when_they_are_asked_for(one: Tallies) -> None:
    """They cost some hundred fields of each operation."""
    await one.add(CHARGE, {"all": 1}, START)
    assert (await one.read(CHARGE, is_long=False, now_us=START)).windows == {}


async def test_the_last_five_minutes_are_five_whole_ones_and_the_one_that_has_begun(one: Tallies) -> None:
    """A call counts for at least five minutes, and for less than six."""
    await one.add(CHARGE, {"refused": 1}, START + MINUTE - 1)
    await one.add(CHARGE, {"refused": 10}, START + MINUTE)
    last = START + RECENT_S * SECOND + MINUTE
    assert await recent(one, last - 1) == 11
    assert await recent(one, last) == 10
    assert await recent(one, last + MINUTE - 1) == 10
    assert await recent(one, last + MINUTE) == 0


@pytest.mark.parametrize("seconds", WINDOWS)
async def test_a_window_holds_what_is_as_old_as_it_is_long_and_not_a_bucket_more(
    one: Tallies, seconds: int
) -> None:
    """Both sides of the edge of each window's buckets; a burn rate over the wrong window pages for nothing."""
    unit, count = WINDOWS[seconds]
    bucket = {"m": MINUTE, "f": 5 * MINUTE, "h": HOUR}[unit]
    assert bucket * count == seconds * SECOND
    await one.add(CHARGE, {"all": 5, "bad": 2, "refused": 9}, START + bucket - 1)
    last = START + seconds * SECOND + bucket - 1
    assert (await windows(one, last))[seconds] == (5, 2)
    assert (await windows(one, last + 1))[seconds] == (0, 0)


async def test_old_buckets_go_and_those_that_are_still_summed_stay(
    one: Tallies, redis: Redis, cluster: str
) -> None:
    """Each call of three days must not stay in the store's memory for ever."""
    for hour in range(100):
        await one.add(CHARGE, dict.fromkeys(NAMES, 1), START + hour * HOUR)
    last = START + 99 * HOUR
    found = await windows(one, last)
    assert found[259_200] == (73, 73)
    assert found[86_400] == (25, 25)
    assert found[21_600] == (7, 7)
    names = fields(redis, cluster)
    assert {name[0] for name in names} == {"m", "f", "h"}
    assert len([name for name in names if name.startswith("h") and name.endswith(" all")]) <= 81
    assert len([name for name in names if name.startswith("m") and name.endswith(" full")]) == 1
    assert 0 < redis.pttl(tally_key(cluster)) <= 96 * HOUR // 1_000


async def test_the_fields_of_an_operation_are_bounded(one: Tallies, redis: Redis, cluster: str) -> None:
    """The busiest operation there is, with calls in each minute for half a day."""
    for minute in range(720):
        await one.add(CHARGE, dict.fromkeys(NAMES, 1), START + minute * MINUTE)
    # Eleven minutes of all names, eighty-one buckets of five minutes and thirteen hours of two, and the minute itself.
    assert redis.hlen(tally_key(cluster)) <= 11 * len(NAMES) + 81 * 2 + 13 * 2 + 1


async def test_a_clock_that_goes_back_counts_on_and_leaves_no_bucket_for_ever(
    one: Tallies, redis: Redis, cluster: str
) -> None:
    """A failover to a machine whose clock is two days behind."""
    await one.add(CHARGE, {"all": 100, "bad": 100, "refused": 100}, START + 48 * HOUR)
    await one.add(CHARGE, {"all": 4, "bad": 1, "refused": 3}, START)
    assert await recent(one, START) == 3
    assert (await windows(one, START))[300] == (4, 1)
    names = {name.split(" ")[0] for name in fields(redis, cluster)}
    assert names == {"minute", "m60000", "f12000", "h1000"}


async def test_a_replica_that_is_a_moment_behind_adds_to_the_minute_before(
    both: tuple[Tallies, Tallies],
) -> None:
    """Round trips overtake each other; nothing that was counted lately is thrown away by that."""
    one, other = both
    await one.add(CHARGE, {"refused": 1}, START + MINUTE)
    await other.add(CHARGE, {"refused": 2}, START + MINUTE - 1)
    await one.add(CHARGE, {"refused": 4}, START + MINUTE + 1)
    assert await recent(one, START + MINUTE + 1) == 7


async def test_the_store_s_clock_is_used_when_no_time_is_given(one: Tallies) -> None:
    """As the gateways do it."""
    await one.add(CHARGE, {"all": 3, "failures": 2})
    found = await one.read(CHARGE, is_long=True)
    assert (found.recent["all"], found.recent["failures"], found.windows[300]) == (3, 2, (3, 0))


async def test_a_store_whose_memory_is_full_still_counts(server: Server, cluster: str) -> None:
    """That is when callers are refused, and on-call is to hear how many."""
    async with replica(server.url, cluster, an_operation()) as made:
        tallies = Tallies(made.store)
        server.client.config_set("maxmemory", "1")
        await tallies.add(CHARGE, {"refused": 12}, START)
        assert await recent(tallies, START) == 12
