"""What only this replica can see, as it tells the steward."""

import pytest

from breaker.core.events import (
    ClockJumped,
    ConfigLoaded,
    DegradedBegan,
    DegradedEnded,
    JobsLost,
    LoneReplica,
    StoreRecovered,
    StoreReset,
)
from breaker.signals.cluster_conditions import Outage
from breaker.signals.noted import LOST_MAX, LOST_SHOWN_US, Noted
from breaker.store.alert_book import Note

CHARGE, CREATE = "billing.charge", "support.create"


class Now:
    us = 5_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def noted(now: Now) -> Noted:
    return Noted("A", now)


def test_a_replica_that_saw_nothing_says_so(noted: Noted, now: Now) -> None:
    """Its note tells that it lives."""
    noted.listen(StoreRecovered(3.0))
    assert noted.note() == Note(replica="A", at_us=now.us)
    assert noted.outage is None


def test_who_is_alone_says_so_until_it_is_not(noted: Noted) -> None:
    """By operation; told twice it is still one."""
    for operation in (CREATE, CHARGE, CHARGE):
        noted.listen(LoneReplica(operation, is_lone=True, detail="8 of 9"))
    assert noted.note().lone == (CHARGE, CREATE)
    noted.listen(LoneReplica(CHARGE, is_lone=False, detail=""))
    noted.listen(LoneReplica("billing.other", is_lone=False, detail=""))
    assert noted.note().lone == (CREATE,)


def test_jobs_that_were_lost_are_said_for_an_hour(noted: Noted, now: Now) -> None:
    """Each telling is of more than before; they add up, and leave one by one."""
    noted.listen(JobsLost(CHARGE, 3))
    now.us += 10
    noted.listen(JobsLost(CHARGE, 4))
    noted.listen(JobsLost(CREATE, 1))
    assert noted.note().lost == {CHARGE: 7, CREATE: 1}
    now.us += LOST_SHOWN_US - 11
    assert noted.note().lost == {CHARGE: 7, CREATE: 1}
    now.us += 1
    assert noted.note().lost == {CHARGE: 4, CREATE: 1}
    now.us += 10
    assert noted.note().lost == {}


def test_what_is_remembered_of_losses_is_bounded(noted: Noted) -> None:
    """A store that flaps for a day must not fill the memory of a replica."""
    for _ in range(LOST_MAX + 5):
        noted.listen(JobsLost(CHARGE, 1))
    assert noted.note().lost == {CHARGE: LOST_MAX}


def test_a_configuration_that_was_refused_is_said_until_one_is_taken(noted: Noted) -> None:
    """The old one stays in force meanwhile."""
    noted.listen(ConfigLoaded("v2", ok=False, detail="unknown key"))
    assert not noted.note().reload_ok
    noted.listen(ConfigLoaded("v3", ok=True, detail=""))
    assert noted.note().reload_ok


def test_a_reset_and_a_jump_are_said_with_their_moment(noted: Noted, now: Now) -> None:
    """How long they are shown is the steward's business."""
    noted.listen(StoreReset("its epoch is gone"))
    then = now.us
    now.us += 7
    noted.listen(ClockJumped(-3_000_000))
    now.us += 7
    note = noted.note()
    assert (note.reset_us, note.jump_us, note.jumped_us, note.at_us) == (
        then,
        then + 7,
        -3_000_000,
        then + 14,
    )


def test_only_a_store_that_is_away_for_all_is_an_outage(noted: Noted) -> None:
    """One node of a Cluster concerns its operations; the others go on, and so does the steward."""
    events = (
        DegradedBegan("timeout", "no answer", CHARGE), DegradedBegan("timeout", "no answer"), DegradedEnded(3.0, CHARGE),
        DegradedEnded(3.0),
    )  # fmt: skip
    outages = []
    for event in events:
        noted.listen(event)
        outages.append(noted.outage)
    away = Outage(kind="timeout", detail="no answer")
    assert outages == [None, away, away, None]
