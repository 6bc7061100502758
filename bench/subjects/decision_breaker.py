"""
Breaker in part 2: admission through the store's coalescer.

Variant `rate` holds one shared rate, which is what the peers do. Variant `all` is what a call of the gateway asks for: rate
and concurrency of the operation and of its tenant in one step, a lease taken and given back.
"""

import itertools
import os

from bench.load import TENANTS
from bench.subjects.driver import Case, Decide, drive
from breaker.core.config import StoreSettings
from breaker.core.events import Event
from breaker.core.ids import Ids, base32
from breaker.core.model import Capacity, Downstream, Limits, Match, Operation, Rate
from breaker.core.state import Ask
from breaker.core.verdict import Admitted
from breaker.store.capacity import CapacityStore

SECOND_US = 1_000_000
CONCURRENCY = 10_000  # never reached: the lease is taken and given back all the same


def operation_of(case: Case) -> Operation:
    """The limited operation, named after the case, so that each case has keys of its own."""
    rate = Rate(limit=case.rate, period_us=SECOND_US, burst=case.burst)
    if case.variant == "all":
        capacity = Capacity(
            limits=Limits(rate=rate, concurrency=CONCURRENCY),
            per_tenant=Limits(rate=rate, concurrency=CONCURRENCY),
        )
    else:
        capacity = Capacity(limits=Limits(rate=rate))
    return Operation(
        name=f"bench.{case.key}",
        pipeline="bench",
        team="bench",
        match=Match(method="POST", template="/"),
        downstream=Downstream(url="http://127.0.0.1:1"),
        capacity=capacity,
    )


def ignore(event: Event) -> None:
    """Nobody listens: the events are made, as in the gateway, and counted nowhere."""
    del event


async def prepare(case: Case) -> Decide:
    operation = operation_of(case)
    ids = Ids(base32(os.getpid(), 8))  # each process of a case is a replica of its own
    store = CapacityStore(
        StoreSettings(url=case.redis_url), cluster="bench", replica=ids.replica, emit=ignore
    )
    await store.start({operation.name: operation}, "bench")
    lane = store.lane(operation.name)
    names = [f"tenant-{number}" for number in range(TENANTS)] if case.variant == "all" else [""]
    tenants = itertools.cycle(names)

    async def decide() -> bool:
        ask = Ask(id=ids.next(), tenant=next(tenants))
        verdict = await store.admit(lane, ask)
        if not isinstance(verdict, Admitted):
            return False
        if verdict.leased:
            store.hold(lane, ask)
            store.settle(lane, ask)
        return True

    return decide


if __name__ == "__main__":
    drive(prepare)
