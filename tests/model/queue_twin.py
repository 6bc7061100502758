"""
Queue twin: the same step of the queue through the specification and through the scripts, compared.

As `twin.py`, with the jobs of the operation: after each step verdicts, the order of what was leased,
every place in which a job can stand, the tags of lines and bands, and the ledger are the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from redis import Redis

from breaker.core import accepting, circuit, fairness, job_ends, leasing
from breaker.core.fairness import Spot
from breaker.core.job_ends import Told
from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import (
    CODE_OF_REASON,
    Accepted,
    Ack,
    InProgress,
    JobState,
    KeptResult,
    KeyReused,
    LeasedJob,
    Offer,
    OutcomeUnknown,
    Pace,
    Queued,
    head_of,
)
from breaker.core.lease_step import Question
from breaker.core.model import LEASE_US
from breaker.core.queue import KEPT, Job, Jobs, expiring
from breaker.core.terms import Terms, held
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly
from breaker.store.job_parts import ACCEPT_HEAD, ACCEPT_ITEM, FATES, LEASE_HEAD
from breaker.store.lane import POLICIES, PROBE
from tests.model.twin import OPERATION, Twin

SEQ, FRONT = 32_768, 1_024  # how a line's spot is written, see lua/queue.lua
SETS = {JobState.SCHEDULED: "d", JobState.RUNNING: "l", JobState.DEAD: "x", JobState.UNKNOWN: "u"}


class QueueTwin(Twin):
    def __init__(self, redis: Redis, cluster: str, terms: Terms, now_us: int) -> None:
        self.jobs = Jobs()
        self.asked: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        super().__init__(redis, cluster, terms, now_us)

    @property
    def wake(self) -> str:
        return f"{self.keys.cluster}:wake:"

    def accept(self, replica: str, offers: Sequence[Offer]) -> list[Accepted | None]:
        arguments: list[Any] = []
        sized = [(offer, self.head_size(offer)) for offer in offers]
        expected = accepting.accept(self.state, self.jobs, self.terms, sized, self.now_us, LEASE_US)
        for offer in offers:
            arguments += (
                offer.lease_id, offer.job, offer.tenant, offer.cost, offer.caller, offer.key or "-",
                offer.fingerprint, BANDS.index(offer.band), offer.line, "a" if offer.is_async else "-",
                offer.not_before_us, offer.deadline_us, offer.expiry_us, offer.callback or "-", offer.payload,
            )  # fmt: skip
        reply = self.run("accept", self.now_us, "", "", replica, LEASE_US, self.wake, *arguments)
        depth = len(self.jobs.waiting)
        for at, wanted in enumerate(expected):
            found = accepted_of(reply, ACCEPT_HEAD + at * ACCEPT_ITEM, depth)
            # The script tells the depth once, as it is behind all of its calls.
            same = replace(wanted, depth=depth) if isinstance(wanted, Queued) else wanted
            assert found == same, (found, same)
        assert (reply[3], POLICIES[reply[7]]) == (depth, self.held_for())
        self.compare()
        return expected

    def held_for(self) -> Policy | None:
        if held(self.terms, self.now_us) == Policy.PAUSED:
            return Policy.PAUSED
        known = self.state.circuit
        if stop := circuit.bars(known, self.terms.circuit, self.now_us):
            return stop[0]
        is_paused = circuit.pauses(known.pause_us, self.terms.pause_max_us, self.now_us) > 0
        return Policy.SLOW_DOWN if is_paused else None

    def head_size(self, offer: Offer) -> int:
        """What lua/queue.lua:text_of makes of a job, without its payload."""
        fixed = (
            f"{self.now_us} {offer.deadline_us} {offer.expiry_us} {offer.cost} {0:010} {offer.caller} "
            f"{offer.tenant} {offer.line} {offer.key or '-'} {offer.callback or '-'}\n"
        )
        return 55 + len(fixed)

    def revoke(self, offer: Offer) -> bool:
        job = self.jobs.jobs.get(offer.job)
        expected = accepting.revoke(self.state, self.jobs, self.terms, offer, self.now_us)
        what = self.run(
            "revoke", self.now_us, "AAAAAAAA", offer.lease_id, offer.job, offer.tenant, offer.cost,
            offer.caller, offer.key or "-",
        )[2]  # fmt: skip
        assert what == (1 if expected else 2 if job else 0)
        self.compare()
        return expected

    def lease(self, replica: str, wanted: int, *, is_idle: bool, loses: str = "") -> list[LeasedJob]:
        """
        A question for jobs.

        Args:
            loses: "question": it never arrives; "answer": nobody hears what it gave out.

        """
        unheard = self.heard[replica] if self.asked[replica] != self.heard[replica] else None
        self.asked[replica] += 1
        number = self.asked[replica]
        if loses == "question":
            return []
        question = Question(replica=replica, wanted=wanted, is_idle=is_idle, number=number, heard=unheard)
        expected = leasing.lease(self.state, self.jobs, self.terms, question, self.now_us, LEASE_US)
        reply = self.run(
            "lease", self.now_us, "", "", replica, LEASE_US, self.wake, wanted, int(is_idle), OPERATION,
            number, "" if unheard is None else unheard,
        )  # fmt: skip
        leased = []
        for at in range(LEASE_HEAD, len(reply), 2):
            head, _, payload = reply[at + 1].partition(b"\n")
            known = head_of(reply[at].decode(), head.decode())
            assert payload == f"payload of {known.id}".encode()
            slot = reply[9].decode() or f"{known.id}.{known.attempt}"
            leased.append(LeasedJob(head=known, slot=slot, payload=payload))
        assert [(job.head.id, job.head.attempt) for job in leased] == expected.jobs
        assert all(job.head.state is JobState.RUNNING for job in leased)
        next_us = -1 if expected.next_us is None else expected.next_us
        assert reply[2:9] == [
            len(self.jobs.waiting), next_us, expected.wants_alone, expected.is_alone, expected.has_more,
            expected.lost, expected.expired,
        ]  # fmt: skip
        assert reply[9].decode() == expected.slot
        self.compare()
        if loses:
            return []
        self.heard[replica] = number
        return leased

    def ack(self, acks: Sequence[Ack]) -> None:
        late = job_ends.ack(self.state, self.jobs, self.terms, acks, self.now_us)
        arguments: list[Any] = []
        for ack in acks:
            arguments += (
                ack.job, ack.attempt, ack.tenant, ack.slot, FATES[ack.fate], CODE_OF_REASON[ack.reason],
                ack.delay_us, ack.service_us, ack.probe_us, ack.result, ack.note,
            )  # fmt: skip
        reply = self.run("ack", self.now_us, self.wake, *arguments)
        assert reply[2:4] == [len(self.jobs.waiting), late]
        self.compare()

    def settle(self, id_: str, tenant: str, linger_us: int | None, service_us: int) -> None:
        fairness.try_again(self.jobs.turn, tenant, tenant, self.now_us)
        super().settle(id_, tenant, linger_us, service_us)

    def alter(self, what: str, id_: str, argument: str, result: bytes, change: Callable[[Job], bool]) -> None:
        """`change` is the same step in the specification."""
        job = self.jobs.jobs[id_]
        expected = change(job)
        reply = self.run("alter", self.now_us, self.wake, OPERATION, what, id_, argument, result)
        assert reply[2] == expected
        self.compare()

    def cancel(self, id_: str) -> None:
        self.alter(
            "cancel", id_, "", b"", lambda job: job_ends.cancel(self.jobs, self.queue, job, self.now_us)
        )

    def move(self, id_: str, band: Band) -> None:
        service = self.state.service_us
        self.alter(
            "move", id_, str(BANDS.index(band)), b"",
            lambda job: job_ends.move(self.jobs, self.queue, job, band, self.now_us, service),
        )  # fmt: skip

    def requeue(self, id_: str) -> None:
        service = self.state.service_us
        self.alter(
            "requeue", id_, "", b"",
            lambda job: job_ends.requeue(self.jobs, self.queue, job, self.now_us, service),
        )  # fmt: skip

    def discard(self, id_: str) -> None:
        self.alter(
            "discard", id_, "", b"", lambda job: job_ends.discard(self.jobs, self.queue, job, self.now_us)
        )

    def resolve(self, id_: str, state: JobState, result: bytes) -> None:
        told = Told(size=len(result))
        code = {JobState.SUCCEEDED: "s-", JobState.DEAD: "x-"}[state]
        self.alter(
            "resolve", id_, code, result,
            lambda job: job_ends.resolve(self.jobs, self.queue, job, state, told, self.now_us),
        )  # fmt: skip

    def tell(self, id_: str) -> None:
        """The callback of this job was delivered."""
        self.jobs.callbacks.pop(id_, None)
        self.run("chores", self.now_us, "c", 0, LEASE_US, id_, -1)
        self.compare()

    @property
    def queue(self) -> Any:
        return self.terms.queue

    def deadlines(self) -> list[int]:
        jobs = self.jobs
        moments = [job.due_us for job in jobs.in_state(JobState.SCHEDULED, JobState.RUNNING)]
        moments += [moment for moment, _ in expiring(jobs)]
        moments += [(job.accepted_us + job.deadline_us) // 2 for job in jobs.in_state(JobState.QUEUED)]
        moments += [*jobs.turn.parked.values(), *(group.due_us for group in jobs.groups.values())]
        moments += [*jobs.results.values(), jobs.kept_until_us, jobs.alone_until_us]
        moments += [job.since_us + self.queue.keep_dead_us for job in jobs.in_state(*KEPT)]
        return sorted({*super().deadlines(), *(moment for moment in moments if moment >= self.now_us)})

    def compare(self) -> None:
        super().compare()
        assert self.jobs.unaccounted == 0
        self._compare_turn()
        self._compare_places()

    def names(self) -> list[str]:
        jobs, turn = self.jobs, self.jobs.turn
        names = ["q", "q:w", "q:b", "q:kb", "q:n", "q:nb", *(f"q:g:{band}" for band in range(4))]
        names += [f"q:{name}" for name in (*SETS.values(), "e", "z", "r", "c", "p")]
        names += [f"q:k:{name}" for name in jobs.groups]
        for band, group in turn.lines:
            names += [f"q:{what}:{named(band, group)}" for what in "vfs"]
        names += [f"q:t:{band}:{line}" for band, line in turn.waiting]
        names += [f"q:{what}:{id_}" for id_ in jobs.jobs for what in "jo"]
        return super().names() + names

    def _compare_turn(self) -> None:
        turn = self.jobs.turn
        assert self._zset("q:w") == {f"{band} {line}": due for (band, line), due in turn.parked.items()}
        for (band, group), lines in turn.lines.items():
            name = named(band, group)
            assert self._zset(f"q:v:{name}") == {line: score_of(spot) for line, spot in lines.spots.items()}
            virtual = self.seen[f"q:s:{name}"]
            assert (int(virtual) if virtual else None) == lines.virtual
            left = self._zset(f"q:f:{name}")
            assert {line: tag for line, tag in left.items() if tag > lines.now} == {
                line: tag for line, tag in lines.left.items() if tag > lines.now
            }
        for (band, line), waiting in turn.waiting.items():
            found = self._zset(f"q:t:{band}:{line}")
            assert found == {id_: entry.deadline_us for id_, entry in waiting.items()}

    def _compare_places(self) -> None:
        jobs = self.jobs
        for band in range(4):
            queued = {job.id: job.accepted_us for job in jobs.in_state(JobState.QUEUED) if job.band == band}
            assert self._zset(f"q:g:{band}") == queued
        for state, name in SETS.items():
            moments = {job.id: job.due_us or job.since_us for job in jobs.in_state(state)}
            assert self._zset(f"q:{name}") == moments, name
        assert self._zset("q:e") == {id_: moment for moment, id_ in expiring(jobs)}
        for name, places in {
            "z": jobs.suspects, "r": jobs.results, "c": jobs.callbacks, "p": jobs.probes
        }.items():  # fmt: skip
            assert self._zset(f"q:{name}") == places, name
        assert self._zset("q:b") == {name: group.due_us for name, group in jobs.groups.items()}
        for name, group in jobs.groups.items():
            assert self._zset(f"q:k:{name}") == group.members
        sizes = self._hash("q:kb")
        assert sizes == {
            name: str(sum(jobs.jobs[id_].size for id_ in group.members))
            for name, group in jobs.groups.items()
        }
        tenants = Counter(job.tenant for job in jobs.waiting)
        assert self._hash("q:n") == {tenant: str(count) for tenant, count in tenants.items()}
        own = {name: sum(job.size for job in jobs.waiting if job.tenant == name) for name in tenants}
        assert self._hash("q:nb") == {tenant: str(size) for tenant, size in own.items()}
        self._compare_hash(self._hash("q"))
        self._compare_heads()

    def _compare_hash(self, found: dict[str, str]) -> None:
        jobs, turn = self.jobs, self.jobs.turn
        expected: dict[str, int] = dict(jobs.ends)
        expected |= {"bytes": jobs.bytes_used, "result_bytes": jobs.result_bytes, "bvt": turn.virtual}
        expected |= {f"bt{band}": tag for band, tag in turn.tags.items()}
        expected |= {"alone_until": jobs.alone_until_us, "kept_until": jobs.kept_until_us}
        assert {name: int(found.get(name, 0)) for name in expected} == expected
        assert found.get("alone", "") == jobs.alone

    def _compare_heads(self) -> None:
        """What stands in the store of each job, and how large it is."""
        for job in self.jobs.jobs.values():
            text, answer = self.seen[f"q:j:{job.id}"], self.seen[f"q:o:{job.id}"]
            assert (len(text), len(answer)) == (job.size, job.answer_size)
            head = head_of(job.id, text.partition(b"\n")[0].decode())
            assert (head.state, BANDS.index(head.band), head.size) == (job.state, job.band, job.size)
            assert (head.attempt, head.failures, head.lost) == (job.attempt, job.failures, job.lost)
            assert (head.first_us, head.since_us, head.reason) == (job.first_us, job.since_us, job.reason)
            assert head.is_suspect == (job.suspect > 0)


def named(band: int, group: str) -> str:
    """Lines of a band, or of a batch key in it, as the keys name them."""
    return f"{band}:{group}" if group else str(band)


def score_of(spot: Spot) -> int:
    return spot.tag * SEQ + FRONT + spot.place


def accepted_of(reply: list[Any], at: int, depth: int) -> Accepted | None:
    """One call's answer in a reply of accept.lua."""
    verdict, policy, retry_us, room_policy, remaining, reset_us, leased, job, ahead = reply[
        at : at + ACCEPT_ITEM
    ]
    room = Room(policy=POLICIES[room_policy], remaining=remaining, reset_us=reset_us)
    why: Any = POLICIES[policy]
    id_ = job.decode()
    answers: dict[int, Accepted | None] = {
        1: Admitted(room=room, leased=leased > 0, shadow=why, is_probe=leased == PROBE),
        3: Admitted(room=room, leased=leased > 0, shadow=why),
        5: Refused(policy=why, retry_after_us=retry_us, room=room),
        6: TooCostly(policy=why),
        7: None,
        8: Queued(job=id_, ahead=ahead, depth=depth, pace=Pace(), why=why),
        9: Queued(job=id_, ahead=ahead, depth=depth, pace=Pace(), is_known=True),
        10: InProgress(retry_after_us=retry_us),
        11: KeyReused(),
        12: KeptResult(job=id_),
        13: OutcomeUnknown(job=id_),
    }
    return answers[verdict]
