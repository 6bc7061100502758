"""What `GET /v1/operations` tells callers."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import jsonschema_rs
import pytest

from breaker.core.model import (
    Capacity,
    Config,
    Cost,
    Credential,
    Downstream,
    Gateway,
    Hours,
    Limits,
    Match,
    Mode,
    Operation,
    Overflow,
    Per,
    Quota,
    Rate,
    Schedule,
    StoreSettings,
)
from breaker.core.state import Ask
from breaker.core.verdict import Admitted
from breaker.store.capacity import CapacityStore, Look
from breaker.web.catalogue import CATALOGUE_SCHEMA, catalogue, operation_entry

SECOND = 1_000_000
OPEN = Limits(rate=Rate(limit=6, period_us=SECOND, burst=3), concurrency=2)
CLOSED = Limits(rate=Rate(limit=0, period_us=SECOND))
DAYTIME = Schedule(
    timezone="Europe/Berlin",
    hours=(
        Hours(
            weekdays=frozenset(range(5)),
            start_minute=480,
            end_minute=1080,
            limits=OPEN,
            text="mon-fri 08:00-18:00",
        ),
    ),
    otherwise=CLOSED,
)
OPERATION = Operation(
    name="support.create-ticket", pipeline="support", team="support-operations",
    match=Match(method="POST", template="/tickets/{id}"),
    downstream=Downstream(url="http://10.9.8.7:1", credential=Credential(header="Authorization", value="hunter2")),
    capacity=Capacity(
        limits=OPEN, schedule=DAYTIME, per_tenant=Limits(concurrency=1), tenants={"wonka": Limits(concurrency=9)},
        quota=Quota(limit=70, per=Per.WEEK, timezone="Europe/Berlin"), cost=Cost(header="X-Weight", max=4),
    ),
)  # fmt: skip
LOOK = Look(
    limits=OPEN, configured=OPEN, source="file", version="v", in_use=1, waiting=4, started=10, wanted=20,
    service_us=1, quota_limit=70, quota_used=12,
)  # fmt: skip
FRIDAY_NIGHT = int(datetime.fromisoformat("2026-03-27T22:00:00+01:00").timestamp()) * SECOND


def entry(look: Look | None, **capacity: Any) -> dict[str, Any]:
    return operation_entry(
        replace(OPERATION, capacity=replace(OPERATION.capacity, **capacity)), look, now_us=FRIDAY_NIGHT
    )


@pytest.mark.parametrize("look", [None, LOOK, replace(LOOK, limits=CLOSED), replace(LOOK, limits=Limits())])
@pytest.mark.parametrize("capacity", [Capacity(), OPERATION.capacity])
def test_every_entry_is_what_the_document_says(look: Look | None, capacity: Capacity) -> None:
    """A client that was generated from the document can read the catalogue."""
    one = replace(OPERATION, capacity=capacity)
    config = Config(version="v1", folder="c", gateway=Gateway(), operations={one.name: one})
    told = json.loads(json.dumps(catalogue(config, {one.name: look}, now_us=FRIDAY_NIGHT)))
    jsonschema_rs.Draft202012Validator(CATALOGUE_SCHEMA, validate_formats=True).validate(told)
    assert [found["path"] for found in told["operations"]] == ["/support/tickets/{id}"]


def test_an_operation_that_cannot_be_read_promises_what_the_file_says_and_nothing_of_now() -> None:
    """Numbers that nobody could read are null, not zero: zero would look like room."""
    config = Config(version="v1", folder="c", gateway=Gateway(), operations={OPERATION.name: OPERATION})
    (told,) = catalogue(config, {}, now_us=FRIDAY_NIGHT)["operations"]
    assert told["now"] is None
    assert told["promise"]["limits"] is None
    assert told["promise"]["source"] is None
    assert told["promise"]["quota"]["used"] is None
    assert told["promise"]["configured"]["rate"] == {"limit": 6, "period_ms": 1_000, "burst": 3}


def test_limits_in_force_and_configured_stand_side_by_side() -> None:
    """After an override a caller sees both, and why."""
    raised = replace(LOOK, limits=Limits(concurrency=5), source="override")
    promise = entry(raised)["promise"]
    assert promise["limits"] == {"rate": None, "concurrency": 5}
    assert promise["configured"]["concurrency"] == 2
    assert promise["source"] == "override"
    assert promise["quota"]["used"] == 12


@pytest.mark.parametrize(("in_use", "free"), [(0, 2), (1, 1), (2, 0), (3, 0)])
def test_free_slots_never_are_fewer_than_none(in_use: int, free: int) -> None:
    """A lowered limit leaves more in flight than it allows."""
    now = entry(replace(LOOK, in_use=in_use))["now"]
    assert (now["in_flight"], now["free"], now["waiting"]) == (in_use, free, 4)


def test_calls_in_flight_are_not_told_where_they_are_not_counted() -> None:
    """Without a limit no slot is held, so zero would be wrong."""
    now = entry(replace(LOOK, limits=Limits(rate=OPEN.rate), in_use=0))["now"]
    assert now["in_flight"] is None
    assert now["free"] is None


def test_a_closed_operation_says_when_it_opens_also_over_a_change_of_clocks() -> None:
    """Friday evening to Monday 08:00 in Berlin, with summer time beginning in between."""
    now = entry(replace(LOOK, limits=CLOSED, source="schedule"))["now"]
    assert now["closed"] is True
    assert now["closed_until"] == "2026-03-30T06:00:00Z"


def test_an_opening_is_never_now() -> None:
    """The store still says closed while the calendar just opened: "until now" would call everybody at once."""
    friday_morning = FRIDAY_NIGHT - 12 * 3_600 * SECOND
    closed = replace(LOOK, limits=CLOSED, source="schedule")
    now = operation_entry(OPERATION, closed, now_us=friday_morning)["now"]
    assert now["closed_until"] == "2026-03-30T06:00:00Z"


@pytest.mark.parametrize(
    ("look", "schedule", "closed"),
    [
        (LOOK, DAYTIME, False),
        (replace(LOOK, limits=CLOSED, source="override"), DAYTIME, True),
        (replace(LOOK, limits=CLOSED), None, True),
        (replace(LOOK, limits=CLOSED), replace(DAYTIME, hours=()), True),
    ],
)
def test_no_opening_is_named_that_nobody_knows(look: Look, schedule: Schedule | None, closed: bool) -> None:
    """What a person closed opens when a person says so."""
    now = entry(look, schedule=schedule)["now"]
    assert (now["closed"], now["closed_until"]) == (closed, None)


def test_only_calls_that_would_wait_are_promised_a_wait() -> None:
    """With `alert`, and in shadow, nobody waits."""
    alert = operation_entry(replace(OPERATION, overflow=Overflow.ALERT), LOOK, now_us=0)
    assert alert["promise"]["max_wait_ms"] == 0
    assert entry(LOOK, mode=Mode.SHADOW)["promise"]["max_wait_ms"] == 0
    assert entry(LOOK)["promise"]["max_wait_ms"] == 1_000


@pytest.mark.parametrize(
    ("cost", "most"), [(Cost(), 1), (Cost(constant=3), 3), (Cost(header="W", constant=5, max=2), 5)]
)
def test_the_most_that_a_call_weighs_covers_calls_without_the_header(cost: Cost, most: int) -> None:
    assert entry(LOOK, cost=cost)["promise"]["cost"]["max"] == most


def test_callers_learn_no_secret_no_address_and_no_other_tenant() -> None:
    text = json.dumps(entry(LOOK))
    for secret in ("10.9.8.7", "hunter2", "wonka"):
        assert secret not in text


async def test_the_numbers_are_those_of_the_store(store_url: str, cluster: str) -> None:
    """One call in flight is one slot fewer, for whoever asks."""
    one = replace(OPERATION, capacity=Capacity(limits=OPEN))
    store = CapacityStore(
        StoreSettings(url=store_url, timeout_ms=2_000),
        cluster=cluster,
        replica="R0000001",
        emit=lambda _: None,
    )
    await store.publish({one.name: one}, "v7")
    try:
        verdict = await store.admit(store.lane(one.name), Ask(id="R0000001.00000001"))
        assert isinstance(verdict, Admitted)
        told = operation_entry(one, await store.look(one.name), now_us=store.clock.now_us())
    finally:
        await store.close()
    assert told["now"] == {"in_flight": 1, "free": 1, "waiting": 0, "closed": False, "closed_until": None}
    assert told["promise"]["limits"] == told["promise"]["configured"]
    assert told["promise"]["source"] == "file"
