"""
Receipts: what a caller is told of its job: where it stands, and when it will probably start.

The 202 tells where the job stands by its own line and the number of others; a job that is asked for gets the
fair order line by line.
"""

from breaker.core.job_policy import PromiseClock
from breaker.core.jobs import JobRecord, JobState, Pace, Queued
from breaker.core.promise import Eta, deadline_us, eta, spent_us
from breaker.core.terms import Terms
from breaker.gateway.call import Call, Receipt
from breaker.gateway.work import Work, tenant_limits
from breaker.store.clock import StoreClock
from breaker.store.policy import DAY_US, limits_of, terms_of

HELD = "held"


class Receipts:
    """Reckons with each operation's terms, which change with the day and with the files."""

    def __init__(self, clock: StoreClock) -> None:
        self._clock = clock
        self._terms: dict[str, tuple[Work, int, Terms]] = {}

    def terms(self, work: Work) -> Terms:
        day, name = self._clock.now_us() // DAY_US, work.operation.name
        known = self._terms.get(name)
        if known is None or known[0] is not work or known[1] != day:
            known = self._terms[name] = work, day, terms_of(work.operation, self._clock.now_us())
        return known[2]

    def deadline_us(self, work: Work, start_us: int) -> int:
        """By when a job should start that may start from then on."""
        queue = work.operation.queue
        if queue is None:
            return start_us
        if queue.clock is PromiseClock.WALL or not work.operation.capacity.schedule:
            return start_us + queue.start_within_ms * 1_000
        return deadline_us(self.terms(work), start_us, queue.start_within_ms * 1_000, queue.clock)

    def spent_us(self, work: Work, start_us: int, end_us: int) -> int:
        """How much of its promise's time passes between two moments of the store."""
        queue = work.operation.queue
        if queue is None or queue.clock is PromiseClock.WALL or not work.operation.capacity.schedule:
            return max(0, end_us - start_us)
        return spent_us(self.terms(work), start_us, end_us, queue.clock)

    def eta(
        self,
        work: Work,
        ahead: int,
        pace: Pace,
        *,
        is_held: bool,
        late: int | None = None,
        own: tuple[str, int] | None = None,
    ) -> Eta | None:
        """
        When a job will probably start; None when that is not known.

        Args:
            ahead, late: As in core/jobs.py:Place.
            own: Its tenant, and how many of its tenant's jobs are before it.

        """
        if is_held:
            return None
        batch = work.operation.batch
        limits = tenant_limits(work.operation, own[0]) if own else None
        return eta(
            ahead, pace, self.terms(work), self._clock.now_us(), late=late,
            in_force=limits_of(pace.limits_text) if pace.limits_text else None,
            of_tenant=(limits, own[1]) if own and limits else None,
            window_us=batch.window_ms * 1_000 if batch and own else 0,
        )  # fmt: skip

    def of_queued(self, call: Call, queued: Queued, *, preference: str = "") -> Receipt:
        """A call that has just become a job."""
        offer, operation = call.offer, call.work.operation
        if offer is None:
            raise ValueError("the call was not offered")
        due_us = offer.not_before_us
        is_later = due_us > self._clock.now_us()
        state = JobState.SCHEDULED if is_later else HELD if queued.held else JobState.QUEUED
        return Receipt(
            job=f"{operation.name}~{queued.job}", state=state, band=offer.band,
            position=None if is_later else queued.fair,
            eta=None
            if is_later
            else self.eta(
                call.work, queued.fair, queued.pace, is_held=queued.held is not None, late=queued.late,
                own=(offer.tenant, queued.own),
            ),
            deadline_us=offer.deadline_us, expiry_us=offer.expiry_us, due_us=due_us if is_later else 0,
            durability=queued.durability, preference=preference, why=queued.why, held=queued.held,
        )  # fmt: skip

    def of_record(
        self,
        work: Work,
        record: JobRecord,
        *,
        durability: str = "",
        preference: str = "",
        is_known: bool = False,
    ) -> Receipt:
        """A job that is asked for."""
        head, place = record.head, record.place
        held = place.held if place else None
        return Receipt(
            job=f"{work.operation.name}~{head.id}", state=HELD if held else head.state, band=head.band,
            position=place.ahead if place else None,
            eta=self.eta(
                work, place.ahead, place.pace, is_held=held is not None, late=place.late, own=(head.tenant, place.own)
            )
            if place
            else None,
            deadline_us=head.deadline_us, expiry_us=head.expiry_us, due_us=record.due_us,
            durability=durability, preference=preference, is_known=is_known, held=held,
        )  # fmt: skip
