"""
Part 2: the decision. How many calls per second can a process decide on, with one limit shared through the store?

Each subject is a process of its own with nothing but the limiter in it, on the same store, in two modes of the append-only
file, with 1, 64 and 512 decisions in flight. The limit is never reached, so that every decision is an admission and
writes.

Then exactness: 4 processes ask for far more than the limit, at the same time. A limiter with a bucket may admit
`rate * t + burst`; one with a window has no burst and may admit a window more than `rate * t`, which is its own
definition and not an error. `over` is what was admitted beyond that, and must be 0. `busiest_second` is what one second
really saw: the price of a fixed window, and what the downstream would feel.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.install import HERE, INSTALLED, PEERS, PYTHON
from bench.processes import Processes, SubjectError
from bench.store import Store
from bench.subjects.driver import Case

UNREACHED = 1_000_000
EXACT_RATE, EXACT_BURST = 2_000, 200
EXACT_PROCESSES, EXACT_IN_FLIGHT = 4, 16
START_S = 1.5  # for all of the processes to be up before the first decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Limiter:
    """
    A subject of part 2.

    Attributes:
        argv: The program; the case is added as JSON.
        variant: Which algorithm of several.
        needs: `python`, or a Node peer.
        has_burst: Holds `rate * t + burst`; otherwise a window, with a whole window instead of the burst.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    variant: str = ""
    needs: str | None = None
    has_burst: bool = True


OURS = (sys.executable, "-m", "bench.subjects.decision_breaker")


def _peer(folder: str) -> tuple[str, ...]:
    return (str(PYTHON), str(PEERS / folder / "decide.py"))


