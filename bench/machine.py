"""
Machine: what the figures were measured on.

Every result carries this, because a figure without its machine, its versions and the latency of its
fsync is a rumour. `appendfsync always` in particular measures the disk before it measures the subject.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

FSYNC_ROUNDS = 200
FSYNC_BYTES = 512  # about what one decision adds to an append-only file
VERSION_COMMANDS = {
    "nginx": ["nginx", "-v"],
    "wrk": ["wrk", "-v"],
    "node": ["node", "--version"],
    "redis-server": ["redis-server", "--version"],
    "valkey-server": ["valkey-server", "--version"],
}
OWN_PACKAGES = ["aiohttp", "redis", "hiredis", "httptools", "uvloop", "jsonschema-rs", "orjson", "structlog"]


def describe(folder: Path) -> dict[str, Any]:
    """
    Args:
        folder: On the disk that the store's append-only file will be on.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "fsync_ms": fsync_latency_ms(folder),
        "versions": {name: version for name, argv in VERSION_COMMANDS.items() if (version := _version(argv))},
        "packages": _packages(),
    }


def fsync_latency_ms(folder: Path) -> dict[str, float]:
    """How long a small append and its fdatasync take here: p50 and p99, milliseconds."""
    latencies = []
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNC_ROUNDS):
            start = time.perf_counter()
            file.write(b"x" * FSYNC_BYTES)
            os.fdatasync(file.fileno())
            latencies.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    latencies.sort()
    return {
        "p50": round(latencies[FSYNC_ROUNDS // 2], 3),
        "p99": round(latencies[FSYNC_ROUNDS * 99 // 100], 3),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(argv: list[str]) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    # wrk ends with 1 and nginx speaks on stderr, so only the text counts.
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return found.group() if found else None


def _packages() -> dict[str, str]:
    found = {}
    for name in OWN_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # optional on this platform, and then not part of what was measured
    return found
