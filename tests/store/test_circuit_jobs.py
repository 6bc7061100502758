"""Jobs of a downstream that fails: they wait, a few of them try it, and the others follow bit by bit."""

from typing import Any

import pytest
from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.events import Result
from breaker.core.job_policy import Band, Batch
from breaker.core.jobs import Fate, LeasedJob, Queued
from breaker.core.model import LEASE_US, Capacity, Operation
from breaker.core.verdict import Policy
from breaker.store.circuit_posts import ByHand, CallEnd
from tests.store.circuit_world import OPEN_US, PROBES, Node, nodes, with_circuit
from tests.store.job_world import HOUR, MINUTE, SECOND, START, JobReplica, Moment, a_queue
from tests.store.replicas import slots

PAUSE_MAX_US = OPEN_US * 5 // 4
EUR = {"line": "acme~eur"}


def a_held_queue(circuit: dict[str, Any] | None = None, **queue: Any) -> Operation:
    return with_circuit(a_queue(**queue), **(circuit or {}))


async def fail(node: Node, one: JobReplica) -> None:
    """Four jobs fail, so that the circuit opens; none of them is left."""
    await one.queue_many(4)
    for job in (await one.lease(4)).jobs:
        await ran(node, one, job, Result.SERVER_ERROR)
    await node.comes_to(CircuitState.OPEN)


async def ran(node: Node, one: JobReplica, job: LeasedJob, result: Result = Result.OK, **ack: Any) -> None:
    """The job's attempt ended so; both queue and circuit know it afterwards."""
    node.circuits.ended(
        node.operation,
        CallEnd(
            id=job.slot, tenant=job.head.tenant, generation=job.generation, is_probe=job.is_probe, result=result
        ),
    )  # fmt: skip
    await one.end(job, **ack)


async def close(node: Node, one: JobReplica) -> None:
    """The pause is over, and as many probes as it takes succeed."""
    for job in (await one.lease(PROBES)).jobs:
        await ran(node, one, job)
    await node.comes_to(CircuitState.CLOSED)


# Held.


async def test_jobs_wait_through_an_open_circuit_and_use_no_attempt(store_url: str, cluster: str) -> None:
    """An hour of a downstream that is away is none of a job's five attempts."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, a_held_queue(), moment) as [(node, one), (_, two)]:
        await fail(node, one)
        jobs = await two.queue_many(3, deadline_us=START + HOUR)
        until_us = (await node.store.look(node.operation)).circuit.until_us
        for replica in (one, two):
            leases = await replica.lease()
            assert leases.jobs == ()
            assert leases.next_us == until_us - moment.now_us, "and there is no use in asking before"
        moment.now_us = until_us - 1
        assert (await two.lease()).jobs == ()
        moment.now_us = until_us
        leases = await two.lease()
        assert [(job.head.id, job.head.attempt, job.head.failures) for job in leases.jobs] == [
            (job, 1, 0) for job in jobs
        ]


async def test_a_call_becomes_a_job_while_the_circuit_is_open(store_url: str, cluster: str) -> None:
    """Where calls may wait they are not refused; they are told why nothing starts."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue(), moment) as [(node, one)]:
        await fail(node, one)
        answer = await one.accept()
        assert isinstance(answer, Queued)
        assert (answer.why, answer.held) == (Policy.CIRCUIT, Policy.CIRCUIT)
        assert await one.leased() == []
        assert await one.state(answer.job) == "queued"


async def test_deadlines_count_while_jobs_are_held(store_url: str, cluster: str) -> None:
    """A job that is of no use after a minute ends as expired after one, and visibly."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue({"open_ms": 120_000}), moment) as [(node, one)]:
        await fail(node, one)
        job = await one.queue(expiry_us=START + 200 * SECOND)
        await node.circuits.force(node.operation, ByHand.FORCED_OPEN, 0, "ann", "they migrate")
        moment.now_us = START + 200 * SECOND - 1
        assert (await one.lease()).expired == 0
        moment.now_us += 1
        assert (await one.lease()).expired == 1
        assert await one.state(job) in ("expired", "gone")


async def test_a_job_that_would_expire_before_the_first_probe_is_refused_at_once(
    store_url: str, cluster: str
) -> None:
    """Said now, and not when nobody waits for it any more."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue(), moment) as [(node, one)]:
        await fail(node, one)
        until_us = (await node.store.look(node.operation)).circuit.until_us
        assert not isinstance(await one.accept(expiry_us=until_us), Queued)
        assert isinstance(await one.accept(expiry_us=until_us + 1), Queued)


