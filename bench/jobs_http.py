"""
Part 3, continued: jobs over HTTP. What does a real gateway do, `breaker serve`, one process?

1. The operation is paused; wrk sends calls with `Prefer: respond-async` on 50 connections as fast as it goes: accepted per second,
   with the 202 behind the fsync where the store has one; and what a job takes in the store.
2. It is resumed: jobs per second at the downstream, nginx answering at once, by its own counter.
3. Calls at 100 per second, in an open loop: from the moment when a call is due to its arrival at the downstream.

Caller keys, contract, limits of operation and tenant, metrics and log lines as in part 1.
"""

import asyncio
import http.client
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.job_peers.driver import SPIN_S
from bench.jobs import IN_FLIGHT, PER_SECOND, TIMEOUT_S
from bench.load import CALLER_KEYS, OPERATION_PATH, Load, count_downstream
from bench.processes import Process, Processes, SubjectError, free_port, wait_for_port
from bench.store import Store
from bench.store_cost import forbid_rewrites, read_cost, read_left
from bench.subjects.gateways import Place, downstream_command, serve
from bench.subjects.job_downstream import job_downstream
from bench.subjects.job_gateway import OPERATION, job_body, write_job_config

POLL_S = 0.005
SETTLE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpEffort:
    """
    How much is measured.

    Attributes:
        load_s: Of wrk, whole seconds; what it puts in is then drained.
        paced_s: Seconds of the constant rate.
    """

    rounds: int
    fsyncs: tuple[str, ...]
    load_s: int
    paced_s: float


