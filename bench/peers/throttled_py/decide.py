"""`throttled-py` (asyncio, Redis): GCRA, never waiting."""

from throttled.asyncio import RateLimiterType, RedisStore, Throttled, rate_limiter

from bench.subjects.driver import Case, Decide, drive


async def prepare(case: Case) -> Decide:
    throttle = Throttled(
        key=case.key,
        using=RateLimiterType.GCRA.value,
        quota=rate_limiter.per_sec(case.rate, burst=case.burst),
        store=RedisStore(server=case.redis_url),
    )

    async def decide() -> bool:
        return not (await throttle.limit()).limited

    return decide


if __name__ == "__main__":
    drive(prepare)
