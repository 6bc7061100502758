"""
The verdict on what was queued: that it notices what it is there to notice.

For who trusts that nothing that was accepted is lost, and that nothing was done twice.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from breaker.core.jobs import JobState
from breaker.demo.followed import Job
from breaker.demo.told import Told, batch_items
from breaker.demo.verdict import not_shown
from breaker.demo.waits import groups_of
from tests.demo.story import BATCH, CHARGE, JOBS, TICKET, check_of, differing, story, with_queue, with_seen

ETA = "started within the ETA (p90) of the 202, for as many as went first"
PACE = "took, for as many as went first, beside the ETA (p50)"


@pytest.fixture
async def told() -> Told:
    return await story()


def ticket(told: Told, number: int) -> Job:
    return told.callers.jobs[f"{TICKET}~{number}"]


def waiting_again(job: Job) -> None:
    job.state, job.attempts, job.status, job.ended_s = JobState.QUEUED, 0, None, 0.0


async def test_queues_that_were_worked_off_agree(told: Told) -> None:
    assert differing(told) == []
    assert "a job that is dead" not in not_shown(told.callers)


async def test_a_202_whose_job_nobody_knows_any_more_differs(told: Told) -> None:
    """What was accepted and then lost is the one thing that must never go unnoticed."""
    waiting_again(ticket(told, 3))
    ticket(told, 3).state = ""
    assert "each 202 has an end, or waits" in differing(told)


async def test_a_202_that_the_gateway_did_not_count_differs(told: Told) -> None:
    less = with_queue(told, TICKET, accepted=JOBS + 4, succeeded=JOBS + 4)
    assert differing(less) == ["jobs accepted", "jobs succeeded"]


async def test_a_ledger_that_does_not_balance_differs(told: Told) -> None:
    assert differing(with_queue(told, TICKET, expired=1))[0] == "ledger since the store began"
    assert differing(with_queue(told, TICKET, unaccounted=1)) == ["ledger since the store began"]


async def test_202s_that_the_store_has_forgotten_differ(told: Told) -> None:
    assert differing(with_queue(told, TICKET, lost=1)) == ["202s that the store does not know"]


async def test_a_job_that_waits_is_not_lost(told: Told) -> None:
    """A demonstration that is stopped early leaves jobs behind; they are brought to their end by the next."""
    waiting_again(ticket(told, JOBS - 1))
    seen = told.seen["support"]
    left = with_seen(
        told, "support", started=JOBS - 1, starts=seen.starts[:-1],
        request_ids=dict(list(seen.request_ids.items())[:-1]),
        effects_by_key=dict(list(seen.effects_by_key.items())[:-1]),
    )  # fmt: skip
    left = with_queue(left, TICKET, succeeded=JOBS + 4, waiting={"normal": 1})
    assert differing(left) == []
    assert check_of(left, TICKET, "each 202").right == f"ended {JOBS - 1}, waiting 1"
    assert differing(with_queue(left, TICKET, waiting={"normal": 0})) == ["ledger since the store began"]


async def test_what_an_earlier_run_left_is_not_held_against_this_one(told: Told) -> None:
    """Its jobs end now, and go out with ours."""
    before = {
        **told.queues_before,
        CHARGE: replace(told.queues_before[CHARGE], succeeded=2, waiting={"normal": 3}),
    }
    ids = {request_id: 1 for request_id in told.seen["billing"].request_ids if not batch_items(request_id)}
    mixed = with_seen(
        replace(told, queues_before=before), "billing", request_ids={**ids, f"{BATCH}.0-10": 1, f"{BATCH}.10-13": 1}
    )  # fmt: skip
    assert differing(mixed) == []
    assert set(differing(replace(mixed, queues_before=told.queues_before))) == {"went out in batches"}


@pytest.mark.parametrize(
    "changes",
    [lambda keys: keys.update({f"{TICKET}~3": 2}), lambda keys: keys.pop(f"{TICKET}~3")],
    ids=["twice", "never"],
)
async def test_a_ticket_that_was_not_opened_once_differs(
    told: Told, changes: Callable[[dict[str, int]], object]
) -> None:
    keys = dict(told.seen["support"].effects_by_key)
    changes(keys)
    assert differing(with_seen(told, "support", effects_by_key=keys)) == ["done, each once"]


async def test_an_invoice_that_was_refused_and_charged_all_the_same_differs(told: Told) -> None:
    """The count alone would not show it, if another was not charged."""
    keys = dict(told.seen["billing"].effects_by_key)
    keys[f"{CHARGE}~7"] = keys.pop(f"{CHARGE}~8")
    assert differing(with_seen(told, "billing", effects_by_key=keys)) == ["done, each once"]


async def test_an_effect_that_the_downstream_saw_again_differs(told: Told) -> None:
    assert differing(with_seen(told, "billing", repeated=1)) == ["done again under the same key"]


async def test_an_innocent_job_that_died_differs(told: Told) -> None:
    """One bad invoice must fail alone."""
    innocent = told.callers.jobs[f"{CHARGE}~8"]
    innocent.state, innocent.status = JobState.DEAD, 422
    assert "only what cannot be done failed" in differing(
        with_queue(told, CHARGE, succeeded=JOBS + 3, dead=2)
    )


async def test_a_job_that_can_never_be_done_and_succeeded_differs(told: Told) -> None:
    wrong = told.callers.jobs[f"{CHARGE}~7"]
    wrong.state, wrong.status = JobState.SUCCEEDED, 200
    assert "only what cannot be done failed" in differing(
        with_queue(told, CHARGE, succeeded=JOBS + 5, dead=0)
    )


async def test_an_end_that_the_gateway_counts_as_another_differs(told: Told) -> None:
    found = differing(with_queue(told, TICKET, succeeded=JOBS + 4, cancelled=1))
    assert found == ["jobs succeeded", "jobs cancelled"]


async def test_a_ticket_that_arrived_twice_without_a_second_attempt_differs(told: Told) -> None:
    """A retry is one more attempt, which the job's page tells; an attempt may also have been lost on its way."""
    seen = told.seen["support"]
    ids = {**seen.request_ids, ticket(told, 3).request_id: 2}
    twice = with_seen(told, "support", started=JOBS + 1, starts=(*seen.starts, 120.0), request_ids=ids)
    assert differing(twice) == ["forwarded, and arrived", "no call arrived twice"]
    ticket(told, 3).attempts = 2
    assert differing(twice) == []
    assert differing(told) == []


