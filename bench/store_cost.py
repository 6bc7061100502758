"""
Store cost: what a subject's jobs cost the store, from the store's own counters.

`bytes` is what the data takes: the memory in use without the buffers of connections and of the append-only file, and without
cached scripts. `commands` counts those inside scripts too, each as one. `cpu_us` is the time of the whole server, its fsyncs
and its protocol included. What is left in the end is asked key by key: a server that has had connections keeps some
100 KiB more than a fresh one, which would look like something left.
"""

from dataclasses import dataclass
from typing import Any

import redis

from bench.store import Store

NOT_DATA = ("mem_clients_normal", "mem_clients_slaves", "mem_aof_buffer", "used_memory_scripts")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCost:
    """Counters of the store at one moment; the difference of two is a cost."""

    bytes: int
    commands: int
    cpu_us: int

    def per_job(self, before: "StoreCost", jobs: int) -> dict[str, float]:
        """What each of the jobs added since `before`."""
        return {
            "bytes": (self.bytes - before.bytes) / jobs,
            "commands": (self.commands - before.commands) / jobs,
            "cpu_us": (self.cpu_us - before.cpu_us) / jobs,
        }


def read_cost(store: Store) -> StoreCost:
    with connect(store) as client:
        info: dict[str, Any] = client.info("memory", "stats", "cpu")
    return StoreCost(
        bytes=info["used_memory"] - sum(info.get(name, 0) for name in NOT_DATA),
        commands=info["total_commands_processed"],
        cpu_us=round((info["used_cpu_user"] + info["used_cpu_sys"]) * 1e6),
    )


def read_left(store: Store) -> dict[str, float]:
    """How many keys there are, and the bytes that they take; for a store that is nearly empty."""
    with connect(store) as client:
        keys: list[bytes] = list(client.scan_iter(count=1_000))
        ask = client.pipeline(transaction=False)
        for key in keys:
            ask.memory_usage(key, samples=0)
        sizes: list[int | None] = ask.execute()
    return {"left_keys": len(keys), "left_bytes": sum(size or 0 for size in sizes)}


def forbid_rewrites(store: Store) -> None:
    """No rewrite of the append-only file: its fork would be measured as a slow subject."""
    with connect(store) as client:
        client.config_set("auto-aof-rewrite-percentage", "0")


def connect(store: Store) -> redis.Redis:
    return redis.Redis(port=store.port)