@pytest.mark.parametrize("is_due_while_held", [False, True])
async def test_time_in_which_jobs_were_held_does_not_count_against_their_retries(
    store_url: str, cluster: str, *, is_due_while_held: bool
) -> None:
    """A job that may be tried for an hour, of a downstream that is away for two."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue(), moment) as [(node, one)]:
        await one.queue(deadline_us=START + 9 * HOUR)
        first = await one.one()
        delay = 7 * SECOND
        await ran(node, one, first, Result.SERVER_ERROR, fate=Fate.RETRY, delay_us=delay)
        first_us = moment.now_us
        await node.circuits.force(node.operation, ByHand.FORCED_OPEN, 0, "ann", "they migrate")
        if is_due_while_held:
            moment.now_us += delay
            assert (await one.lease()).jobs == (), "it stands in line from here on"
        moment.now_us = START + 2 * HOUR
        await node.circuits.force(node.operation, ByHand.DISABLED, 0, "ann", "they are done")
        moment.now_us += delay
        again = await one.one()
        assert again.head.attempt == 2
        assert again.head.first_us == first_us + 2 * HOUR, "two hours of it are as if they had not been"


async def test_time_in_which_a_job_ran_counts_also_while_others_were_held(
    store_url: str, cluster: str
) -> None:
    """What runs is not held: an attempt that takes an hour has taken an hour."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue(), moment) as [(node, one)]:
        await one.queue(deadline_us=START + 9 * HOUR)
        first = await one.one()
        await node.circuits.force(node.operation, ByHand.FORCED_OPEN, 0, "ann", "they migrate")
        moment.now_us += 5 * SECOND
        await node.circuits.force(node.operation, ByHand.DISABLED, 0, "ann", "they are done")
        await ran(node, one, first, Result.SERVER_ERROR, fate=Fate.RETRY, delay_us=SECOND)
        moment.now_us += SECOND
        assert (await one.one()).head.first_us == first.head.first_us


# Probes.


async def test_the_jobs_with_the_earliest_deadlines_try_it_first(store_url: str, cluster: str) -> None:
    """Of whichever tenant and band: who has waited through it longest is served before the promise breaks."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue({"probes": 4}), moment) as [(node, one)]:
        await fail(node, one)
        deadlines = {"acme": [9, 3], "beta": [4, 2], "gamma": [8, 1]}
        jobs = {
            minutes: await one.queue(
                tenant, deadline_us=START + minutes * MINUTE, band=Band.LOW if minutes == 1 else Band.HIGH
            )
            for tenant, all_minutes in deadlines.items()
            for minutes in all_minutes
        }
        moment.now_us += PAUSE_MAX_US
        leases = await one.lease(64)
        assert [job.head.id for job in leases.jobs] == [jobs[minutes] for minutes in (1, 2, 3, 4)]
        assert all(job.is_probe for job in leases.jobs)


async def test_so_many_jobs_try_it_over_all_replicas_and_no_more(store_url: str, cluster: str) -> None:
    """Two thousand jobs wait on three replicas: three of them go."""
    moment = Moment()
    async with nodes(store_url, cluster, 3, a_held_queue(), moment) as made:
        await fail(*made[0])
        await made[0][1].queue_many(20)
        moment.now_us += PAUSE_MAX_US
        found: list[LeasedJob] = []
        for _, one in made:
            found += (await one.lease(2)).jobs
        assert [job.is_probe for job in found] == [True] * PROBES
        leases = await made[2][1].lease(64)
        assert (leases.jobs, leases.next_us) == ((), SECOND), "the others wait for what they say"
        call = await made[0][1].accept()
        assert isinstance(call, Queued)
        assert call.why is Policy.CIRCUIT, "a call is one more, whether it waits or not"


async def test_the_others_follow_when_all_have_succeeded(store_url: str, cluster: str) -> None:
    """And not when the last but one has."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue(), moment) as [(node, one)]:
        await fail(node, one)
        await one.queue_many(20)
        moment.now_us += PAUSE_MAX_US
        probes = (await one.lease(64)).jobs
        for job in probes[:-1]:
            await ran(node, one, job)
        assert (await one.lease(64)).jobs == ()
        await ran(node, one, probes[-1])
        await node.comes_to(CircuitState.CLOSED)
        leases = await one.lease(64)
        assert len(leases.jobs) == 20 - PROBES
        assert not any(job.is_probe for job in leases.jobs)


async def test_jobs_follow_bit_by_bit(store_url: str, cluster: str) -> None:
    """What has waited is a stampede otherwise: a tenth of the slots, half of them in the middle, all at the end."""
    moment = Moment()
    operation = a_held_queue({"ramp_ms": 8_000}, capacity=Capacity(limits=slots(20)))
    async with nodes(store_url, cluster, 1, operation, moment) as [(node, one)]:
        await fail(node, one)
        await one.queue_many(40)
        moment.now_us += PAUSE_MAX_US
        await close(node, one)
        running = [len((await one.lease(64)).jobs)]
        for passed in (4 * SECOND, 4 * SECOND - 1, 1):
            moment.now_us += passed
            running.append(running[-1] + len((await one.lease(64)).jobs))
        assert running == [2, 11, 19, 20]


