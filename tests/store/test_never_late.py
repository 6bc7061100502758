"""
Never late: a step that comes too late, or at a time that cannot be, writes nothing.

A store that was frozen runs what was sent to it minutes ago. Without these rules it was seen to
admit 64 calls for nobody.
"""

from typing import Any

import pytest
from redis import Redis

from breaker.core.model import LEASE_US, Limits, Rate
from breaker.core.terms import Terms
from breaker.store.keys import Keys
from breaker.store.parts import GRANT_HEAD, HEAD_SIZE
from breaker.store.policy import publish_arguments
from breaker.store.scripts import load_scripts

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
SCRIPTS = load_scripts()
DONE, LATE, CLOCK, UNKNOWN = 0, 1, 2, 3
ADMITTED, REFUSED, WITHDRAWN = 1, 5, 7


class Steps:
    """The scripts of one operation, with a given time."""

    def __init__(self, redis: Redis, cluster: str) -> None:
        self.redis, self.keys = redis, Keys(cluster, "billing.charge")

    def run(self, verb: str, *arguments: str | int) -> list[Any]:
        reply: list[Any] = self.redis.eval(SCRIPTS[verb].text, len(self.keys.all), *self.keys.all, *arguments)
        return reply

    def publish(self, terms: Terms) -> None:
        self.run("publish", *publish_arguments(terms, "v1"))

    def admit(self, id_: str, *, estimate: int | str = NOW, not_after: int | str = NOW) -> list[Any]:
        return self.run("admit", NOW, estimate, not_after, "AAAAAAAA", LEASE_US, id_, "", 1, 0)

    def grant(self, *, estimate: int | str = NOW, not_after: int | str = NOW) -> list[Any]:
        return self.run("grant", NOW, estimate, not_after, "AAAAAAAA", LEASE_US, 1, "billing.charge", "w:")

    def written(self) -> dict[bytes, bytes]:
        """All that the operation has in the store, byte for byte."""
        names = sorted(self.redis.scan_iter(self.keys.prefix.replace("{", "?").replace("}", "?") + "*"))
        return {name: self.redis.dump(name) for name in names}  # type: ignore[misc]


@pytest.fixture
def steps(redis: Redis, cluster: str) -> Steps:
    steps = Steps(redis, cluster)
    limits = Limits(rate=Rate(limit=10, period_us=SECOND, burst=10), concurrency=5)
    steps.publish(Terms(limits=limits, per_tenant=limits))
    return steps


@pytest.mark.parametrize(("not_after", "what"), [(NOW + 1, DONE), (NOW, DONE), (NOW - 1, LATE)])
def test_nothing_is_admitted_after_its_moment(steps: Steps, not_after: int, what: int) -> None:
    """The caller has been answered long ago; a slot for it would be held for nobody."""
    before = steps.written()
    reply = steps.admit("AAAAAAAA.1", not_after=not_after)
    assert reply[:2] == [what, NOW]
    assert (steps.written() == before) is (what == LATE)


@pytest.mark.parametrize(
    ("off", "what"),
    [(0, DONE), (2 * SECOND, DONE), (2 * SECOND + 1, CLOCK), (-2 * SECOND, DONE), (-2 * SECOND - 1, CLOCK)],
)
def test_nothing_is_admitted_while_the_clocks_disagree(steps: Steps, off: int, what: int) -> None:
    """A clock that jumped by an hour must not expire all leases, nor hold them for two hours."""
    before = steps.written()
    reply = steps.admit("AAAAAAAA.1", estimate=NOW + off, not_after=NOW + 3_600 * SECOND)
    assert reply[:2] == [what, NOW]
    assert (steps.written() == before) is (what == CLOCK)