LIMITERS = (
    Limiter(name="breaker", title="**Breaker**, one rate (as the peers)", argv=OURS, variant="rate"),
    Limiter(name="breaker-all", title="**Breaker**, rate, slots and tenant limits", argv=OURS, variant="all"),
    Limiter(
        name="limits-moving",
        title="limits, moving window",
        argv=_peer("limits"),
        variant="moving",
        needs="python",
        has_burst=False,
    ),
    Limiter(
        name="limits-fixed",
        title="limits, fixed window",
        argv=_peer("limits"),
        variant="fixed",
        needs="python",
        has_burst=False,
    ),
    Limiter(name="throttled-py", title="throttled-py, GCRA", argv=_peer("throttled_py"), needs="python"),
    Limiter(
        name="pyrate-log",
        title="pyrate-limiter, log",
        argv=_peer("pyrate_limiter"),
        variant="log",
        needs="python",
        has_burst=False,
    ),
    Limiter(
        name="pyrate-gcra",
        title="pyrate-limiter, GCRA",
        argv=_peer("pyrate_limiter"),
        variant="gcra",
        needs="python",
    ),
    Limiter(
        name="rate-limiter-flexible",
        title="rate-limiter-flexible (Node), fixed window",
        argv=("node", str(INSTALLED / "rate_limiter_flexible" / "decide.mjs")),
        needs="rate_limiter_flexible",
        has_burst=False,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """
    How much is measured.

    Attributes:
        cases: (append-only file mode, decisions in flight).
        seconds: Of each measurement.
        exact_s: Of the four processes at the limit.
    """

    rounds: int
    cases: tuple[tuple[str, int], ...]
    seconds: float
    exact_s: float


FULL = Effort(
    rounds=3,
    cases=tuple((fsync, in_flight) for fsync in ("everysec", "always") for in_flight in (1, 64, 512)),
    seconds=1.0,
    exact_s=3.0,
)
QUICK = Effort(rounds=1, cases=(("everysec", 64), ("always", 64)), seconds=0.6, exact_s=1.0)


@dataclass(slots=True)
class Decisions:
    """Runs limiters on the stores, which differ in their append-only file."""

    processes: Processes
    folder: Path
    stores: Mapping[str, Store]
    turn: int = 0

    def case(self, limiter: Limiter, store: Store, *, in_flight: int, seconds: float) -> Case:
        """A case whose limit is never reached, on an empty store."""
        self.turn += 1
        store.flush()
        return Case(
            redis_url=store.url,
            variant=limiter.variant,
            key=f"bench-{self.turn}",
            rate=UNREACHED,
            burst=UNREACHED,
            in_flight=in_flight,
            seconds=seconds,
        )

    def measure(self, limiter: Limiter, fsync: str, in_flight: int, seconds: float) -> dict[str, Any]:
        """
        Decisions per second, p50 and p99 in milliseconds.

        Raises:
            SubjectError: It failed, or refused below its limit.
        """
        case = self.case(limiter, self.stores[fsync], in_flight=in_flight, seconds=seconds)
        output = self.processes.run(
            limiter.name,
            [*limiter.argv, json.dumps(asdict(case))],
            log=self.folder / f"{limiter.name}.log",
            timeout_s=seconds + 30,
            env={"PYTHONPATH": str(HERE.parent)},
        )
        seen = parse(limiter, output)
        if seen["admitted"] != seen["decisions"]:
            raise SubjectError(
                f"{limiter.name} refused {seen['decisions'] - seen['admitted']} below its limit"
            )
        return {name: seen[name] for name in ("per_second", "p50_ms", "p99_ms")}

    def measure_exactness(self, limiter: Limiter, seconds: float) -> dict[str, Any]:
        """Four processes at one limit; see the module's head."""
        base = asdict(self.case(limiter, self.stores["everysec"], in_flight=EXACT_IN_FLIGHT, seconds=seconds))
        order = base | {"rate": EXACT_RATE, "burst": EXACT_BURST, "start_at": time.time() + START_S}
        running = [
            self.processes.start(
                f"{limiter.name} {number}",
                [*limiter.argv, json.dumps(order)],
                log=self.folder / f"{limiter.name}.log",
                env={"PYTHONPATH": str(HERE.parent)},
                output=subprocess.PIPE,
            )
            for number in range(EXACT_PROCESSES)
        ]
        seen = [parse(limiter, self.processes.finish(process, timeout_s=seconds + 30)) for process in running]
        return judge(limiter, seen)


def parse(limiter: Limiter, output: str) -> dict[str, Any]:
    """
    Raises:
        SubjectError: The program ended well, and printed no result.
    """
    try:
        seen: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise SubjectError(f"{limiter.name} printed no result but {output[:200]!r}") from error
    return seen


def judge(limiter: Limiter, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """What the processes admitted together, against what they might."""
    moments = sorted(moment for process in seen for moment in process["admitted_at"])
    elapsed = max(process["last"] for process in seen) - min(process["first"] for process in seen)
    allowed = math.ceil(EXACT_RATE * elapsed) + (EXACT_BURST if limiter.has_burst else EXACT_RATE)
    busiest = max(
        (bisect_left(moments, start + 1.0) - index for index, start in enumerate(moments)), default=0
    )
    return {
        "asked": sum(process["decisions"] for process in seen),
        "admitted": len(moments),
        "allowed": allowed,
        "over": max(0, len(moments) - allowed),
        "seconds": elapsed,
        "busiest_second": busiest,
    }


def measure_decisions(decisions: Decisions, effort: Effort, failed: Mapping[str, str]) -> dict[str, Any]:
    """
    Returns:
        `subjects`: per name title, `cases` ("everysec/64" -> rounds and median) and `exactness`, or `left_out`.
    """
    left_out = {x.name: failed[x.needs] for x in LIMITERS if x.needs is not None and x.needs in failed}
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {limiter.name: {} for limiter in LIMITERS}
    exactness = {}
    for number in range(effort.rounds):
        for limiter in LIMITERS:
            if limiter.name in left_out:
                continue
            print(f"bench: decision, round {number + 1} of {effort.rounds}: {limiter.name}", file=sys.stderr)
            try:
                for fsync, in_flight in effort.cases:
                    seen = decisions.measure(limiter, fsync, in_flight, effort.seconds)
                    rounds[limiter.name].setdefault(f"{fsync}/{in_flight}", []).append(seen)
                if number == 0:
                    exactness[limiter.name] = decisions.measure_exactness(limiter, effort.exact_s)
            except SubjectError as error:
                print(f"!!! bench: {limiter.name} is not measured: {error}", file=sys.stderr)
                left_out[limiter.name] = str(error)
    subjects: dict[str, Any] = {}
    for limiter in LIMITERS:
        if limiter.name in left_out:
            subjects[limiter.name] = {"title": limiter.title, "left_out": left_out[limiter.name]}
            continue
        subjects[limiter.name] = {
            "title": limiter.title,
            "cases": {
                case: {"rounds": seen, "median": {n: statistics.median(r[n] for r in seen) for n in seen[0]}}
                for case, seen in rounds[limiter.name].items()
            },
            "exactness": exactness[limiter.name],
        }
    return {"effort": asdict(effort), "fsync": "by column", "subjects": subjects}
