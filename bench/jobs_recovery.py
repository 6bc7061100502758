"""
Part 4: what a dead replica costs.

32 jobs are put in at a gateway whose downstream gives no answer; it runs them, but for one or two that a second gateway may have
taken. It is killed (SIGKILL). Each gateway has a downstream of its own, so that it is seen who sent what. Measured: seconds from the kill
until the second has sent all that the first held, how many these were, and how many calls were made twice without need.
"""

import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.jobs_http import call_headers, post, start_job_gateway
from bench.load import OPERATION_PATH
from bench.processes import Processes, SubjectError
from bench.store import Store
from bench.subjects.job_downstream import job_downstream
from bench.subjects.job_gateway import job_body

JOBS = 32
TIMEOUT_S = 60.0
POLL_S = 0.05
SETTLE_S = 2.0  # for repetitions that nobody needs


@dataclass(slots=True)
class Recovery:
    """Kills gateways on a store."""

    processes: Processes
    folder: Path
    stores: Mapping[str, Store]
    turn: int = 0

    async def measure(self, fsync: str) -> dict[str, float]:
        """
        One kill; see the module's head.

        Raises:
            SubjectError: A gateway did not start, or not all of the jobs ended.
        """
        store = self.stores[fsync]
        store.flush()
        self.turn += 1
        async with job_downstream() as of_first, job_downstream() as of_second:
            first, second = (
                start_job_gateway(
                    self.processes,
                    self.folder / f"recovery-{self.turn:02}-{name}",
                    store,
                    downstream.port,
                    name=name,
                )
                for name, downstream in (("first", of_first), ("second", of_second))
            )
            try:
                for number in range(JOBS):
                    await put(first.port, number)
                async with asyncio.timeout(TIMEOUT_S):
                    while len(of_first.starts) + len(of_second.starts) < JOBS:
                        await asyncio.sleep(POLL_S)
                    os.killpg(first.process.handle.pid, signal.SIGKILL)
                    killed = time.time()
                    of_second.may_end.set()
                    while (await asyncio.to_thread(second.queue))["ledger"]["succeeded"] < JOBS:
                        await asyncio.sleep(POLL_S)
                await asyncio.sleep(SETTLE_S)
            except TimeoutError as error:
                raise SubjectError(f"not all of {JOBS} jobs ended in {TIMEOUT_S:.0f} s") from error
            finally:
                self.processes.stop(first.process)
                self.processes.stop(second.process)
        held = of_first.starts.keys()
        return {
            "all_again_s": max(of_second.starts[number][0] for number in held) - killed,
            "held": len(held),
            "other_duplicates": sum(len(seen) - 1 for seen in of_second.starts.values()),
        }


async def put(port: int, number: int) -> None:
    """One job, without waiting for it."""
    body = job_body(number, time.time())
    await asyncio.to_thread(post, port, OPERATION_PATH, body, 202, call_headers(number))


def measure_recovery(recovery: Recovery, *, rounds: int, fsync: str) -> dict[str, Any]:
    """
    Returns:
        Rounds and their median; or `left_out`.
    """
    seen = []
    try:
        for number in range(rounds):
            print(f"bench: recovery, round {number + 1} of {rounds}", file=sys.stderr)
            seen.append(asyncio.run(recovery.measure(fsync)))
    except SubjectError as error:
        print(f"!!! bench: recovery is not measured: {error}", file=sys.stderr)
        return {"left_out": str(error)}
    return {
        "rounds": seen,
        "median": {name: statistics.median(one[name] for one in seen) for name in seen[0]},
    }
