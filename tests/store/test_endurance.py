"""What only shows after a while: memory that grows, a store that refuses for long, clocks that go back."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from breaker.core.events import RoundTripEnded, StoreFailed
from breaker.core.model import LEASE_US, Limits, Rate
from breaker.core.state import Ask
from breaker.core.terms import Terms
from breaker.core.verdict import Admitted, Refused, Waiting
from breaker.store.parts import HEAD_SIZE
from breaker.store.policy import publish_arguments
from breaker.store.server_binary import find_server
from tests.model.twin import Twin
from tests.store.replicas import Server, an_operation, replica, slots, until
from tests.store.world import World

START = 1_800_000_000_000_000
SECOND = 1_000_000
HOUR = 3_600 * SECOND


def test_slots_of_a_busy_tenant_do_not_pile_up(redis: Redis, cluster: str) -> None:
    """Each hang-up left a lingering lease in the tenant's set, which its next call kept alive for ever."""
    limits = Limits(concurrency=1_000)
    twin = Twin(redis, cluster, Terms(limits=limits, per_tenant=limits), START)
    for number in range(100):
        ask = Ask(id=f"AAAAAAAA.{number:08}", tenant="acme")
        assert isinstance(twin.admit(ask), Admitted)
        twin.settle(ask.id, "acme", SECOND, 0)
        twin.now_us += 2 * SECOND
    assert redis.zcard(twin.keys.named("slots")) <= 2
    assert redis.zcard(twin.keys.named("slots:acme")) <= 2


def test_a_withdrawn_call_gives_back_no_time_that_has_passed(world: World) -> None:
    """Else the next two start at one instant, where the file says one in 100 ms."""
    world.of(Terms(limits=Limits(rate=Rate(limit=10, period_us=SECOND), concurrency=9)))
    gone = Ask(id="AAAAAAAA.gone")
    assert isinstance(world.twin.admit(gone), Admitted)
    world.twin.now_us += 100_000
    assert world.starts()
    world.twin.withdraw(gone, timed_out=False)
    assert not world.starts()


def test_a_withdrawn_call_gives_its_quota_back(world: World) -> None:
    """A day's quota must not shrink with each caller that hangs up."""
    day = ((START - SECOND, START + 86_400 * SECOND),)
    world.of(Terms(limits=Limits(concurrency=9), quota=1, periods=day))
    gone = Ask(id="AAAAAAAA.gone")
    assert isinstance(world.twin.admit(gone), Admitted)
    assert not world.starts()
    world.twin.withdraw(gone, timed_out=False)
    assert world.starts()


def test_a_clock_that_goes_back_holds_no_slot_for_hours(world: World) -> None:
    """The lease of a dead replica would end an hour from now, by the clock as it is."""
    world.of(Terms(limits=Limits(concurrency=1)))
    assert world.starts()
    assert not world.starts()
    world.twin.now_us -= HOUR
    assert world.starts()


def test_a_clock_that_goes_back_leaves_no_tenant_parked(world: World) -> None:
    """Its turn would come an hour from now, while everybody else goes on."""
    world.of(Terms(per_tenant=Limits(rate=Rate(limit=1, period_us=SECOND))))
    assert world.starts("acme")
    ask = Ask(id="AAAAAAAA.turn", tenant="acme", wait_us=50 * SECOND)
    assert isinstance(world.twin.admit(ask), Waiting)
    assert world.twin.grant("AAAAAAAA", keeps_alive=True) == []
    world.twin.now_us -= HOUR
    world.twin.grant("AAAAAAAA", keeps_alive=True)
    world.twin.now_us += 2 * SECOND
    assert world.twin.grant("AAAAAAAA", keeps_alive=True) == [ask.id]


