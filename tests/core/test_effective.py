"""What holds of the stated limits, both sides of each edge."""

from dataclasses import replace
from typing import Any

import pytest

from breaker.core.circuit import Circuit, CircuitState
from breaker.core.effective import adapt, effective, ramp_permille
from breaker.core.model import Limits, Rate
from breaker.core.quorum import CircuitTerms
from breaker.core.rate import interval_us

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
SERVICE = 200_000
WINDOW = 30 * SECOND
STEP_UP = WINDOW // 10
RAMP = 30 * SECOND
TERMS = CircuitTerms(ramp_us=RAMP)


def look(
    circuit: Circuit,
    at_us: int,
    *,
    stress: int = 0,
    in_use: int = 10,
    least: int = 2,
    stated: int | None = 20,
) -> int:
    """Adapt at this moment; what holds afterwards (0: the stated one)."""
    adapt(
        circuit, least=least, stated=stated, stress=stress, in_use=in_use, service_us=SERVICE, window_us=WINDOW,
        now_us=NOW + at_us,
    )  # fmt: skip
    return circuit.adaptive


def a_struggling(adaptive: int = 10) -> Circuit:
    return Circuit(adaptive=adaptive, adapted_us=NOW)


def test_concurrency_goes_down_by_three_tenths() -> None:
    """Whose downstream asks for time gets it at once."""
    assert look(Circuit(), 0, stress=1) == 14
    assert look(a_struggling(10), SERVICE, stress=5) == 7, "however much there was of it"


@pytest.mark.parametrize(("after", "holds"), [(SERVICE - 1, 10), (SERVICE, 7), (SERVICE + 1, 7)])
def test_it_goes_down_at_most_once_per_service_time(after: int, holds: int) -> None:
    """What was under way when it went down says nothing of how the smaller limit does."""
    assert look(a_struggling(10), after, stress=1) == holds