async def test_a_job_that_fails_as_a_probe_keeps_all_waiting_for_longer(store_url: str, cluster: str) -> None:
    """It waits itself, and tries again after the pause."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue({"probes": 1}), moment) as [(node, one)]:
        await fail(node, one)
        await one.queue_many(2)
        moment.now_us += PAUSE_MAX_US
        probe = await one.one()
        await ran(node, one, probe, Result.TIMEOUT, fate=Fate.RETRY, delay_us=1)
        await node.comes_to(CircuitState.OPEN)
        look = (await node.store.look(node.operation)).circuit
        assert look.until_us - look.since_us >= 2 * OPEN_US * 3 // 4
        moment.now_us = look.until_us - 1
        assert (await one.lease(64)).jobs == ()
        moment.now_us += 1
        assert len((await one.lease(64)).jobs) == 1


async def test_a_probe_that_did_not_run_frees_its_place(store_url: str, cluster: str) -> None:
    """Its replica stops: the next one asks at once, and not after a lease."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue({"probes": 1}), moment) as [(node, one)]:
        await fail(node, one)
        [job] = await one.queue_many(1)
        moment.now_us += PAUSE_MAX_US
        probe = await one.one()
        await one.end(probe, fate=Fate.BACK)
        again = await one.one()
        assert (again.head.id, again.is_probe) == (job, True)


@pytest.mark.parametrize(("after", "is_tried"), [(LEASE_US - 1, False), (LEASE_US, True)])
async def test_a_probe_of_a_replica_that_died_frees_its_place_after_its_lease(
    store_url: str, cluster: str, after: int, *, is_tried: bool
) -> None:
    """And its job goes again, as a suspect, which is a probe like any other."""
    moment = Moment()
    async with nodes(store_url, cluster, 2, a_held_queue({"probes": 1}), moment) as [(node, one), (_, two)]:
        await fail(node, one)
        [job] = await one.queue_many(1)
        moment.now_us += PAUSE_MAX_US
        assert (await one.one()).is_probe
        moment.now_us += after
        leases = await two.lease()
        assert [(found.head.id, found.is_probe) for found in leases.jobs] == (
            [(job, True)] if is_tried else []
        )


async def test_a_probe_that_runs_for_long_keeps_its_place(store_url: str, cluster: str) -> None:
    """Its lease is renewed for as long as it runs."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue({"probes": 1}), moment) as [(node, one)]:
        await fail(node, one)
        await one.queue_many(2)
        moment.now_us += PAUSE_MAX_US
        probe = await one.one()
        head = probe.head
        for _ in range(9):
            moment.now_us += LEASE_US - 1
            await one.capacity.coalescer.run(
                one.lane, "extend", b"", LEASE_US, head.id, head.attempt, head.tenant, probe.slot
            )
            assert (await one.lease()).jobs == ()
        await ran(node, one, probe)
        await node.comes_to(CircuitState.CLOSED)


@pytest.mark.parametrize("result", [Result.OK, Result.SERVER_ERROR])
async def test_a_batch_is_one_probe(store_url: str, cluster: str, result: Result) -> None:
    """A hundred invoices are one call downstream."""
    moment = Moment()
    batch = Batch(path="/batch", key="/currency", max_items=3, window_ms=1_000)
    async with nodes(store_url, cluster, 1, a_held_queue({"probes": 2}, batch=batch), moment) as [
        (node, one)
    ]:
        await node.circuits.force(node.operation, ByHand.FORCED_OPEN, moment.now_us + 1, "ann", "to try it")
        await one.queue_many(9, **EUR)
        assert await one.leased() == []
        moment.now_us += 1
        first, second = await one.lease(), await one.lease()
        assert [len(leases.jobs) for leases in (first, second)] == [3, 3]
        assert all(job.is_probe for job in (*first.jobs, *second.jobs))
        assert await one.leased() == []
        for leases in (first, second):
            node.circuits.ended(
                node.operation,
                CallEnd(id=leases.jobs[0].slot, tenant="acme", generation=2, is_probe=True, result=result),
            )  # fmt: skip
            await one.end(*leases.jobs)
        await node.comes_to(CircuitState.CLOSED if result is Result.OK else CircuitState.OPEN)
        assert len(await one.leased()) == (3 if result is Result.OK else 0)


async def test_jobs_go_through_a_circuit_in_shadow(store_url: str, cluster: str) -> None:
    """It would have held them; nobody notices."""
    moment = Moment()
    operation = a_held_queue({"mode": CircuitMode.SHADOW})
    async with nodes(store_url, cluster, 1, operation, moment) as [(node, one)]:
        await fail(node, one)
        await one.queue_many(9)
        assert len(await one.leased(2)) == 2
        moment.now_us += PAUSE_MAX_US
        assert len(await one.leased(64)) == 7


async def test_nothing_of_it_is_left_when_all_is_over(store_url: str, cluster: str, redis: Redis) -> None:
    """The owner of the store: probes and windows are not kept for good."""
    moment = Moment()
    async with nodes(store_url, cluster, 1, a_held_queue(), moment) as [(node, one)]:
        await fail(node, one)
        await one.queue_many(PROBES)
        moment.now_us += PAUSE_MAX_US
        leases = await one.lease()
        key = node.lane.keys[-1]
        assert redis.exists(key + b":p") == 1
        for job in leases.jobs:
            await ran(node, one, job)
        await node.comes_to(CircuitState.CLOSED)
        assert redis.exists(key + b":p", key + b":w") == 0
