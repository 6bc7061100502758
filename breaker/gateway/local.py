"""
Local: the rules of core/ for one replica that cannot ask the store.

1. It decides by its share of the limits (`share.py`), from empty buckets. What it holds of the store counts.
2. Calls wait here as they do in the store. When the store is back, those who still wait go there.
3. What was decided here is an episode: it is told to the store once (`store/carry.py`).
4. A person who paused the operation, or set other limits, is obeyed as far as was heard before.

Leases are renewed when somebody asks: nothing else looks at them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from breaker.core import admission, settling, waiting
from breaker.core.circuit import Circuit, CircuitState, Report, on_report
from breaker.core.circuit_policy import WhenStoreDown
from breaker.core.model import LEASE_US, RENEW_US, Capacity, Limits, Operation
from breaker.core.state import Ask, State
from breaker.core.terms import Hold, Override, Terms, stated
from breaker.core.verdict import Admitted, Policy, Refused, TooCostly, Waiting
from breaker.gateway.share import empty_bucket, share_of_terms, without_limits
from breaker.store.capacity import Look
from breaker.store.carry import Episode
from breaker.store.lane import Lane
from breaker.store.policy import DAY_US, terms_of

OWN = "-local"  # behind a call's id: what the store may yet do with that id is not ours
GRANT_S_MAX = 0.5

Which = Callable[[str], bool]  # whether an operation is meant, by its name


def everything(operation: str) -> bool:
    del operation
    return True


@dataclass(slots=True)
class Known:
    """
    What the store said of an operation when it was last heard.

    Attributes:
        looked_us: When it was looked at; 0 never. started: What it had counted then.
        circuit_until_us: When its circuit's pause ends, or a person's word.
        quota_left: None without a quota. override: Limits that a person had set. held: The word of a hold.
        override_until_us, held_until_us: When they end; a hold at 0 does not by itself.

    """

    looked_us: int = 0
    started: int = 0
    circuit_until_us: int = 0
    quota_left: int | None = None
    override: Limits | None = None
    override_until_us: int = 0
    held: Policy | None = None
    held_until_us: int = 0


@dataclass(slots=True, kw_only=True)
class Alone:
    """
    One operation between two uses of the store.

    Attributes:
        peak: The most calls in flight. tenants: Cost that started, of those who have limits.
        waiters: Calls that wait here; False: the store is back.

    """

    terms: Terms
    state: State
    from_us: int
    renewed_us: int
    peak: int = 0
    tenants: dict[str, int] = field(default_factory=dict)
    waiters: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, kw_only=True)
class Station:
    """
    An operation as this replica runs it by itself.

    Attributes:
        whole: Its terms for a day, and which operation and day that was.
        circuit: Begins as the store's was when it was last heard, and moves by what this replica sees.
        running: Calls that started here: their own id -> what they asked by.
        unregistered: Those of them that the store does not hold a slot for.

    """

    lane: Lane
    known: Known = field(default_factory=Known)
    whole: tuple[Operation, int, Terms] | None = None
    alone: Alone | None = None
    circuit: Circuit = field(default_factory=Circuit)
    running: dict[str, Ask] = field(default_factory=dict)
    unregistered: set[str] = field(default_factory=set)


class LocalCapacity:
    """
    All operations' shares, for one replica.

    Args:
        now_us: The store's time as it is estimated, else our own.
        live_replicas: How many lived when that was last known.

    Attributes:
        expected: Replicas that share the capacity at least, as the files say.

    """

    def __init__(
        self, *, replica: str, now_us: Callable[[], int], live_replicas: Callable[[], int], expected: int
    ) -> None:
        self.expected = expected
        self._replica, self._now_us, self._live = replica, now_us, live_replicas
        self._stations: dict[str, Station] = {}
        self._episodes = 0

    async def admit(
        self, operation: Operation, lane: Lane, ask: Ask
    ) -> Admitted | Refused | TooCostly | None:
        """May this call start here? None: the store is back, ask there."""
        station, now_us = self._station(lane), self._now_us()
        alone = station.alone or self._begin(operation, station, now_us)
        if now_us - alone.renewed_us > RENEW_US:
            self._renew(station, alone, now_us)
        self._prepare_tenant(alone, ask.tenant)
        own = replace(ask, id=ask.id + OWN)
        verdict = admission.admit(alone.state, alone.terms, own, now_us, LEASE_US)
        if isinstance(verdict, Waiting):
            verdict = await self._wait(alone, own)
            if isinstance(verdict, Admitted) and station.alone is not alone:
                return None  # its turn came in the moment in which the store did: the store must know of its slot
        if isinstance(verdict, Admitted):
            self._started(station, alone, ask.id, own)
        return verdict

    def has(self, lane: Lane, id_: str) -> bool:
        """Whether this call was started here."""
        station = self._stations.get(lane.operation)
        return station is not None and id_ in station.running

    def ended(self, lane: Lane, ask: Ask, *, linger: str, service_us: int) -> Ask | None:
        """A call of this replica has ended, wherever it was admitted; by what it asked if that was here."""
        station = self._stations.get(lane.operation)
        if station is None:
            return None
        own = station.running.pop(ask.id, None)
        held = own or ask
        station.unregistered.discard(held.id)
        if alone := station.alone:
            stay = None if linger == "" else -1 if linger == "mean" else int(linger)
            now_us = self._now_us()
            settling.settle(alone.state, held.id, held.tenant, now_us, linger_us=stay, service_us=service_us)
            if alone.waiters:
                self._grant(alone)
        return own

    def told(self, lane: Lane, report_of: Callable[[int], Report | None]) -> bool:
        """
        A call has ended while the store is away: whether the circuit of this replica moved.

        Args:
            report_of: What is seen of the downstream, for a generation of the circuit.

        """
        station = self._stations.get(lane.operation)
        if station is None or station.alone is None:
            return False
        circuit, terms = station.circuit, station.alone.terms.circuit
        generation = circuit.generation
        if report := report_of(generation):
            on_report(circuit, terms, report, self._now_us())
        return circuit.generation != generation

    def reopen(self, is_meant: Which = everything) -> list[tuple[Lane, Episode]]:
        """The store is used again by these operations: who waits goes there, and this is what to tell it."""
        episodes = []
        for station in self._those(is_meant):
            alone, station.alone = station.alone, None
            if alone is None:
                continue
            if alone.timer:
                alone.timer.cancel()
            for waiter in alone.waiters.values():
                if not waiter.done():
                    waiter.set_result(False)
            if alone.state.wanted:
                episodes.append((station.lane, self._told(station, alone)))
        return episodes

    def leases(self, is_meant: Which = everything) -> list[tuple[Lane, Ask]]:
        """Calls of these operations with a slot that the store does not know of; whoever asks tells it."""
        found: list[tuple[Lane, Ask]] = []
        for station in self._those(is_meant):
            found += (
                (station.lane, own) for own in station.running.values() if own.id in station.unregistered
            )
            station.unregistered.clear()
        return found

    def looked(self, lane: Lane, look: Look) -> None:
        """The store told the operation's numbers."""
        known = self._station(lane).known
        known.looked_us, known.started = self._now_us(), look.started
        left = None if look.quota_limit is None else max(0, look.quota_limit - look.quota_used)
        known.quota_left, known.override = left, look.stated if look.source == "override" else None
        known.override_until_us, known.circuit_until_us = look.override_until_us, look.circuit.until_us
        known.held, known.held_until_us = Policy(look.held) if look.held else None, look.held_until_us

    def heard(self, lane: Lane, verdict: Admitted | Refused) -> None:
        """The store decided a call: whether a person holds the operation."""
        if isinstance(verdict, Refused) and verdict.policy in (Policy.PAUSED, Policy.DRAINING):
            known = self._station(lane).known
            if known.held is not verdict.policy:
                known.held, known.held_until_us = verdict.policy, 0  # until when is told by the next look
        elif (station := self._stations.get(lane.operation)) and station.known.held:
            station.known.held = None

    def _station(self, lane: Lane) -> Station:
        station = self._stations.get(lane.operation)
        if station is None:
            station = self._stations[lane.operation] = Station(lane=lane)
        return station

    def _those(self, is_meant: Which) -> list[Station]:
        return [station for name, station in self._stations.items() if is_meant(name)]

    def _begin(self, operation: Operation, station: Station, now_us: int) -> Alone:
        """Rule 1: empty buckets, and what the store has given to us is in use."""
        known, whole = station.known, self._whole(operation, station, now_us)
        if known.override:
            whole = replace(whole, override=Override(limits=known.override, until_us=known.override_until_us))
        if known.held:
            whole = replace(whole, hold=Hold(word=known.held, until_us=known.held_until_us))
        if operation.when_store_down is WhenStoreDown.ALLOW:
            terms = without_limits(whole)
        else:
            replicas = max(1, self._live(), self.expected)
            terms = share_of_terms(whole, replicas, operation.capacity.cost.max, known.quota_left)
        station.circuit = circuit_from(station, whole, now_us)
        own = empty_bucket(stated(terms, now_us)[0], now_us)
        alone = Alone(
            terms=terms, state=State(own=own, circuit=station.circuit), from_us=now_us, renewed_us=now_us
        )
        station.alone = alone
        self._renew(station, alone, now_us)
        return alone

    def _whole(self, operation: Operation, station: Station, now_us: int) -> Terms:
        """Calendars are resolved once a day: that takes longer than a decision may."""
        day = now_us // DAY_US
        if station.whole is None or station.whole[0] is not operation or station.whole[1] != day:
            station.whole = (operation, day, terms_of(operation, now_us))
        return station.whole[2]

    def _renew(self, station: Station, alone: Alone, now_us: int) -> None:
        held = [(id_, tenant) for id_, (tenant, _) in station.lane.held.items()]
        held += [(own.id, own.tenant) for own in station.running.values()]
        settling.renew(alone.state, held, now_us, LEASE_US)
        alone.renewed_us = now_us

    def _prepare_tenant(self, alone: Alone, tenant: str) -> None:
        limits = alone.terms.tenants.get(tenant, alone.terms.per_tenant) if tenant else None
        known = alone.state.tenants.get(tenant)
        if limits and (known is None or not known.interval_us):
            # New here, or known by its leases alone.
            bucket = alone.state.tenants[tenant] = empty_bucket(limits, alone.from_us)
            bucket.leases = known.leases if known else {}

    async def _wait(self, alone: Alone, own: Ask) -> Admitted | Refused | None:
        """Rule 2."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        alone.waiters[own.id] = turn
        if alone.timer is None:
            self._grant(alone)
        try:
            async with asyncio.timeout(own.wait_us / 1e6):
                return Admitted(leased=True, delayed=True) if await turn else None
        except TimeoutError:
            ticket = settling.withdraw(alone.state, alone.terms, own, self._now_us(), timed_out=True)
            return ticket if isinstance(ticket, Refused) else Admitted(leased=True, delayed=True)
        except asyncio.CancelledError:
            settling.withdraw(alone.state, alone.terms, own, self._now_us(), timed_out=False)
            raise
        finally:
            del alone.waiters[own.id]

    def _grant(self, alone: Alone) -> None:
        """Whose turn is it? Looked at when a slot comes back, and when the next one is due."""
        if alone.timer:
            alone.timer.cancel()
            alone.timer = None
        now_us = self._now_us()
        alone.state.seen[self._replica] = now_us
        granted, next_us = waiting.grant(alone.state, alone.terms, now_us, LEASE_US)
        for id_ in granted:
            if (turn := alone.waiters.get(id_)) and not turn.done():
                turn.set_result(True)
        if next_us >= 0:
            delay = min(next_us / 1e6, GRANT_S_MAX)
            alone.timer = asyncio.get_running_loop().call_later(delay, self._grant, alone)

    def _started(self, station: Station, alone: Alone, id_: str, own: Ask) -> None:
        station.running[id_] = own
        capacity, override = station.whole[0].capacity if station.whole else None, station.known.override
        if (capacity and has_slots(capacity)) or (override and override.concurrency is not None):
            station.unregistered.add(own.id)
        if own.tenant:
            alone.tenants[own.tenant] = alone.tenants.get(own.tenant, 0) + own.cost
        alone.peak = max(alone.peak, len(station.lane.held) + len(station.unregistered))

    def _told(self, station: Station, alone: Alone) -> Episode:
        self._episodes += 1
        known, state = station.known, alone.state
        if known.quota_left is not None:
            known.quota_left = max(0, known.quota_left - state.started)
        return Episode(
            number=self._episodes, from_us=alone.from_us, started=state.started, wanted=state.wanted,
            peak=alone.peak, looked_us=known.looked_us, counted=known.started,
            tenants=tuple(sorted(alone.tenants.items(), key=lambda found: -found[1])),
        )  # fmt: skip


def circuit_from(station: Station, terms: Terms, now_us: int) -> Circuit:
    """As the store said last; what was being tried by all is tried by this replica."""
    state, until_us = station.lane.circuit, station.known.circuit_until_us
    if terms.circuit is None:
        return Circuit()
    if state is CircuitState.CLOSED:
        # The downstream may be as ill as it was when the store was away last.
        return Circuit() if station.circuit.state is CircuitState.CLOSED else station.circuit
    if state is CircuitState.HALF_OPEN:
        state, until_us = CircuitState.OPEN, now_us
    elif state is CircuitState.OPEN:
        until_us = max(until_us, now_us) if until_us else now_us + terms.circuit.open_us
    return Circuit(state=state, until_us=until_us, since_us=now_us)


def has_slots(capacity: Capacity) -> bool:
    """Whether calls in flight are limited by anything, at any time."""
    limits = [capacity.limits, capacity.per_tenant or Limits(), *capacity.tenants.values()]
    if capacity.schedule:
        limits += [capacity.schedule.otherwise, *(hours.limits for hours in capacity.schedule.hours)]
    return any(some.concurrency is not None for some in limits)
