"""
Story: what callers, gateway and downstreams tell of a small run in which everybody tells the same.

The verdict's tests change one sentence of it, and look who notices.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from breaker.core.job_policy import Band
from breaker.core.jobs import JobState
from breaker.demo.callers import Callers
from breaker.demo.followed import Job
from breaker.demo.orders import OPERATIONS, Order
from breaker.demo.told import Check, Told
from breaker.demo.verdict import checks
from breaker.demo.view import Counted, Queue, Seen
from breaker.policy.load import load

CONFIG = Path(__file__).resolve().parents[2] / "config"
READ, TICKET, CHARGE = "billing.get-invoice", "support.create-ticket", "billing.charge-invoice"
EMPTY = Queue(
    waiting=dict.fromkeys(Band, 0), oldest_s=dict.fromkeys(Band, 0.0), scheduled=0, running=0, dead=0, unknown=0,
    accepted=0, succeeded=0, expired=0, cancelled=0, discarded=0, unaccounted=0, lost=0,
)  # fmt: skip
JOBS = 20  # of each of the two operations
BATCH = "01M80DSRHG24HRG7VH000000XN.1"  # a slot, as batches are named after
CAME_S, STARTED_S = 100.0, 101.0


async def story() -> Told:
    """
    Three reads that were forwarded and one that was refused, and two queues that were worked off.

    Twenty tickets came at once and started one after another, as their 202s had said. Twenty
    charges went out in two batches of ten; one of them could not be made.
    """
    async with aiohttp.ClientSession() as session:
        callers = Callers(session, "http://127.0.0.1:1", "demo1")
    read = callers.tallies[READ]
    read.sent, read.outcomes, read.refusals = 4, Counter(forwarded=3, refused=1), Counter(rate=1)
    for name in (TICKET, CHARGE):
        tally = callers.tallies[name]
        tally.sent, tally.outcomes = JOBS, Counter(queued=JOBS)
        for number in range(JOBS):
            job = _job(name, number)
            callers.jobs[job.id] = job
    bad = callers.jobs[f"{CHARGE}~7"]
    bad.order, bad.state, bad.status = replace(bad.order, is_wrong=True), JobState.DEAD, 422
    reads = Counted(
        outcomes=Counter(forwarded=3, refused=1), refusals=Counter(rate=1), actions=Counter(refused=1)
    )
    done = replace(EMPTY, accepted=JOBS + 5, succeeded=JOBS + 5)
    return Told(
        operations=load(CONFIG, {}).operations,
        callers=callers,
        before={},
        after={READ: reads, TICKET: _queued(), CHARGE: _queued()},
        # Five of an earlier run have left their counts.
        queues_before=dict.fromkeys((TICKET, CHARGE), replace(EMPTY, accepted=5, succeeded=5)),
        queues={TICKET: done, CHARGE: replace(done, succeeded=JOBS + 4, dead=1)},
        seen={"support": _desk(), "billing": _billing()},
        carried={},
        began_us=0,
        ended_us=int(200e6),
        others_may_call=False,
    )


def differing(told: Told) -> list[str]:
    return [check.what for check in checks(told) if not check.agrees]


def check_of(told: Told, about: str, what: str) -> Check:
    return next(check for check in checks(told) if check.about == about and check.what.startswith(what))


def with_queue(told: Told, name: str, **changed: Any) -> Told:
    """The same, with another ledger."""
    return replace(told, queues={**told.queues, name: replace(told.queues[name], **changed)})


def with_seen(told: Told, pipeline: str, **changed: Any) -> Told:
    """The same, with a downstream that saw something else."""
    return replace(told, seen={**told.seen, pipeline: replace(told.seen[pipeline], **changed)})


def _queued() -> Counted:
    return Counted(outcomes=Counter(queued=JOBS), actions=Counter(queued=JOBS))


def _job(name: str, number: int) -> Job:
    return Job(
        id=f"{name}~{number}", order=Order(operation=name, method="POST", path="/", tenant="acme"),
        request_id=_request_id(name, number), key=f"{name}~{number}", told_s=CAME_S, band=Band.NORMAL,
        position=number, eta_p50_s=_wait_s(number), eta_p90_s=_wait_s(number) * 1.1,
        state=JobState.SUCCEEDED, attempts=1, status=201, ended_s=CAME_S + _wait_s(number),
    )  # fmt: skip


def _wait_s(number: int) -> float:
    return STARTED_S - CAME_S + number * 0.4  # below what the desk takes at night


def _request_id(name: str, number: int) -> str:
    return f"demo1-{OPERATIONS.index(name)}-{number:06}"


def _desk() -> Seen:
    ids = [_request_id(TICKET, number) for number in range(JOBS)]
    return Seen(
        in_flight_max=2,
        started=JOBS,
        starts=tuple(CAME_S + _wait_s(number) for number in range(JOBS)),
        request_ids=dict.fromkeys(ids, 1),
        effects_by_key={f"{TICKET}~{number}": 1 for number in range(JOBS)},
    )


def _billing() -> Seen:
    ids = [*(_request_id(READ, number) for number in range(3)), f"{BATCH}.0-10", f"{BATCH}.10-10"]
    return Seen(
        in_flight_max=8,
        started=5,
        starts=(5.0, 5.1, 5.2, 105.0, 106.0),
        request_ids=dict.fromkeys(ids, 1),
        effects_by_key={f"{CHARGE}~{number}": 1 for number in range(JOBS) if number != 7},
    )
