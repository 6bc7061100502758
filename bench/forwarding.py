"""
Part 1: forwarding a call. What does each way of building this gateway do, on this machine?

For each subject in turn, in each round:

1. Limits that are never reached. wrk as fast as it goes: forwarded per second. The downstream's own counter must agree.
2. Half of that, at a constant rate: p50 and p99, and the same straight to the downstream; the difference is
   what the subject adds. No more than `PACED_MAX` calls a second, which is what the generator can pace.
3. Limits at half of what was measured in 1: forwarded and refused per second.

How to read the third: the load does not slow down when it is refused, so a subject that refuses quickly is asked more
often, and more than half is refused. `refusing_per_second` is what the subject would do if it only refused: its refusals
divided by the share of its time that forwarding left over. With a subject as fast as wrk itself it is a lower bound.
"""

import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load import CONNECTIONS, Load, count_downstream, probe
from bench.processes import Process, Processes, SubjectError, free_port, wait_for_port
from bench.store import Store
from bench.subjects.gateways import (
    DIRECT_PATH,
    GATEWAYS,
    UNREACHED,
    Gateway,
    Place,
    downstream_command,
    start,
    why_left_out,
)

PACED_MAX = 3_000.0
BURST_SHARE = 0.1  # of a second's calls, where the subject knows a burst


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """
    How long it is measured.

    Attributes:
        load_s: Of wrk, per subject and case; whole seconds.
        paced_s: Of the constant rate.
    """

    rounds: int
    load_s: int
    paced_s: float
    warm_up_s: int = 1


@dataclass(slots=True)
class Stage:
    """All that stands around a subject."""

    processes: Processes
    folder: Path
    store: Store
    load: Load
    downstream: int
    turn: int = 0

    def place(self, name: str, *, rate: int = UNREACHED, burst: int = UNREACHED) -> Place:
        """A fresh folder and port, and an empty store."""
        self.turn += 1
        folder = self.folder / f"{self.turn:03}-{name}"
        folder.mkdir()
        # nginx' worker gives up root, and must still reach its folders.
        folder.chmod(0o755)
        self.store.flush()
        return Place(
            folder=folder,
            port=free_port(),
            downstream=self.downstream,
            store=self.store.port,
            rate=rate,
            burst=burst,
        )


def build_stage(processes: Processes, folder: Path, store: Store) -> Stage:
    """Starts the downstream."""
    home = folder / "downstream"
    home.mkdir()
    port = free_port()
    place = Place(folder=home, port=port, downstream=0, store=0)
    process = processes.start("downstream", downstream_command(place).argv, log=home / "downstream.log")
    wait_for_port(process, port)
    return Stage(
        processes=processes, folder=folder, store=store, load=Load(processes, folder), downstream=port
    )


def measure_forwarding(
    stage: Stage, effort: Effort, missing: set[str], failed: Mapping[str, str]
) -> dict[str, Any]:
    """
    Returns:
        `effort`; `subjects`: per name title, `rounds` and their `median`, or `left_out` with the reason;
        `direct`: what wrk gets straight from the downstream, the ceiling of this machine.
    """
    left_out = {g.name: why for g in GATEWAYS if (why := why_left_out(g, missing, failed)) is not None}
    rounds: dict[str, list[dict[str, Any]]] = {g.name: [] for g in GATEWAYS}
    direct = []
    for number in range(effort.rounds):
        direct.append(stage.load.blast(stage.downstream, DIRECT_PATH, seconds=effort.load_s).forwarded)
        for gateway in GATEWAYS:
            if gateway.name in left_out:
                continue
            print(
                f"bench: forwarding, round {number + 1} of {effort.rounds}: {gateway.name}", file=sys.stderr
            )
            try:
                rounds[gateway.name].append(measure_gateway(stage, gateway, effort))
            except SubjectError as error:
                print(f"!!! bench: {gateway.name} is not measured: {error}", file=sys.stderr)
                left_out[gateway.name] = str(error)
    subjects: dict[str, dict[str, Any]] = {}
    for gateway in GATEWAYS:
        if gateway.name in left_out:
            subjects[gateway.name] = {"title": gateway.title, "left_out": left_out[gateway.name]}
        else:
            seen = rounds[gateway.name]
            subjects[gateway.name] = {"title": gateway.title, "rounds": seen, "median": medians(seen)}
    return {
        "effort": asdict(effort),
        "paced_max": PACED_MAX,
        "fsync": stage.store.fsync,
        "direct_per_second": statistics.median(direct),
        "subjects": subjects,
    }


