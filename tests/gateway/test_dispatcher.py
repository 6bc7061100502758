"""
The dispatcher and the runner before a real store and a real downstream: what a mistake of ours, a suspect, or a
reload in the wrong moment must not do.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from breaker.core.circuit import Trigger, open_it
from breaker.core.circuit_policy import CircuitPolicy
from breaker.core.events import Result
from breaker.core.job_policy import Batch, Effects
from breaker.core.model import LEASE_US, Downstream, Operation
from breaker.gateway import runner
from breaker.gateway.attempt import Attempted
from breaker.gateway.dispatcher import Dispatcher
from breaker.gateway.downstream import Pool
from breaker.gateway.job_payload import Payload
from breaker.gateway.runner import Runner
from breaker.gateway.sealing import plain
from breaker.gateway.vault import Vault
from breaker.gateway.work import Work, work_of
from tests.gateway.raw_downstream import raw_downstream
from tests.store.job_world import JobReplica, Moment, a_queue, job_replica
from tests.web.job_scene import PATIENCE_S, Desk, answer

SENT: dict[str, Any] = {"payload": plain(Payload(method="POST", target=b"/tasks", body=b"{}").encode())}


@dataclass(slots=True, kw_only=True)
class Stage:
    """A replica that dispatches what waits, and the mistakes of ours that were told."""

    one: JobReplica
    desk: Desk
    works: dict[str, Work]
    dispatcher: Dispatcher
    bugs: list[BaseException] = field(default_factory=list)

    async def until_state(self, job: str, state: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.one.state(job) != state:
                await asyncio.sleep(0)


@asynccontextmanager
async def stage(
    url: str, cluster: str, *operations: Operation, moment: Moment | None = None
) -> AsyncIterator[Stage]:
    """It dispatches nothing before `dispatcher.configure`."""
    desk = Desk(lambda _: answer())
    desk.open.set()
    async with raw_downstream(desk) as downstream:
        own = [replace(some, downstream=Downstream(url=downstream.url)) for some in operations]
        async with job_replica(url, cluster, *own, moment=moment) as one:
            pool = Pool(own[0].downstream)
            works = {
                some.name: work_of(some, pool, one.capacity.lane(some.name), cookies=False) for some in own
            }
            bugs: list[BaseException] = []
            hand = Runner(one.jobs, Vault(()), one.events.append)
            dispatcher = Dispatcher(one.jobs, hand, jobs_max=10, on_bug=bugs.append)
            try:
                yield Stage(one=one, desk=desk, works=works, dispatcher=dispatcher, bugs=bugs)
            finally:
                desk.open.set()
                await dispatcher.stop(PATIENCE_S)
                await pool.close()


async def test_a_reload_without_an_operation_that_waits_for_a_suspect_lets_the_others_run(
    store_url: str, cluster: str
) -> None:
    """Its replica took nothing new until it was idle; with the operation gone nobody would end that."""
    moment = Moment()
    removed, kept = a_queue("billing.removed"), a_queue("billing.kept")
    async with stage(store_url, cluster, removed, kept, moment=moment) as on:
        one, lane = on.one, on.one.capacity.lane("billing.kept")
        on.desk.open.clear()
        await one.queue(**SENT)
        await one.one()
        one.lane.running.clear()  # its replica died
        moment.now_us += LEASE_US
        await one.lease(0)
        await one.jobs.accept(lane, one.offer(is_async=True, **SENT))
        on.dispatcher.configure({"billing.kept": on.works["billing.kept"]})
        await on.desk.until_seen(1)
        on.dispatcher.configure(on.works)
        async with asyncio.timeout(PATIENCE_S):
            while on.dispatcher._quiet is None:
                await asyncio.sleep(0)
        on.dispatcher.configure({"billing.kept": on.works["billing.kept"]})
        await one.jobs.accept(lane, one.offer(is_async=True, **SENT))
        on.dispatcher.accepted("billing.kept", None)
        await on.desk.until_seen(2)


@pytest.mark.parametrize(("effects", "state"), [(Effects.KEYED, "scheduled"), (Effects.ONCE, "unknown")])
async def test_a_mistake_of_ours_is_not_repeated_at_once(
    store_url: str, cluster: str, monkeypatch: pytest.MonkeyPatch, effects: Effects, state: str
) -> None:
    """Given back to the front it would run again at once, and hammer the downstream until somebody wakes up."""
    mistake = RuntimeError("a mistake")

    async def fails(*_: Any, **__: Any) -> Attempted:
        raise mistake

    monkeypatch.setattr(runner, "attempt", fails)
    monkeypatch.setattr(random, "random", lambda: 1.0)
    async with stage(store_url, cluster, a_queue(effects=effects), moment=Moment()) as on:
        job = await on.one.queue(**SENT)
        on.dispatcher.configure(on.works)
        await on.until_state(job, state)
        assert on.bugs == [mistake]


async def test_a_job_that_a_mistake_of_ours_left_is_not_held_for_ever(
    store_url: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewed for as long as the process lives it would reach no end; so its lease runs out."""
    moment = Moment()

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Runner, "_judge", fails)
    async with stage(store_url, cluster, a_queue(), moment=moment) as on:
        await on.one.queue(**SENT)
        on.dispatcher.configure(on.works)
        async with asyncio.timeout(PATIENCE_S):
            while not on.bugs:
                await asyncio.sleep(0)
        assert on.one.lane.running == {}
        await on.dispatcher.stop(PATIENCE_S)
        moment.now_us += LEASE_US
        assert (await on.one.lease(0)).lost == 1


async def test_a_batch_keeps_its_slot_until_it_is_answered(
    store_url: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One item that no key opens is told of with the others: before, its end would free the slot of them all."""
    held: list[int] = []
    operation = a_queue(batch=Batch(max_items=2, path="/batch"))

    async with stage(store_url, cluster, operation) as on:

        async def sends(_: Any, __: Any, jobs: Any, **___: Any) -> list[Attempted]:
            held.append(len(on.one.lane.running))
            return [Attempted(status=201, result=Result.OK) for _ in jobs]

        monkeypatch.setattr(runner, "send_batch", sends)
        line = {"line": "acme~1"}
        unreadable = await on.one.queue(payload=b"no format", **line)
        good = await on.one.queue(**SENT, **line)
        on.dispatcher.configure(on.works)
        await on.until_state(unreadable, "dead")
        assert await on.one.state(good) == "gone"
        assert held == [2]


async def test_a_replica_whose_own_circuit_is_open_asks_again_when_its_pause_is_over(
    store_url: str, cluster: str
) -> None:
    """It may be the last one, with a backlog and nobody who accepts: nothing else would ask."""
    operation = replace(a_queue("billing.kept"), circuit=CircuitPolicy(open_ms=100, probes=1))
    async with stage(store_url, cluster, operation) as on:
        one = on.one
        await one.queue(**SENT)
        post = one.capacity.circuits._posts[one.operation]
        assert post.terms
        open_it(post.alone, post.terms, Trigger.FAILING, one.now_us(), 500)
        on.dispatcher.configure(on.works)
        await asyncio.sleep(0)
        assert not on.desk.seen
        await on.desk.until_seen(1)
