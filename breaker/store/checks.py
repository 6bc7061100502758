"""
Start-up checks: is this a store that capacity may be held in, and if not, how is it mended?

    refused   older than 7; a replica; not reachable; wrong password; the wrong kind of URL for it
    loud      keys may be evicted; nothing is persisted; fsync once a second; one dead node stops a Cluster

With sentinels it is the primary that is looked at, in a Cluster each node that has slots; the weakest counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from breaker.core.config import StoreSettings
from breaker.core.errors import StartError, StoreAwayError, StoreError
from breaker.core.job_policy import Durability
from breaker.core.model import Operation
from breaker.store.cluster_client import ClusterClient
from breaker.store.connection import open_client
from breaker.store.slots import SLOTS

MAJOR_MIN = 7
WAITAOF_SINCE = (7, 2)
FSYNCS = ("off", "no", "unknown", "everysec", "always")  # the weakest first
FULL_COVERAGE = "cluster-require-full-coverage"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """
    What the store says of itself.

    Attributes:
        name: `valkey 9.1.2`, `redis 7.0.15`.
        warnings: What a person should mend, each with the way.
        fsync: `always`, `everysec`, `no`, `off` (nothing is persisted), or `unknown`.
        can_wait_aof: It has WAITAOF, which says whether a write is on disk.
    """

    name: str
    warnings: tuple[str, ...]
    fsync: str = "unknown"
    can_wait_aof: bool = False


async def check_store(settings: StoreSettings) -> StoreFacts:
    """
    Look at the store before anything depends on it.

    Raises:
        StoreAwayError: It cannot be reached.
        StartError: It cannot be used; the message says how to mend it.
    """
    client = open_client(settings)
    try:
        if isinstance(client, ClusterClient):
            return await _judge_cluster(client, settings)
        return await _judge(client, settings.url)
    except (RedisError, OSError, TimeoutError) as exc:
        # While connecting, redis-py wraps the refusal in a ConnectionError.
        if isinstance(exc, AuthenticationError) or isinstance(exc.__cause__, AuthenticationError):
            raise StartError(
                f"the store at {settings.url} refused the password: {exc}; set store.password_file"
            ) from exc
        raise StoreAwayError(
            f"the store at {settings.url} cannot be reached: {exc}; is it running, and is store.url right?"
        ) from exc
    finally:
        await client.aclose()


async def _judge_cluster(client: ClusterClient, settings: StoreSettings) -> StoreFacts:
    """All nodes as one store: what one of them may forget, the store may forget."""
    if missing := await client.missing():
        raise StartError(
            f"the store at {settings.url} serves {SLOTS - missing} of {SLOTS} slots: give the others to a node "
            "(CLUSTER ADDSLOTSRANGE), or wait until its failover is over"
        )
    servers = await client.primaries()
    facts = {
        node: await _judge(server, f"{settings.url} (node {node})", is_node=True)
        for node, server in servers.items()
    }
    warnings = [f"node {node}: {warning}" for node, told in facts.items() for warning in told.warnings]
    covers = [await _setting(server, FULL_COVERAGE) for server in servers.values()]
    if "yes" in covers:
        warnings.append(
            f"{FULL_COVERAGE} is yes: one node that is down stops the operations of all; "
            f"CONFIG SET {FULL_COVERAGE} no, on each node"
        )
    return StoreFacts(
        name=f"Cluster of {len(facts)}: {', '.join(sorted({told.name for told in facts.values()}))}",
        warnings=tuple(warnings),
        fsync=min((told.fsync for told in facts.values()), key=FSYNCS.index),
        can_wait_aof=all(told.can_wait_aof for told in facts.values()),
    )


async def _judge(client: Redis, place: str, *, is_node: bool = False) -> StoreFacts:
    info: dict[str, Any] = await client.info()
    _refuse_wrong_mode(str(info.get("server_mode") or info.get("redis_mode")), place, is_node=is_node)
    # Valkey says its own version beside that of the Redis it is compatible with.
    brand = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info["redis_version"])
    if int(version.split(".", maxsplit=1)[0]) < MAJOR_MIN:
        raise StartError(f"the store at {place} is {brand} {version}; our scripts need 7.0 or newer")
    if info.get("role") not in (None, "master"):
        raise StartError(
            f"the store at {place} is a replica of {info.get('master_host')}:{info.get('master_port')}; "
            "set store.url to the primary"
        )
    warnings = []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        warnings.append(
            f"maxmemory-policy is {policy}: the store may drop limits and leases at will; "
            "CONFIG SET maxmemory-policy noeviction"
        )
    fsync = await _setting(client, "appendfsync") if info.get("aof_enabled") else "off"
    if fsync == "off":
        warnings.append("appendonly is off: a restart forgets quotas and rates; CONFIG SET appendonly yes")
    elif fsync not in ("always", "everysec", "unknown"):
        warnings.append(
            "appendfsync is no: a crash of the machine forgets seconds; CONFIG SET appendfsync everysec"
        )
    major, minor = (int(part) for part in str(info["redis_version"]).split(".")[:2])  # Valkey says 7.2.4
    return StoreFacts(
        name=f"{brand} {version}",
        warnings=tuple(warnings),
        fsync=fsync,
        can_wait_aof=(major, minor) >= WAITAOF_SINCE and fsync != "off",
    )


def durability_warnings(facts: StoreFacts, operations: Iterable[Operation]) -> list[str]:
    """Operations that promise more than this store can show, each with the way out."""
    if facts.fsync in ("always", "unknown") or facts.can_wait_aof:
        return []
    return [
        f"{operation.name} says `durability: {operation.queue.durability}`, and the store does not fsync before "
        "it answers: its 202s say `memory`; CONFIG SET appendonly yes, CONFIG SET appendfsync always"
        for operation in operations
        if operation.queue and operation.queue.durability is not Durability.MEMORY
    ]


def _refuse_wrong_mode(mode: str, place: str, *, is_node: bool) -> None:
    if mode == "sentinel":
        raise StartError(
            f"the store at {place} is a sentinel; set store.url to redis+sentinel://host:port,host:port/<service>"
        )
    if mode == "cluster" and not is_node:
        raise StartError(
            f"the store at {place} is a node of a Cluster; set store.url to redis+cluster://host:port,host:port"
        )


async def _setting(client: Redis, name: str) -> str:
    try:
        found: dict[Any, Any] = await client.config_get(name)
    except RedisError:  # managed stores hide CONFIG
        return "unknown"
    values = [value.decode() if isinstance(value, bytes) else value for value in found.values()]
    return values[0] if values else "unknown"


async def memory_of(client: Redis) -> tuple[int, int]:
    """
    Bytes that the store uses, and its maxmemory; 0 without a limit. Of a Cluster, those of its fullest node.

    Raises:
        StoreError: It cannot be asked now.
    """
    try:
        servers = list((await client.primaries()).values()) if isinstance(client, ClusterClient) else [client]
        told: list[dict[str, Any]] = [await server.info("memory") for server in servers]
    except (RedisError, OSError, TimeoutError) as exc:
        raise StoreError(f"the store cannot be reached: {exc}") from exc
    sizes = [(int(info["used_memory"]), int(info.get("maxmemory", 0))) for info in told]
    return max(sizes, key=lambda size: (size[0] / size[1] if size[1] else 0.0, size[0]))
