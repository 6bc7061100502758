"""
Lists of jobs: every one of them once, in pages.
"""

import pytest
from redis import Redis

from breaker.core.job_policy import Band
from breaker.core.jobs import Fate, JobHead, JobState
from tests.store.job_world import (
    HOUR,
    START,
    JobReplica,
    Moment,
    a_queue,
    job_replica,
)


async def every_page(one: JobReplica, state: JobState, limit: int) -> list[JobHead]:
    found: list[JobHead] = []
    after = ""
    for _ in range(1_000):
        page, after = await one.desk.listed(one.operation, state, after=after, limit=limit)
        assert len(page) <= limit
        found += page
        if not after:
            return found
    raise AssertionError("it does not end")


@pytest.mark.parametrize("state", ["queued", "scheduled", "running", "dead", "unknown"])
@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_pages_hold_every_job_once_also_of_one_moment(
    store_url: str, cluster: str, state: str, limit: int
) -> None:
    """A thousand invoices scheduled for the first of the month: none is missing from the list."""
    number = 40 if limit == 1 else 700
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        jobs = await one.queue_many(number, not_before_us=START + HOUR if state == "scheduled" else 0)
        if state not in ("queued", "scheduled"):
            while (leases := await one.lease(64)).jobs:
                if state != "running":
                    await one.end(*leases.jobs, fate=Fate(state))
        heads = await every_page(one, JobState(state), limit)
        assert sorted(head.id for head in heads) == sorted(jobs)
        assert {head.state for head in heads} == {state}


async def test_queued_jobs_are_listed_band_by_band_and_the_oldest_first(store_url: str, cluster: str) -> None:
    """Whoever looks for the job that waits longest finds it on the first page."""
    moment = Moment()
    async with job_replica(store_url, cluster, a_queue(), moment=moment) as one:
        jobs = []
        for band in (Band.LOW, Band.CRITICAL, Band.NORMAL, Band.CRITICAL):
            jobs.append(await one.queue(band=band))
            moment.now_us += 1
        heads = await every_page(one, JobState.QUEUED, 3)
        assert [head.id for head in heads] == [jobs[1], jobs[3], jobs[2], jobs[0]]


async def test_a_page_goes_on_although_its_last_job_has_left(store_url: str, cluster: str) -> None:
    """Jobs run while somebody reads the list."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        jobs = await one.queue_many(10)
        page, after = await one.desk.listed(one.operation, JobState.QUEUED, limit=4)
        assert [head.id for head in page] == jobs[:4]
        for job in jobs[2:6]:
            await one.desk.cancel(one.operation, job)
        page, after = await one.desk.listed(one.operation, JobState.QUEUED, after=after, limit=4)
        assert [head.id for head in page] == jobs[6:]


@pytest.mark.parametrize("cursor", ["x", "9/0/", "0/abc/", "0"])
async def test_a_cursor_of_another_list_is_refused(store_url: str, cluster: str, cursor: str) -> None:
    """A typing error must not read as the end of the list."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        with pytest.raises(ValueError, match="is not a cursor of this list"):
            await one.desk.listed(one.operation, JobState.QUEUED, after=cursor)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.EXPIRED, JobState.CANCELLED])
async def test_states_without_a_list_say_so(store_url: str, cluster: str, state: JobState) -> None:
    """An empty page would read as `there are none`."""
    async with job_replica(store_url, cluster, a_queue()) as one:
        with pytest.raises(ValueError, match="are not listed"):
            await one.desk.listed(one.operation, state)


async def test_jobs_that_somebody_deleted_hide_no_others(store_url: str, redis: Redis, cluster: str) -> None:
    """Keys deleted by hand: the page is filled from what comes behind, and the list goes on."""
    async with job_replica(store_url, cluster, a_queue(), moment=Moment()) as one:
        jobs = await one.queue_many(10)
        texts = {one.keys.named(f"q:j:{job}"): redis.get(one.keys.named(f"q:j:{job}")) for job in jobs[1:4]}
        redis.delete(*texts)
        heads = await every_page(one, JobState.QUEUED, 4)
        assert [head.id for head in heads] == [jobs[0], *jobs[4:]]
        redis.mset(texts)  # type: ignore[arg-type]
