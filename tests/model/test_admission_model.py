"""
Random histories through the specification and through the scripts on a real server.

A small world (two replicas, two tenants, limits of one to three) and times drawn around the
moments at which something changes: in a large world the edges are hardly ever met.
"""

import os
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from breaker.core.circuit import Report, Trigger
from breaker.core.model import LEASE_US, Limits, Mode, Overflow, Rate
from breaker.core.override import Change
from breaker.core.quorum import Seen
from breaker.core.state import Ask
from breaker.core.terms import Hold, Override, Terms
from breaker.core.verdict import Admitted, Waiting
from tests.model.twin import CIRCUIT, Twin

START = 1_800_000_000_000_000
SECOND = 1_000_000
_worlds = count()

rates = st.sampled_from(
    [
        None,
        Rate(limit=1, period_us=SECOND),
        Rate(limit=2, period_us=SECOND, burst=3),
        Rate(limit=3, period_us=SECOND, burst=2),  # an interval that is rounded
        Rate(limit=0, period_us=SECOND),
    ]
)
limits = st.builds(Limits, rate=rates, concurrency=st.sampled_from([None, 1, 2]))
terms = st.builds(
    Terms,
    limits=limits,
    calendar=st.sampled_from(
        [(), ((START - SECOND, Limits(concurrency=1)), (START + 5 * SECOND, Limits(rate=Rate(limit=0, period_us=SECOND))),
              (START + 9 * SECOND, Limits(rate=Rate(limit=2, period_us=SECOND, burst=2), concurrency=2)))]
    ),
    override=st.sampled_from([None, Override(limits=Limits(concurrency=2), until_us=START + 4 * SECOND)]),
    per_tenant=st.none() | limits,
    tenants=st.sampled_from([{}, {"beta": Limits(rate=Rate(limit=1, period_us=SECOND, burst=2), concurrency=1)}]),
    quota=st.sampled_from([None, 4]),
    periods=st.just(((START - SECOND, START + 7 * SECOND), (START + 7 * SECOND, START + 90 * SECOND))),
    mode=st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW]),
    overflow=st.sampled_from([Overflow.THROTTLE, Overflow.THROTTLE, Overflow.ALERT]),
    waiting_max=st.sampled_from([1, 2, 100]),
    retry_max_us=st.sampled_from([3 * SECOND, 300 * SECOND]),
    hold=st.sampled_from(
        [None, None, None, None, Hold(word="paused"), Hold(word="paused", until_us=START + 3 * SECOND),
         Hold(word="draining", until_us=START + 3 * SECOND), Hold(word="draining")]
    ),
    debt=st.sampled_from([0, 0, 5]),
    is_retired=st.sampled_from([False] * 9 + [True]),
    circuit=st.sampled_from([None, CIRCUIT, CIRCUIT, replace(CIRCUIT, is_shadow=True)]),
    adaptive_min=st.sampled_from([0, 0, 1]),
    pause_max_us=st.just(5 * SECOND),
    pauses_tenants=st.booleans(),
)  # fmt: skip
replicas = st.sampled_from(["AAAAAAAA", "BBBBBBBB"])
tenants = st.sampled_from(["", "acme", "beta"])
steps = st.sampled_from(
    [0, 1, 333_333, 333_334, 500_000, SECOND - 1, SECOND, SECOND + 1, 2 * SECOND, LEASE_US]
)


