"""`limits` (async, Redis): its moving window, or its fixed window, as its manual shows them."""

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from bench.subjects.driver import Case, Decide, drive

STRATEGIES = {"moving": MovingWindowRateLimiter, "fixed": FixedWindowRateLimiter}


async def prepare(case: Case) -> Decide:
    # redis-py and not coredis, which is the default: it was measured to be twice as fast here.
    storage = RedisStorage(f"async+{case.redis_url}", implementation="redispy")
    limiter = STRATEGIES[case.variant](storage)
    item = RateLimitItemPerSecond(case.rate)

    async def decide() -> bool:
        return await limiter.hit(item, case.key)

    return decide


if __name__ == "__main__":
    drive(prepare)
