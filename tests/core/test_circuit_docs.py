"""`docs/circuits.md` says what the code does, to whoever reads it at 3 a.m."""

import re
from dataclasses import fields

import pytest

from breaker.core import circuit, effective, fairness, quorum
from breaker.core.circuit import TRANSITIONS, CircuitState, Trigger
from breaker.core.circuit_policy import CircuitPolicy
from breaker.core.model import LEASE_US, Operation
from breaker.core.window import BUCKETS
from breaker.store import circuits
from tests.core.circuit_diagram import ANY, BLOCK, PAGE, diagram, name

TEXT = PAGE.read_text(encoding="utf-8")
POLICY = CircuitPolicy()
ADR = (PAGE.parent / "decisions" / "0015-circuits.md").read_text(encoding="utf-8")


def test_the_diagram_is_that_of_the_table() -> None:
    """A picture that was true last year is worse than none; `make diagram` draws it again."""
    assert BLOCK.findall(TEXT) == [diagram(TRANSITIONS)]


def test_the_diagram_has_every_move_of_the_table_and_no_other() -> None:
    """One arrow may stand for all states, but only where it is true of all."""
    drawn = set()
    arrow = re.compile(r"^    (\w+) --> (\w+): (.+)$", re.MULTILINE)
    for state, target, trigger in arrow.findall(diagram(TRANSITIONS)):
        for one in CircuitState:
            if state in (name(ANY), name(one)):
                drawn.add((name(one), trigger, target))
    assert drawn == {(name(state), str(trigger), name(to)) for (state, trigger), to in TRANSITIONS.items()}
    some = {key: to for key, to in TRANSITIONS.items() if key != (CircuitState.OPEN, Trigger.FORCED)}
    assert f"{name(ANY)} --> forced_open" not in diagram(some)


def test_every_state_is_explained() -> None:
    """First of all the one that on-call has before the eyes."""
    table = TEXT.partition("| `state` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == [str(state) for state in CircuitState]


@pytest.mark.parametrize(
    "words",
    [
        f"at least {POLICY.failure_rate * 100:.0f} % of the calls failed (`failure_rate`)",
        f"at least {POLICY.min_calls} of them (`min_calls`)",
        f"{POLICY.consecutive} failures in a row (`consecutive`)",
        f"over the last {POLICY.window_ms // 1_000} s (`window`, ten buckets)",
        f"every {circuits.REPORT_S * 1_000:.0f} ms at most",
        f"say with {quorum.VOTE_CALLS} calls",
        f"The pause** is {POLICY.open_ms // 1_000} s (`open`)",
        f"up to {POLICY.open_max_ms // 60_000} min (`open_max`)",
        f"Then {POLICY.probes} calls (`probes`)",
        f"holds a lease of {LEASE_US // 1_000_000} s",
        f"from {effective.RAMP_FROM // 10} % to 100 % over {POLICY.ramp_ms // 1_000} s (`ramp`)",
        f"the last {circuit.HOLDS_MAX} times",
        f"the others get the same `503`, with {circuit.PROBE_RETRY_US // 1_000_000} s or more",
        f"Each tenth of the window ({POLICY.window_ms / effective.LEARN_PARTS / 1_000:.0f} s)",
    ],
)  # fmt: skip
def test_each_number_is_that_of_the_code(words: str) -> None:
    """On-call counts seconds by it."""
    assert words in " ".join(TEXT.split())


def test_numbers_in_words_are_those_of_the_code() -> None:
    """Where the sentence has no digits to compare."""
    assert (BUCKETS, effective.DECREASE, effective.LEARN_PARTS) == (10, 700, 10)
    assert POLICY.ramp_ms + POLICY.window_ms == 60_000  # "closed for a minute"
    slow_down_max_ms = {field.name: field.default for field in fields(Operation)}["slow_down_max_ms"]
    assert slow_down_max_ms == 300_000  # "at most 5 min"
    assert f"among the {fairness.URGENT_LINES} lines" in ADR
    assert f"The last {circuit.HOLDS_MAX} times" in ADR