async def test_a_job_that_was_in_no_batch_differs(told: Told) -> None:
    ids = {request_id: 1 for request_id in told.seen["billing"].request_ids if request_id != f"{BATCH}.10-10"}
    fewer = with_seen(told, "billing", started=4, starts=told.seen["billing"].starts[:-1], request_ids=ids)
    assert differing(fewer) == ["went out in batches"]


async def test_a_batch_is_as_many_starts_as_it_has_items(told: Told) -> None:
    """A hundred invoices at once are five seconds of the rate, which the next batch must wait for."""
    seen = told.seen["billing"]
    ids = [request_id for request_id in seen.request_ids if not batch_items(request_id)]
    big = {**dict.fromkeys(ids, 1), f"{BATCH}.0-100": 1, f"{BATCH}.100-100": 1}
    early = with_seen(told, "billing", request_ids=big, starts=(*seen.starts[:3], 105.0, 107.0))
    assert "starts in the tightest window" in differing(early)
    patient = with_seen(early, "billing", starts=(*seen.starts[:3], 105.0, 110.1))
    assert "starts in the tightest window" not in differing(patient)


async def test_jobs_that_start_much_later_than_was_said_differ(told: Told) -> None:
    """An ETA that nobody can rely on is worse than none."""
    for number in range(JOBS):
        ticket(told, number).eta_p90_s = 0.5
    assert differing(told) == [ETA]


@pytest.mark.parametrize("factor", [0.4, 2.5])
async def test_an_eta_that_is_far_off_differs_whichever_way(told: Told, factor: float) -> None:
    """Who always says "in an hour" keeps every promise, too."""
    for number in range(JOBS):
        job = ticket(told, number)
        assert job.eta_p50_s is not None
        job.eta_p50_s /= factor
    assert differing(told) == [PACE]


async def test_a_job_that_others_fairly_passed_is_judged_by_how_many_went_first(told: Told) -> None:
    """A customer with forty tickets is told of those before him; who comes later and waits for little passes."""
    for number in range(JOBS):
        job = ticket(told, number)
        assert job.eta_p50_s is not None
        job.position, job.eta_p50_s = number // 2, job.eta_p50_s / 2
        job.eta_p90_s = job.eta_p50_s * 1.3
    assert differing(told) == []
    everyone = next(group for group in groups_of(told) if group.operation == TICKET)
    assert everyone.kept < everyone.judged == JOBS


@pytest.mark.parametrize(("why", "others"), [("joined", 0), ("asked", 0), ("asked", 1)])
async def test_calls_that_would_be_queued_anyway_need_not_be_over_capacity(
    told: Told, why: str, others: int
) -> None:
    """The same work sent twice, or a caller who asks for the queue, which it may have needed: nobody can tell."""
    tally, gateway = told.callers.tallies[CHARGE], told.after[CHARGE]
    tally.sent, tally.outcomes["queued"], gateway.outcomes["queued"] = JOBS + 1, JOBS + 1, JOBS + 1
    gateway.actions["queued"] += others
    setattr(tally, why, 1)
    assert differing(told) == []
    gateway.actions["queued"] += 1 if others or why == "joined" else -1
    assert differing(told) == ["over capacity"]
