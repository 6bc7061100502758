"""
Start-up checks: is this a store that capacity may be held in, and if not, how is it mended?

    refused   older than 7; a replica; not reachable; wrong password
    loud      keys may be evicted; nothing is persisted; fsync once a second
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from breaker.core.errors import StartError, StoreError
from breaker.core.job_policy import Durability
from breaker.core.model import Operation, StoreSettings
from breaker.store.connection import open_client

MAJOR_MIN = 7
WAITAOF_SINCE = (7, 2)


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
        StartError: It cannot be used; the message says how to mend it.
    """
    client = open_client(settings)
    try:
        info: dict[str, Any] = await client.info()
        return await _judge(client, info, settings)
    except (RedisError, OSError, TimeoutError) as exc:
        # While connecting, redis-py wraps the refusal in a ConnectionError.
        if isinstance(exc, AuthenticationError) or isinstance(exc.__cause__, AuthenticationError):
            raise StartError(
                f"the store at {settings.url} refused the password: {exc}; set store.password_file"
            ) from exc
        raise StartError(
            f"the store at {settings.url} cannot be reached: {exc}; is it running, and is store.url right?"
        ) from exc
    finally:
        await client.aclose()


async def _judge(client: Redis, info: dict[str, Any], settings: StoreSettings) -> StoreFacts:
    # Valkey says its own version beside that of the Redis it is compatible with.
    brand = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info["redis_version"])
    if int(version.split(".", maxsplit=1)[0]) < MAJOR_MIN:
        raise StartError(f"the store at {settings.url} is {brand} {version}; our scripts need 7.0 or newer")
    if info.get("role") not in (None, "master"):
        raise StartError(
            f"the store at {settings.url} is a replica of {info.get('master_host')}:{info.get('master_port')}; "
            "set store.url to the primary"
        )
    warnings = []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        warnings.append(
            f"maxmemory-policy is {policy}: the store may drop limits and leases at will; "
            "CONFIG SET maxmemory-policy noeviction"
        )
    fsync = await _fsync(client) if info.get("aof_enabled") else "off"
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


async def _fsync(client: Redis) -> str:
    try:
        found: dict[Any, Any] = await client.config_get("appendfsync")
    except RedisError:  # managed stores hide CONFIG
        return "unknown"
    values = [value.decode() if isinstance(value, bytes) else value for value in found.values()]
    return values[0] if values else "unknown"


async def memory_of(client: Redis) -> tuple[int, int]:
    """
    Bytes that the store uses, and its maxmemory; 0 without a limit.

    Raises:
        StoreError: It cannot be asked now.
    """
    try:
        info: dict[str, Any] = await client.info("memory")
    except (RedisError, OSError, TimeoutError) as exc:
        raise StoreError(f"the store cannot be reached: {exc}") from exc
    return int(info["used_memory"]), int(info.get("maxmemory", 0))
