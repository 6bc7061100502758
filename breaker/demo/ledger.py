"""
Ledger: did every job that was accepted come to one end, and every piece of work to one effect?

1. Each 202 is a job that the gateway counted, and that it still knows: it has ended, or it waits.
2. accepted = succeeded + dead + unknown + expired + cancelled + discarded + running + waiting, and no 202 is
   unknown to the store.
3. Callers and gateway count the same ends.
4. What callers were told is done, and nothing else, had its effect, and had it once: by the keys that the
   downstream saw.
5. Only what can never be done is dead: the invoice that the billing API does not take fails alone.
6. What waited where there are batches went out in batches.
7. Most jobs that went alone started within the time (p90) that their 202 said for as many as did go first (`waits.py`).

Plain functions of what was seen.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from breaker.core.jobs import JobState
from breaker.demo.followed import Job
from breaker.demo.told import LISTS_MAX, Check, Told, batch_items, equal, span, unclear
from breaker.demo.view import Queue, Seen
from breaker.demo.waits import JUDGED_MIN, PACE_BETWEEN, PACE_MIN, share_of, waits_of

_ENDS = (
    JobState.SUCCEEDED,
    JobState.DEAD,
    JobState.UNKNOWN,
    JobState.EXPIRED,
    JobState.CANCELLED,
    JobState.DISCARDED,
)


def job_checks(name: str, told: Told) -> list[Check]:
    """Rules 1, 2, 3, 5 and 7 for one operation; nothing when it has no queue."""
    queue = told.queues.get(name)
    if queue is None:
        return []
    jobs = told.jobs_of(name)
    return [
        *_accepted(name, jobs, queue, told),
        *_balance(name, queue),
        *_ends(name, jobs, queue, told),
        *_dead(name, jobs),
        *_promises(name, jobs, told),
    ]


def work_checks(pipeline: str, seen: Seen, told: Told) -> list[Check]:
    """Rules 4 and 6 for one downstream."""
    names = [name for name in told.operations_of(pipeline) if name in told.queues]
    found = [check for name in names for check in _batches(name, seen, told)]
    if names and sum(seen.effects_by_key.values()) <= LISTS_MAX:
        found += [check for name in names for check in _effects(name, seen, told)]
        found.append(
            equal(pipeline, "done again under the same key", "downstream", seen.repeated, "expected", 0)
        )
    return found


def _accepted(name: str, jobs: Sequence[Job], queue: Queue, told: Told) -> list[Check]:
    before = told.queues_before.get(name)
    accepted = queue.accepted - (before.accepted if before else 0)
    ended, waiting = (
        sum(job.is_ended for job in jobs),
        sum(bool(job.state) and not job.is_ended for job in jobs),
    )
    known = f"ended {ended}" + (f", waiting {waiting}" if waiting else "")
    return [
        Check(
            about=name, what="jobs accepted", left=f"callers {len(jobs)}", right=f"gateway {accepted}",
            agrees=len(jobs) == accepted or (told.others_may_call and len(jobs) < accepted),
        ),
        Check(
            about=name, what="each 202 has an end, or waits", left=f"callers {len(jobs)}", right=known,
            agrees=ended + waiting == len(jobs),
        ),
    ]  # fmt: skip


def _balance(name: str, queue: Queue) -> list[Check]:
    parts = ", ".join(
        f"{what} {count}"
        for what, count in (
            ("succeeded", queue.succeeded), ("dead", queue.dead), ("unknown", queue.unknown),
            ("expired", queue.expired), ("cancelled", queue.cancelled), ("discarded", queue.discarded),
            ("running and waiting", queue.left),
        )
        if count
    )  # fmt: skip
    return [
        Check(
            about=name, what="ledger since the store began", left=f"accepted {queue.accepted}", right=parts or "none",
            agrees=queue.accepted == queue.ended + queue.left and not queue.unaccounted,
        ),
        equal(name, "202s that the store does not know", "gateway", queue.lost, "expected", 0),
    ]  # fmt: skip


def _ends(name: str, jobs: Sequence[Job], queue: Queue, told: Told) -> list[Check]:
    before, others = told.queues_before.get(name), told.others_jobs(name)
    states = Counter(job.state for job in jobs if job.is_ended)
    # What ended between the last look of its caller and ours.
    others += sum(not job.is_ended for job in jobs)
    found = []
    for state in _ENDS:
        count = getattr(queue, state) - (getattr(before, state) if before else 0)
        if count or states[state]:
            found.append(
                Check(
                    about=name, what=f"jobs {state}", left=f"callers {states[state]}", right=f"gateway {count}",
                    agrees=states[state] <= count <= states[state] + others,
                )
            )  # fmt: skip
    return found


def _dead(name: str, jobs: Sequence[Job]) -> list[Check]:
    wrong = [job for job in jobs if job.order.is_wrong and job.is_ended]
    failed = [job for job in jobs if job.is_ended and job.state != JobState.SUCCEEDED]
    if not wrong and not failed:
        return []
    statuses = sorted({str(job.status) for job in failed if job.status})
    answered = f" (answered {', '.join(statuses)})" if statuses else ""
    return [
        Check(
            about=name, what="only what cannot be done failed", left=f"orders {len(wrong)}",
            right=f"jobs {len(failed)}{answered}",
            agrees={job.id for job in wrong} == {job.id for job in failed},
        )
    ]  # fmt: skip


def _promises(name: str, jobs: Sequence[Job], told: Told) -> list[Check]:
    waits = waits_of(jobs, told)
    kept, judged = share_of(wait.is_pace_right for wait in waits)
    paces = [wait.pace for wait in waits if wait.pace is not None]
    if min(judged, len(paces)) < JUDGED_MIN:
        return []
    pace, (least, most) = median(paces), PACE_BETWEEN
    return [
        Check(
            about=name, what="started within the ETA (p90) of the 202, for as many as went first",
            left=f"jobs {kept} of {judged} ({kept / judged:.0%})", right=f"at least {PACE_MIN:.0%}",
            agrees=kept >= PACE_MIN * judged,
        ),
        Check(
            about=name, what="took, for as many as went first, beside the ETA (p50)",
            left=f"median {pace:.2f} times as long", right=f"between {least:g} and {most:g}",
            agrees=least <= pace <= most,
        ),
    ]  # fmt: skip


def _batches(name: str, seen: Seen, told: Told) -> list[Check]:
    if not told.is_batched(name):
        return []
    jobs = told.jobs_of(name)
    sizes = [items for request_id in seen.request_ids if (items := batch_items(request_id))]
    least, most = sum(job.arrivals[0] for job in jobs), sum(job.arrivals[1] for job in jobs)
    return [
        Check(
            about=name, what="went out in batches", left=f"jobs {span(least, most)}",
            right=f"downstream {sum(sizes)} in {len(sizes)} requests, at most {max(sizes, default=0)} together",
            agrees=least <= sum(sizes) <= most + told.others_jobs(name),
        )
    ]  # fmt: skip


def _effects(name: str, seen: Seen, told: Told) -> list[Check]:
    keys = told.callers.effects(name)
    least = sum(is_done is True for is_done in keys.values())
    most = least + sum(is_done is None for is_done in keys.values()) + unclear(told.callers.tallies[name])
    done = sum(count for key, count in seen.effects_by_key.items() if key in keys)
    not_done = [key for key, is_done in keys.items() if is_done is False and key in seen.effects_by_key]
    return [
        Check(
            about=name, what="done, each once", left=f"callers {span(least, most)}", right=f"downstream {done}",
            agrees=least <= done <= most and not not_done,
        )
    ]  # fmt: skip
