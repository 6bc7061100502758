"""
Parts 3 and 4, continued: what a queue with turns must show, and what has no counterpart among the peers.

- Depth: a step costs with a million jobs waiting what it costs with a thousand; see `subjects/jobs_depth.py`.
- Fairness: a tenant with thousands of jobs does not make the others wait; see `subjects/jobs_fairness.py`.

In process; a round is a process of its own.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.install import HERE
from bench.job_queues import CONCURRENCY
from bench.processes import Processes, SubjectError
from bench.store import Store, start_store
from bench.store_cost import forbid_rewrites
from bench.subjects.jobs_depth import DepthOrder
from bench.subjects.jobs_fairness import FairnessOrder

FEW_JOBS = 1_000
HEAVY_JOBS = 5_000
SERVICE_MS = 50.0
DEPTH_S, FAIRNESS_S = 600.0, 120.0  # for all of it, loading included


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsEffort:
    """
    How much is measured.

    Attributes:
        many_jobs: Waiting, against a thousand.
        steps: Of each kind, at each depth and round.
    """

    rounds: int
    many_jobs: int
    steps: int = 100


FULL = ClaimsEffort(rounds=5, many_jobs=1_000_000)
QUICK = ClaimsEffort(rounds=2, many_jobs=20_000)


@dataclass(slots=True)
class Claims:
    """
    Attributes:
        store: Of the fairness measurement.
    """

    processes: Processes
    folder: Path
    store: Store

    def measure_depth(self, effort: ClaimsEffort) -> dict[str, Any]:
        """
        Returns:
            `depths`, and for each step and depth its p50 in the process and its mean in the store; or `left_out`.
        """
        print(f"bench: {effort.many_jobs:,} jobs waiting", file=sys.stderr)
        stores = [
            start_store(self.processes, self.folder / f"depth-{name}", fsync="everysec")
            for name in ("few", "many")
        ]
        try:
            for store in stores:
                forbid_rewrites(store)
            order = DepthOrder(
                redis_urls=[store.url for store in stores],
                depths=[FEW_JOBS, effort.many_jobs],
                rounds=effort.rounds,
                steps=effort.steps,
            )
            seen: dict[str, Any] = self._run("jobs_depth", [json.dumps(asdict(order))], DEPTH_S)
        except SubjectError as error:
            print(f"!!! bench: depth is not measured: {error}", file=sys.stderr)
            return {"left_out": str(error)}
        finally:
            for store in stores:
                self.processes.stop(store.process)
        return seen

    def measure_fairness(self, effort: ClaimsEffort) -> dict[str, Any]:
        """
        Returns:
            Per case (`alone`, `beside`) its rounds and median; or `left_out`.
        """
        order = FairnessOrder(
            redis_url=self.store.url,
            heavy_jobs=HEAVY_JOBS,
            service_ms=SERVICE_MS,
            concurrency=CONCURRENCY,
        )
        rounds: dict[str, list[dict[str, float]]] = {"alone": [], "beside": []}
        try:
            for number in range(effort.rounds):
                print(f"bench: fairness, round {number + 1} of {effort.rounds}", file=sys.stderr)
                for case, seen in rounds.items():
                    self.store.flush()
                    seen.append(self._run("jobs_fairness", [json.dumps(asdict(order)), case], FAIRNESS_S))
        except SubjectError as error:
            print(f"!!! bench: fairness is not measured: {error}", file=sys.stderr)
            return {"left_out": str(error)}
        return {
            "heavy_jobs": HEAVY_JOBS,
            "service_ms": SERVICE_MS,
            "cases": {
                case: {"rounds": seen, "median": {n: statistics.median(r[n] for r in seen) for n in seen[0]}}
                for case, seen in rounds.items()
            },
        }

    def _run(self, program: str, arguments: Sequence[str], timeout_s: float) -> Any:
        output = self.processes.run(
            program,
            [sys.executable, "-m", f"bench.subjects.{program}", *arguments],
            log=self.folder / f"{program}.log",
            timeout_s=timeout_s,
            env={"PYTHONPATH": str(HERE.parent)},
        )
        return json.loads(output)
