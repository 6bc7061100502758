"""
The command line: `python -m bench [forwarding|features|signals|decision|jobs|all|report] [--quick] [--out bench/results]`.

A full run takes about forty minutes and writes docs/benchmarks.md. `--quick` takes a few minutes, writes
a file of its own, prints the tables and leaves docs/benchmarks.md alone. `report` makes docs/benchmarks.md from the newest file.

Exit status: 0 if all that was asked for was measured, 1 if a subject was left out, 130 on Ctrl-C.
"""

import argparse
import datetime as dt
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import decision, forwarding, jobs, jobs_claims, jobs_http, report
from bench.features import measure_features, measure_signals
from bench.install import (
    HERE,
    announce,
    install_job_peers,
    install_peers,
    job_peer_versions,
    missing_parts,
    peer_versions,
)
from bench.jobs_recovery import Recovery, measure_recovery
from bench.load import CONNECTIONS
from bench.machine import describe
from bench.processes import Processes
from bench.store import Store, start_store

DOCS = HERE.parent / "docs" / "benchmarks.md"
WORK = HERE / ".work"
FULL = forwarding.Effort(rounds=3, load_s=8, paced_s=5.0)
QUICK = forwarding.Effort(rounds=1, load_s=2, paced_s=1.0)
SIGNALS = forwarding.Effort(rounds=42, load_s=1, paced_s=1.0)  # small differences; six variants take turns
QUICK_FEATURES = forwarding.Effort(
    rounds=1, load_s=1, paced_s=1.0
)  # eight variants, and three minutes for all


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("part", nargs="?", default="all", choices=[*report.PARTS, "all", "report"])
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the JSON")
    options = parser.parse_args()
    if options.part == "report":
        return write_docs(report.newest(options.out))
    missing = missing_parts()
    announce(missing)
    asked = report.PARTS if options.part == "all" else (options.part,)
    if missing & ({"store"} if asked == ("decision",) else {"store", "nginx", "wrk"}):
        return 1  # without these nothing at all can be measured
    if os.getloadavg()[0] > report.BUSY_SHARE * (os.cpu_count() or 1):
        print("!!! bench: this machine is busy with other work; the figures will say so", file=sys.stderr)
    try:
        parts = measure(asked, missing, quick=options.quick)
    except KeyboardInterrupt:
        print("bench: stopped; everything that was started has been ended", file=sys.stderr)
        return 130
    path = report.save(options.out, parts, quick=options.quick)
    print(f"bench: {path}", file=sys.stderr)
    if options.quick:
        print(report.render(path))
    else:
        write_docs(path)
    return 1 if '"left_out"' in path.read_text() else 0


def measure(asked: tuple[str, ...], missing: set[str], *, quick: bool) -> dict[str, Any]:
    """The parts that were asked for, each with machine, moment and effort."""
    # On the project's disk: a temporary folder may be in memory, where fsync costs nothing.
    WORK.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=WORK))
    folder.chmod(0o755)
    try:
        with Processes() as processes:
            failed = install_peers(processes, missing) if set(asked) & {"forwarding", "decision"} else {}
            if "jobs" in asked:
                effort = jobs.QUICK if quick else jobs.FULL
                failed |= install_job_peers(processes, missing, jobs.peers_of(effort))
            about = {
                "quick": quick,
                "machine": describe(folder),
                "peers": peer_versions() | job_peer_versions(),
                "connections": CONNECTIONS,
            }
            stores = {
                fsync: start_store(processes, folder / fsync, fsync=fsync) for fsync in ("everysec", "always")
            }
            bench = Bench(
                processes=processes, folder=folder, stores=stores, missing=missing, failed=failed, quick=quick
            )
            parts = {}
            for part in asked:
                moment = f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d %H:%M UTC}"
                about |= {"measured_at": moment, "store": stores["everysec"].program}
                parts[part] = about | bench.measure(part)
            return parts
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class Bench:
    """All that the parts share, and the calls of each."""

    processes: Processes
    folder: Path
    stores: Mapping[str, Store]
    missing: set[str]
    failed: Mapping[str, str]
    quick: bool
    stage: forwarding.Stage | None = None

    def measure(self, part: str) -> dict[str, Any]:
        if part == "decision":
            decisions = decision.Decisions(processes=self.processes, folder=self.folder, stores=self.stores)
            return decision.measure_decisions(
                decisions, decision.QUICK if self.quick else decision.FULL, self.failed
            )
        if part == "jobs":
            return self._measure_jobs()
        if self.stage is None:
            self.stage = forwarding.build_stage(self.processes, self.folder, self.stores["everysec"])
        if part == "forwarding":
            return forwarding.measure_forwarding(
                self.stage, QUICK if self.quick else FULL, self.missing, self.failed
            )
        if part == "signals":
            return measure_signals(self.stage, QUICK_FEATURES if self.quick else SIGNALS)
        return measure_features(self.stage, QUICK_FEATURES if self.quick else FULL)

    def _measure_jobs(self) -> dict[str, Any]:
        """Parts 3 and 4: in process beside the peers; over HTTP; depth and fairness; recovery."""
        processes, folder, stores = self.processes, self.folder, self.stores
        effort = jobs.QUICK if self.quick else jobs.FULL
        http_effort = jobs_http.QUICK if self.quick else jobs_http.FULL
        claims = jobs_claims.Claims(processes=processes, folder=folder, store=stores["everysec"])
        claims_effort = jobs_claims.QUICK if self.quick else jobs_claims.FULL
        recovery = Recovery(processes=processes, folder=folder, stores=stores)
        queues = jobs.Jobs(processes=processes, folder=folder, stores=stores)
        over_http = jobs_http.JobsOverHttp(processes=processes, folder=folder, stores=stores)
        return {
            **jobs.measure_jobs(queues, effort, self.failed),
            "http": jobs_http.measure_jobs_over_http(over_http, http_effort),
            "depth": claims.measure_depth(claims_effort),
            "fairness": claims.measure_fairness(claims_effort),
            "recovery": measure_recovery(recovery, rounds=1 if self.quick else 3, fsync="always"),
        }


def write_docs(path: Path | None) -> int:
    if path is None:
        print("bench: no results yet: run `python -m bench`", file=sys.stderr)
        return 1
    DOCS.write_text(report.render(path))
    print(f"bench: {DOCS}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
