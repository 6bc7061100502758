"""
Breaker's configuration for parts 3 and 4: an operation with a queue, and limits that are never reached.

Two callers with keys, a contract, rate and concurrency of the operation and of each tenant, one log line for every hundredth call, as in
part 1. Records of ended jobs are not kept, as with the other queues.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from bench.subjects.breaker_gateway import ALL_FEATURES, write_config

OPERATION = "billing.charge"
UNREACHED = 1_000_000


def write_job_config(
    folder: Path, *, port: int, admin: int, downstream: int, store: int, concurrency: int = 10_000
) -> None:
    """
    Writes what `breaker serve` needs below `folder`.

    Args:
        concurrency: Of the operation, over all replicas.
    """
    write_config(
        folder,
        ALL_FEATURES,
        port=port,
        admin=admin,
        downstream=downstream,
        store=store,
        rate=UNREACHED,
        burst=UNREACHED,
    )
    path = folder / "pipelines" / "billing.yaml"
    pipeline: dict[str, Any] = yaml.safe_load(path.read_text())
    operation = pipeline["operations"]["charge"]
    operation |= {
        "overflow": "queue",
        "queue": {"start_within": "15m", "max_jobs": UNREACHED, "max_bytes": "4GiB", "keep_result": "0s"},
    }
    operation["capacity"]["concurrency"] = concurrency
    del operation["max_wait"]
    path.write_text(yaml.safe_dump(pipeline, sort_keys=False))


def job_body(number: int, due: float) -> str:
    """200 bytes that keep the contract, with the job's number and the Unix time at which it is due."""
    body = {
        "invoice": f"inv_20260301_{number:06d}",
        "customer": f"{due:017.6f}",
        "amount_cents": 129900,
        "currency": "EUR",
        "due": "2026-03-31",
        "memo": "",
    }
    body["memo"] = "x" * (200 - len(json.dumps(body)))
    return json.dumps(body)
