"""
Published: has this store ever been told of an operation?

Asked by a plain command before a name that a person typed goes to the scripts. To them an operation
without a policy means that the store was emptied, and that sets off alarms.
"""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from breaker.store.connection import as_ours
from breaker.store.keys import Keys


async def is_published(client: Redis, cluster: str, operation: str) -> bool:
    """
    Whether there is a policy of this operation, and so perhaps jobs.

    Raises:
        StoreError: It cannot be told now.

    """
    try:
        return bool(await client.exists(Keys(cluster, operation).named("policy")))
    except (RedisError, OSError, TimeoutError) as exc:
        raise as_ours(exc) from exc
