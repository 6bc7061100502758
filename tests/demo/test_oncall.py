"""
What of the messages to on-call the demonstration asks for, and what it shows.

For who trusts its exit status: an alert that did not arrive is a failure, and one that could not arrive is none.
"""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from breaker.core.config import Config
from breaker.demo.arrivals import ALERTMANAGER, GATEWAY, OVER_CAPACITY, Alert, Arrival, Arrivals
from breaker.demo.oncall import is_due, on_call_checks, operations_told
from breaker.demo.table import Picture, Screen, alert_lines, headline
from breaker.policy.load import load
from tests.demo.story import CHARGE, CONFIG, TICKET

COMMAND = "breaker ops set support.create-ticket rate=9/s --for 1h"
ALERT = Alert(name=OVER_CAPACITY, severity="warning", operation=TICKET, action=COMMAND)


@pytest.fixture
def config() -> Config:
    return load(CONFIG, {})


def arrival(
    number: int = 1, way: str = GATEWAY, kind: str = "firing", text: str = "", alert: Alert = ALERT
) -> Arrival:
    return Arrival(
        number=number, way=way, kind=kind, text=text or f"{alert.operation} is full. Do: {alert.action}",
        alerts=(alert,),
    )  # fmt: skip


def of(*arrived: Arrival) -> Arrivals:
    arrivals = Arrivals()
    arrivals.take(arrived)
    return arrivals


def agreed(arrivals: Arrivals, *, due: bool = True, prometheus: bool = True) -> tuple[list[bool], int]:
    checks, remarks = on_call_checks(arrivals, is_due=due, has_prometheus=prometheus)
    return [check.agrees for check in checks], len(remarks)


def test_a_message_that_can_be_acted_on_is_what_is_asked_for() -> None:
    assert agreed(of(arrival())) == ([True], 1)
    assert agreed(of(arrival()), prometheus=False) == ([True], 0)
    assert agreed(of(arrival(), arrival(2, ALERTMANAGER))) == ([True, True], 0)


@pytest.mark.parametrize(
    "arrived",
    [
        (),
        (arrival(way=ALERTMANAGER),),
        (arrival(kind="resolved"),),
        (arrival(text=f"{TICKET} is full."),),
        (arrival(text="Something is full. Do: breaker top", alert=replace(ALERT, action="breaker top")),),
        (arrival(alert=replace(ALERT, action="")),),
        (arrival(alert=replace(ALERT, name="BreakerDeadLetters")),),
        (arrival(alert=replace(ALERT, operation="")),),
    ],
)
def test_anything_less_differs_when_it_was_due(arrived: tuple[Arrival, ...]) -> None:
    """Without the operation and the first command a person cannot begin."""
    assert agreed(of(*arrived), prometheus=False) == ([False], 0)
    assert agreed(of(*arrived), due=False, prometheus=False) == ([], 1)


def test_prometheus_is_never_asked_for() -> None:
    """Another operation than the gateway's is not the same alert, and a failure is neither."""
    other = arrival(2, ALERTMANAGER, alert=replace(ALERT, operation=CHARGE))
    assert agreed(of(arrival(), other)) == ([True], 1)


def test_it_is_due_in_what_the_readme_says_to_run(config: Config) -> None:
    """`make run DEMO=20` drives for 17 s."""
    told = operations_told(config, frozenset({"demo"}), frozenset({TICKET, CHARGE}))
    assert set(told) == {TICKET, CHARGE}
    assert is_due(told, 17)
    assert not is_due(told, 6)
    assert not is_due({}, 1_000)
    patient = {
        name: replace(each, alerts=replace(each.alerts, for_ms=120_000)) for name, each in told.items()
    }
    assert not is_due(patient, 1_000)


def test_only_channels_that_lead_here_are_counted_on(config: Config) -> None:
    """Who has sent the demonstration's alerts to his own pager finds them there."""
    driven = frozenset({TICKET, CHARGE})
    assert not operations_told(config, frozenset(), driven)
    own = replace(
        config.operations[TICKET], alerts=replace(config.operations[TICKET].alerts, routes=("pager",))
    )
    changed = replace(config, operations={**config.operations, TICKET: own})
    assert set(operations_told(changed, frozenset({"demo"}), driven)) == {CHARGE}
    assert set(operations_told(changed, frozenset({"pager"}), driven)) == {TICKET}


def test_the_first_of_each_is_read_in_full_and_the_rest_in_a_line() -> None:
    """What repeats itself for a week must not bury what is new."""
    arrivals = Arrivals()
    told = arrivals.take(
        [
            arrival(1),
            arrival(2, kind="repeated"),
            arrival(3, ALERTMANAGER),
            arrival(4, ALERTMANAGER, kind="resolved"),
            arrival(5, alert=replace(ALERT, operation=CHARGE)),
        ]
    )
    assert [bool(text) for _, text in told] == [True, False, True, False, True]
    assert told[3][0] == f"message 4 from {ALERTMANAGER}: resolved {OVER_CAPACITY} ({TICKET})"
    assert arrivals.count == 5


def test_what_fires_and_what_arrived_is_seen_with_and_without_a_terminal() -> None:
    """And brackets of a message are not taken for markup."""
    shown, console = io.StringIO(), Console(file=io.StringIO(), width=160, highlight=False)
    arrivals = of(
        arrival(),
        arrival(2, ALERTMANAGER),
        arrival(3, kind="resolved", alert=replace(ALERT, operation=CHARGE)),
    )
    picture = Picture(
        at_s=12, stage="", pipelines={}, counted={}, now={}, seen={}, per_second={}, coming_back=0,
        firing={OVER_CAPACITY: 2}, arrivals=arrivals,
    )  # fmt: skip
    assert headline(picture).endswith("| alerts firing 2, messages 3")
    console.file = shown
    console.print(*alert_lines(picture))
    lines = shown.getvalue().splitlines()
    assert lines[0].rstrip() == f"alerts firing: {OVER_CAPACITY} 2; messages to on-call: 3"
    assert lines[2].split() == [OVER_CAPACITY, TICKET, "warning", "fires", "1", "2"]
    assert lines[3].split() == [OVER_CAPACITY, CHARGE, "warning", "has", "ended", "3", "-"]
    Screen(console).tell(12.4, [("message 1", "[bold]first\nsecond")])
    assert shown.getvalue().endswith("   12 s  message 1\n         [bold]first\n         second\n")
