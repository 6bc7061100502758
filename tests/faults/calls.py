"""
Calls: direct ones, each made once; what was told of them, and whether that was true.

1. An answer of the downstream is one: its order took effect.
2. What was refused was not executed. What failed or is unknown, may have been.
3. An order that was sent once takes effect at most once.
4. A 500 is never ours.
5. In flight is never above the limit.
6. Every call has an answer, unless its gateway was killed.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.faults import offers
from tests.faults.checker import Kind, Violation
from tests.faults.judging import OperationSeen, OrderSeen

CALL_S = 8.0
_PASSED_ON = ("forwarded", "delayed")  # at once, or when its turn came: on a busy machine either


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """
    What came of one call.

    Attributes:
        status: 0 is: no answer, or only half of one; `broke` says what was seen.
        outcome: `Breaker-Outcome`; empty without an answer.
        problem: The last part of a problem's type.
        began, took_s: Monotonic seconds.

    """

    operation: str
    order: str
    status: int
    outcome: str
    problem: str
    broke: str
    began: float
    took_s: float

    @property
    def word(self) -> str:
        return f"{self.status} {self.problem or self.outcome}" if self.status else self.broke


@dataclass(slots=True)
class DirectCallers:
    """
    Who calls, each call once.

    Attributes:
        urls: Where gateways are; asked before each call, in turn.

    """

    urls: Callable[[], Sequence[str]]
    session: aiohttp.ClientSession
    told: list[Told] = field(default_factory=list)
    _next: int = 0

    async def call(
        self, operation: str, order: str, *, patience_s: float = CALL_S, headers: Mapping[str, str] = {}
    ) -> Told:
        """One call, and what was told of it; its caller hangs up when its patience is at an end."""
        urls = self.urls()
        self._next += 1
        url = urls[self._next % len(urls)] + offers.path_of(operation, order)
        began = time.monotonic()
        status, outcome, problem, broke = 0, "", "", ""
        try:
            timeout = aiohttp.ClientTimeout(total=patience_s)
            async with self.session.post(
                url, json={"order": order}, headers=headers, timeout=timeout
            ) as answer:
                outcome = answer.headers.get("Breaker-Outcome", "")
                if answer.content_type == "application/problem+json":
                    problem = str((await answer.json())["type"]).rpartition("#")[2].rpartition("/")[2]
                else:
                    async for _ in answer.content.iter_any():
                        pass
                status = answer.status
        except TimeoutError:
            broke = "hung up"
        except (aiohttp.ClientError, OSError) as exc:
            broke = type(exc).__name__
        told = Told(
            operation=operation, order=order, status=status, outcome=outcome, problem=problem, broke=broke,
            began=began, took_s=time.monotonic() - began,
        )  # fmt: skip
        self.told.append(told)
        return told

    async def drive(
        self,
        operations: Sequence[str],
        *,
        seconds: float,
        per_second: float,
        name: str,
        patience_s: float = CALL_S,
    ) -> list[Told]:
        """Calls of these operations in turn, evenly spread over so many seconds."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for number in range(int(seconds * per_second)):
                await asyncio.sleep(begin + number / per_second - loop.time())
                operation = operations[number % len(operations)]
                tasks.append(
                    group.create_task(self.call(operation, f"{name}-{number}", patience_s=patience_s))
                )
        return [task.result() for task in tasks]


def words(told: Iterable[Told]) -> Counter[str]:
    """How calls ended."""
    return Counter(each.word for each in told)


def statuses(told: Iterable[Told]) -> Counter[str]:
    """How calls ended, whether or not they waited for their turn: a status, or the problem or break that was seen."""
    return Counter(str(each.status) if each.outcome in _PASSED_ON else each.word for each in told)


def check_calls(
    told: Sequence[Told],
    judged: Mapping[str, OperationSeen],
    limits: Mapping[str, int],
    *,
    may_break: bool = False,
) -> list[Violation]:
    """
    Every promise that was not kept.

    Args:
        limits: The most calls in flight, by operation.
        may_break: Whether a call may end without an answer.

    """
    violations = [violation for each in told for violation in _answer(each, judged, may_break=may_break)]
    for operation, seen in judged.items():
        for _, in_flight, abandoned in seen.over:
            if in_flight > limits.get(operation, in_flight):
                text = (
                    f"{in_flight} in flight, {abandoned} without a caller; the limit is {limits[operation]}"
                )
                violations.append(Violation(kind=Kind.OVER_LIMIT, about=operation, seen=text))
    return violations


def _answer(each: Told, judged: Mapping[str, OperationSeen], *, may_break: bool) -> Iterator[Violation]:
    seen = judged.get(each.operation, OperationSeen()).orders.get(each.order, OrderSeen())
    if not each.status and not may_break:
        yield Violation(kind=Kind.NO_ANSWER, about=each.order, seen=each.broke)
    if each.status == 500 and each.outcome not in ("forwarded", "delayed"):
        yield Violation(kind=Kind.OURS, about=each.order, seen=each.word)
    # 409: another call with the same key runs, and it is that one which was sent.
    if each.outcome == "refused" and each.status != 409 and seen.requests:
        yield Violation(kind=Kind.EXECUTED, about=each.order, seen=f"{each.word}, sent {seen.requests} times")
    if each.status == 200 and not seen.effects:  # a 202 is a job, which has its own checker
        yield Violation(kind=Kind.NO_EFFECT, about=each.order, seen=each.word)
    if seen.effects > 1:
        yield Violation(kind=Kind.TWO_EFFECTS, about=each.order, seen=f"{seen.effects} times")
