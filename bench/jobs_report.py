"""
The tables of part 3 in docs/benchmarks.md.
"""

from typing import Any

from bench.jobs import IN_FLIGHT
from bench.tables import count, first_line, machine_line, not_measured, table

JOBS = """
## Jobs

{jobs} jobs with bodies of 200 bytes, {rounds} round(s), each queue in turn, median. One worker process, 32 jobs at a time, jobs that
do nothing. {machine}

- **put in/s**: with 50 in flight. *in bulk*: by the queue's own call for many, where it has one; it is one answer for all of them.
- **drained/s**: from the first start to the last. *ours ÷ it*: how many times as fast Breaker is.
- **pick-up**: from the moment at which a job is due to its start, at 100 jobs/s, open loop.
- **bytes**: what a waiting job takes in the store. **commands**, **store µs**: what the store does for a job from end to end, and for how
  long its process is busy with it.
- **left**: what is in the store when all jobs have ended, with no results kept. BullMQ keeps the last 10,000 events; taskiq's stream
  keeps every job until somebody trims it.

All of them deliver at least once. In our figures and in none of the others': tenants with a fair turn, capacity that is checked when a
job starts, a position, and a ledger.
"""

MODE = """
### Append-only file: {fsync}

"""
HEAD = [
    "queue",
    "put in/s",
    "in bulk/s",
    "drained/s",
    "ours ÷ it",
    "pick-up p50 / p99 ms",
    "bytes",
    "commands",
    "store µs",
    "left",
]


HTTP = """
### Over HTTP

`breaker serve`, one process, with caller keys, contract, limits of operation and tenant, metrics and log lines. *accepted/s*: 202 for
calls with `Prefer: respond-async` on {in_flight} connections, the operation paused; with `always` each behind its fsync. *drained/s*: the
operation resumed, downstream nginx answering at once. *pick-up*: from the moment when a call is due to its arrival at the
downstream, at 100 calls/s, open loop.

"""
HTTP_HEAD = [
    "append-only file",
    "accepted/s",
    "p50 / p99 ms",
    "drained/s",
    "pick-up p50 / p99 ms",
    "bytes",
    "commands",
    "store \u00b5s",
]
DEPTH = """
### With {many} jobs waiting

What one step costs: the round trip as a process sees it (p50), and the time in the script by the store's own count (mean); with {few}
jobs waiting, with {many}, and the ratio. One step at a time: under load many travel together, and cost less each.

"""
FAIRNESS = """
### Fairness and recovery

"""


def jobs_section(part: dict[str, Any]) -> str:
    effort = part["effort"]
    text = JOBS.format(jobs=count(effort["jobs"]), rounds=effort["rounds"], machine=machine_line(part))
    for fsync in effort["fsyncs"]:
        text += MODE.format(fsync=fsync) + table(HEAD, queue_rows(part["subjects"], fsync))
    return text + http_text(part["http"]) + depth_text(part["depth"]) + claims_text(part)


def http_text(part: dict[str, Any]) -> str:
    text = HTTP.format(in_flight=IN_FLIGHT)
    if "left_out" in part:
        return text + f"Not measured: {first_line(part['left_out'])}\n"
    rows = []
    for fsync, seen in part["modes"].items():
        m = seen["median"]
        rows.append(
            [
                fsync,
                count(m["accepted_per_second"]),
                f"{m['accept_p50_ms']:.1f} / {m['accept_p99_ms']:.1f}",
                count(m["drained_per_second"]),
                f"{m['pickup_p50_ms']:.1f} / {m['pickup_p99_ms']:.1f}",
                count(m["bytes_per_job"]),
                f"{m['commands_per_job']:.1f}",
                count(m["store_us_per_job"]),
            ]
        )
    return text + table(HTTP_HEAD, rows)


def depth_text(part: dict[str, Any]) -> str:
    if "left_out" in part:
        return f"\n### Depth\n\nNot measured: {first_line(part['left_out'])}\n"
    few, many = part["sides"]
    rows = [
        [
            name,
            *(
                f"{few[name][kind]:,.0f} → {many[name][kind]:,.0f} ({many[name][kind] / few[name][kind]:.2f})"
                for kind in ("p50_us", "store_us")
            ),
        ]
        for name in few
    ]
    text = DEPTH.format(few=count(part["depths"][0]), many=count(part["depths"][1]))
    return text + table(["step", "round trip \u00b5s", "in the store \u00b5s"], rows)


def claims_text(part: dict[str, Any]) -> str:
    text = FAIRNESS
    fairness, recovery = part["fairness"], part["recovery"]
    if "left_out" in fairness:
        text += f"- Fairness is not measured: {first_line(fairness['left_out'])}\n"
    else:
        alone, beside = (fairness["cases"][case]["median"] for case in ("alone", "beside"))
        text += (
            f"- One tenant with {count(fairness['heavy_jobs'])} jobs ahead of ten with 10, jobs of {fairness['service_ms']:.0f} ms, "
            f"32 at a time: the light ones' p99 wait is {beside['p99_ms']:.0f} ms, alone {alone['p99_ms']:.0f} ms: "
            f"{(beside['p99_ms'] - alone['p99_ms']) / fairness['service_ms']:.2f} service times more.\n"
        )
    if "left_out" in recovery:
        return text + f"- Recovery is not measured: {first_line(recovery['left_out'])}\n"
    m = recovery["median"]
    return text + (
        f"- A replica with {m['held']:.0f} running jobs is killed: all of them run again on the other after "
        f"{m['all_again_s']:.1f} s; {m['other_duplicates']:.0f} other calls were sent twice.\n"
    )


def queue_rows(subjects: dict[str, Any], fsync: str) -> list[list[str]]:
    rows = []
    ours = subjects.get("breaker", {}).get("modes", {}).get(fsync, {}).get("median")
    for subject in subjects.values():
        if "left_out" in subject:
            rows.append(not_measured(subject, columns=len(HEAD)))
            continue
        m = subject["modes"][fsync]["median"]
        rows.append(
            [
                subject["title"],
                count(m["enqueued_per_second"]),
                count(m["bulk_per_second"]) if "bulk_per_second" in m else "-",
                count(m["drained_per_second"]),
                f"{ours['drained_per_second'] / m['drained_per_second']:.2f}" if ours else "-",
                f"{m['pickup_p50_ms']:.1f} / {m['pickup_p99_ms']:.1f}",
                count(m["bytes_per_job"]),
                f"{m['commands_per_job']:.1f}",
                count(m["store_us_per_job"]),
                f"{m['left_bytes'] / 1024:,.1f} KiB" if m["left_keys"] else "0",
            ]
        )
    return rows
