"""
Job parts: what the jobs of one operation contribute to a round trip, and what its reply means.

As `parts.py`, for accept, revoke, lease, ack and keep. Payloads make these large, so that one round
trip takes so many bytes of them and no more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from breaker.core.errors import StoreClockError, StoreError, StoreResetError, StoreTimeoutError
from breaker.core.job_policy import BANDS
from breaker.core.jobs import (
    CODE_OF_REASON,
    Accepted,
    Ack,
    Fate,
    InProgress,
    JobState,
    KeptResult,
    KeyReused,
    LeasedJob,
    Leases,
    Offer,
    OutcomeUnknown,
    Pace,
    Queued,
    head_of,
)
from breaker.core.model import LEASE_US
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly
from breaker.store.connection import Command
from breaker.store.lane import (
    KEY_COUNT,
    POLICIES,
    PROBE,
    AcceptItem,
    KeepItem,
    Lane,
    LeaseRequest,
    RevokeItem,
    check,
)
from breaker.store.scripts import Script

BYTES_MAX = 1_048_576  # of payloads or results of one operation in one round trip
ITEMS_MAX = 128
ACCEPT_HEAD, ACCEPT_ITEM, ACCEPT_STAND = 11, 9, 3  # sizes in the reply of accept.lua
LEASE_HEAD = 14
KNOWN = 9
FATES = {
    Fate.SUCCEEDED: "s",
    Fate.DEAD: "x",
    Fate.UNKNOWN: "u",
    Fate.RETRY: "t",
    Fate.LATER: "l",
    Fate.BACK: "b",
}


def take_bytes(queue: deque[Any], size_of: Callable[[Any], int]) -> list[Any]:
    """As many as one round trip takes, at least one."""
    taken: list[Any] = []
    size = 0
    while queue and len(taken) < ITEMS_MAX and (not taken or size + size_of(queue[0]) <= BYTES_MAX):
        item = queue.popleft()
        size += size_of(item)
        taken.append(item)
    return taken


class AcceptPart:
    """Calls that start now or are jobs from now on."""

    def __init__(self, lane: Lane, script: Script, replica: str, wake: str, items: list[AcceptItem]) -> None:
        self.lane, self.items = lane, items
        self._script, self._replica, self._wake = script, replica, wake
        self.reach: tuple[bool, int] | None = None  # fsynced here, replicas; None: not asked

    @property
    def calls(self) -> int:
        return len(self.items)

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        arguments: list[str | bytes | int] = [
            b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys,
            b"", estimate_us, not_after_us, self._replica, LEASE_US, self._wake,
        ]  # fmt: skip
        for item in self.items:
            offer = item.offer
            flags = ("a" if offer.is_async else "-") + ("w" if offer.watches else "")
            flags += "o" if offer.wakes_others else ""
            arguments += (
                offer.lease_id, offer.job, offer.tenant, offer.cost, offer.caller, offer.key or "-",
                offer.fingerprint, BANDS.index(offer.band), offer.line, flags, offer.not_before_us,
                offer.deadline_us, offer.expiry_us, offer.callback or "-", offer.payload,
            )  # fmt: skip
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        lane = self.lane
        lane.limits_text, lane.queued, lane.service_us = reply[2].decode(), reply[3], reply[4]
        pace = Pace(mean_us=reply[5], spread_us=reply[6], service_us=reply[4], limits_text=lane.limits_text)
        lane.heard_circuit(reply[8], reply[9], moved=reply[10] == 1)
        at, stand = ACCEPT_HEAD, ACCEPT_HEAD + ACCEPT_ITEM * len(self.items)
        for item in self.items:
            numbers = reply[at : at + ACCEPT_ITEM] + reply[stand : stand + ACCEPT_STAND]
            self._tell(item, numbers, pace, POLICIES[reply[7]])
            at, stand = at + ACCEPT_ITEM, stand + ACCEPT_STAND

    def _tell(self, item: AcceptItem, numbers: list[Any], pace: Pace, held: Policy | None) -> None:
        answer = self._answer(numbers, pace, held)
        is_given = isinstance(answer, Admitted) or (isinstance(answer, Queued) and not answer.is_known)
        if item.answer.done():
            # The caller hung up while we asked: what it was given goes back.
            if is_given:
                self.lane.revokes.append(taken_back(item.offer))
            return
        item.answer.set_result(answer)

    def _answer(self, numbers: list[Any], pace: Pace, held: Policy | None) -> Accepted | None:
        verdict, policy, retry_us, room_policy, remaining, reset_us, leased, job, ahead, fair, late, own = (
            numbers
        )
        room = Room(policy=POLICIES[room_policy], remaining=remaining, reset_us=reset_us)
        why, id_ = POLICIES[policy], job.decode()
        match verdict:
            case 1 | 3:
                return Admitted(
                    room=room, leased=leased > 0, shadow=why, is_probe=leased == PROBE,
                    generation=self.lane.generation,
                )  # fmt: skip
            case 5 if why:
                return Refused(policy=why, retry_after_us=retry_us, room=room)
            case 6 if why:
                return TooCostly(policy=why)
            case 8 | 9:  # QUEUED, KNOWN
                return Queued(
                    job=id_,
                    ahead=ahead,
                    fair=fair,
                    late=late,
                    own=own,
                    depth=self.lane.queued,
                    pace=pace,
                    held=held,
                    is_known=verdict == KNOWN,
                    reach=self.reach,
                    why=why,
                )
            case 10:
                return InProgress(retry_after_us=retry_us)
            case 11:
                return KeyReused()
            case 12:
                return KeptResult(job=id_)
            case 13:
                return OutcomeUnknown(job=id_)
            case _:
                return None

    def on_failure(self, error: StoreError) -> None:
        for item in self.items:
            if isinstance(error, StoreClockError) and not item.is_retried:
                item.is_retried = True
                self.lane.accepts.append(item)
                continue
            if type(error) in (StoreTimeoutError, StoreError):
                # The reply got lost: the step may have happened, or may yet.
                self.lane.revokes.append(taken_back(item.offer))
            if not item.answer.done():
                item.answer.set_exception(error)


def taken_back(offer: Offer) -> RevokeItem:
    """Nobody waits for it. Without its payload: many of these may wait for a store that is ill."""
    return RevokeItem(replace(offer, payload=b""))


class RevokePart:
    """Offers that are taken back."""

    calls = 0

    def __init__(self, lane: Lane, script: Script, replica: str, items: list[RevokeItem]) -> None:
        self.lane, self.items = lane, items
        self._script, self._replica = script, replica

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        del estimate_us, not_after_us
        arguments: list[str | bytes | int] = [
            b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys, b"", self._replica,
        ]  # fmt: skip
        for item in self.items:
            offer = item.offer
            arguments += (offer.lease_id, offer.job, offer.tenant, offer.cost, offer.caller, offer.key or "-")
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        for item, what in zip(self.items, reply[2:], strict=True):
            if item.answer and not item.answer.done():
                item.answer.set_result(what == 1)

    def on_failure(self, error: StoreError) -> None:
        for item in self.items:
            if item.answer and not item.answer.done():
                item.answer.set_exception(error)
            if not isinstance(error, StoreResetError):
                self.lane.revokes.append(RevokeItem(item.offer))


class LeasePart:
    """Which jobs may start on this replica?"""

    calls = 0

    def __init__(self, lane: Lane, script: Script, replica: str, wake: str, request: LeaseRequest) -> None:
        self.lane, self.request = lane, request
        self._script, self._replica, self._wake = script, replica, wake
        self._number = 0

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        request, lane = self.request, self.lane
        # Some of what it gave out may run nowhere when an answer got lost; what was heard of runs.
        unheard = lane.heard if lane.asked != lane.heard else b""
        lane.asked += 1
        self._number = lane.asked
        return (
            b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys, b"", estimate_us, not_after_us,
            self._replica, LEASE_US, self._wake, request.want, b"1" if request.is_idle else b"0",
            lane.operation, self._number, unheard,
        )  # fmt: skip

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        lane, slot = self.lane, reply[9].decode()
        lane.heard = self._number
        lane.queued = reply[2]
        lane.heard_circuit(reply[10], reply[11], moved=reply[12] == 1)
        jobs = []
        for at in range(LEASE_HEAD, len(reply), 2):
            id_, (head, _, payload) = reply[at].decode(), reply[at + 1].partition(b"\n")
            known = replace(head_of(id_, head.decode()), state=JobState.RUNNING)
            jobs.append(
                LeasedJob(
                    head=known,
                    slot=slot or f"{id_}.{known.attempt}",
                    payload=payload,
                    generation=lane.generation,
                    is_probe=reply[13] == 1,
                )
            )
        answer = Leases(
            jobs=tuple(jobs), waiting=reply[2], next_us=reply[3], wants_alone=reply[4] == 1,
            is_alone=reply[5] == 1, has_more=reply[6] == 1, lost=reply[7], expired=reply[8],
        )  # fmt: skip
        if not self.request.answer.done():
            now = asyncio.get_running_loop().time()
            for job in jobs:
                lane.running[job.head.id] = (job.head.attempt, job.head.tenant, job.slot, now)
            self.request.answer.set_result(answer)
            return
        lane.acks.extend(back(job) for job in jobs)  # nobody runs them

    def on_failure(self, error: StoreError) -> None:
        # If the answer got lost, what it gave out runs nowhere: the next question gives it back.
        if not self.request.answer.done():
            self.request.answer.set_exception(error)


def back(job: LeasedJob) -> Ack:
    """It was leased and did not run: to the front."""
    head = job.head
    return Ack(job=head.id, attempt=head.attempt, tenant=head.tenant, slot=job.slot, fate=Fate.BACK)


class AckPart:
    """Attempts that ended."""

    calls = 0

    def __init__(
        self, lane: Lane, script: Script, wake: str, items: list[Ack], on_late: Callable[[str, int], None]
    ) -> None:
        self.lane, self.items = lane, items
        self._script, self._wake, self._on_late = script, wake, on_late

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        del estimate_us, not_after_us  # the work is done: it is never too late to say so
        arguments: list[str | bytes | int] = [
            b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys, b"", self._wake,
        ]  # fmt: skip
        for ack in self.items:
            arguments += (
                ack.job, ack.attempt, ack.tenant, ack.slot, FATES[ack.fate], CODE_OF_REASON[ack.reason],
                ack.delay_us, ack.service_us, ack.probe_us, ack.result, ack.note,
            )  # fmt: skip
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        self.lane.queued = reply[2]
        if reply[2] > 0 and self.lane.on_jobs:
            self.lane.on_jobs()
        if reply[3]:
            self._on_late(self.lane.operation, reply[3])

    def on_failure(self, error: StoreError) -> None:
        del error
        # The work is done, and the attempt is the fencing token: saying it again does no harm.
        self.lane.acks.extendleft(reversed(self.items))


class KeepPart:
    """Direct calls with a key that ended."""

    calls = 0

    def __init__(self, lane: Lane, script: Script, items: list[KeepItem]) -> None:
        self.lane, self.items = lane, items
        self._script = script

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        del estimate_us, not_after_us
        arguments: list[str | bytes | int] = [b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys, b""]
        for item in self.items:
            arguments += (
                item.job, item.lease_id, item.caller, item.tenant, item.key, item.outcome, item.result,
            )  # fmt: skip
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)

    def on_failure(self, error: StoreError) -> None:
        del error
        self.lane.keeps.extendleft(reversed(self.items))
