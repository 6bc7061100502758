"""
Report: the results as one JSON file a day, and as the tables of docs/benchmarks.md.

The JSON has everything: machine, versions, mode of the append-only file, all rounds and their medians. Each part carries
its own machine and moment, because parts can be measured apart. The tables show medians, and our ratio to each peer.
"""

import datetime as dt
import json
import statistics
from pathlib import Path
from typing import Any

from bench.jobs_report import jobs_section
from bench.tables import count, first_line, machine_line, not_measured, table

PARTS = ("forwarding", "features", "signals", "decision", "jobs")
MIN_FOR_QUARTILES = 4  # rounds
BUSY_SHARE = 0.4  # of the cores; an idle machine is far below

HEAD = """\
# Benchmarks

Made by `make bench` from `bench/results/{file}`; do not edit. The JSON has every round, all versions and the
machine. How each figure is taken stands at the head of `bench/forwarding.py`, `bench/features.py`, `bench/decision.py` and
`bench/jobs.py`; what the peers run stands in `bench/peers/` and `bench/job_peers/`.

Read the ratios. Load generator, subject, store and downstream share the cores of one machine, so the
absolute figures are low and noisy, for all subjects alike.
"""

FORWARDING = """
## Forwarding a call

POST with a 150-byte JSON body, {connections} connections, each subject one process in turn, {rounds} round(s) of {load_s} s,
median; downstream: nginx answering at once. {machine}

- **forwarded/s**: limits never reached, load as fast as it goes. *ours ÷ it*: how many times as fast Breaker is.
- **added ms**: what the subject adds to a call at half of that load (at most {paced_max:.0f}/s, constant rate, open loop), over
  a call straight to the downstream at the same rate.
- **half**: the limit at half of the load: what is then forwarded and refused per second. The load goes faster where
  refusals are quick. *refusing/s*: what the subject would do if it only refused; a lower bound where the load generator was the limit.
- **MiB**: resident memory of all its processes, before and after the load.

The features differ, and the table does not even that out: Breaker checks caller keys, a JSON Schema, rate, concurrency and
tenant limits on every call, and writes metrics and 1 % of the log lines; the peers hold one rate limit each (aiohttp none). nginx'
`limit_req` shares nothing between hosts. @fastify/rate-limit and slowapi count in fixed windows of one second.
"""

DECISION = """
## The decision

In process, store on loopback, one limit shared through it and never reached; {rounds} round(s) of {seconds} s, median. {machine}

Each cell: decisions per second (p50 / p99 ms), by the append-only file's mode and the decisions in flight.
Workers ask again as soon as they are answered, so at 512 in flight the latency is 512 divided by the rate.
"""

EXACTNESS = """
### Exactness

4 processes, 16 in flight each, one limit of 2,000/s (burst 200), asked for far more. *allowed* is `rate * t + burst`, or
`rate * t` and one window for a limiter of windows. *over* is what was admitted beyond that. *busiest second* is what a
downstream of 2,000/s would have felt.
"""

FEATURES = """
## What a feature costs

Breaker alone, limits never reached, full load, one thing switched at a time; {rounds} round(s), median and the spread of
the rounds. Metrics are on in every figure. {machine}
"""

SIGNALS = """
## What signals cost

Breaker with all features, limits never reached, full load. Gateways that differ by one signal run side by side and take turns,
{rounds} rounds of {load_s} s; both sides of a round are compared with one another only, and the cost is the median over the rounds. {machine}

- **cost**: of throughput, with the middle half of the rounds. *Floor*: what must hold.
- **CPU**: processor time of a call that the signal adds, of the gateway with all its threads, and in per cent of a call's.
- **alone**: the same without traffic, in process (`bench/listeners.py`): what the listener itself takes.

Metrics cannot be switched off; their other side is the same process while no event reaches them. Spans go to an nginx that forgets
them. *No call sampled*: tracing is on, and each call is asked whether it is traced.
"""


def save(folder: Path, parts: dict[str, Any], *, quick: bool) -> Path:
    """Writes the day's file; parts that were measured earlier that day and not now are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    path = folder / (f"{today}-quick.json" if quick else f"{today}.json")
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | parts, indent=2) + "\n")
    return path


def newest(folder: Path) -> Path | None:
    """The latest file of a full run, else of a quick one."""
    files = sorted(folder.glob("*.json"), key=lambda path: (not path.stem.endswith("-quick"), path.stem))
    return files[-1] if files else None


def render(path: Path) -> str:
    """docs/benchmarks.md, from a result."""
    result = json.loads(path.read_text())
    text = HEAD.format(file=path.name)
    if any(result[part]["quick"] for part in PARTS if part in result):
        text += "\n**From a quick run: one short round. Good for seeing that it works, not for quoting.**\n"
    if any(is_busy(result[part]["machine"]) for part in PARTS if part in result):
        text += "\n**The machine was busy with other work before the run: not for quoting.**\n"
    if "forwarding" in result:
        text += forwarding_section(result["forwarding"])
    if "features" in result:
        text += features_section(result["features"])
    if "signals" in result:
        text += signals_section(result["signals"])
    if "decision" in result:
        text += decision_section(result["decision"])
    if "jobs" in result:
        text += jobs_section(result["jobs"])
    return text


def is_busy(machine: dict[str, Any]) -> bool:
    """Whether somebody else's work is in the figures."""
    return bool(machine["load_before"] > BUSY_SHARE * machine["cores"])