@pytest.mark.parametrize(("not_after", "what"), [(NOW, DONE), (NOW - 1, LATE)])
def test_nothing_is_granted_after_its_moment(steps: Steps, not_after: int, what: int) -> None:
    """The same for those who waited in line."""
    one = Limits(rate=Rate(limit=1, period_us=SECOND))
    steps.publish(Terms(limits=one))
    steps.run("admit", NOW - SECOND, "", "", "AAAAAAAA", LEASE_US, "AAAAAAAA.1", "", 1, 0)
    steps.run("admit", NOW - SECOND, "", "", "AAAAAAAA", LEASE_US, "AAAAAAAA.2", "", 1, 2 * SECOND)
    before = steps.written()
    reply = steps.grant(not_after=not_after)
    assert reply[0] == what
    assert reply[GRANT_HEAD:] == ([b"AAAAAAAA.2"] if what == DONE else [])
    assert (steps.written() == before) is (what == LATE)


@pytest.mark.parametrize(("off", "what"), [(2 * SECOND, DONE), (2 * SECOND + 1, CLOCK)])
def test_nothing_is_granted_while_the_clocks_disagree(steps: Steps, off: int, what: int) -> None:
    """The same again, from the other script that gives capacity away."""
    assert steps.grant(estimate=NOW - off, not_after=NOW)[0] == what


def test_a_call_that_was_withdrawn_is_not_admitted_when_it_arrives(steps: Steps) -> None:
    """The reply got lost, the replica gave up, and then the store reads the call from its buffer."""
    assert steps.run("withdraw", NOW, "AAAAAAAA.1", "acme", 1, "gone")[3:] == [0, 0, 0]
    assert steps.admit("AAAAAAAA.1")[HEAD_SIZE] == WITHDRAWN
    assert steps.admit("AAAAAAAA.2")[HEAD_SIZE] == ADMITTED
    assert steps.run("look", NOW)[5] == 1


def test_a_tombstone_outlives_a_lease_and_goes_away(steps: Steps) -> None:
    """The owner of the store: what was withdrawn leaves nothing behind for ever."""
    steps.run("withdraw", NOW, "AAAAAAAA.1", "", 1, "gone")
    tombs = steps.keys.named("tombs")
    assert steps.redis.zscore(tombs, "AAAAAAAA.1") == NOW + LEASE_US
    assert 10_000 <= steps.redis.pttl(tombs) <= 20_000
    steps.run("withdraw", NOW + LEASE_US - 1, "AAAAAAAA.2", "", 1, "gone")
    assert steps.redis.zcard(tombs) == 2
    steps.run("withdraw", NOW + LEASE_US, "AAAAAAAA.3", "", 1, "gone")
    assert steps.redis.zcard(tombs) == 2


def test_withdrawing_what_was_admitted_gives_slot_and_token_back(steps: Steps) -> None:
    """It never started: a lost reply costs nothing."""
    for number in range(5):
        assert steps.admit(f"AAAAAAAA.{number}")[HEAD_SIZE] == ADMITTED
    assert steps.admit("AAAAAAAA.5")[HEAD_SIZE] == REFUSED
    assert steps.run("withdraw", NOW, "AAAAAAAA.0", "", 1, "gone")[3] == 1
    reply = steps.admit("AAAAAAAA.6")
    assert (reply[HEAD_SIZE], reply[HEAD_SIZE + 4]) == (ADMITTED, 5), (
        "five tokens of ten are left, as if it had not been"
    )


@pytest.mark.parametrize("verb", ["admit", "grant", "withdraw", "look"])
def test_an_operation_that_the_store_does_not_know_is_said(redis: Redis, cluster: str, verb: str) -> None:
    """A store that was flushed must not admit without limits, and nothing is made up silently."""
    steps = Steps(redis, cluster)
    arguments: dict[str, tuple[str | int, ...]] = {
        "admit": (NOW, NOW, NOW, "AAAAAAAA", LEASE_US, "AAAAAAAA.1", "", 1, 0),
        "grant": (NOW, NOW, NOW, "AAAAAAAA", LEASE_US, 1, "billing.charge", "w:"),
        "withdraw": (NOW, "AAAAAAAA.1", "", 1, "gone"),
        "look": (NOW,),
    }
    assert steps.run(verb, *arguments[verb]) == [UNKNOWN, NOW]
    assert steps.written() == {}
