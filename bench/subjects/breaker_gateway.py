"""
Breaker's configuration for part 1, with each feature to be switched.

All of them on is what a company would run: two callers with keys, a contract, rate, concurrency and limits for
each tenant, the tenant from a header, one log line for every hundredth call, no traces. Metrics cannot be switched off by
configuration; what they cost is measured with a gateway that is deaf (`breaker_without_metrics.py`).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.load import CALLER_KEYS, DOWNSTREAM_PATH

CONCURRENCY = 10_000  # never reached by 32 connections: the lease is taken and given back all the same

CONTRACT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["invoice", "customer", "amount_cents", "currency", "due"],
    "properties": {
        "invoice": {"type": "string", "pattern": "^inv_[0-9]{8}_[0-9]{6}$"},
        "customer": {"type": "string", "minLength": 1, "maxLength": 64},
        "amount_cents": {"type": "integer", "minimum": 1},
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "due": {"type": "string", "format": "date"},
        "memo": {"type": "string", "maxLength": 200},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """
    What the gateway does with a call.

    Attributes:
        log_sample: Share of plainly forwarded calls that are logged, 0..1.
        limits: Rate and concurrency of the operation; without any limit there is no round trip to the store.
        tenant_limits: Rate and concurrency of each tenant.
        traces: Share of calls that are traced, 0..1; None switches traces off.
        metrics: Whether its metrics cannot be made deaf; else see `breaker_without_metrics.py`.
    """

    keys: bool = True
    contract: bool = True
    limits: bool = True
    tenant_limits: bool = True
    log_sample: float = 0.01
    traces: float | None = None
    metrics: bool = True


ALL_FEATURES = Features()


def write_config(
    folder: Path,
    features: Features,
    *,
    port: int,
    admin: int,
    downstream: int,
    store: int,
    rate: int,
    burst: int,
    receiver: int = 0,
    cluster: str = "bench",
) -> None:
    """
    Writes gateway.yaml, pipelines/ and contracts/ below `folder`.

    Args:
        rate, burst: Of the operation. The limits of a tenant are never reached.
        receiver: Port of what takes spans.
        cluster: Gateways that run at the same time and are not replicas of one another need several.
    """
    gateway: dict[str, object] = {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "cluster": cluster,
        # Longer than by default: a machine that is busy must not pass for a store that is away.
        "store": {"url": f"redis://127.0.0.1:{store}/0", "timeout": "1s"},
        "log": {"level": "info", "format": "json", "sample": features.log_sample},
    }
    if features.traces is not None:
        gateway["traces"] = {"endpoint": f"http://127.0.0.1:{receiver}/v1/traces", "sample": features.traces}
    if features.keys:
        gateway["callers"] = [
            {
                "id": name,
                "key_sha256": [hashlib.sha256(key.encode()).hexdigest()],
                "operations": ["billing.*"],
                "may_name": ["tenant"],
            }
            for name, key in CALLER_KEYS.items()
        ]
    capacity: dict[str, object] = {}
    if features.limits:
        capacity |= {"rate": f"{rate}/s", "burst": burst, "concurrency": CONCURRENCY}
    if features.tenant_limits:
        capacity["per_tenant"] = {"rate": "1000000/s", "burst": 1_000_000, "concurrency": CONCURRENCY}
    operation: dict[str, object] = {
        "match": f"POST {DOWNSTREAM_PATH}",
        "overflow": "throttle",
        # Refused at once, as the peers do: a call that waits would be measured as a slow one.
        "max_wait": "0ms",
    }
    if capacity:
        operation["capacity"] = capacity
    if features.contract:
        operation["contract"] = "../contracts/charge.schema.json"
    pipeline = {
        "pipeline": "billing",
        "team": "finance-platform",
        "downstream": {"url": f"http://127.0.0.1:{downstream}", "timeout": "10s"},
        "tenant": {"header": "Breaker-Tenant"},
        "operations": {"charge": operation},
    }
    (folder / "pipelines").mkdir(parents=True)
    (folder / "contracts").mkdir()
    (folder / "gateway.yaml").write_text(yaml.safe_dump(gateway, sort_keys=False))
    (folder / "pipelines" / "billing.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    (folder / "contracts" / "charge.schema.json").write_text(json.dumps(CONTRACT, indent=2))