def measure_gateway(stage: Stage, gateway: Gateway, effort: Effort) -> dict[str, Any]:
    """One round of one subject: the three cases of the module's head."""
    result = measure_unlimited(stage, gateway, effort)
    if gateway.has_limits:
        result |= measure_half_refused(stage, gateway, effort, result["forwarded_per_second"])
    return result


def measure_unlimited(stage: Stage, gateway: Gateway, effort: Effort) -> dict[str, Any]:
    """Cases 1 and 2, on one process."""
    place = stage.place(gateway.name)
    process = start(stage.processes, gateway.name, gateway.command(place), place)
    try:
        result = measure_full_load(stage, process, place, gateway.path, effort)
        rate = min(PACED_MAX, result["forwarded_per_second"] / 2)
        through = stage.load.pace(place.port, gateway.path, per_second=rate, seconds=effort.paced_s)
        past = stage.load.pace(stage.downstream, DIRECT_PATH, per_second=rate, seconds=effort.paced_s)
    finally:
        stage.processes.stop(process)
    return result | {
        "paced_per_second": rate,
        "added_p50_ms": through["p50_ms"] - past["p50_ms"],
        "added_p99_ms": through["p99_ms"] - past["p99_ms"],
        "through_p99_ms": through["p99_ms"],
        "direct_p99_ms": past["p99_ms"],
    }


def measure_full_load(
    stage: Stage, process: Process, place: Place, path: str, effort: Effort
) -> dict[str, Any]:
    """
    Case 1: as fast as it goes.

    Raises:
        SubjectError: It refused something, or the downstream counted other calls than the load did.
    """
    probe(place.port, path)
    rss_before = process.rss_kib()
    stage.load.blast(place.port, path, seconds=effort.warm_up_s)
    before, cpu_s = count_downstream(stage.downstream), process.cpu_s()
    seen = stage.load.blast(place.port, path, seconds=effort.load_s)
    cpu_s = process.cpu_s() - cpu_s
    reached = count_downstream(stage.downstream) - before - 1
    # wrk does not count what was under way at its end: at most one call on each connection, here and in the
    # warm-up, whose last calls may arrive after `before`.
    if seen.refused or not 0 <= reached - seen.calls <= 2 * CONNECTIONS:
        raise SubjectError(
            f"{seen.calls} calls answered, {reached} reached the downstream, {seen.refused:.0f}/s refused"
        )
    return {
        "forwarded_per_second": seen.forwarded,
        "cpu_us_per_call": cpu_s * 1e6 / max(1, seen.calls),
        "full_load_p50_ms": seen.p50_ms,
        "full_load_p99_ms": seen.p99_ms,
        "rss_before_kib": rss_before,
        "rss_after_kib": process.rss_kib(),
    }


def measure_half_refused(stage: Stage, gateway: Gateway, effort: Effort, unlimited: float) -> dict[str, Any]:
    """Case 3: the limit at half of what it can do."""
    rate = max(1, int(unlimited / 2))
    place = stage.place(gateway.name, rate=rate, burst=max(1, int(rate * BURST_SHARE)))
    process = start(stage.processes, gateway.name, gateway.command(place), place)
    try:
        stage.load.blast(place.port, gateway.path, seconds=effort.warm_up_s)
        seen = stage.load.blast(place.port, gateway.path, seconds=effort.load_s)
        statuses = stage.load.statuses(place.port, gateway.path, seconds=1)
    finally:
        stage.processes.stop(process)
    return {
        "half_limit_per_second": rate,
        "half_forwarded_per_second": seen.forwarded,
        "half_refused_per_second": seen.refused,
        "half_statuses": statuses,
        "refusing_per_second": refusing_alone(
            forwarded=seen.forwarded, refused=seen.refused, unlimited=unlimited
        ),
    }


def refusing_alone(*, forwarded: float, refused: float, unlimited: float) -> float | None:
    """
    Refusals per second of the time that was not spent on forwarding; see the module's head.

    Returns:
        None when forwarding took all of the time, so that nothing can be said.
    """
    left = 1 - forwarded / unlimited
    return refused / left if left > 0.05 else None


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the rounds; what is not a figure is left in the rounds."""
    result = {}
    for name in rounds[0]:
        values = [seen[name] for seen in rounds if isinstance(seen[name], int | float)]
        if values:
            result[name] = statistics.median(values)
    return result
