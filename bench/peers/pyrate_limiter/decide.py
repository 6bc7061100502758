"""`pyrate-limiter` (async, Redis): its log of calls in a sorted set, or its GCRA state, never waiting."""

from pyrate_limiter import GCRA, Duration, Limiter, Rate, RedisBucket, RedisStateStore, StateBucket
from redis.asyncio import Redis

from bench.subjects.driver import Case, Decide, drive


async def prepare(case: Case) -> Decide:
    redis = Redis.from_url(case.redis_url)
    if case.variant == "gcra":
        rates = [Rate(case.rate, Duration.SECOND, burst=case.burst)]
        bucket = StateBucket(rates, GCRA(), store=RedisStateStore(redis, case.key))
    else:
        bucket = await RedisBucket.init([Rate(case.rate, Duration.SECOND)], redis, case.key)
    limiter = Limiter(bucket)

    async def decide() -> bool:
        return await limiter.try_acquire_async(case.key, blocking=False)

    return decide


if __name__ == "__main__":
    drive(prepare)
