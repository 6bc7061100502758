"""The world of the contract tests: one operation, simulated time, both executions compared."""

from itertools import count

from redis import Redis

from breaker.core.model import (
    Limits,
    Rate,
)
from breaker.core.state import Ask
from breaker.core.terms import Terms
from breaker.core.verdict import Admitted, Policy, Refused, Verdict
from tests.model.twin import Twin

SECOND = 1_000_000
START = 1_800_000_000 * SECOND
_numbers = count(1)


class World:
    """An operation with these terms, and simulated time."""

    def __init__(self, redis: Redis, cluster: str, start_us: int = START) -> None:
        self._redis, self._cluster, self._start_us = redis, cluster, start_us

    def of(self, terms: Terms) -> "World":
        self.twin = Twin(self._redis, self._cluster, terms, self._start_us)
        return self

    def after(self, us: int) -> "World":
        """The moment so many microseconds after the start."""
        self.twin.now_us = self._start_us + us
        return self

    def call(self, tenant: str = "", *, cost: int = 1, id_: str = "") -> Verdict | None:
        """One call that does not want to wait."""
        return self.twin.admit(Ask(id=id_ or f"AAAAAAAA.{next(_numbers):08}", tenant=tenant, cost=cost))

    def starts(self, tenant: str = "", *, cost: int = 1, id_: str = "") -> bool:
        return isinstance(self.call(tenant, cost=cost, id_=id_), Admitted)

    def refused_by(self, tenant: str = "", *, cost: int = 1) -> Policy:
        verdict = self.call(tenant, cost=cost)
        assert isinstance(verdict, Refused), verdict
        return verdict.policy


def a_rate(limit: int, *, burst: int = 1) -> Limits:
    return Limits(rate=Rate(limit=limit, period_us=SECOND, burst=burst))