FULL = HttpEffort(rounds=3, fsyncs=("everysec", "always"), load_s=3, paced_s=5.0)
QUICK = HttpEffort(rounds=1, fsyncs=("always",), load_s=1, paced_s=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGateway:
    """A gateway that runs, and its two ports on loopback."""

    process: Process
    port: int
    admin: int

    def hold(self, verb: str) -> None:
        """`pause` or `resume`."""
        post(self.admin, f"/admin/v1/operations/{OPERATION}/{verb}", json.dumps({"reason": "benchmark"}), 200)

    def queue(self) -> dict[str, Any]:
        """Where the operation's jobs are, over all replicas, as the admin listener tells it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        connection.request("GET", f"/admin/v1/operations/{OPERATION}")
        view: dict[str, Any] = json.loads(connection.getresponse().read())["queue"]
        connection.close()
        return view

    def waiting(self) -> int:
        """Jobs that wait."""
        return sum(self.queue()["waiting"].values())


def start_job_gateway(
    processes: Processes, folder: Path, store: Store, downstream: int, *, name: str, concurrency: int = 10_000
) -> JobGateway:
    """
    Starts `breaker serve` and waits until it listens.

    Raises:
        SubjectError: It ended, or does not listen in time.
    """
    folder.mkdir()
    port, admin = free_port(), free_port()
    write_job_config(
        folder, port=port, admin=admin, downstream=downstream, store=store.port, concurrency=concurrency
    )
    process = processes.start(name, serve(folder).argv, log=folder / f"{name}.log")
    try:
        wait_for_port(process, port)
    except SubjectError:
        processes.stop(process)
        raise
    return JobGateway(process=process, port=port, admin=admin)


def post(port: int, path: str, body: str, status: int, headers: Mapping[str, str] | None = None) -> None:
    """
    Raises:
        SubjectError: The answer has another status, or did not come.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise SubjectError(f"POST {path} failed: {error!r}") from error
    finally:
        connection.close()
    if answer.status != status:
        raise SubjectError(f"POST {path} got {answer.status}: {text[:300]!r}")


def call_headers(number: int) -> dict[str, str]:
    """Of a call that is to become a job."""
    keys = list(CALLER_KEYS.values())
    return {
        "Breaker-Key": keys[number % len(keys)],
        "Breaker-Tenant": f"tenant-{number % 10}",
        "Prefer": "respond-async",
    }


@dataclass(slots=True)
class JobsOverHttp:
    """Runs the gateway on the stores, which differ in their append-only file."""

    processes: Processes
    folder: Path
    stores: Mapping[str, Store]
    turn: int = 0

    def _place(self, store: Store) -> Path:
        store.flush()
        self.turn += 1
        return self.folder / f"jobs-http-{self.turn:03}"

    def measure_flood(self, fsync: str, load_s: int, downstream: int) -> dict[str, float]:
        """Cases 1 and 2."""
        store = self.stores[fsync]
        gateway = start_job_gateway(self.processes, self._place(store), store, downstream, name="breaker")
        load = Load(self.processes, self.folder)
        try:
            gateway.hold("pause")
            load.blast(gateway.port, OPERATION_PATH, seconds=1, connections=IN_FLIGHT, prefer="respond-async")
            time.sleep(SETTLE_S)  # what was under way at the end of the load is taken back
            warm = gateway.waiting()
            before = read_cost(store)
            seen = load.blast(
                gateway.port, OPERATION_PATH, seconds=load_s, connections=IN_FLIGHT, prefer="respond-async"
            )
            time.sleep(SETTLE_S)
            full = read_cost(store)
            jobs = gateway.waiting()
            if seen.refused or not 0 <= jobs - warm - seen.calls <= IN_FLIGHT:
                raise SubjectError(
                    f"{seen.calls} calls answered, {jobs - warm} jobs wait, {seen.refused}/s refused"
                )
            drained = drain(gateway, downstream, jobs)
            time.sleep(SETTLE_S)
            empty = read_cost(store)
            put, run = full.per_job(before, jobs - warm), empty.per_job(full, jobs)
            return {
                "accepted_per_second": seen.forwarded,
                "accept_p50_ms": seen.p50_ms,
                "accept_p99_ms": seen.p99_ms,
                "jobs": jobs,
                "drained_per_second": drained,
                "bytes_per_job": put["bytes"],
                "commands_per_job": put["commands"] + run["commands"],
                "store_us_per_job": put["cpu_us"] + run["cpu_us"],
                **read_left(store),
            }
        finally:
            self.processes.stop(gateway.process)

    async def measure_pickup(self, fsync: str, seconds: float) -> dict[str, float]:
        """Case 3."""
        store = self.stores[fsync]
        async with job_downstream() as downstream:
            downstream.may_end.set()
            gateway = start_job_gateway(
                self.processes, self._place(store), store, downstream.port, name="breaker"
            )
            try:
                # The first call opens connections; its pick-up is not counted.
                await asyncio.to_thread(
                    post, gateway.port, OPERATION_PATH, job_body(0, time.time()), 202, call_headers(0)
                )
                await downstream.wait_for_starts(1, seconds=TIMEOUT_S)
                downstream.pickups.clear()
                count = round(PER_SECOND * seconds)
                await pace(gateway.port, count)
                await downstream.wait_for_starts(1 + count, seconds=TIMEOUT_S)
            finally:
                self.processes.stop(gateway.process)
        ordered = sorted(downstream.pickups)
        return {
            "pickup_p50_ms": ordered[len(ordered) // 2] * 1e3,
            "pickup_p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
        }


def drain(gateway: JobGateway, downstream: int, jobs: int) -> float:
    """Resumes the operation; jobs per second at the downstream, from the first to the last."""
    # Each look at the counter is a request of its own, and counted.
    before, looks = count_downstream(downstream), 0
    gateway.hold("resume")
    first, last, arrived = 0.0, 0.0, 0
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        looks += 1
        arrived = count_downstream(downstream) - before - looks
        now = time.monotonic()
        if arrived > 0 and not first:
            first = now
        if arrived >= jobs:
            last = now
            break
        time.sleep(POLL_S)
    if not last:
        raise SubjectError(f"{arrived} of {jobs} jobs reached the downstream in {TIMEOUT_S:.0f} s")
    return jobs / (last - first)


async def pace(port: int, count: int) -> None:
    """
    Calls at a constant rate, each on time, whatever became of the one before.

    Raises:
        SubjectError: One was not accepted.
    """
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(number: int, due: float) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        body = job_body(number, due)
        lines = "".join(f"{name}: {value}\r\n" for name, value in call_headers(number).items())
        writer.write(
            f"POST {OPERATION_PATH} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            f"{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        if head.split()[1] != b"202":
            raise SubjectError(f"call {number} got {head[:60]!r}")
        idle.append((reader, writer))

    begin = time.time() + 0.1
    async with asyncio.TaskGroup() as group:
        for number in range(1, count + 1):
            due = begin + (number - 1) / PER_SECOND
            await asyncio.sleep(due - time.time() - SPIN_S)
            while time.time() < due:
                await asyncio.sleep(0)
            group.create_task(call(number, due))
    for _, writer in idle:
        writer.close()


def measure_jobs_over_http(jobs: JobsOverHttp, effort: HttpEffort) -> dict[str, Any]:
    """
    Returns:
        `modes`: append-only file mode -> rounds and median; or `left_out`.
    """
    rounds: dict[str, list[dict[str, float]]] = {fsync: [] for fsync in effort.fsyncs}
    home = jobs.folder / "jobs-downstream"
    home.mkdir()
    place = Place(folder=home, port=free_port(), downstream=0, store=0)
    downstream = jobs.processes.start(
        "downstream", downstream_command(place).argv, log=home / "downstream.log"
    )
    try:
        wait_for_port(downstream, place.port)
        for number in range(effort.rounds):
            for fsync in effort.fsyncs:
                print(
                    f"bench: jobs over HTTP, round {number + 1} of {effort.rounds}, {fsync}", file=sys.stderr
                )
                forbid_rewrites(jobs.stores[fsync])
                seen = jobs.measure_flood(fsync, effort.load_s, place.port)
                rounds[fsync].append(seen | asyncio.run(jobs.measure_pickup(fsync, effort.paced_s)))
    except SubjectError as error:
        print(f"!!! bench: jobs over HTTP are not measured: {error}", file=sys.stderr)
        return {"effort": asdict(effort), "left_out": str(error)}
    finally:
        jobs.processes.stop(downstream)
    return {
        "effort": asdict(effort),
        "modes": {
            fsync: {"rounds": seen, "median": {n: statistics.median(r[n] for r in seen) for n in seen[0]}}
            for fsync, seen in rounds.items()
        },
    }
