"""
Part 1, continued: what does each feature of Breaker cost?

The same load as in `forwarding.py`, full speed, limits never reached; the configuration differs by one thing at a
time. Read it against "all features": a variant that is 1.10 x as fast says that the feature takes a tenth of a call's
time. Differences below the spread of the rounds (given beside each) are noise.

And what do its signals cost? Metrics, log lines and traces, each on and off: smaller differences, which need more rounds,
compared pair by pair (`measure_signals`), and each listener by itself (`listeners.py`).
"""

import json
import os
import signal
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.forwarding import Effort, Stage, measure_full_load
from bench.load import OPERATION_PATH, probe
from bench.processes import Process, SubjectError
from bench.subjects.breaker_gateway import ALL_FEATURES, Features, write_config
from bench.subjects.gateways import Place, breaker_ports, downstream_command, serve, start

VARIANTS = {
    "all features, 1 % logged": ALL_FEATURES,
    "log line for every call": Features(log_sample=1.0),
    "no log lines": Features(log_sample=0.0),
    "without caller keys": Features(keys=False),
    "without contract": Features(contract=False),
    "without tenant limits": Features(tenant_limits=False),
    "without any limit (no store)": Features(limits=False, tenant_limits=False),
    "none of them": Features(keys=False, contract=False, limits=False, tenant_limits=False, log_sample=0.0),
}