def forwarding_section(part: dict[str, Any]) -> str:
    text = FORWARDING.format(
        connections=part["connections"],
        rounds=part["effort"]["rounds"],
        load_s=part["effort"]["load_s"],
        paced_max=part["paced_max"],
        machine=machine_line(part),
    )
    ours = part["subjects"]["breaker"].get("median", {}).get("forwarded_per_second")
    rows = []
    for subject in part["subjects"].values():
        if "left_out" in subject:
            rows.append(not_measured(subject, columns=8))
            continue
        m = subject["median"]
        half = "half_forwarded_per_second" in m
        rows.append(
            [
                subject["title"],
                count(m["forwarded_per_second"]),
                f"{ours / m['forwarded_per_second']:.2f}" if ours else "-",
                f"{m['added_p50_ms']:.2f}",
                f"{m['added_p99_ms']:.2f}",
                f"{count(m['half_forwarded_per_second'])} + {count(m['half_refused_per_second'])}"
                if half
                else "-",
                count(m["refusing_per_second"]) if "refusing_per_second" in m else "-",
                f"{m['rss_before_kib'] / 1024:.0f} → {m['rss_after_kib'] / 1024:.0f}",
            ]
        )
    head = [
        "subject",
        "forwarded/s",
        "ours ÷ it",
        "added p50 ms",
        "added p99 ms",
        "half: forwarded + refused /s",
        "refusing/s",
        "MiB",
    ]
    direct = f"\nStraight to the downstream, without any gateway: {count(part['direct_per_second'])}/s.\n"
    return text + "\n" + table(head, rows) + direct


def features_section(part: dict[str, Any]) -> str:
    text = FEATURES.format(rounds=part["effort"]["rounds"], machine=machine_line(part))
    if "left_out" in part:
        return text + f"\nNot measured: {first_line(part['left_out'])}\n"
    base = next(iter(part["variants"].values()))["median"]
    rows = [
        [
            title,
            count(v["median"]),
            f"{v['median'] / base:.2f}",
            f"{count(min(v['rounds']))} - {count(max(v['rounds']))}",
        ]
        for title, v in part["variants"].items()
    ]
    return text + "\n" + table(["variant", "forwarded/s", "÷ all features", "rounds"], rows)


def signals_section(part: dict[str, Any]) -> str:
    effort = part["effort"]
    text = SIGNALS.format(rounds=effort["rounds"], load_s=effort["load_s"], machine=machine_line(part))
    if "left_out" in part:
        return text + f"\nNot measured: {first_line(part['left_out'])}\n"
    rows = [
        [
            title,
            count(s["off"]),
            count(s["on"]),
            f"{s['share']:.1%} ({' to '.join(f'{share:.1%}' for share in middle_half(s['shares']))})",
            f"at most {s['most']:.0%}" if s["most"] else "-",
            f"{s['cpu_us']:+.1f} µs ({s['cpu_us'] / s['cpu_us_off']:+.1%})",
            f"{s['alone_us']:.1f} µs",
        ]
        for title, s in part["signals"].items()
    ]
    head = ["signal", "off: forwarded/s", "on: forwarded/s", "cost", "floor", "CPU", "alone"]
    return text + "\n" + table(head, rows)


def middle_half(values: list[float]) -> tuple[float, float]:
    """The first and the third quartile; of a single round that round."""
    if len(values) < MIN_FOR_QUARTILES:
        return min(values), max(values)
    first, _, third = statistics.quantiles(values, n=4)
    return first, third


def decision_section(part: dict[str, Any]) -> str:
    text = DECISION.format(
        rounds=part["effort"]["rounds"], seconds=part["effort"]["seconds"], machine=machine_line(part)
    )
    cases = [f"{fsync}/{in_flight}" for fsync, in_flight in part["effort"]["cases"]]
    rows, exact = [], []
    for subject in part["subjects"].values():
        if "left_out" in subject:
            rows.append(not_measured(subject, columns=1 + len(cases)))
            continue
        medians = [subject["cases"][case]["median"] for case in cases]
        rows.append(
            [
                subject["title"],
                *(f"{count(m['per_second'])} ({m['p50_ms']:.2f} / {m['p99_ms']:.2f})" for m in medians),
            ]
        )
        e = subject["exactness"]
        exact.append(
            [
                subject["title"],
                count(e["asked"]),
                count(e["admitted"]),
                count(e["allowed"]),
                count(e["over"]),
                count(e["busiest_second"]),
            ]
        )
    head = ["asked", "admitted", "allowed", "over", "busiest second"]
    return (
        text
        + "\n"
        + table(["limiter", *(case.replace("/", ", ") for case in cases)], rows)
        + EXACTNESS
        + "\n"
        + table(["limiter", *head], exact)
    )
