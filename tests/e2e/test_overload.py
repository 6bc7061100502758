"""Ten times the load on four gateway processes: what the downstream sees is what the limits say."""

import asyncio
from itertools import pairwise
from pathlib import Path

from tests.e2e.load import drive
from tests.e2e.scene import Seen, downstream, gateways, write_config
from tests.store.replicas import Server

RATE, BURST, SLOTS = 40, 10, 4
SECONDS = 6.0
# A call is decided in the store and starts at the downstream a little later: calls of 150 ms may be
# seen closer together than they were admitted. Nothing else is tolerated.
JITTER_S = 0.15
OPERATIONS = {
    "rated": f"capacity: {{rate: {RATE}/s, burst: {BURST}}}, max_wait: 0s",
    "narrow": f"capacity: {{concurrency: {SLOTS}}}, max_wait: 200ms",
    "get-rated": f"capacity: {{rate: {RATE}/s, burst: {BURST}}}, max_wait: 100ms",
    "get-narrow": f"capacity: {{concurrency: {SLOTS}}}, max_wait: 100ms, linger: 500ms",
}


def most_over(seen: Seen) -> float:
    """By how many calls the worst of all windows exceeds `rate * t + burst`."""
    starts = sorted(seen.starts)
    # GCRA on what was seen: the level of a bucket that leaks at the rate.
    level, most = 0.0, 0.0
    for earlier, now in pairwise([starts[0], *starts]):
        level = max(0.0, level - (now - earlier) * RATE) + 1
        most = max(most, level)
    return most - BURST


async def test_limits_are_exact_over_four_gateways_at_ten_times_the_load(
    server: Server, tmp_path: Path
) -> None:
    """The owner of a downstream, who sized it for what the file says; and its users, who want all of that."""
    async with downstream() as below:
        config = write_config(tmp_path / "config", url=below.url, store_url=server.url, operations=OPERATIONS)
        async with gateways(config, tmp_path, 4) as four:
            addresses = [gateway.address for gateway in four]
            load = await drive(addresses, "/desk/rated/5", seconds=SECONDS, per_second=10 * RATE, callers=60)
            rated = below.seen["rated"]
            assert load.failed == {}
            assert load.counts()["503 over-capacity"] > 8 * load.counts()["200"]
            assert most_over(rated) <= JITTER_S * RATE
            allowed = RATE * (rated.starts[-1] - rated.starts[0]) + BURST
            assert len(rated.starts) >= 0.95 * allowed

            # 4 slots of 50 ms are 80 calls a second; a caller here waits for its turn for a while.
            load = await drive(addresses, "/desk/narrow/50", seconds=4, per_second=400, callers=80)
            narrow = below.seen["narrow"]
            assert load.failed == {}
            assert narrow.peak == SLOTS
            assert load.counts()["200"] == len(narrow.starts) > 0.5 * 4 * 80

            # Callers lose patience, mostly while they wait or while the work is being done.
            for path, per_second in (("/desk/get-rated/5", 10 * RATE), ("/desk/get-narrow/50", 200)):
                load = await drive(
                    addresses, path, method="GET", seconds=4, per_second=per_second, callers=40,
                    patience_s=[0.0, 0.01, 0.03, 0.06, 1.0],
                )  # fmt: skip
                assert load.failed == {}
                assert load.hung_up > 100
            rated, narrow = below.seen["get-rated"], below.seen["get-narrow"]
            assert most_over(rated) <= JITTER_S * RATE
            assert narrow.peak <= SLOTS, "a slot stays with the work that goes on"

            # Within its linger; the test's own timeout is the bound.
            while (await four[0].look("desk.get-narrow"))["in_use"]:
                await asyncio.sleep(0.05)
