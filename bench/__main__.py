"""
The command line: `python -m bench [forwarding|decision|features|all|report] [--quick] [--out bench/results]`.

A full run takes about twenty minutes and writes docs/benchmarks.md. `--quick` takes under three minutes, writes
a file of its own, prints the tables and leaves docs/benchmarks.md alone. `report` makes docs/benchmarks.md from the newest file.

Exit status: 0 if all that was asked for was measured, 1 if a subject was left out, 130 on Ctrl-C.
"""

import argparse
import datetime as dt
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import decision, forwarding, report
from bench.features import measure_features
from bench.install import HERE, announce, install_peers, missing_parts, peer_versions
from bench.load import CONNECTIONS
from bench.machine import describe
from bench.processes import Processes
from bench.store import start_store

DOCS = HERE.parent / "docs" / "benchmarks.md"
WORK = HERE / ".work"
FULL = forwarding.Effort(rounds=3, load_s=8, paced_s=5.0)
QUICK = forwarding.Effort(rounds=1, load_s=2, paced_s=1.0)
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
            failed = install_peers(processes, missing)
            about = {
                "quick": quick,
                "machine": describe(folder),
                "peers": peer_versions(),
                "connections": CONNECTIONS,
            }
            stores = {
                fsync: start_store(processes, folder / fsync, fsync=fsync) for fsync in ("everysec", "always")
            }
            stage = (
                None
                if asked == ("decision",)
                else forwarding.build_stage(processes, folder, stores["everysec"])
            )
            decisions = decision.Decisions(processes=processes, folder=folder, stores=stores)
            parts = {}
            for part in asked:
                moment = f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d %H:%M UTC}"
                if part == "decision" or stage is None:
                    result = decision.measure_decisions(
                        decisions, decision.QUICK if quick else decision.FULL, failed
                    )
                elif part == "forwarding":
                    result = forwarding.measure_forwarding(stage, QUICK if quick else FULL, missing, failed)
                else:
                    result = measure_features(stage, QUICK_FEATURES if quick else FULL)
                parts[part] = {"measured_at": moment, "store": stores["everysec"].program, **about, **result}
            return parts
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_docs(path: Path | None) -> int:
    if path is None:
        print("bench: no results yet: run `python -m bench`", file=sys.stderr)
        return 1
    DOCS.write_text(report.render(path))
    print(f"bench: {DOCS}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