def measure_features(stage: Stage, effort: Effort) -> dict[str, Any]:
    """
    Returns:
        Per variant its rounds and median of forwarded per second; or `left_out` with the reason.
    """
    rounds: dict[str, list[float]] = {title: [] for title in VARIANTS}
    try:
        for number in range(effort.rounds):
            print(f"bench: features, round {number + 1} of {effort.rounds}", file=sys.stderr)
            for title, features in VARIANTS.items():
                seen = measure_load(stage, features, effort)
                rounds[title].append(seen["forwarded_per_second"])
    except SubjectError as error:
        print(f"!!! bench: features are not measured: {error}", file=sys.stderr)
        return {"effort": asdict(effort), "fsync": stage.store.fsync, "left_out": str(error)}
    return {
        "effort": asdict(effort),
        "fsync": stage.store.fsync,
        "variants": {
            title: {"rounds": values, "median": statistics.median(values)} for title, values in rounds.items()
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """
    A signal that is switched.

    Attributes:
        title: In the table.
        without, with_: The two gateways that differ by it alone.
        alone: Its name in `listeners.py`, and the share of calls that it hears of.
        most: The bound on its cost, a share of throughput; None promises nothing.
    """

    title: str
    without: str
    with_: str
    alone: tuple[str, float]
    most: float | None = None


# The first is silent but for its metrics; one thing more, or less, in each of the others. The two of `SWITCHES` are one process.
SIGNAL_VARIANTS = {
    "metrics": Features(log_sample=0.0),
    "no metrics": Features(log_sample=0.0, metrics=False),
    "metrics again": Features(log_sample=0.0, metrics=False),
    "log line": Features(log_sample=1.0),
    "traces 1.0": Features(log_sample=0.0, traces=1.0),
    "traces 0.1": Features(log_sample=0.0, traces=0.1),
    "traces 0": Features(log_sample=0.0, traces=0.0),
}
SWITCHES = {"no metrics": signal.SIGUSR2, "metrics again": signal.SIGUSR1}
SIGNALS = (
    Signal(title="metrics", without="no metrics", with_="metrics again", alone=("metrics", 1.0), most=0.08),
    Signal(title="one log line per call", without="metrics", with_="log line", alone=("log", 1.0)),
    Signal(title="traces, every call", without="metrics", with_="traces 1.0", alone=("traces", 1.0)),
    Signal(title="traces, every tenth call", without="metrics", with_="traces 0.1", alone=("traces", 0.1)),
    Signal(title="traces on, no call sampled", without="metrics", with_="traces 0", alone=("traces", 0.0)),
)


def measure_signals(stage: Stage, effort: Effort) -> dict[str, Any]:
    """
    Metrics, log lines and traces, each on and off.

    All gateways are up at the same time, each a cluster of its own, and take turns of a second or two; each round
    begins with another one. Only figures of the same round are compared: what else the machine does then hits both.

    Returns:
        `variants`: rounds of each; `signals`: per signal the cost of each round as a share of throughput and of
        processor time, and their medians; or `left_out` with the reason.
    """
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in SIGNAL_VARIANTS}
    names = list(SIGNAL_VARIANTS)
    started: list[Process] = []
    try:
        receiver = start_receiver(stage)
        alone = json.loads(
            stage.processes.run(
                "listeners", [sys.executable, "-m", "bench.listeners", f"http://127.0.0.1:{receiver}/v1/traces"],
                log=stage.folder / "listeners.log", timeout_s=120,
            )
        )  # fmt: skip
        places = {
            name: stage.place("breaker-signals") for name in names
        }  # each flushes the store: all of them first
        gateways = {}
        places["metrics again"] = places["no metrics"]
        for name, place in places.items():
            if name == "metrics again":
                gateways[name] = gateways["no metrics"]
                continue
            features = SIGNAL_VARIANTS[name]
            gateways[name] = start_variant(
                stage, features, place, receiver=receiver, cluster=f"c{place.port}"
            )
            started.append(gateways[name])
            probe(place.port, OPERATION_PATH)
            stage.load.blast(place.port, OPERATION_PATH, seconds=effort.warm_up_s)
        for number in range(effort.rounds):
            print(f"bench: signals, round {number + 1} of {effort.rounds}", file=sys.stderr)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                if name in SWITCHES:
                    os.kill(gateways[name].handle.pid, SWITCHES[name])
                rounds[name].append(take_turn(stage, gateways[name], places[name].port, effort))
    except SubjectError as error:
        print(f"!!! bench: signals are not measured: {error}", file=sys.stderr)
        return {"effort": asdict(effort), "fsync": stage.store.fsync, "left_out": str(error)}
    finally:
        for process in started:
            stage.processes.stop(process)
    return {
        "effort": asdict(effort),
        "fsync": stage.store.fsync,
        "variants": rounds,
        "signals": {one.title: cost_of(one, rounds, alone) for one in SIGNALS},
    }


def take_turn(stage: Stage, process: Process, port: int, effort: Effort) -> dict[str, Any]:
    """
    One gateway at full load while the others are idle.

    Raises:
        SubjectError: It refused something.
    """
    cpu_s = process.cpu_s()
    seen = stage.load.blast(port, OPERATION_PATH, seconds=effort.load_s)
    if seen.refused:
        raise SubjectError(f"{seen.refused:.0f}/s refused")
    return {
        "forwarded_per_second": seen.forwarded,
        "cpu_us_per_call": (process.cpu_s() - cpu_s) * 1e6 / max(1, seen.calls),
    }


def cost_of(
    kind: Signal, rounds: Mapping[str, list[dict[str, Any]]], alone: Mapping[str, float]
) -> dict[str, Any]:
    """What it costs, by the rounds of both of its gateways."""
    pairs = list(zip(rounds[kind.without], rounds[kind.with_], strict=True))
    shares = [1 - on["forwarded_per_second"] / off["forwarded_per_second"] for off, on in pairs]
    cpu_us = [on["cpu_us_per_call"] - off["cpu_us_per_call"] for off, on in pairs]
    name, share = kind.alone
    return {
        "most": kind.most,
        "off": statistics.median(off["forwarded_per_second"] for off, _ in pairs),
        "on": statistics.median(on["forwarded_per_second"] for _, on in pairs),
        "share": statistics.median(shares),
        "shares": shares,
        "cpu_us": statistics.median(cpu_us),
        "cpu_us_rounds": cpu_us,
        "cpu_us_off": statistics.median(off["cpu_us_per_call"] for off, _ in pairs),
        "alone_us": alone[name] * share,
    }


def start_receiver(stage: Stage) -> int:
    """An nginx that takes spans and forgets them; its port. Not the downstream, whose requests are counted."""
    place = stage.place("receiver")
    start(stage.processes, "receiver", downstream_command(place), place)
    return place.port


def measure_load(stage: Stage, features: Features, effort: Effort) -> dict[str, Any]:
    """What a gateway with these features does at full load."""
    place = stage.place("breaker-variant")
    process = start_variant(stage, features, place)
    try:
        return measure_full_load(stage, process, place, OPERATION_PATH, effort)
    finally:
        stage.processes.stop(process)


def start_variant(
    stage: Stage, features: Features, place: Place, *, receiver: int = 0, cluster: str = "bench"
) -> Process:
    write_config(place.folder, features, receiver=receiver, cluster=cluster, **breaker_ports(place))
    program = "breaker" if features.metrics else "bench.subjects.breaker_without_metrics"
    return start(stage.processes, "breaker", serve(place.folder, program=program), place)
