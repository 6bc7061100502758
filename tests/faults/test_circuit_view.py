"""Circuit view: the ramp that drills judge by is the one that is documented, and a stampede is found."""

import pytest

from tests.faults.circuit_view import allowed, beyond_the_ramp

RATE, RAMP_S, SPARE = 100.0, 10.0, 5.0


def starts_of(pace: float) -> list[float]:
    """Of a downstream that gets so much of what the ramp allows."""
    found: list[float] = []
    at = 0.0
    while at < 2 * RAMP_S:
        if allowed(at, rate=RATE, ramp_s=RAMP_S) * pace >= len(found) + 1:
            found.append(at)
        at += 0.001
    return found


def test_the_ramp_rises_from_a_tenth_to_the_whole() -> None:
    """The same numbers as in `docs/circuits.md`."""
    at = [allowed(passed, rate=RATE, ramp_s=RAMP_S) for passed in (0, 0.1, RAMP_S, RAMP_S + 1)]
    assert at == pytest.approx([0, 1.045, 550, 650])


@pytest.mark.parametrize(("pace", "is_beyond"), [(1.0, False), (1.2, True)])
def test_who_comes_faster_than_the_ramp_is_found(pace: float, *, is_beyond: bool) -> None:
    """A drill that lets a stampede pass proves nothing."""
    beyond = beyond_the_ramp(starts_of(pace), 0, rate=RATE, spare=SPARE, ramp_s=RAMP_S)
    assert (beyond > 0) is is_beyond


def test_who_all_come_at_once_are_found() -> None:
    """What waited behind a circuit must not come with its first breath."""
    beyond = beyond_the_ramp([0.5] * 60, 0, rate=RATE, spare=SPARE, ramp_s=RAMP_S)
    assert beyond == pytest.approx(60 - SPARE - allowed(0.5, rate=RATE, ramp_s=RAMP_S))
