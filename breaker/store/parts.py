"""
Parts: what one operation contributes to a round trip, and what its reply means.

A part knows how to become a command, and what to do with the reply or with a failure. The
coalescer knows only this much of them.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from breaker.core.errors import StoreClockError, StoreError, StoreResetError, StoreTimeoutError
from breaker.core.model import LEASE_US
from breaker.core.verdict import Admitted, Policy, Refused, Room, TooCostly, Verdict, Waiting
from breaker.store.connection import Command
from breaker.store.lane import KEY_COUNT, POLICIES, PROBE, AskItem, Lane, SettleItem, WithdrawItem, check
from breaker.store.scripts import Script

HEAD_SIZE = 8  # numbers before the first call's
GRANT_HEAD = 7  # numbers before the ids in the reply of grant.lua
ITEM_SIZE = 7  # numbers per call in the reply of admit.lua


class AskPart:
    """Calls that want to start."""

    def __init__(self, lane: Lane, script: Script, replica: str, items: list[AskItem]) -> None:
        self.lane, self.items = lane, items
        self._script, self._replica = script, replica

    @property
    def calls(self) -> int:
        return len(self.items)

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        arguments: list[str | bytes | int] = [
            b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys,
            b"", estimate_us, not_after_us, self._replica, LEASE_US,
        ]  # fmt: skip
        for item in self.items:
            ask = item.ask
            arguments += (ask.id, ask.tenant, ask.cost, ask.wait_us)
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        lane = self.lane
        lane.limits_text, lane.waiting, lane.service_us = reply[2].decode(), reply[3], reply[4]
        lane.heard_circuit(reply[5], reply[6], moved=reply[7] == 1)
        at = HEAD_SIZE
        for item in self.items:
            verdict, policy, retry_us, room_policy, remaining, reset_us, leased = reply[at : at + ITEM_SIZE]
            at += ITEM_SIZE
            room = Room(policy=POLICIES[room_policy], remaining=remaining, reset_us=reset_us)
            self._tell(item, verdict, POLICIES[policy], retry_us, room, leased)

    def _tell(
        self, item: AskItem, verdict: int, policy: Policy | None, retry_us: int, room: Room, leased: int
    ) -> None:
        answer: Verdict | None = None
        match verdict:
            case 1:
                answer = Admitted(
                    room=room, leased=leased > 0, shadow=policy, is_probe=leased == PROBE,
                    generation=self.lane.generation,
                )  # fmt: skip
            case 2:
                answer = Admitted(
                    room=room, leased=leased > 0, over=policy, is_probe=leased == PROBE,
                    generation=self.lane.generation,
                )  # fmt: skip
            case 3:
                answer = Admitted(room=room, shadow=policy, generation=self.lane.generation)
            case 4 if policy:
                answer = Waiting(policy=policy, room=room)
                if not item.answer.done():
                    # Before the answer is seen: a grant may stand in this same round trip.
                    self.lane.waiters[item.ask.id] = asyncio.get_running_loop().create_future()
                    is_first = len(self.lane.waiters) == 1  # a look that was planned before is not ours
                    self.lane.wants_grant = self.lane.wants_grant or is_first or not self.lane.grant_timer
            case 5 if policy:
                answer = Refused(policy=policy, retry_after_us=retry_us, room=room)
            case 6 if policy:
                answer = TooCostly(policy=policy)
            case _:
                answer = None
        if item.answer.done():
            # The caller hung up while we asked: what it was given goes back.
            if answer and not isinstance(answer, Refused | TooCostly):
                self.lane.gone.append(item.ask)
            return
        item.answer.set_result(answer)

    def on_failure(self, error: StoreError) -> None:
        for item in self.items:
            if isinstance(error, StoreClockError) and not item.is_retried:
                # Nothing was written, and the estimate has just been corrected: once more.
                item.is_retried = True
                self.lane.asks.append(item)
                continue
            if type(error) in (StoreTimeoutError, StoreError):
                # The reply got lost: the step may have happened, or may yet.
                self.lane.gone.append(item.ask)
            if not item.answer.done():
                item.answer.set_exception(error)


class SettlePart:
    """Slots that go back."""

    calls = 0

    def __init__(self, lane: Lane, script: Script, items: list[SettleItem]) -> None:
        self.lane, self.items = lane, items
        self._script = script

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        del estimate_us, not_after_us  # giving back is never too late
        arguments: list[str | bytes | int] = [b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys, b""]
        for item in self.items:
            arguments += (item.id, item.tenant, item.linger, item.service_us)
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        self.lane.waiting = reply[2]
        if reply[2] > 0:
            self.lane.wants_grant = True
        if reply[3] > 0 and self.lane.on_jobs:
            self.lane.on_jobs()

    def on_failure(self, error: StoreError) -> None:
        # The work is done, and giving back is idempotent: it waits for the store.
        del error
        self.lane.settles.extendleft(reversed(self.items))


class WithdrawPart:
    """Calls that give up."""

    calls = 0

    def __init__(self, lane: Lane, script: Script, items: list[WithdrawItem]) -> None:
        self.lane, self.items = lane, items
        self._script = script

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        del estimate_us, not_after_us
        arguments: list[str | bytes | int] = [b"EVALSHA", self._script.sha, KEY_COUNT, *self.lane.keys, b""]
        for item in self.items:
            why = b"gone" if item.answer is None else b"timeout"
            arguments += (item.ask.id, item.ask.tenant, item.ask.cost, why)
        return tuple(arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        if reply[2] > 0:
            self.lane.wants_grant = True
        for at, item in enumerate(self.items):
            what, policy, retry_us = reply[3 + 3 * at : 6 + 3 * at]
            if item.answer is None:
                continue
            if item.answer.done():
                if what == 1:
                    self.lane.gone.append(item.ask)
            elif what == 1:
                item.answer.set_result(Admitted(leased=True, delayed=True, generation=self.lane.generation))
            else:
                item.answer.set_result(
                    Refused(policy=POLICIES[policy] or Policy.WAITING, retry_after_us=max(retry_us, 0))
                )

    def on_failure(self, error: StoreError) -> None:
        for item in self.items:
            if item.answer and not item.answer.done():
                item.answer.set_exception(error)
            if not isinstance(error, StoreResetError):
                self.lane.gone.append(item.ask)


class GrantPart:
    """Whose turn is it? What is granted to other replicas they hear on their wake channel."""

    calls = 0

    def __init__(self, lane: Lane, script: Script, replica: str, wake: str) -> None:
        self.lane = lane
        self._script, self._replica, self._wake = script, replica, wake
        self.next_us = -1

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        lane = self.lane
        return (
            b"EVALSHA", self._script.sha, KEY_COUNT, *lane.keys, b"", estimate_us, not_after_us,
            self._replica, LEASE_US, b"1" if lane.waiters else b"0", lane.operation, self._wake,
        )  # fmt: skip

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        self.lane.waiting, self.next_us = reply[2], reply[3]
        self.lane.heard_circuit(reply[4], reply[5], moved=reply[6] == 1)
        wake(self.lane, (id_.decode() for id_ in reply[GRANT_HEAD:]))

    def on_failure(self, error: StoreError) -> None:
        # Nobody waits longer than its own timer; the next look is not lost either.
        del error
        self.next_us = 100_000


@dataclass(slots=True)
class OtherPart:
    """A rare verb of an operation (renew, look, publish), for whoever waits for its reply."""

    lane: Lane
    script: Script
    arguments: tuple[str | bytes | int, ...]
    answer: asyncio.Future[list[Any]]

    calls = 0

    def command(self, estimate_us: int, not_after_us: int) -> Command:
        del estimate_us, not_after_us
        return (b"EVALSHA", self.script.sha, KEY_COUNT, *self.lane.keys, *self.arguments)

    def on_reply(self, reply: list[Any]) -> None:
        check(reply)
        if not self.answer.done():
            self.answer.set_result(reply)

    def on_failure(self, error: StoreError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def wake(lane: Lane, ids: Any) -> None:
    """Tell the calls whose turn has come. One that has gone meanwhile withdraws by itself."""
    for word in ids:
        waiter = lane.waiters.get(word.rstrip("*"))
        if waiter and not waiter.done():
            waiter.set_result(
                Admitted(leased=True, delayed=True, is_probe=word.endswith("*"), generation=lane.generation)
            )
