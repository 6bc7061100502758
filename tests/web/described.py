"""
Operations and configurations for the tests of what is said about them: OpenAPI, page, promise, manual.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs

from breaker.core.config import Caller, Config, Gateway
from breaker.core.job_policy import Queue
from breaker.core.model import Capacity, Downstream, Limits, Match, Operation, Overflow, Rate
from breaker.policy.load import load

ROOT = Path(__file__).parents[2]


SECOND = 1_000_000


RATE = Rate(limit=5, period_us=SECOND, burst=5)


LIMITED = Capacity(limits=Limits(rate=RATE))


CALLER = Caller(id="crm", key_hashes=("ab" * 32,), operations=("*",))


QUEUE = Queue(start_within_ms=60_000, jobs_max=10)


def operation(name: str = "billing.charge", match: str = "POST /charges", **fields: Any) -> Operation:
    method, _, template = match.partition(" ")
    return Operation(
        name=name, pipeline=name.partition(".")[0], team="finance", match=Match(method=method, template=template),
        **{"downstream": Downstream(url="http://10.9.8.7:9102"), **fields},
    )  # fmt: skip


def config(*operations: Operation, callers: tuple[Caller, ...] | None = None) -> Config:
    return Config(
        version="0123456789ab", folder="config", gateway=Gateway(callers=callers),
        operations={one.name: one for one in operations},
    )  # fmt: skip


def shipped() -> Config:
    return load(ROOT / "config", {})


def validator(described: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """A schema of the document, with the rest of the document where its references look for it."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]})


PLAIN = operation()


def queued(**fields: Any) -> Operation:
    """`PLAIN` with a queue; `fields` are of that."""
    return replace(PLAIN, overflow=Overflow.QUEUE, queue=replace(QUEUE, **fields))
