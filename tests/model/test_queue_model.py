"""
Random histories of jobs through the specification and through the scripts on a real server.

A small world, as in `test_admission_model.py`: two replicas, three tenants, two batch keys, limits of
one to three, bounds that are met at once, and times drawn around the moments at which something changes.
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
from breaker.core.job_policy import Band
from breaker.core.jobs import Ack, Fate, JobState, LeasedJob, Offer, Reason
from breaker.core.model import LEASE_US, Limits, Mode, Overflow, Rate
from breaker.core.queue import KEPT
from breaker.core.quorum import Seen
from breaker.core.terms import Hold, Override, QueueTerms, Terms
from breaker.core.verdict import Admitted
from tests.model.queue_twin import QueueTwin
from tests.model.twin import CIRCUIT

START = 1_800_000_000_000_000
SECOND = 1_000_000
_worlds = count()

rates = st.sampled_from(
    [
        None,
        None,
        Rate(limit=1, period_us=SECOND),
        Rate(limit=2, period_us=SECOND, burst=3),
        Rate(limit=3, period_us=SECOND, burst=2),
        Rate(limit=0, period_us=SECOND),
    ]
)
limits = st.builds(Limits, rate=rates, concurrency=st.sampled_from([None, 1, 2, 3]))
own_limits = st.builds(
    Limits,
    rate=st.sampled_from(
        [None, None, Rate(limit=1, period_us=SECOND, burst=2), Rate(limit=0, period_us=SECOND)]
    ),
    concurrency=st.sampled_from([None, 1, 2]),
)
queues = st.builds(
    QueueTerms,
    jobs_max=st.sampled_from([2, 4, 100, 100]),
    bytes_max=st.sampled_from([400, 1_000, 1_000_000, 1_000_000]),
    tenant_jobs_max=st.sampled_from([-1, -1, 1, 3]),
    tenant_bytes_max=st.sampled_from([-1, -1, 500]),
    keep_result_us=st.sampled_from([0, 5 * SECOND]),
    keep_dead_us=st.sampled_from([0, 8 * SECOND]),
    window_us=st.just(3_600 * SECOND),
    is_once=st.sampled_from([False, False, True]),
    probe_us=st.sampled_from([0, 3_000_000]),
    batch_items=st.sampled_from([0, 0, 2, 3]),
    batch_bytes=st.sampled_from([250, 100_000]),
    batch_window_us=st.sampled_from([0, 2 * SECOND]),
    weights=st.sampled_from([{}, {"acme": 3, "beta": 7}]),
)
wild = st.builds(
    Terms,
    limits=limits,
    calendar=st.sampled_from(
        [(), (), ((START - SECOND, Limits(concurrency=1)), (START + 5 * SECOND, Limits(rate=Rate(limit=0, period_us=SECOND))),
                  (START + 9 * SECOND, Limits(rate=Rate(limit=2, period_us=SECOND, burst=2), concurrency=2)))]
    ),
    override=st.sampled_from([None, None, Override(limits=Limits(concurrency=2), until_us=START + 4 * SECOND)]),
    per_tenant=st.none() | own_limits,
    tenants=st.sampled_from([{}, {"beta": Limits(rate=Rate(limit=1, period_us=SECOND, burst=2), concurrency=1)}]),
    quota=st.sampled_from([None, None, 4]),
    periods=st.just(((START - SECOND, START + 7 * SECOND), (START + 7 * SECOND, START + 90 * SECOND))),
    mode=st.sampled_from([Mode.ENFORCE] * 7 + [Mode.SHADOW]),
    overflow=st.just(Overflow.QUEUE),
    retry_max_us=st.sampled_from([3 * SECOND, 300 * SECOND]),
    hold=st.sampled_from(
        [None] * 8
        + [Hold(word="paused"), Hold(word="paused", until_us=START + 3 * SECOND), Hold(word="draining")]
    ),
    debt=st.sampled_from([0, 6]),
    is_retired=st.sampled_from([False] * 9 + [True]),
    queue=queues,
    circuit=st.sampled_from([None, CIRCUIT, CIRCUIT, replace(CIRCUIT, is_shadow=True)]),
    pause_max_us=st.just(5 * SECOND),
    pauses_tenants=st.booleans(),
)  # fmt: skip
# Most of the time there is some capacity and few bounds: where nothing may start, nothing is found.
calm = st.builds(
    Terms,
    limits=st.builds(
        Limits,
        rate=st.sampled_from([None, None, None, Rate(limit=2, period_us=SECOND, burst=3)]),
        concurrency=st.sampled_from([None, 1, 2, 3]),
    ),
    per_tenant=st.sampled_from([None, None, Limits(concurrency=1), Limits(rate=Rate(limit=1, period_us=SECOND))]),
    overflow=st.just(Overflow.QUEUE),
    debt=st.just(6),
    queue=st.builds(
        QueueTerms,
        jobs_max=st.just(100),
        window_us=st.just(3_600 * SECOND),
        bytes_max=st.sampled_from([2_000, 1_000_000]),
        keep_result_us=st.sampled_from([0, 5 * SECOND]),
        keep_dead_us=st.sampled_from([0, 8 * SECOND]),
        is_once=st.sampled_from([False, False, False, True]),
        probe_us=st.sampled_from([0, 3_000_000]),
        batch_items=st.sampled_from([0, 0, 0, 2, 3]),
        batch_bytes=st.sampled_from([250, 100_000]),
        batch_window_us=st.sampled_from([0, 2 * SECOND]),
        weights=st.sampled_from([{}, {"acme": 3, "beta": 7}]),
    ),
)  # fmt: skip
terms = st.one_of(calm, calm, calm, wild)
replicas = st.sampled_from(["AAAAAAAA", "BBBBBBBB"])
steps = st.sampled_from(
    [0, 1, 333_334, 500_000, SECOND - 1, SECOND, SECOND + 1, 2 * SECOND, LEASE_US - 1, LEASE_US]
)
offers = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["acme", "acme", "beta", "gamma"]),
        "cost": st.sampled_from([1, 1, 1, 1, 2, 4]),
        "key": st.sampled_from(["", "", "", "k1", "k2"]),
        "fingerprint": st.sampled_from(["f", "f", "g"]),
        "band": st.sampled_from([*Band, *[Band.NORMAL] * 6]),
        "group": st.sampled_from(["one", "one", "two"]),
        "is_async": st.sampled_from([False, True, True]),
        "not_before": st.sampled_from([0, 0, 0, 0, 1, 2 * SECOND]),
        "deadline": st.sampled_from([SECOND, 4 * SECOND, 4 * SECOND, 60 * SECOND]),
        "expiry": st.sampled_from([0, 0, 0, 1, 3 * SECOND, 15 * SECOND]),
        "callback": st.sampled_from(["", "", "https://a"]),
    }
)
fates = st.sampled_from([*Fate, Fate.SUCCEEDED, Fate.SUCCEEDED, Fate.BACK])


class Histories(RuleBasedStateMachine):
    redis: ClassVar[Redis]

    @initialize(chosen=terms, said=st.lists(offers, max_size=12))
    def begin(self, chosen: Terms, said: list[dict[str, Any]]) -> None:
        self.twin = QueueTwin(self.redis, f"q{os.getpid()}n{next(_worlds)}", chosen, START)
        self.offers: list[Offer] = []
        self.started: list[Offer] = []
        self.leased: list[LeasedJob] = []
        self.number = 0
        if said:
            self.accept("AAAAAAAA", [each | {"is_async": True} for each in said])

    def offer(self, replica: str, said: dict[str, Any]) -> Offer:
        self.number += 1
        job, now = f"J{self.number:04}", self.twin.now_us
        due = now + said["not_before"] if said["not_before"] else 0
        return Offer(
            lease_id=f"{replica}.{self.number:08}", job=job, tenant=said["tenant"], cost=said["cost"],
            caller="crm", key=said["key"], fingerprint=said["fingerprint"], band=said["band"],
            line=f"{said['tenant']}~{said['group']}" if self.twin.queue.batch_items else said["tenant"],
            is_async=said["is_async"], not_before_us=due, deadline_us=max(now, due) + said["deadline"],
            expiry_us=max(now, due) + said["expiry"] if said["expiry"] else 0, callback=said["callback"],
            payload=f"payload of {job}".encode(),
        )  # fmt: skip

    @rule(replica=replicas, said=st.lists(offers, min_size=1, max_size=3))
    def calls_come(self, replica: str, said: list[dict[str, Any]]) -> None:
        self.accept(replica, said)

    def accept(self, replica: str, said: list[dict[str, Any]]) -> None:
        made = [self.offer(replica, each) for each in said]
        answers = self.twin.accept(replica, made)
        self.offers += made
        self.started += [
            offer
            for offer, answer in zip(made, answers, strict=True)
            if isinstance(answer, Admitted) and answer.leased
        ]

    @rule(
        replica=replicas,
        wanted=st.sampled_from([0, 1, 1, 2, 2, 64]),
        is_idle=st.booleans(),
        loses=st.sampled_from(["", "", "", "", "", "question", "answer"]),
    )
    def a_replica_asks_for_work(self, replica: str, wanted: int, is_idle: bool, loses: str) -> None:
        self.leased += self.twin.lease(replica, wanted, is_idle=is_idle, loses=loses)

    @precondition(lambda self: self.leased)
    @rule(wanted=st.sampled_from([0, 1, 64]), is_idle=st.booleans(), again=st.booleans())
    def a_replica_dies(self, wanted: int, is_idle: bool, again: bool) -> None:
        self.twin.now_us += LEASE_US
        # It may only have been frozen: then its acks come late.
        self.leased = self.leased[-2:] + self.twin.lease("BBBBBBBB", wanted, is_idle=is_idle)
        if again:
            self.leased += self.twin.lease("AAAAAAAA", 64, is_idle=not is_idle)

    @precondition(lambda self: self.leased)
    @rule(
        data=st.data(),
        fate=fates,
        delay=st.sampled_from([0, 1, SECOND]),
        took=st.sampled_from([0, 50_000, SECOND]),
        result=st.sampled_from([b"", b"r" * 300]),
        forgets=st.sampled_from([True, True, True, False]),
    )
    def attempts_end(
        self, data: Any, fate: Fate, delay: int, took: int, result: bytes, forgets: bool
    ) -> None:
        some = data.draw(
            st.lists(
                st.sampled_from(self.leased), min_size=1, max_size=3,
                unique_by=lambda job: (job.head.id, job.head.attempt),
            )
        )  # fmt: skip
        reason = "" if fate is Fate.SUCCEEDED else Reason.DOWNSTREAM
        self.twin.ack(
            [
                Ack(
                    job=job.head.id, attempt=job.head.attempt, tenant=job.head.tenant, slot=job.slot, fate=fate,
                    reason=reason, delay_us=delay, result=result, service_us=took, probe_us=delay,
                )
                for job in some
            ]
        )  # fmt: skip
        if forgets:
            self.leased = [job for job in self.leased if job not in some]

    @precondition(lambda self: self.offers)
    @rule(data=st.data())
    def an_answer_got_lost(self, data: Any) -> None:
        self.twin.revoke(data.draw(st.sampled_from(self.offers[-3:])))

    @rule(replica=replicas, said=offers)
    def a_lost_call_is_taken_back_before_it_arrives(self, replica: str, said: dict[str, Any]) -> None:
        offer = self.offer(replica, said)
        self.twin.revoke(offer)
        assert self.twin.accept(replica, [offer]) == [None]

    @precondition(lambda self: self.started)
    @rule(data=st.data(), took=st.sampled_from([0, 50_000]))
    def a_direct_call_ends(self, data: Any, took: int) -> None:
        offer = data.draw(st.sampled_from(self.started))
        self.twin.settle(offer.lease_id, offer.tenant, None, took)

    @precondition(lambda self: self.twin.jobs.waiting)
    @rule(data=st.data(), band=st.sampled_from([None, *Band]))
    def a_person_cancels_or_moves(self, data: Any, band: Band | None) -> None:
        id_ = data.draw(st.sampled_from(sorted(job.id for job in self.twin.jobs.waiting)))
        if band is None:
            self.twin.cancel(id_)
        else:
            self.twin.move(id_, band)

    @precondition(lambda self: self.twin.jobs.in_state(*KEPT))
    @rule(data=st.data(), what=st.sampled_from(["requeue", "requeue", "discard", "succeeded", "dead"]))
    def a_person_decides_about_a_dead_or_unknown_job(self, data: Any, what: str) -> None:
        id_ = data.draw(st.sampled_from(sorted(job.id for job in self.twin.jobs.in_state(*KEPT))))
        if what == "requeue":
            self.twin.requeue(id_)
        elif what == "discard":
            self.twin.discard(id_)
        else:
            self.twin.resolve(id_, JobState(what), b"said by a person")

    @precondition(lambda self: self.twin.jobs.callbacks)
    @rule(data=st.data())
    def an_end_is_told(self, data: Any) -> None:
        self.twin.tell(data.draw(st.sampled_from(sorted(self.twin.jobs.callbacks))))

    @rule(
        replica=replicas,
        failed=st.sampled_from([0, 4, 4]),
        pause=st.sampled_from([0, 0, 0, SECOND]),
        end=st.sampled_from([True, True, False, None]),
        tenant=st.sampled_from(["", "", "acme"]),
    )
    def a_replica_reports(self, replica: str, failed: int, pause: int, end: bool | None, tenant: str) -> None:
        known = self.twin.state.circuit
        report = Report(
            replica=replica, generation=known.generation, seen=Seen(calls=4, failed=failed, streak=failed),
            pause_us=0 if tenant else pause, probes=tuple((id_, end) for id_ in sorted(known.probes)),
        )  # fmt: skip
        self.twin.report(report, {tenant: pause} if tenant and pause else {})

    @rule(trigger=st.sampled_from([Trigger.FORCED, Trigger.RELEASED, Trigger.RELEASED]))
    def a_person_moves_the_circuit(self, trigger: Trigger) -> None:
        self.twin.force(trigger, 0)

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
def test_the_queue_does_what_the_specification_says(redis: Redis) -> None:
    """Every replica leases by the scripts; whoever asks why a job waits reads the specification."""
    Histories.redis = redis
    many = int(os.environ.get("BREAKER_HISTORIES", "300"))
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