def test_it_never_goes_below_the_least_nor_beyond_what_is_stated() -> None:
    """The owner states both ends."""
    circuit = Circuit()
    down = [look(circuit, at * SERVICE, stress=1, in_use=2) for at in range(12)]
    assert down == [14, 9, 6, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert look(a_struggling(10), SERVICE, stress=1, least=9) == 9
    assert look(Circuit(), 0, stress=1, least=5, stated=3) == 3


@pytest.mark.parametrize(("after", "holds"), [(STEP_UP - 1, 10), (STEP_UP, 11)])
def test_one_more_after_a_tenth_of_the_window_without_trouble(after: int, holds: int) -> None:
    """It finds out slowly how much the downstream takes."""
    assert look(a_struggling(10), after) == holds


@pytest.mark.parametrize(("in_use", "holds"), [(4, 10), (5, 11)])
def test_one_more_only_while_half_of_it_was_used(in_use: int, holds: int) -> None:
    """Of a limit that nobody needs nothing is learned."""
    assert look(a_struggling(10), STEP_UP, in_use=in_use) == holds


def test_what_was_used_in_between_counts() -> None:
    """A report comes when calls have ended: what counts is the most that ran since the last step."""
    circuit = a_struggling(10)
    look(circuit, STEP_UP // 2, in_use=5)
    assert look(circuit, STEP_UP, in_use=0) == 11
    assert look(circuit, 2 * STEP_UP, in_use=0) == 11, "and not what ran before it"


def test_the_stated_limit_holds_again_once_it_is_reached() -> None:
    """From then on a higher limit in the files holds at once."""
    assert look(a_struggling(18), STEP_UP) == 19
    assert look(a_struggling(19), STEP_UP) == 0
    assert look(Circuit(adapted_us=NOW), STEP_UP) == 0, "and it does not adapt upwards from there"


def test_a_stated_limit_that_was_lowered_holds() -> None:
    """A person lowers concurrency to five: what was learned before is no excuse."""
    assert look(a_struggling(10), SERVICE, stress=1, stated=5) == 3
    assert effective(Limits(concurrency=5), a_struggling(10), None, NOW).concurrency == 5


def test_it_adapts_only_where_somebody_says_so() -> None:
    """Without `adaptive`, or without a concurrency to adapt, the stated limits hold."""
    assert look(a_struggling(10), SERVICE, stress=1, least=0) == 0
    assert look(a_struggling(10), SERVICE, stress=1, stated=None) == 0


def test_a_clock_that_goes_back_stops_no_adapting() -> None:
    """It would else wait until time is there again."""
    circuit = Circuit(adaptive=10, adapted_us=NOW + 3_600 * SECOND)
    assert look(circuit, 0) == 10
    assert look(circuit, STEP_UP) == 11


def a_closed(**changes: Any) -> Circuit:
    return Circuit(closed_us=NOW, **changes)


@pytest.mark.parametrize(
    ("after", "permille"),
    [(0, 100), (RAMP // 2, 550), (RAMP - 1, 999), (RAMP, 1_000), (RAMP + 1, 1_000), (-1, 1_000)],
)
def test_limits_rise_from_a_tenth_to_the_whole(after: int, permille: int) -> None:
    """The owner of a downstream that has just come back: what waits comes bit by bit. (-1: the clock went back.)"""
    assert ramp_permille(a_closed(), TERMS, NOW + after) == permille


def test_there_is_a_ramp_only_after_probes_and_only_where_the_circuit_decides() -> None:
    """A person who closes it knows why; one in shadow, or without a circuit, changes nothing."""
    assert ramp_permille(Circuit(), TERMS, NOW) == 1_000
    assert ramp_permille(a_closed(), replace(TERMS, is_shadow=True), NOW) == 1_000
    assert ramp_permille(a_closed(), None, NOW) == 1_000
    opened = Circuit(closed_us=NOW, state=CircuitState.OPEN)
    assert ramp_permille(opened, TERMS, NOW) == 1_000, (
        "nothing starts anyway, and what can ever fit is told by the whole"
    )


@pytest.mark.parametrize(("after", "slots"), [(0, 2), (RAMP // 2, 11), (RAMP - 1, 19), (RAMP, 20)])
def test_slots_rise_with_the_ramp(after: int, slots: int) -> None:
    """Rounded down: never more than their share."""
    assert effective(Limits(concurrency=20), a_closed(), TERMS, NOW + after).concurrency == slots


@pytest.mark.parametrize(
    ("after", "interval", "burst"), [(0, SECOND, 1), (RAMP // 2, 181_819, 4), (RAMP, 100_000, 8)]
)
def test_a_rate_rises_with_the_ramp(after: int, interval: int, burst: int) -> None:
    """A tenth of ten a second is one a second, and its burst shrinks as well."""
    limits = Limits(rate=Rate(limit=10, period_us=SECOND, burst=8))
    holds = effective(limits, a_closed(), TERMS, NOW + after)
    assert holds.rate is not None
    assert (interval_us(holds), holds.rate.burst) == (interval, burst)


def test_one_is_left_of_one() -> None:
    """A tenth of one slot, or of a burst of one, would let nothing through at all."""
    limits = Limits(concurrency=1, rate=Rate(limit=10, period_us=SECOND, burst=1))
    holds = effective(limits, a_closed(), TERMS, NOW)
    assert holds.concurrency == 1
    assert holds.rate is not None
    assert holds.rate.burst == 1


def test_what_is_closed_or_not_limited_stays_so() -> None:
    """A ramp must not open what a schedule closes, nor limit what nobody limits."""
    closed = Limits(concurrency=0, rate=Rate(limit=0, period_us=SECOND))
    assert effective(closed, a_closed(adaptive=3), TERMS, NOW) == closed
    assert effective(Limits(), a_closed(adaptive=3), TERMS, NOW) == Limits()


def test_the_ramp_is_of_what_was_adapted_to() -> None:
    """A downstream that had struggled before it failed does not get more than then."""
    limits = Limits(concurrency=20)
    assert effective(limits, a_closed(adaptive=10), TERMS, NOW + RAMP // 2).concurrency == 5
    assert effective(limits, a_closed(adaptive=10), TERMS, NOW + RAMP).concurrency == 10
    assert effective(limits, a_closed(adaptive=25), TERMS, NOW + RAMP).concurrency == 20
