"""
The desk: one job, lists of jobs, and what people do with them; rare steps, each one script.

Also the chores that follow a job's end (callbacks, probes), the ledger, and holds.
"""

from dataclasses import dataclass
from typing import Any, Literal

from breaker.core.errors import StoreError
from breaker.core.events import JobsLost, Listener
from breaker.core.job_policy import BANDS, Band
from breaker.core.jobs import (
    CODE_OF_REASON,
    STATE_CODES,
    Fate,
    JobHead,
    JobRecord,
    JobState,
    Pace,
    Place,
    Reason,
    head_of,
)
from breaker.core.model import Limits
from breaker.store.capacity import CapacityStore
from breaker.store.jobs import JobStore
from breaker.store.keys import wake_prefix
from breaker.store.lane import POLICIES, Lane
from breaker.store.policy import limits_of

CHORE_LEASE_US = 30_000_000  # a callback or probe that takes longer, or whose replica died, is tried again
PAGE_MAX = 500
CHORES: dict[str, str] = {"callback": "c", "probe": "p"}
SHOW_HEAD = 14  # parts of the reply of show.lua before the notes
Word = Literal["paused", "draining", ""]
ChoreKind = Literal["callback", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """
    Something to do after a job's end, leased to this replica for 30 s.

    Attributes:
        tries: This one included.
        record: The ended job.

    """

    job: str
    tries: int
    record: JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLook:
    """
    The jobs of an operation over all replicas, now; times are microseconds.

    Attributes:
        waiting, oldest_us, deadline_us: By band: queued jobs; age of the oldest; the moment its promise ends (0 none).
        suspects: Of the queued ones, those that will run alone.
        bytes_used, bytes_results: All that is stored; of it, records of ended jobs.
        late: Acks that came after their lease was lost.
        unaccounted: Accepted jobs that are nowhere (or, negative, were counted twice).
        lost: Jobs that this replica was given and the store has forgotten.
        dead_total, unknown_total: How many ever came there; those that were requeued since are counted too.
        withdrawn: Taken back before their callers were told; not among the accepted.
        held: `paused`, `draining` or empty, with until when (0: until resumed), since when, by whom and why.

    """

    now_us: int
    limits: Limits
    waiting: dict[Band, int]
    oldest_us: dict[Band, int]
    deadline_us: dict[Band, int]
    scheduled: int
    running: int
    dead: int
    unknown: int
    suspects: int
    callbacks: int
    probes: int
    results: int
    bytes_used: int
    bytes_results: int
    accepted: int
    succeeded: int
    expired: int
    cancelled: int
    discarded: int
    dead_total: int
    unknown_total: int
    withdrawn: int
    late: int
    unaccounted: int
    lost: int
    pace: Pace
    held: Word
    held_until_us: int
    held_since_us: int
    held_author: str
    held_reason: str

    @property
    def queued(self) -> int:
        return sum(self.waiting.values())


@dataclass(slots=True)
class Sight:
    """
    What this replica saw of an operation's jobs when it looked last, to notice what the store forgets.

    Attributes:
        given: Jobs that it had accepted by then; `let_go` of them the store counts no more.
        accepted, living: Over all replicas.
        lost: In all.

    """

    given: int = 0
    let_go: int = 0
    accepted: int = 0
    living: int = 0
    lost: int = 0


class JobDesk:
    """Everything about jobs that is not on the path of every one of them."""

    def __init__(self, capacity: CapacityStore, jobs: JobStore, *, cluster: str, emit: Listener) -> None:
        self._capacity, self._jobs, self._emit = capacity, jobs, emit
        self._steps = capacity.coalescer
        self._wake = wake_prefix(cluster)
        self._sights: dict[str, Sight] = {}
        self._deeds: dict[tuple[str, ChoreKind], list[str | int]] = {}

    async def _run(self, operation: str, verb: str, *arguments: str | bytes | int) -> list[Any]:
        return await self._steps.run(self._capacity.lane(operation), verb, *arguments)

    # One job.

    async def show(self, operation: str, job: str, *, watch: bool = False) -> JobRecord | None:
        """
        One job; None when there is none, or its record was not kept any longer.

        Args:
            watch: This replica hears when it ends; see `JobStore.wait_ended`.

        Raises:
            StoreError: It cannot be had now.

        """
        reply = await self._run(operation, "show", b"", job, self._capacity.replica if watch else b"")
        if not reply[2]:
            return None
        record = record_of(job, reply[2], reply[4])
        place = None
        if record.head.state is JobState.QUEUED:
            pace = Pace(
                mean_us=reply[9], spread_us=reply[10], service_us=reply[8], limits_text=reply[7].decode()
            )
            place = Place(
                ahead=reply[5], late=reply[12], own=reply[13], depth=reply[6], pace=pace,
                held=POLICIES[reply[11]],
            )  # fmt: skip
        return JobRecord(
            head=record.head, body=record.body, answer=record.answer, place=place, due_us=int(reply[3]),
            notes=tuple(reply[SHOW_HEAD:]),
        )  # fmt: skip

    async def cancel(self, operation: str, job: str) -> JobState | None:
        """
        End a waiting job.

        Returns:
            CANCELLED when that was done; else the state that it is in; None when there is none.

        Raises:
            StoreError: It is not known whether it was done.

        """
        is_done, before = await self._alter(operation, "cancel", job)
        return JobState.CANCELLED if is_done else before

    async def move(self, operation: str, job: str, band: Band) -> JobState | None:
        """Put a waiting job into another band; likewise, QUEUED when that was done."""
        is_done, before = await self._alter(operation, "move", job, str(BANDS.index(band)))
        return JobState.QUEUED if is_done else before

    async def requeue(self, operation: str, job: str) -> bool:
        """A dead or unknown job waits again; its retries begin again. Raises StoreError."""
        return (await self._alter(operation, "requeue", job))[0]

    async def discard(self, operation: str, job: str) -> bool:
        """A dead or unknown job is given up. Raises StoreError."""
        return (await self._alter(operation, "discard", job))[0]

    async def resolve(
        self, operation: str, job: str, fate: Literal[Fate.SUCCEEDED, Fate.DEAD], result: bytes = b""
    ) -> bool:
        """What happened to an unknown job is known now. Raises StoreError."""
        code = "s-" if fate is Fate.SUCCEEDED else f"x{CODE_OF_REASON[Reason.AMBIGUOUS]}"
        return (await self._alter(operation, "resolve", job, code, result))[0]

    async def _alter(
        self, operation: str, what: str, job: str, argument: str = "", result: bytes = b""
    ) -> tuple[bool, JobState | None]:
        """Whether it was done, and the state before; None when there is no such job."""
        reply = await self._run(operation, "alter", b"", self._wake, operation, what, job, argument, result)
        return reply[2] == 1, STATE_CODES[reply[3].decode()] if reply[3] else None

    # Many jobs.

    async def listed(
        self, operation: str, state: JobState, *, after: str = "", limit: int = 100
    ) -> tuple[list[JobHead], str]:
        """
        A page of jobs: queued (band by band), scheduled, running, dead or unknown; the oldest first.

        Returns:
            The jobs, and the cursor of the next page; empty at the end.

        Raises:
            ValueError: The cursor is not one of ours, or the state is not kept in a list.
            StoreError: They cannot be had now.

        """
        sets = {
            JobState.QUEUED: ["g:0", "g:1", "g:2", "g:3"], JobState.SCHEDULED: ["d"],
            JobState.RUNNING: ["l"], JobState.DEAD: ["x"], JobState.UNKNOWN: ["u"],
        }.get(state)  # fmt: skip
        if sets is None:
            raise ValueError(f"jobs that are {state} are not listed; ask for one by its id")
        number, score, last = cursor_of(after, len(sets))
        heads: list[JobHead] = []
        limit = min(limit, PAGE_MAX)
        while number < len(sets):
            asked = limit - len(heads)
            reply = await self._run(operation, "listed", sets[number], score, last, asked)
            for at in range(3, len(reply), 2):
                last = reply[at].decode()
                if reply[at + 1]:
                    heads.append(head_of(last, reply[at + 1].decode()))
            score = reply[2].decode()
            if len(heads) >= limit:
                return heads, f"{number}/{score}/{last}"
            if (len(reply) - 3) // 2 < asked:
                number, score, last = number + 1, "0", ""
        return heads, ""

    async def hold(self, operation: str, word: Word, until_us: int, author: str, reason: str) -> None:
        """
        Pause or drain an operation, or resume it (empty).

        Raises:
            StoreError: It is not known whether that was done.

        """
        await self._run(operation, "hold", b"", word, until_us, author, reason, self._wake, operation)

    async def look_queue(self, operation: str) -> QueueLook:
        """
        Where the jobs are, counted.

        Raises:
            StoreError: They cannot be counted now.

        """
        reply = await self._run(operation, "ledger", b"", self._capacity.replica)
        numbers = [int(float(word)) for word in reply[2].decode().split(" ")]
        (
            accepted,
            succeeded,
            expired,
            cancelled,
            discarded,
            late,
            used,
            results_used,
            pace,
            spread,
            service,
        ) = numbers[:11]
        scheduled, running, dead, unknown, suspects, callbacks, probes, results, given = numbers[11:20]
        held_until, held_since = numbers[20:22]
        bands = dict(zip(BANDS, zip(*[iter(numbers[22:34])] * 3, strict=True), strict=True))
        dead_total, unknown_total, withdrawn = numbers[34:37]
        waiting = {band: found[0] for band, found in bands.items()}
        living = sum(waiting.values()) + scheduled + running
        ended = succeeded + expired + cancelled + discarded + dead + unknown
        now = reply[1]
        return QueueLook(
            now_us=now, limits=limits_of(reply[3].decode()), waiting=waiting,
            oldest_us={band: now - found[1] if found[1] else 0 for band, found in bands.items()},
            deadline_us={band: found[2] for band, found in bands.items()},
            scheduled=scheduled, running=running, dead=dead, unknown=unknown, suspects=suspects,
            callbacks=callbacks, probes=probes, results=results, bytes_used=used, bytes_results=results_used,
            accepted=accepted, succeeded=succeeded, expired=expired, cancelled=cancelled, discarded=discarded,
            dead_total=dead_total, unknown_total=unknown_total, withdrawn=withdrawn,
            late=late, unaccounted=accepted - ended - living, lost=self._lost_of(operation, given, accepted, living),
            pace=Pace(
                mean_us=pace, spread_us=spread, service_us=service, limits_text=reply[3].decode()
            ),
            held=reply[4].decode(), held_until_us=held_until, held_since_us=held_since,
            held_author=reply[5].decode(), held_reason=reply[6].decode(),
        )  # fmt: skip

    def _lost_of(self, operation: str, stored: int, accepted: int, living: int) -> int:
        """
        Jobs that this replica was given and the store does not know of: it went back, or was emptied.

        An emptied store has forgotten the count as well, so that no more can be missing than were
        outstanding at the last look and came since.
        """
        given = self._jobs.given.get(operation, 0)
        last = self._sights.setdefault(operation, Sight())
        came = given - last.given
        missing = given - last.let_go - max(stored, 0)
        if missing > 0:
            # The count of a replica that accepted nothing for days is let go; the ledger beside it is not.
            is_aged = stored <= came and accepted >= last.accepted + came
            lost = 0 if is_aged else min(missing, last.living + came)
            if lost > 0:
                last.lost += lost
                self._emit(JobsLost(operation, lost))
            last.let_go += missing
        last.given, last.accepted, last.living = given, accepted, living
        return last.lost

    # What follows an end.

    async def due(self, lane: Lane, kind: ChoreKind, limit: int) -> tuple[list[Chore], int]:
        """
        Chores to do now, and microseconds until the next is due (-1: there is none).

        Raises:
            StoreError: They cannot be had now.

        """
        deeds = self._deeds.pop((lane.operation, kind), [])
        try:
            reply = await self._steps.run(lane, "chores", b"", CHORES[kind], limit, CHORE_LEASE_US, *deeds)
        except StoreError:
            self._deeds.setdefault((lane.operation, kind), [])[:0] = deeds  # saying it twice does no harm
            raise
        found = []
        for at in range(3, len(reply), 4):
            job = reply[at].decode()
            found.append(
                Chore(job=job, tries=int(reply[at + 1]), record=record_of(job, reply[at + 2], reply[at + 3]))
            )
        return found, int(reply[2])

    def done(self, lane: Lane, kind: ChoreKind, job: str) -> None:
        """The chore is done; told with the next look for more."""
        self._deeds.setdefault((lane.operation, kind), []).extend((job, -1))

    def again(self, lane: Lane, kind: ChoreKind, job: str, delay_us: int) -> None:
        """The chore is tried again after so long; likewise."""
        self._deeds.setdefault((lane.operation, kind), []).extend((job, max(0, delay_us)))


def record_of(job: str, text: bytes, answer: bytes) -> JobRecord:
    """
    A stored job read back.

    Its body is the payload while it may still run. Of one that has ended it is the result; dead and
    unknown ones keep their payload (for a redrive) beside the last answer, which is what callers ask for.
    """
    head, _, body = text.partition(b"\n")
    return JobRecord(head=head_of(job, head.decode()), body=body, answer=answer)


def cursor_of(text: str, sets: int) -> tuple[int, str, str]:
    if not text:
        return 0, "0", ""
    number, _, rest = text.partition("/")
    score, _, last = rest.partition("/")
    if not (number.isdigit() and int(number) < sets and score.replace(".", "").isdigit()):
        raise ValueError(f"{text!r} is not a cursor of this list")
    return int(number), score, last
