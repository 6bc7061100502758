"""
What admission remembers of one operation, and the moment at which it looks.

The state is changed in place: it is one process's copy of what the store holds.
"""

from dataclasses import dataclass, field

from breaker.core import rate
from breaker.core.circuit import Circuit
from breaker.core.effective import effective
from breaker.core.model import Limits
from breaker.core.rate import Bucket
from breaker.core.terms import Terms, quota_period, stated
from breaker.core.verdict import Policy

PLAYING = 9 * 10**15  # a parked tenant whose first waiter stands in the common line


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """
    One call that wants to start.

    Attributes:
        id: `replica.number`; numbers of one replica sort in order of arrival.
        tenant: Empty when the operation knows no tenants.
        wait_us: How long it may wait for its turn.

    """

    id: str
    tenant: str = ""
    cost: int = 1
    wait_us: int = 0

    @property
    def replica(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """A waiting call: what it asked for, until when, and why it waits."""

    tenant: str
    cost: int
    give_up_us: int
    policy: Policy
    arrival_us: int


@dataclass(slots=True, kw_only=True)
class State:
    """
    All that admission remembers of one operation.

    Attributes:
        waiting: Waiter id -> arrival; those that only wait for the operation's limits.
        lines: The waiters of each parked tenant, likewise.
        parked: Tenant -> when its first waiter may be tried again.
        tombs: Withdrawn id -> until when it must not be admitted.
        seen: Replica -> last sign of life.

    """

    own: Bucket = field(default_factory=Bucket)
    circuit: Circuit = field(default_factory=Circuit)
    tenants: dict[str, Bucket] = field(default_factory=dict)
    service_us: int = 0
    started: int = 0
    wanted: int = 0
    quota_start_us: int = 0
    quota_used: int = 0
    calls: dict[str, Waiter] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    tombs: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    The limits that hold at this moment, read once per step.

    Attributes:
        limits: In force.
        whole: As stated, before concurrency adapts and a ramp lowers them.

    """

    terms: Terms
    limits: Limits
    whole: Limits
    until_us: int | None
    quota_end_us: int
    now_us: int

    def of_tenant(self, tenant: str) -> Limits | None:
        if not tenant:
            return None
        found = self.terms.tenants.get(tenant, self.terms.per_tenant)
        return Limits() if found is None and self.terms.pauses_tenants else found


def look_at(state: State, terms: Terms, now_us: int) -> View:
    """Bring the operation's clocks up to date, and say what holds."""
    whole, until = stated(terms, now_us)
    limits = effective(whole, state.circuit, terms.circuit, now_us)
    quota_end = 0
    if terms.quota is not None:
        start, quota_end = quota_period(terms, now_us)
        if start != state.quota_start_us:
            state.quota_start_us, state.quota_used = start, 0
    state.own.batch = terms.debt
    rate.bring_up_to_date(state.own, limits, now_us)
    return View(
        terms=terms, limits=limits, whole=whole, until_us=until, quota_end_us=quota_end, now_us=now_us
    )


def tenant_bucket(state: State, limits: Limits, tenant: str, now_us: int) -> Bucket:
    bucket = state.tenants.setdefault(tenant, Bucket())
    rate.bring_up_to_date(bucket, limits, now_us)
    return bucket
