"""
A broken line: the connection to the store on which one exchange goes wrong, the first, the second, or the Nth.

After SQLite's tests of out-of-memory (sqlite.org/testing.html, section 3.1): the same story is told again and again,
and each time another call of it fails, until it ends without a fault.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from breaker.core.config import StoreSettings
from breaker.core.errors import StoreError, StoreRefusedError, StoreTimeoutError
from breaker.store.connection import Command, Line
from breaker.store.scripts import Script
from tests.store.job_world import CHECKED, NOW_AT, TIMELESS, Moment, TimedLine

OUTAGE = 3  # connections that fail after the exchange that did


class Fault(StrEnum):
    """What goes wrong with one exchange."""

    QUESTION = "the store never hears of it"
    ANSWER = "the store did it, and nobody knows"
    LATE = "the store reads it when nobody wants it any more"
    OUTAGE = "the store never hears of it, nor can it be reached for a while"
    REFUSED = "the store answers, and does nothing of it"


class BrokenLine(TimedLine):
    """
    A line whose Nth exchange goes wrong, and on which scripts are told the test's time.

    Attributes:
        fails_at: Of the exchanges from now on; 0 is none.
        is_broken: Whether that has happened.

    """

    def __init__(
        self, settings: StoreSettings, scripts: dict[str, Script], moment: Moment, fault: Fault
    ) -> None:
        super().__init__(settings, scripts, moment)
        self.fails_at, self.is_broken = 0, False
        self._fault = fault
        self._exchanges, self._unreachable = 0, 0
        self._late: list[Command] = []

    async def open(self) -> tuple[int, int, int]:
        if self._unreachable:
            self._unreachable -= 1
            raise StoreError("the store cannot be reached")
        return await super().open()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        if self._late:
            late, self._late = self._late, []
            await Line.exchange(self, late)  # what it answers is read by nobody
        if self.fails_at:
            self._exchanges += 1
            if self._exchanges == self.fails_at:
                self.is_broken = True
                return await self._break(commands)
        return await super().exchange(commands)

    async def _break(self, commands: Sequence[Command]) -> list[Any]:
        match self._fault:
            case Fault.REFUSED:
                return [StoreRefusedError("READONLY") for _ in commands]
            case Fault.ANSWER:
                await super().exchange(commands)
            case Fault.LATE:
                self._late = [self._told_late(command) for command in commands]
            case Fault.OUTAGE:
                self._unreachable = OUTAGE
            case Fault.QUESTION:
                pass
        await self.close()
        if self._fault in (Fault.ANSWER, Fault.LATE):
            raise StoreTimeoutError("no answer in time")
        raise StoreError("the connection broke")

    def _told_late(self, command: Command) -> Command:
        """It runs a microsecond after the last moment in which it should."""
        verb = self._verbs[command[1]]
        told = [*self._told(command)]
        if verb in TIMELESS:
            return command
        told[NOW_AT] = self._moment.now_us + 1
        if verb in CHECKED:
            told[NOW_AT + 2] = self._moment.now_us
        return tuple(told)
