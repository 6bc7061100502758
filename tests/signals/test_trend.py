"""Where a number is going, as far as it is known."""

import pytest

from breaker.signals.trend import ENOUGH_S, EVERY_S, HORIZON_S, WINDOW_S, Trend


def noted(*points: tuple[float, float]) -> Trend:
    trend = Trend()
    for at, value in points:
        trend.note(at, value)
    return trend


def rising(until_s: float, by: float = 2.0) -> Trend:
    return noted(*((at, by * at) for at in range(0, int(until_s) + 1, 15)))


def test_a_steady_growth_is_found_in_its_own_unit() -> None:
    """Per second: an hour ahead is 3,600 of it."""
    assert rising(600).slope(600) == pytest.approx(2.0)
    assert rising(600, by=-0.5).slope(600) == pytest.approx(-0.5)
    assert rising(600, by=0).slope(600) == 0


@pytest.mark.parametrize(("until", "is_known"), [(ENOUGH_S - 15, False), (ENOUGH_S, True)])
def test_nothing_is_forecast_from_too_little(until: float, is_known: bool) -> None:
    """A burst of some seconds after a change of the steward is no trend."""
    assert (rising(until).slope(until) is not None) is is_known


def test_two_points_are_no_trend() -> None:
    """However far apart they are; and none at all are no division by zero."""
    assert noted((0, 1), (300, 9)).slope(300) is None
    assert noted().slope(0) is None
    assert noted((0, 1), (300, 9), (600, 17)).slope(600) == pytest.approx(8 / 300)


def test_what_is_older_than_the_window_does_not_count() -> None:
    """A queue that filled an hour ago and drains now will not fill."""
    points = [(at, float(at)) for at in range(0, 900, 15)] + [
        (at, 5_000.0 - at) for at in range(900, 1_816, 15)
    ]
    assert noted(*points).slope(1_815) == pytest.approx(-1.0)
    assert rising(WINDOW_S).slope(3 * WINDOW_S) is None, "nothing was noted lately"


def test_points_are_thinned_out_and_bounded() -> None:
    """Looks come every 5 s, for years."""
    trend = noted(*((at, float(at)) for at in range(0, 100_000, 5)))
    assert len(trend._points) <= HORIZON_S / EVERY_S + 2


def test_an_hour_ago_is_the_oldest_that_is_known() -> None:
    """Before an hour has passed it is the first."""
    assert noted().an_hour_ago() is None
    assert noted((0, 7), (600, 9)).an_hour_ago() == 7
    trend = noted(*((at, float(at)) for at in range(0, 10_000, 15)))
    assert 9_990 - HORIZON_S - EVERY_S <= (trend.an_hour_ago() or 0) <= 9_990 - HORIZON_S + EVERY_S
