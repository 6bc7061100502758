"""
The world of the circuit tests: replicas of one operation, and calls of theirs that end as a test says.

Replicas are those of `job_world.py`: with a `Moment`, pauses and leases pass without waiting.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from redis import Redis

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitPolicy
from breaker.core.events import Result
from breaker.core.model import Operation
from breaker.core.state import Ask
from breaker.core.verdict import Admitted, Policy, Refused, Verdict
from breaker.store.capacity import CapacityStore
from breaker.store.circuit_posts import CallEnd, changed
from breaker.store.circuits import Circuits
from tests.store.job_world import JobReplica, Moment, job_replica
from tests.store.replicas import an_operation, until

SECOND = 1_000_000
OPEN_US, PROBES = 5 * SECOND, 3
_numbers = count()


def with_circuit(operation: Operation | None = None, **circuit: Any) -> Operation:
    """An operation whose circuit opens after four calls; its file says nothing else unless told."""
    said = {"min_calls": 4, "probes": PROBES, "open_ms": OPEN_US // 1_000} | circuit
    return replace(operation or an_operation(), circuit=CircuitPolicy(**said))


@dataclass(frozen=True, slots=True)
class Started:
    """A call that has started."""

    ask: Ask
    verdict: Admitted


class Node:
    """One replica, as circuits see it."""

    def __init__(self, store: CapacityStore, operation: str) -> None:
        self.store, self.operation, self.lane = store, operation, store.lane(operation)

    @property
    def circuits(self) -> Circuits:
        return self.store.circuits

    async def ask(self, tenant: str = "") -> tuple[Ask, Verdict | None]:
        ask = Ask(id=f"{self.store.replica}.{next(_numbers):08}", tenant=tenant)
        return ask, await self.store.admit(self.lane, ask)

    async def start(self, tenant: str = "") -> Started:
        """A call that starts."""
        ask, verdict = await self.ask(tenant)
        assert isinstance(verdict, Admitted), verdict
        if verdict.leased:
            self.store.hold(self.lane, ask)
        self.circuits.began(self.operation, ask.id)
        return Started(ask, verdict)

    async def refused_by(self, tenant: str = "") -> Policy:
        """Why a call does not start."""
        _, verdict = await self.ask(tenant)
        assert isinstance(verdict, Refused), verdict
        return verdict.policy

    def end(self, call: Started, result: Result = Result.OK, **changes: Any) -> None:
        ask, verdict = call.ask, call.verdict
        self.store.settle(self.lane, ask)
        self.circuits.ended(
            self.operation,
            CallEnd(
                id=ask.id, tenant=ask.tenant, generation=verdict.generation, is_probe=verdict.is_probe,
                result=result, **changes,
            ),
        )  # fmt: skip

    async def calls(self, number: int, result: Result = Result.OK, **changes: Any) -> None:
        """So many calls that start, and end so."""
        for call in [await self.start() for _ in range(number)]:
            self.end(call, result, **changes)

    async def state(self) -> CircuitState:
        return (await self.store.look(self.operation)).circuit.state

    async def comes_to(self, state: CircuitState) -> None:
        """Wait until the store says so: what ended is told behind everybody's back."""

        async def is_so() -> bool:
            return await self.state() is state

        await until(is_so)

    async def quiet(self) -> None:
        """Wait until no report is under way, whatever became of it."""

        async def is_so() -> bool:
            return not self.circuits._telling

        await until(is_so)

    async def all_told(self) -> None:
        """Wait until the store has heard of all that this replica sees."""
        post = self.circuits._posts[self.operation]

        async def is_so() -> bool:
            seen = post.window.seen(self.store.clock.now_us())
            return not (post.is_telling or post.has_news or changed(post.told, seen))

        await until(is_so)


@asynccontextmanager
async def nodes(
    url: str, cluster: str, number: int, operation: Operation, moment: Moment | None = None
) -> AsyncIterator[list[tuple[Node, JobReplica]]]:
    """So many replicas of this operation."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(job_replica(url, cluster, operation, moment=moment))
            for _ in range(number)
        ]
        yield [(Node(one.capacity, operation.name), one) for one in made]


def windows(redis: Redis, node: Node) -> dict[str, str]:
    """What the store was told: replica -> "at calls failed slow streak"."""
    found: Any = redis.hgetall(node.lane.keys[-1] + b":w")
    return {name.decode(): text.decode() for name, text in found.items()}
