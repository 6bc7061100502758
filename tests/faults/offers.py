"""
Offers: what these drills need of a gateway. Nothing else in this folder knows a name of it.

    asked       POST /{pipeline}/{path} with `Prefer: respond-async` and `Idempotency-Key`
    202         {id, state, position, eta: {p50_ms, p90_ms}, deadline, durability, links}
    a job       GET /v1/jobs/{id}: {id, operation, state, attempts, reason}; 404 when nobody knows it
    the ledger  /metrics of the admin listener: `breaker_jobs_unaccounted`, `breaker_jobs_lost`
    sent on     the caller's `Idempotency-Key` at every attempt; batches as items with their results
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

PIPELINE = "drill"
KEY = "Idempotency-Key"
ASYNC = {"Prefer": "respond-async"}
REPLAYED = "Idempotent-Replayed"
ACCEPTED = 202
# A careful caller comes back with the same key: refused for now, broken, or the same key is under way.
COME_BACK = frozenset({409, 429, 500, 502, 503, 504})

ENDED = frozenset({"succeeded", "dead", "expired", "cancelled", "unknown", "discarded"})
WAITING = frozenset({"queued", "scheduled", "held"})
POISON = "poison"

LEDGER = ("breaker_jobs_unaccounted", "breaker_jobs_lost")  # each 0, for each operation

BATCH = "batch"  # last part of the path to which batches are sent


def path_of(operation: str, order: str) -> str:
    """Where a caller sends an order; the downstream is called on the same path, without the pipeline."""
    return f"/{PIPELINE}/{operation}/{order}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a 202 said."""

    job: str
    durability: str


def read_accepted(content: Mapping[str, Any]) -> Told:
    """
    The parts of a 202 that the checker compares.

    Raises:
        KeyError: One of the promised fields is missing.

    """
    for name in ("state", "position", "deadline", "links"):
        content[name]
    if content["eta"] is not None:  # before anything was measured, nothing is promised
        content["eta"]["p50_ms"], content["eta"]["p90_ms"]
    return Told(job=content["id"], durability=str(content["durability"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as a gateway tells of it."""

    state: str
    reason: str
    attempts: int

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED


async def read_job(session: aiohttp.ClientSession, url: str, job: str) -> Job | None:
    """
    Ask a gateway for a job; None when it says that there is none.

    Raises:
        OSError, TimeoutError, aiohttp.ClientError: It does not answer, or not now.

    """
    async with session.get(f"{url}/v1/jobs/{job}", timeout=aiohttp.ClientTimeout(total=5)) as answer:
        if answer.status == 404:
            return None
        answer.raise_for_status()
        content = await answer.json(content_type=None)
    return Job(state=content["state"], reason=content.get("reason") or "", attempts=int(content["attempts"]))


async def read_ledger(session: aiohttp.ClientSession, admin_url: str) -> dict[str, dict[str, float]]:
    """Metric -> operation -> value, of the metrics of the ledger that this gateway exports."""
    async with session.get(f"{admin_url}/metrics", timeout=aiohttp.ClientTimeout(total=5)) as answer:
        answer.raise_for_status()
        page = await answer.text()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in LEDGER:
                found.setdefault(sample.name, {})[sample.labels["operation"]] = sample.value
    return found


async def read_settled_ledger(
    session: aiohttp.ClientSession, admin_url: str, seconds: float
) -> dict[str, dict[str, float]]:
    """The ledger of a gateway once it is all 0, or as it stands after so many seconds: it is read every few."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = await read_ledger(session, admin_url)
        is_settled = set(found) == set(LEDGER) and not any(any(each.values()) for each in found.values())
        if is_settled or asyncio.get_running_loop().time() > end:
            return found
        await asyncio.sleep(0.2)
