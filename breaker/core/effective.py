"""
Effective: what holds of the stated limits, when the downstream struggles or has just come back.

1. Concurrency adapts: less by three tenths when the downstream struggles (it asks for time, does not answer in time,
   or is slow), at most once per service time; one more when it did not for a tenth of the window, while at least
   half was used (AIMD: Chiu and Jain, 1989). Never beyond what is stated, never below the least.
2. After a circuit has closed, limits rise from a tenth to the whole over the ramp: what waits is a stampede otherwise.
"""

from breaker.core.circuit import Circuit, CircuitState
from breaker.core.model import Limits, Rate
from breaker.core.quorum import CircuitTerms

WHOLE = 1_000  # permille
RAMP_FROM = 100  # permille of the limits right after closing
DECREASE = 700  # permille that is left
LEARN_PARTS = 10  # a tenth of the window passes between two steps up


def adapt(
    circuit: Circuit, *, least: int, stated: int | None, stress: int, in_use: int, service_us: int,
    window_us: int, now_us: int,
) -> None:  # fmt: skip
    """
    Rule 1.

    Args:
        least: 0: it does not adapt.
        stated: The concurrency that holds; it never adapts beyond.
        in_use: Slots held now. service_us: Their mean time, or what is assumed.

    """
    if least <= 0 or stated is None:
        circuit.adaptive = 0
        return
    current = min(circuit.adaptive or stated, stated)
    circuit.peak = max(circuit.peak, in_use)
    since = now_us - circuit.adapted_us
    if since < 0:  # the clock went back
        circuit.adapted_us, since = now_us, 0
    if stress > 0:
        if since >= service_us:
            circuit.adaptive = min(stated, max(least, current * DECREASE // WHOLE))
            circuit.adapted_us, circuit.peak = now_us, in_use
    elif circuit.adaptive and since >= window_us // LEARN_PARTS:
        if circuit.peak * 2 >= current:
            circuit.adaptive = 0 if current + 1 >= stated else current + 1
        circuit.adapted_us, circuit.peak = now_us, in_use


def ramp_permille(circuit: Circuit, terms: CircuitTerms | None, now_us: int) -> int:
    """Rule 2: how much of the limits holds."""
    if terms is None or terms.is_shadow or circuit.state is not CircuitState.CLOSED or not circuit.closed_us:
        return WHOLE
    since = now_us - circuit.closed_us
    if not 0 <= since < terms.ramp_us:
        return WHOLE
    return RAMP_FROM + (WHOLE - RAMP_FROM) * since // terms.ramp_us


def effective(limits: Limits, circuit: Circuit, terms: CircuitTerms | None, now_us: int) -> Limits:
    """What holds of the stated limits while concurrency has adapted and the ramp rises."""
    permille, concurrency, pace = ramp_permille(circuit, terms, now_us), limits.concurrency, limits.rate
    if concurrency and circuit.adaptive:
        concurrency = min(concurrency, circuit.adaptive)
    if permille < WHOLE:
        if concurrency:
            concurrency = max(1, concurrency * permille // WHOLE)
        if pace is not None and pace.limit:
            pace = Rate(
                limit=pace.limit,
                period_us=-(-pace.period_us * WHOLE // permille),
                burst=max(1, pace.burst * permille // WHOLE),
            )
    elif concurrency == limits.concurrency:
        return limits
    return Limits(rate=pace, concurrency=concurrency)
