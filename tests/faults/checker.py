"""
Checker: do the callers, the downstream and the gateways tell one story, and is it the one that was promised?

1. Every 202 is a job that can be found, and one order has one job.
2. Every job has ended, in one of the ways that this drill allows; or waits, where that is allowed.
3. An order takes effect at most once on a downstream that honours keys, and it is sent under its caller's key.
4. `effects: once`: an order is sent at most once. One that was answered with a complete failure may be sent
   again, because its outcome is known.
5. What succeeded, or was answered directly, took effect; what ended before it started, was never sent.
6. In flight is never above the limit. For one lease after a SIGKILL calls without a caller are not counted:
   the bound is the limit and the calls of the dead replica.
7. The ledger of every gateway is 0, and no job that was accepted is unknown to the store.
8. Only an order that kills gateways ends as poison.

Plain functions of what was seen. What cannot be checked, because it was not told, is a violation, too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.faults import offers
from tests.faults.judging import OperationSeen, OrderSeen
from tests.faults.offers import Job

LEASE_S = 10.0
# The dead replica's last calls may be a moment older than the kill, and a lease ends a little late.
AROUND_KILL_S = LEASE_S + 2.0


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "a 202 without a job"
    TWO_JOBS = "two jobs for one key"
    NOT_ENDED = "a job that does not end"
    WRONG_END = "an end that this drill does not allow"
    TWO_EFFECTS = "an order that took effect twice"
    OTHER_KEY = "an order that was sent under another key"
    SENT_AGAIN = "an order of `effects: once` that was sent again"
    NO_EFFECT = "a success without an effect"
    STARTED = "an end before the start, of an order that was sent"
    OVER_LIMIT = "more in flight than the limit"
    LEDGER = "a ledger that does not balance"
    POISON = "an innocent job that ended as poison"
    REFUSED = "an answer that no order of this drill should get"
    NO_ANSWER = "a call without an answer"
    OURS = "a 500 of our own"
    EXECUTED = "a refusal of what was executed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One promise that was not kept: of what, and what was seen."""

    kind: Kind
    about: str
    seen: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}: {self.seen}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A 202: when it was given (monotonic seconds), and what it said."""

    operation: str
    order: str
    key: str
    job: str
    at: float
    durability: str = "fsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Another answer that was final for its caller, such as the stored result."""

    operation: str
    order: str
    key: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    What holds for one operation in a drill.

    Attributes:
        limit: The most calls in flight.
        ends: How its jobs may end.
        is_once: `effects: once`.
        honours_keys: Whether its downstream does.

    """

    limit: int
    ends: frozenset[str] = frozenset({"succeeded"})
    is_once: bool = False
    honours_keys: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """
    Everything that was seen.

    Attributes:
        jobs: What the gateways say of each accepted job in the end; None is: there is none.
        judged: What the downstream saw, by operation.
        ledgers: Of each gateway, metric -> operation -> value.
        kills: When a gateway was killed, monotonic seconds.
        guilty: Orders that are bad, and how they must end: a state, or a state and a reason after a blank.
        may_wait: A job that waits in the end is fine.

    """

    accepted: Sequence[Accepted]
    answered: Sequence[Answered] = ()
    jobs: Mapping[str, Job | None]
    judged: Mapping[str, OperationSeen]
    ledgers: Mapping[str, Mapping[str, Mapping[str, float]]]
    kills: Sequence[float] = ()
    guilty: Mapping[str, str] = field(default_factory=dict)
    may_wait: bool = False


def check(story: Story, terms: Mapping[str, Terms]) -> list[Violation]:
    """Every promise that was not kept."""
    return [
        *_accepted(story),
        *_ends(story, terms),
        *_answers(story),
        *_effects(story, terms),
        *_in_flight(story, terms),
        *_ledgers(story, terms),
    ]


def summary(violations: Sequence[Violation], most: int = 5) -> str:
    """How many of each kind, and the first of them; empty when there is none."""
    lines = []
    for kind, count in Counter(violation.kind for violation in violations).items():
        lines.append(f"{count} x {kind}")
        lines += [f"    {each.about}: {each.seen}" for each in violations if each.kind == kind][:most]
    return "\n".join(lines)


def _accepted(story: Story) -> Iterator[Violation]:
    job_of: dict[tuple[str, str], str] = {}
    for each in story.accepted:
        first = job_of.setdefault((each.operation, each.key), each.job)
        if first != each.job:
            yield Violation(kind=Kind.TWO_JOBS, about=each.key, seen=f"{first} and {each.job}")


def _ends(story: Story, terms: Mapping[str, Terms]) -> Iterator[Violation]:
    for each in {accepted.job: accepted for accepted in story.accepted}.values():
        job = story.jobs.get(each.job)
        if job is None:
            yield Violation(kind=Kind.LOST, about=each.job, seen=f"nobody knows it; order {each.order}")
        elif not job.is_ended:
            if not (story.may_wait and job.state in offers.WAITING):
                yield Violation(
                    kind=Kind.NOT_ENDED, about=each.job, seen=f"{job.state} after {job.attempts} attempts"
                )
        elif each.order in story.guilty:
            if story.guilty[each.order] not in (job.state, f"{job.state} {job.reason}"):
                yield Violation(
                    kind=Kind.WRONG_END, about=each.job, seen=f"{job.state} {job.reason}, but it is bad"
                )
        elif job.reason == offers.POISON:
            yield Violation(kind=Kind.POISON, about=each.job, seen=f"{job.state}, order {each.order}")
        elif job.state not in terms[each.operation].ends:
            yield Violation(kind=Kind.WRONG_END, about=each.job, seen=f"{job.state} {job.reason}")
        else:
            yield from _consequence(each, job.state, _seen_of(story, each))


def _consequence(each: Accepted, state: str, seen: OrderSeen) -> Iterator[Violation]:
    """Does the downstream say the same of this end?"""
    if state == "succeeded" and not seen.effects:
        yield Violation(kind=Kind.NO_EFFECT, about=each.job, seen=f"order {each.order} was never done")
    if state in ("expired", "cancelled") and seen.requests:
        yield Violation(kind=Kind.STARTED, about=each.job, seen=f"{state}, sent {seen.requests} times")


def _answers(story: Story) -> Iterator[Violation]:
    for each in story.answered:
        if each.order in story.guilty:
            continue
        if each.status >= 300:
            yield Violation(kind=Kind.REFUSED, about=each.key, seen=str(each.status))
        elif not _seen_of(story, each).effects:
            yield Violation(kind=Kind.NO_EFFECT, about=each.key, seen=f"{each.status}, but it was never done")


def _effects(story: Story, terms: Mapping[str, Terms]) -> Iterator[Violation]:
    told: list[Accepted | Answered] = [*story.accepted, *story.answered]
    key_of = {(each.operation, each.order): each.key for each in told}
    for operation, judged in story.judged.items():
        for order, seen in judged.orders.items():
            if seen.effects > 1 and terms[operation].honours_keys:
                yield Violation(kind=Kind.TWO_EFFECTS, about=order, seen=f"{seen.effects} under {seen.keys}")
            known = key_of.get((operation, order))
            wrong = [key for key in seen.keys if key != known] if known else list(seen.keys[1:])
            if wrong:
                yield Violation(
                    kind=Kind.OTHER_KEY, about=order, seen=f"{wrong}, not {known or seen.keys[0]}"
                )
            unclear = seen.requests - seen.failures
            if terms[operation].is_once and unclear > 1:
                yield Violation(
                    kind=Kind.SENT_AGAIN, about=order,
                    seen=f"{seen.requests} times, and {seen.failures} were known to have failed",
                )  # fmt: skip


def _in_flight(story: Story, terms: Mapping[str, Terms]) -> Iterator[Violation]:
    for operation, judged in story.judged.items():
        limit = terms[operation].limit
        for at, in_flight, abandoned in judged.over:
            since = min((at - kill for kill in story.kills if kill <= at), default=float("inf"))
            counted = in_flight - abandoned if since <= AROUND_KILL_S else in_flight
            if counted > limit:
                yield Violation(
                    kind=Kind.OVER_LIMIT, about=operation,
                    seen=f"{in_flight} in flight, {abandoned} without a caller, {since:.1f} s after a kill, "
                    f"and the limit is {limit}",
                )  # fmt: skip


def _ledgers(story: Story, terms: Mapping[str, Terms]) -> Iterator[Violation]:
    if not story.ledgers:
        yield Violation(kind=Kind.LEDGER, about="the gateways", seen="no ledger was read")
    for gateway, metrics in story.ledgers.items():
        for metric in offers.LEDGER:
            values = metrics.get(metric, {})
            for operation in terms:
                value = values.get(f"{offers.PIPELINE}.{operation}")
                if value != 0:
                    seen = "is not exported" if value is None else f"is {value:g}"
                    yield Violation(kind=Kind.LEDGER, about=f"{gateway} {operation}", seen=f"{metric} {seen}")


def _seen_of(story: Story, each: Accepted | Answered) -> OrderSeen:
    judged = story.judged.get(each.operation, OperationSeen())
    return judged.orders.get(each.order, OrderSeen())
