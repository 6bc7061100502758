"""What a replica did without its store is counted there, once, and compared with the limits."""

from typing import Any

import pytest
from redis import Redis

from breaker.core.model import Limits, Rate
from breaker.core.terms import Terms
from breaker.store.keys import Keys
from breaker.store.policy import publish_arguments
from breaker.store.scripts import load_scripts

SCRIPTS = load_scripts()
SECOND = 1_000_000
START = 1_800_000_000 * SECOND
TEN_A_SECOND = Limits(rate=Rate(limit=10, period_us=SECOND, burst=5))


class Counted:
    """One operation in a real store, at times that the test names."""

    def __init__(self, redis: Redis, cluster: str, terms: Terms) -> None:
        self.redis, self.keys = redis, Keys(cluster, "billing.charge")
        self.terms = terms
        self.run("publish", *publish_arguments(terms, "v1"))

    def run(self, verb: str, *arguments: str | int) -> list[Any]:
        reply: list[Any] = self.redis.eval(SCRIPTS[verb].text, len(self.keys.all), *self.keys.all, *arguments)
        return reply

    def carry(
        self, replica: str, number: int, started: int, *, at: float = 10, since: float = 0, peak: int = 1,
        looked: float | None = None, counted: int = 0, tenants: dict[str, int] | None = None,
    ) -> int:  # fmt: skip
        """Tell an episode that began at `since`, at `at` (seconds from the start); what goes over."""
        per_tenant = [part for pair in (tenants or {}).items() for part in pair]
        looked_us = 0 if looked is None else START + int(looked * SECOND)
        reply = self.run(
            "carry", START + int(at * SECOND), replica, number, START + int(since * SECOND), started, started + 1,
            peak, looked_us, counted, *per_tenant,
        )  # fmt: skip
        assert reply[0] == 0
        return int(reply[2])

    def field(self, name: str, tenant: str = "") -> int:
        key = self.keys.named("rate") + (f":{tenant}" if tenant else "")
        found = self.redis.hget(key, name)
        assert isinstance(found, bytes)
        return int(found)

    def starts(self, *, at: float, tenant: str = "") -> bool:
        now = START + int(at * SECOND)
        reply = self.run("admit", now, "", "", "RRRRRRRR", 10_000_000, f"RRRRRRRR.{at}", tenant, 1, 0)
        return bool(reply[-7] == 1)


@pytest.fixture
def paced(redis: Redis, cluster: str) -> Counted:
    return Counted(redis, cluster, Terms(limits=TEN_A_SECOND))


def test_an_episode_counts_once_however_often_it_is_told(paced: Counted) -> None:
    """The reply got lost, and the replica tells it again: the rate is not charged twice, nor the quota."""
    for _ in range(3):
        paced.carry("AAAAAAAA", 1, 30)
    assert (paced.field("started"), paced.field("wanted")) == (30, 31)
    paced.carry("AAAAAAAA", 2, 5)
    paced.carry("BBBBBBBB", 1, 7)
    assert paced.field("started") == 42


def test_what_started_used_the_rate_of_its_own_time(paced: Counted) -> None:
    """80 starts in 10 s at 10/s are no debt: who comes now is not made to pay for them again."""
    paced.carry("AAAAAAAA", 1, 80)
    assert paced.starts(at=10)
    assert paced.field("tat") <= START + 10.2 * SECOND


def test_more_than_the_rate_is_a_debt_that_never_exceeds_two_bursts(paced: Counted) -> None:
    """100,000 starts would otherwise close the operation for three hours."""
    paced.carry("AAAAAAAA", 1, 100_000)
    assert not paced.starts(at=10)
    assert paced.field("tat") == START + 11 * SECOND
    assert paced.starts(at=10.7)


def test_two_replicas_within_their_shares_are_not_over(paced: Counted) -> None:
    assert paced.carry("AAAAAAAA", 1, 40) == 0
    assert paced.carry("BBBBBBBB", 1, 40) == 0


