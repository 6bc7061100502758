"""
Part 1, continued: what does each feature of Breaker cost?

The same load as in `forwarding.py`, full speed, limits never reached; the configuration differs by one thing at a
time. Read it against "all features": a variant that is 1.10 x as fast says that the feature takes a tenth of a call's
time. Differences below the spread of the rounds (given beside each) are noise.
"""

import statistics
import sys
from dataclasses import asdict
from typing import Any

from bench.forwarding import Effort, Stage, measure_full_load
from bench.load import OPERATION_PATH
from bench.processes import SubjectError
from bench.subjects.breaker_gateway import ALL_FEATURES, Features, write_config
from bench.subjects.gateways import breaker_ports, serve, start

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
                rounds[title].append(measure_variant(stage, features, effort))
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


def measure_variant(stage: Stage, features: Features, effort: Effort) -> float:
    """Forwarded per second with these features."""
    place = stage.place("breaker-variant")
    write_config(place.folder, features, **breaker_ports(place))
    process = start(stage.processes, "breaker", serve(place.folder), place)
    try:
        result = measure_full_load(stage, process, place, OPERATION_PATH, effort)
    finally:
        stage.processes.stop(process)
    forwarded: float = result["forwarded_per_second"]
    return forwarded