def test_one_tenants_line_leaves_room_for_others(world: World) -> None:
    """A customer that hammers on must not fill the waiting room of all."""
    hog = {"hog": Limits(concurrency=1)}
    world.of(Terms(limits=Limits(rate=Rate(limit=2, period_us=SECOND, burst=2)), tenants=hog, waiting_max=8))
    verdicts = [
        world.twin.admit(Ask(id=f"AAAAAAAA.{n:08}", tenant="hog", wait_us=20 * SECOND)) for n in range(6)
    ]
    assert [type(verdict) for verdict in verdicts] == [Admitted, Waiting, Waiting, Refused, Refused, Refused]
    assert world.starts("other")
    assert isinstance(world.twin.admit(Ask(id="AAAAAAAA.other", tenant="other", wait_us=2 * SECOND)), Waiting)


def test_thousands_of_exceptions_can_be_published(redis: Redis, cluster: str) -> None:
    """A partner programme has more named tenants than Lua unpacks at once."""
    many = {f"partner-{number}": Limits(concurrency=2) for number in range(5_000)}
    twin = Twin(redis, cluster, Terms(limits=Limits(concurrency=9)), START)
    twin.publish(Terms(limits=Limits(concurrency=9), tenants=many))
    assert redis.hget(twin.keys.named("policy"), "tenant:partner-4999") == b"- - - - 2"


def test_renewing_calendars_puts_back_no_old_limits(redis: Redis, cluster: str) -> None:
    """A replica that has not been reloaded yet must not undo what the others did."""
    old, new = Terms(limits=Limits(concurrency=2)), Terms(limits=Limits(concurrency=5))
    twin = Twin(redis, cluster, new, START)
    twin.run("publish", *publish_arguments(new, "v2"))
    assert twin.run("publish", *publish_arguments(old, "v1", renews=True)) == [0, 0]
    assert redis.hget(twin.keys.named("policy"), "file") == b"- - - - 5"
    assert twin.run("publish", *publish_arguments(replace(new, waiting_max=7), "v2", renews=True)) == [0, 1]


def test_a_lease_is_told_of_for_each_call(redis: Redis, cluster: str) -> None:
    """Of two calls in one step, one may hold a slot and the other none."""
    twin = Twin(redis, cluster, Terms(tenants={"acme": Limits(concurrency=5)}), START)
    asks: list[str | int] = ["AAAAAAAA.1", "x", 1, 0, "AAAAAAAA.2", "acme", 1, 0]
    reply = twin.run("admit", START, "", "", "AAAAAAAA", LEASE_US, *asks)
    assert [reply[HEAD_SIZE + 6], reply[HEAD_SIZE + 13]] == [0, 1]
    assert redis.zrange(twin.keys.named("slots"), 0, -1) == [b"AAAAAAAA.2"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A store of its own, to be refused by."""
    server = Server(asyncio.run(find_server()), tmp_path)
    yield server
    server.close()


async def test_a_store_that_refuses_is_not_hammered(server: Server, cluster: str) -> None:
    """A primary that became a replica answers everything at once, with no."""
    async with replica(server.url, cluster, an_operation(limits=slots(3))) as one:
        held = await one.hold()
        with Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", "1")
            try:
                one.settle(held)
                before = len(one.events)
                began = time.monotonic()
                await asyncio.sleep(1.0)
                told = [event for event in one.events[before:] if isinstance(event, StoreFailed)]
                assert 0 < len(told) <= 4 * (time.monotonic() - began) + 3
                assert not [event for event in one.events[before + 1 :] if isinstance(event, RoundTripEnded)]
            finally:
                client.replicaof("NO", "ONE")

        async def is_free() -> bool:
            return (await one.store.look("billing.charge")).in_use == 0

        await until(is_free)


async def test_calls_that_run_count_again_after_a_flush(store_url: str, redis: Redis, cluster: str) -> None:
    """Else twice the limit runs until the next renewal."""
    async with replica(store_url, cluster, an_operation(limits=slots(2))) as one:
        await one.hold()
        redis.delete(*redis.scan_iter(f"brk:{cluster}:*"))
        with pytest.raises(Exception, match="flushed"):
            await one.admit()

        async def is_counted() -> bool:
            try:
                return (await one.store.look("billing.charge")).in_use == 1
            except Exception:  # noqa: BLE001 - until it is published again
                return False

        await until(is_counted, seconds=3)
