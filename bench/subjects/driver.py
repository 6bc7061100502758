"""
The driver of part 2: keeps a number of decisions in flight and measures each.

Shared by all subjects in Python, ours and the peers'; runs in a process of its own, on uvloop, with nothing but the
limiter. It needs only the standard library and uvloop, because it is also imported in the peers' environment.
`peers/rate_limiter_flexible/decide.mjs` is the same in JavaScript.

Every worker asks again as soon as it has its answer (a closed loop), so at 512 in flight latency is 512 divided by the
rate, whatever the limiter: compare p99 at 64.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvloop

WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One measurement.

    Attributes:
        redis_url: `redis://...` without a trailing option.
        variant: Which algorithm, for a peer that has several; else empty.
        key: What is limited; shared by all processes of the case.
        rate, burst: Of the shared limit, calls per second and calls.
        in_flight: Decisions awaited at the same time by this process.
        seconds: Length of the measurement.
        start_at: Unix time of the first decision, for several processes together; 0 is: warm up, then start.
    """

    redis_url: str
    variant: str
    key: str
    rate: int
    burst: int
    in_flight: int
    seconds: float
    start_at: float = 0.0


@dataclass(slots=True)
class Seen:
    """What the workers of one process saw; latencies in seconds, moments in Unix time."""

    latencies: list[float] = field(default_factory=list)
    admitted_at: list[float] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0


Decide = Callable[[], Awaitable[bool]]


async def spin(decide: Decide, *, in_flight: int, seconds: float) -> Seen:
    """Keeps `in_flight` decisions under way for `seconds`."""
    seen = Seen(first=time.time())
    end = time.perf_counter() + seconds

    async def worker() -> None:
        start = time.perf_counter()
        while start < end:
            admitted = await decide()
            now = time.perf_counter()
            seen.latencies.append(now - start)
            if admitted:
                seen.admitted_at.append(time.time())
            start = now

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    seen.last = time.time()
    return seen


def report(seen: Seen, *, with_moments: bool) -> dict[str, Any]:
    """The JSON line that the harness reads; see `decision.py`."""
    ordered = sorted(seen.latencies)
    return {
        "decisions": len(ordered),
        "per_second": len(ordered) / (seen.last - seen.first),
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
        "admitted": len(seen.admitted_at),
        "first": seen.first,
        "last": seen.last,
        "admitted_at": seen.admitted_at if with_moments else [],
    }


async def measure(order: str, prepare: Callable[[Case], Awaitable[Decide]]) -> None:
    case = Case(**json.loads(order))
    decide = await prepare(case)
    if case.start_at:
        await asyncio.sleep(max(0.0, case.start_at - time.time()))
    else:
        await spin(decide, in_flight=case.in_flight, seconds=WARM_UP_S)
    seen = await spin(decide, in_flight=case.in_flight, seconds=case.seconds)
    print(json.dumps(report(seen, with_moments=bool(case.start_at))))


def drive(prepare: Callable[[Case], Awaitable[Decide]]) -> None:
    """Runs the case of the command line; what a subject's `__main__` calls."""

    uvloop.run(measure(sys.argv[1], prepare))