class Histories(RuleBasedStateMachine):
    redis: ClassVar[Redis]

    @initialize(chosen=terms)
    def begin(self, chosen: Terms) -> None:
        self.twin = Twin(self.redis, f"m{os.getpid()}n{next(_worlds)}", chosen, START)
        self.asks: list[Ask] = []
        self.started: list[Ask] = []
        self.number = 0

    @rule(
        replica=replicas,
        tenant=tenants,
        cost=st.sampled_from([1, 1, 1, 2, 4]),
        wait=st.sampled_from([0, SECOND, 20 * SECOND]),
    )
    def a_call_asks(self, replica: str, tenant: str, cost: int, wait: int) -> None:
        self.number += 1
        ask = Ask(id=f"{replica}.{self.number:08}", tenant=tenant, cost=cost, wait_us=wait)
        verdict = self.twin.admit(ask)
        if isinstance(verdict, Admitted) and verdict.leased:
            self.started.append(ask)
        elif isinstance(verdict, Waiting):
            self.asks.append(ask)

    @precondition(lambda self: self.asks)
    @rule(replica=replicas, keeps_alive=st.booleans())
    def somebody_looks_whose_turn_it_is(self, replica: str, keeps_alive: bool) -> None:
        granted = self.twin.grant(replica, keeps_alive=keeps_alive)
        self.started += [ask for ask in self.asks if ask.id in granted]
        self.asks = [ask for ask in self.asks if ask.id in self.twin.state.calls]

    @precondition(lambda self: self.started)
    @rule(
        data=st.data(),
        linger=st.sampled_from([None, None, None, -1, 0, 700_000]),
        took=st.sampled_from([0, 1, 50_000, SECOND]),
    )
    def a_call_ends(self, data: Any, linger: int | None, took: int) -> None:
        ask = data.draw(st.sampled_from(self.started))
        self.twin.settle(ask.id, ask.tenant, linger, took)

    @precondition(lambda self: self.asks or self.started)
    @rule(data=st.data(), timed_out=st.booleans())
    def a_call_gives_up(self, data: Any, timed_out: bool) -> None:
        ask = data.draw(st.sampled_from(self.asks + self.started))
        self.twin.withdraw(ask, timed_out=timed_out)
        self.asks = [other for other in self.asks if other.id in self.twin.state.calls]

    @rule(tenant=tenants)
    def a_lost_call_is_withdrawn_before_it_arrives(self, tenant: str) -> None:
        self.number += 1
        ask = Ask(id=f"AAAAAAAA.{self.number:08}", tenant=tenant)
        self.twin.withdraw(ask, timed_out=False)
        assert self.twin.admit(ask) is None

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def leases_are_renewed(self, data: Any) -> None:
        some = data.draw(st.lists(st.sampled_from(self.started), min_size=1, unique_by=lambda ask: ask.id))
        self.twin.renew([(ask.id, ask.tenant) for ask in some])

    @rule(
        replica=replicas,
        calls=st.sampled_from([0, 1, 2, 3, 4]),
        failed=st.sampled_from([0, 1, 2, 4]),
        slow=st.sampled_from([0, 0, 2]),
        streak=st.sampled_from([0, 1, 2]),
        stress=st.sampled_from([0, 0, 1]),
        pause=st.sampled_from([0, 0, 0, SECOND, 5 * SECOND]),
        old=st.sampled_from([0, 0, 0, 1]),
        ends=st.lists(st.sampled_from([True, True, False, None]), max_size=2),
        tenant=st.sampled_from(["", "", "acme"]),
        draw=st.sampled_from([0, 500, 999]),
    )
    def a_replica_reports(
        self, replica: str, calls: int, failed: int, slow: int, streak: int, stress: int, pause: int, old: int,
        ends: list[bool | None], tenant: str, draw: int,
    ) -> None:  # fmt: skip
        known = self.twin.state.circuit
        seen = Seen(calls=calls, failed=min(failed, calls), slow=min(slow, calls), streak=streak)
        probes = tuple(zip([*sorted(known.probes), "unknown"], ends, strict=False))
        report = Report(
            replica=replica, generation=known.generation - old, seen=seen, stress=stress,
            pause_us=0 if tenant else pause, probes=probes, draw=draw,
        )  # fmt: skip
        self.twin.report(report, {tenant: pause} if tenant and pause else {})

    @rule(
        trigger=st.sampled_from([Trigger.FORCED, Trigger.DISABLED, Trigger.RELEASED, Trigger.RELEASED]),
        lasts=st.sampled_from([0, SECOND]),
    )
    def a_person_moves_the_circuit(self, trigger: Trigger, lasts: int) -> None:
        self.twin.force(trigger, self.twin.now_us + lasts if lasts else 0)

    @rule(
        change=st.builds(
            Change,
            rate=rates,
            burst=st.sampled_from([None, None, 4]),
            concurrency=st.sampled_from([None, 0, 2, 3]),
            burst_least=st.sampled_from([1, 4]),
        ),
        lasts=st.sampled_from([1, SECOND, 4 * SECOND]),
    )
    def a_person_sets_limits(self, change: Change, lasts: int) -> None:
        self.twin.set_limits(change, self.twin.now_us + lasts)

    @rule()
    def a_person_ends_limits(self) -> None:
        self.twin.end_limits()

    @rule(us=steps)
    def time_passes(self, us: int) -> None:
        self.twin.now_us += us

    @rule(us=st.sampled_from([1, SECOND, LEASE_US + 1, 3_600 * SECOND]))
    def the_clock_goes_back(self, us: int) -> None:
        self.twin.go_back(us)

    @rule(data=st.data(), off=st.sampled_from([-1, 0, 1]))
    def time_jumps_to_where_something_changes(self, data: Any, off: int) -> None:
        moments = self.twin.deadlines()
        if moments:
            moment = data.draw(st.sampled_from(moments[:6]))
            self.twin.now_us = max(self.twin.now_us, moment + off)

    @rule(chosen=terms)
    def the_files_change(self, chosen: Terms) -> None:
        self.twin.publish(chosen)


@pytest.mark.timeout(300)
def test_the_scripts_do_what_the_specification_says(redis: Redis) -> None:
    """All replicas decide by the scripts; people read, and the degraded replica runs, the specification."""
    Histories.redis = redis
    many = int(os.environ.get("BREAKER_HISTORIES", "200"))
    # Shrinking makes a failure short, and takes minutes: ask for it with BREAKER_SHRINK=1.
    phases = set(Phase) if os.environ.get("BREAKER_SHRINK") else {Phase.explicit, Phase.generate}
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=many,
            stateful_step_count=40,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
        ),
    )