def test_all_replicas_together_are_compared_with_the_limit(paced: Counted) -> None:
    """In 10 s the limit allows 105. Each is told only what its own carry adds."""
    assert paced.carry("AAAAAAAA", 1, 80) == 0
    assert paced.carry("BBBBBBBB", 1, 80) == 160 - 105
    assert paced.carry("CCCCCCCC", 1, 80) == 80
    assert paced.carry("CCCCCCCC", 1, 80) == 0, "it was told before"


def test_what_was_told_before_is_not_told_again_after_a_quiet_while(paced: Counted) -> None:
    """Of 55 over, time has worked off 50; 40 more on top of the rest are 45 over, and nobody had not heard of that."""
    assert paced.carry("AAAAAAAA", 1, 160) == 55
    assert paced.carry("AAAAAAAA", 2, 0, at=15, since=14) == 0
    assert paced.carry("AAAAAAAA", 3, 40, at=15, since=14) == 0
    assert paced.carry("AAAAAAAA", 4, 20, at=15, since=14) == 10


def test_what_the_store_itself_admitted_meanwhile_counts_as_well(paced: Counted) -> None:
    """One of two replicas is cut off: the other has the whole limit."""
    for tenth in range(100):
        assert paced.starts(at=tenth / 10)
    # The look at the beginning is the base: 100 by the store, 40 by the one that was cut off, and 105 are allowed.
    assert paced.carry("AAAAAAAA", 1, 40, looked=0, counted=0) == 35


def test_an_episode_long_after_the_last_is_compared_by_itself(paced: Counted) -> None:
    assert paced.carry("AAAAAAAA", 1, 205) == 100
    assert paced.carry("AAAAAAAA", 2, 205, at=40, since=30) == 100
    assert paced.carry("BBBBBBBB", 1, 10, at=41, since=30) == 0, "the eleventh second allows ten more"


def test_peaks_of_calls_in_flight_are_summed_over_the_replicas(redis: Redis, cluster: str) -> None:
    narrow = Counted(redis, cluster, Terms(limits=Limits(concurrency=10)))
    assert narrow.carry("AAAAAAAA", 1, 50, peak=8) == 0
    assert narrow.carry("BBBBBBBB", 1, 50, peak=8) == 6
    assert narrow.carry("BBBBBBBB", 2, 50, peak=7, at=11, since=10.5) == 0, (
        "the most of a replica, not its sum"
    )
    assert narrow.carry("BBBBBBBB", 3, 50, peak=9, at=12, since=11.5) == 1
    assert narrow.carry("AAAAAAAA", 2, 50, peak=8, at=60, since=50) == 0, (
        "another episode: old peaks are gone"
    )


def test_a_quota_is_used_up_by_what_started_without_the_store(redis: Redis, cluster: str) -> None:
    period = (START - SECOND, START + 3_600 * SECOND)
    budget = Counted(redis, cluster, Terms(quota=50, periods=(period,)))
    budget.carry("AAAAAAAA", 1, 49)
    assert budget.starts(at=10)
    assert not budget.starts(at=10.1)


def test_a_tenants_rate_is_charged_too(redis: Redis, cluster: str) -> None:
    per = Counted(redis, cluster, Terms(per_tenant=TEN_A_SECOND, tenants={"vip": Limits()}))
    per.carry("AAAAAAAA", 1, 1_200, tenants={"acme": 1_000, "vip": 100, "idle": 100})
    assert not per.starts(at=10, tenant="acme")
    assert per.starts(at=10, tenant="idle")
    assert per.starts(at=10, tenant="vip")


def test_a_store_without_the_operation_says_so_and_counts_nothing(redis: Redis, cluster: str) -> None:
    """It was flushed: the limits are published first, and the episode is told again."""
    paced = Counted(redis, cluster, Terms(limits=TEN_A_SECOND))
    redis.delete(paced.keys.named("policy"))
    assert paced.run("carry", START, "AAAAAAAA", 1, START, 5, 5, 1, 0, 0)[0] == 3
    assert not redis.exists(paced.keys.named("policy") + ":alone")


def test_what_is_remembered_of_episodes_goes_by_itself(paced: Counted) -> None:
    paced.carry("AAAAAAAA", 1, 5)
    ttl = paced.redis.ttl(paced.keys.named("policy") + ":alone")
    assert 3_500 < ttl <= 3_600
