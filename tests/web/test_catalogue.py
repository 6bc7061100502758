"""What `GET /v1/operations` tells callers."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import jsonschema_rs
import pytest

from breaker.core.circuit import CircuitState
from breaker.core.circuit_policy import CircuitMode, CircuitPolicy
from breaker.core.config import Config, Gateway, StoreSettings
from breaker.core.job_policy import BANDS, Band, Durability, Effects
from breaker.core.job_policy import Queue as JobQueue
from breaker.core.jobs import Pace
from breaker.core.model import (
    Capacity,
    Cost,
    Credential,
    Downstream,
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
)
from breaker.core.promise import Eta
from breaker.core.state import Ask
from breaker.core.verdict import Admitted
from breaker.store.capacity import CapacityStore, CircuitLook, Look
from breaker.store.job_desk import QueueLook
from breaker.web.catalogue import CATALOGUE_SCHEMA, catalogue, operation_entry
from breaker.web.catalogue_circuit import is_barred
from tests.gateway.gateway_process import Start
from tests.web.job_scene import job_scene

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


WAITING = {Band.CRITICAL: 1, Band.HIGH: 0, Band.NORMAL: 4, Band.LOW: 2}
QUEUE = QueueLook(
    now_us=FRIDAY_NIGHT, limits=OPEN, waiting=WAITING, oldest_us={band: 1_500 * count for band, count in WAITING.items()},
    deadline_us=dict.fromkeys(BANDS, 0), scheduled=3, running=2, dead=5, unknown=1, suspects=0, callbacks=0, probes=0,
    results=9, bytes_used=1, bytes_results=1, accepted=20, succeeded=1, expired=0, cancelled=0, discarded=0, dead_total=5,
    unknown_total=1, withdrawn=0, late=0, unaccounted=0, lost=0, pace=Pace(mean_us=7), held="", held_until_us=0,
    held_since_us=0, held_author="", held_reason="",
)  # fmt: skip
EMPTY = replace(QUEUE, waiting=dict.fromkeys(BANDS, 0))
PAUSED = replace(
    QUEUE, held="paused", held_since_us=FRIDAY_NIGHT, held_author="ann", held_reason="call 555-1234"
)
QUEUED = replace(
    OPERATION, overflow=Overflow.QUEUE, effects=Effects.ONCE,
    queue=JobQueue(start_within_ms=900_000, jobs_max=1_000, durability=Durability.REPLICATED, replicas=2),
)  # fmt: skip


def forecast(name: str, ahead: int, pace: Pace) -> Eta | None:
    """A second for each job before it, by the pace that was measured."""
    assert (name, pace) == (OPERATION.name, QUEUE.pace)
    return Eta(p50_us=ahead * SECOND, p90_us=2 * ahead * SECOND)


def entry(look: Look | None, **capacity: Any) -> dict[str, Any]:
    return operation_entry(
        replace(OPERATION, capacity=replace(OPERATION.capacity, **capacity)), look, now_us=FRIDAY_NIGHT
    )


@pytest.mark.parametrize("look", [None, LOOK, replace(LOOK, limits=CLOSED), replace(LOOK, limits=Limits())])
@pytest.mark.parametrize("capacity", [Capacity(), OPERATION.capacity])
@pytest.mark.parametrize(
    "queue", [None, QUEUE, EMPTY, PAUSED, replace(PAUSED, held="draining", held_until_us=SECOND)]
)
def test_every_entry_is_what_the_document_says(
    look: Look | None, capacity: Capacity, queue: QueueLook | None
) -> None:
    """A client that was generated from the document can read the catalogue."""
    one = replace(QUEUED if queue else OPERATION, capacity=capacity)
    config = Config(version="v1", folder="c", gateway=Gateway(), operations={one.name: one})
    told = catalogue(config, {one.name: look}, {one.name: queue}, forecast=forecast, now_us=FRIDAY_NIGHT)
    told = json.loads(json.dumps(told))
    jsonschema_rs.Draft202012Validator(CATALOGUE_SCHEMA, validate_formats=True).validate(told)
    assert [found["path"] for found in told["operations"]] == ["/support/tickets/{id}"]


def test_an_operation_that_cannot_be_read_promises_what_the_file_says_and_nothing_of_now() -> None:
    """Numbers that nobody could read are null, not zero: zero would look like room."""
    config = Config(version="v1", folder="c", gateway=Gateway(), operations={OPERATION.name: OPERATION})
    (told,) = catalogue(config, {}, {}, forecast=forecast, now_us=FRIDAY_NIGHT)["operations"]
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
    told = operation_entry(QUEUED, LOOK, PAUSED, forecast=forecast, now_us=FRIDAY_NIGHT)
    for secret in ("10.9.8.7", "hunter2", "wonka", "ann", "555-1234"):
        assert secret not in json.dumps(told)


def test_an_operation_with_a_queue_says_what_waits_and_when_a_new_job_would_start() -> None:
    """Who is about to send a thousand calls can see what that will mean."""
    told = operation_entry(QUEUED, LOOK, QUEUE, forecast=forecast, now_us=FRIDAY_NIGHT)
    assert told["promise"]["queue"]["start_within_ms"] == 900_000
    assert told["promise"]["queue"]["durability"] == "replicated: 2"
    assert told["promise"]["queue"]["effects"] == "once"
    assert told["promise"]["max_wait_ms"] == 0, "a job is not a call that waits"
    now = told["now"]["queue"]
    assert (now["queued"], now["scheduled"], now["running"], now["held"]) == (7, 3, 2, None)
    assert {band: found["queued"] for band, found in now["bands"].items()} == WAITING
    assert now["bands"]["normal"]["oldest_ms"] == 6
    # Those of higher bands go first.
    assert {band: found["eta"]["p50_ms"] for band, found in now["bands"].items()} == {
        "critical": 1_000, "high": 1_000, "normal": 5_000, "low": 7_000,
    }  # fmt: skip
    assert now["bands"]["low"]["eta"]["p90_ms"] == 14_000


@pytest.mark.parametrize(
    ("look", "queue", "normal"),
    [
        (LOOK, EMPTY, {"p50_ms": 0, "p90_ms": 0}),
        (replace(LOOK, limits=Limits(rate=OPEN.rate)), EMPTY, {"p50_ms": 0, "p90_ms": 0}),
        (LOOK, PAUSED, None),
        (LOOK, replace(EMPTY, held="draining"), None),
        (replace(LOOK, quota_used=69), QUEUE, {"p50_ms": 5_000, "p90_ms": 10_000}),
        (replace(LOOK, quota_used=70), QUEUE, None),
        (replace(LOOK, quota_limit=None, quota_used=70), QUEUE, {"p50_ms": 5_000, "p90_ms": 10_000}),
        (replace(LOOK, circuit=CircuitLook(state=CircuitState.OPEN)), EMPTY, None),
        (replace(LOOK, circuit=CircuitLook(state=CircuitState.DISABLED)), EMPTY, {"p50_ms": 0, "p90_ms": 0}),
        (replace(LOOK, circuit=CircuitLook(pause_until_us=FRIDAY_NIGHT + 1)), EMPTY, None),
        (replace(LOOK, circuit=CircuitLook(pause_until_us=FRIDAY_NIGHT)), EMPTY, {"p50_ms": 0, "p90_ms": 0}),
    ],
)
def test_no_start_is_forecast_that_nobody_knows(
    look: Look, queue: QueueLook, normal: dict[str, int] | None
) -> None:
    """An empty queue with room is no wait, and a held one no known wait."""
    one = replace(QUEUED, capacity=Capacity(limits=OPEN))
    told = operation_entry(one, look, queue, forecast=forecast, now_us=FRIDAY_NIGHT)
    assert told["now"]["queue"]["bands"]["normal"]["eta"] == normal


@pytest.mark.parametrize("state", CircuitState)
@pytest.mark.parametrize("mode", CircuitMode)
def test_only_a_circuit_that_decides_bars(mode: CircuitMode, state: CircuitState) -> None:
    """One in shadow opens all day and keeps nobody waiting, unless a person opened it."""
    one = replace(QUEUED, circuit=CircuitPolicy(mode=mode))
    bars = is_barred(one, replace(LOOK, circuit=CircuitLook(state=state)), FRIDAY_NIGHT)
    by_itself = mode is CircuitMode.ENFORCE and state in (CircuitState.OPEN, CircuitState.HALF_OPEN)
    assert bars is (by_itself or (mode is not CircuitMode.OFF and state is CircuitState.FORCED_OPEN))


def test_a_full_or_closed_operation_without_jobs_is_forecast_by_its_pace() -> None:
    """Room that is used up by direct calls is no room."""
    for look in (replace(LOOK, in_use=2), replace(LOOK, limits=CLOSED)):
        asked: list[int] = []

        def noted(name: str, ahead: int, pace: Pace, asked: list[int] = asked) -> None:
            del name, pace
            asked.append(ahead)

        told = operation_entry(QUEUED, look, EMPTY, forecast=noted, now_us=FRIDAY_NIGHT)
        assert asked == [0] * 4
        assert told["now"]["queue"]["bands"]["high"]["eta"] is None


def test_a_held_operation_says_so_and_until_when() -> None:
    """Its callers need not guess why nothing moves."""
    told = operation_entry(QUEUED, LOOK, PAUSED, forecast=forecast, now_us=FRIDAY_NIGHT)
    assert told["now"]["queue"]["held"] == {
        "state": "paused",
        "since": "2026-03-27T21:00:00.000Z",
        "until": None,
    }


async def test_callers_read_the_queue_of_the_store(start_gateway: Start) -> None:
    """The page, from a real gateway with jobs in it."""
    async with job_scene(start_gateway, queue={"max_jobs": 7}) as scene:
        await scene.fill()
        for number in range(3):
            assert (await scene.call(str(number), "Breaker-Band: high")).status == 202
        told = json.loads((await scene.own("GET", "/v1/operations")).body)
        found = {one["name"]: one for one in told["operations"]}
        assert found["desk.other"]["promise"]["queue"] is None
        assert found["desk.other"]["now"]["queue"] is None
        work = found["desk.work"]
        assert work["promise"]["queue"]["max_jobs"] == 7
        assert (work["now"]["queue"]["running"], work["now"]["queue"]["queued"]) == (1, 3)
        assert work["now"]["queue"]["bands"]["high"]["queued"] == 3


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
    assert told["now"] == {
        "in_flight": 1, "free": 1, "waiting": 0, "closed": False, "closed_until": None, "queue": None,
        "circuit": {"mode": "enforce", "state": "closed", "since": None, "until": None, "pause_until": None},
    }  # fmt: skip
    assert told["promise"]["limits"] == told["promise"]["configured"]
    assert told["promise"]["source"] == "file"
