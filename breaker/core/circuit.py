"""
Circuit: may anything go to this downstream at all?

One per operation, shared by all replicas; the store runs the same rules in `store/lua/circuit.lua` and
`report.lua`, and `tests/model` holds the two together. A replica that is alone with its failures, or has lost its
store, runs them here.

1. Replicas report sums of their own windows. What was counted in an earlier generation is not looked at.
2. It opens when calls fail (or are slow) too often, by the rules of `quorum.py`.
3. A replica that alone sees failures is told so, and opens only itself.
4. The pause grows while probes fail, with jitter, and falls back after a stable while.
5. Half-open lets a few calls through over all replicas. Each is a lease that frees itself. All succeed: closed;
   one fails: open, longer.
6. A downstream that asks for time gets it: a pause, which is no failure.

How limits come back after closing is in `effective.py`. Generations, probes and the growing pause follow
gobreaker, resilience4j and Polly; the quorum is ours.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from breaker.core.model import CLOCK_SKEW_US, LEASE_US
from breaker.core.quorum import CircuitTerms, Seen, trips
from breaker.core.verdict import Policy

PROBE_RETRY_US = 1_000_000  # while all probes are under way
HOLDS_MAX = 8  # past holds that are remembered, for jobs that waited through them


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced-open"
    DISABLED = "disabled"


class Trigger(StrEnum):
    """What moves a circuit."""

    FAILING = "too many calls fail or are slow"
    WAITED = "the pause is over"
    PASSED = "all probes succeed"
    FAILED = "a probe fails"
    FORCED = "a person opens it"
    DISABLED = "a person closes it"
    RELEASED = "a person hands it back, or its time is up"


_ANY = tuple(CircuitState)
TRANSITIONS: dict[tuple[CircuitState, Trigger], CircuitState] = {
    (CircuitState.CLOSED, Trigger.FAILING): CircuitState.OPEN,
    (CircuitState.OPEN, Trigger.WAITED): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, Trigger.PASSED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, Trigger.FAILED): CircuitState.OPEN,
    **{(state, Trigger.FORCED): CircuitState.FORCED_OPEN for state in _ANY},
    **{(state, Trigger.DISABLED): CircuitState.DISABLED for state in _ANY},
    (CircuitState.FORCED_OPEN, Trigger.RELEASED): CircuitState.HALF_OPEN,
    (CircuitState.DISABLED, Trigger.RELEASED): CircuitState.CLOSED,
}
HOLDING = (CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.FORCED_OPEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a replica tells of an operation since it last did.

    Attributes:
        generation: In which `seen` was counted.
        stress: Answers that asked for time, timeouts, and a slow window; see `effective.py`.
        pause_us: What the downstream asked for; 0 nothing.
        probes: Probe id -> True it succeeded, False it failed, None it says nothing.
        draw: Chance in permille, 0..999.

    """

    replica: str
    generation: int
    seen: Seen
    stress: int = 0
    pause_us: int = 0
    probes: tuple[tuple[str, bool | None], ...] = ()
    draw: int = 500


@dataclass(slots=True, kw_only=True)
class Circuit:
    """
    All that is known of one circuit; changed in place.

    Attributes:
        generation: Grows with each move.
        since_us: When it came into this state.
        until_us: When the pause is over, or a person's word ends (0: never by itself).
        opens: Pauses in a row.
        passed: Probes that succeeded since it is half-open.
        probes: Those under way: id -> lease expiry.
        closed_us: When probes closed it last; 0 when a person did.
        held_us: Since when work is held; 0 when it is not.
        holds: The last times in which it was, (from, to).
        pause_us: Until when the downstream asked for time.
        adaptive: What concurrency has adapted to; 0 is the stated one.
        adapted_us: When it was last looked at; `peak`: the most slots in use since.
        windows: What each replica sees.

    """

    state: CircuitState = CircuitState.CLOSED
    generation: int = 0
    since_us: int = 0
    until_us: int = 0
    opens: int = 0
    passed: int = 0
    probes: dict[str, int] = field(default_factory=dict)
    closed_us: int = 0
    held_us: int = 0
    holds: list[tuple[int, int]] = field(default_factory=list)
    pause_us: int = 0
    adaptive: int = 0
    adapted_us: int = 0
    peak: int = 0
    windows: dict[str, Seen] = field(default_factory=dict)


def standing(circuit: Circuit, terms: CircuitTerms, now_us: int) -> CircuitState:
    """
    The state at this moment: what ends by time needs nobody to end it.

    A pause that ends later than any can was written before the clock went back.
    """
    until = circuit.until_us
    match circuit.state:
        case CircuitState.OPEN if until <= now_us or until > now_us + terms.open_max_us + CLOCK_SKEW_US:
            return CircuitState.HALF_OPEN
        case CircuitState.FORCED_OPEN if 0 < until <= now_us:
            return CircuitState.HALF_OPEN
        case CircuitState.DISABLED if 0 < until <= now_us:
            return CircuitState.CLOSED
        case state:
            return state


def bars(circuit: Circuit, terms: CircuitTerms | None, now_us: int) -> tuple[Policy, int] | None:
    """
    Why nothing may start now and for how long, or None.

    Args:
        terms: None: the operation has no circuit, but may pause.

    """
    if terms is not None:
        state = standing(circuit, terms, now_us)
        is_enforced = not terms.is_shadow
        if state is CircuitState.FORCED_OPEN:
            return Policy.CIRCUIT, max(
                0, circuit.until_us - now_us
            ) if circuit.until_us else terms.open_max_us
        if state is CircuitState.OPEN and is_enforced:
            return Policy.CIRCUIT, circuit.until_us - now_us
        if state is CircuitState.HALF_OPEN and is_enforced and probes_free(circuit, terms, now_us) <= 0:
            return Policy.CIRCUIT, PROBE_RETRY_US
    return None


def pauses(until_us: int, longest_us: int, now_us: int) -> int:
    """Rule 6: how long the downstream still wants nothing; a pause longer than any met a clock that went back."""
    left = until_us - now_us
    return left if 0 < left <= longest_us else 0


def probes_free(circuit: Circuit, terms: CircuitTerms, now_us: int) -> int:
    """Rule 5: how many more probes may start."""
    if circuit.state is not CircuitState.HALF_OPEN:
        return terms.probes  # its pause is over, and nobody has tried yet
    # A lease that ends later than any can was written before the clock went back: it does not count.
    latest = now_us + LEASE_US + CLOCK_SKEW_US
    under_way = sum(now_us < expiry <= latest for expiry in circuit.probes.values())
    # One at least, also when so many have passed that fewer are asked for by now: it is what closes the circuit.
    return max(1, terms.probes - circuit.passed) - under_way


def is_probing(circuit: Circuit, terms: CircuitTerms | None, now_us: int) -> bool:
    """Whether what starts now is a probe."""
    if terms is None or standing(circuit, terms, now_us) is not CircuitState.HALF_OPEN:
        return False
    return probes_free(circuit, terms, now_us) > 0


def on_probe(circuit: Circuit, id_: str, now_us: int, lease_us: int) -> None:
    """A probe starts; the first one makes the circuit half-open."""
    if circuit.state is not CircuitState.HALF_OPEN:
        is_forced = circuit.state is CircuitState.FORCED_OPEN
        move(circuit, Trigger.RELEASED if is_forced else Trigger.WAITED, now_us)
    circuit.probes = {name: expiry for name, expiry in circuit.probes.items() if expiry > now_us}
    circuit.probes[id_] = now_us + lease_us


def move(circuit: Circuit, trigger: Trigger, now_us: int, *, until_us: int = 0) -> None:
    """Take the transition of the table; a new generation begins."""
    circuit.state = TRANSITIONS[circuit.state, trigger]
    circuit.generation += 1
    circuit.since_us, circuit.until_us, circuit.passed = now_us, until_us, 0
    circuit.probes, circuit.windows = {}, {}
    circuit.closed_us = now_us if trigger is Trigger.PASSED else 0
    if circuit.state in HOLDING:
        circuit.held_us = circuit.held_us or now_us
    elif circuit.held_us:
        circuit.holds = [*circuit.holds, (circuit.held_us, now_us)][-HOLDS_MAX:]
        circuit.held_us = 0


def open_it(circuit: Circuit, terms: CircuitTerms, trigger: Trigger, now_us: int, draw: int) -> None:
    """Rule 4."""
    stable_us = terms.ramp_us + terms.window_us
    if trigger is Trigger.FAILING and not 0 < now_us - circuit.closed_us < stable_us:
        circuit.opens = 0
    pause = min(terms.open_max_us, terms.open_us * 2 ** min(circuit.opens, 30))
    pause = min(terms.open_max_us, pause * (750 + draw // 2) // 1_000)
    circuit.opens += 1
    move(circuit, trigger, now_us, until_us=now_us + pause)


def by_hand(circuit: Circuit, trigger: Trigger, now_us: int, until_us: int) -> bool:
    """A person forces it open, disables it, or hands it back; False when there is nothing to hand back."""
    if (circuit.state, trigger) not in TRANSITIONS:
        return False
    move(circuit, trigger, now_us, until_us=0 if trigger is Trigger.RELEASED else until_us)
    return True


def on_report(circuit: Circuit, terms: CircuitTerms | None, report: Report, now_us: int) -> bool:
    """
    Take what a replica tells.

    Returns:
        Rule 3: whether it is alone with what it sees.

    """
    if report.pause_us > 0:
        circuit.pause_us = max(circuit.pause_us, now_us + report.pause_us)
    if terms is None:
        return False
    if circuit.state is CircuitState.DISABLED and standing(circuit, terms, now_us) is CircuitState.CLOSED:
        move(circuit, Trigger.RELEASED, now_us)
    note_probes(circuit, terms, report, now_us)
    if circuit.state is not CircuitState.CLOSED or report.generation != circuit.generation:
        return False
    note_window(circuit, terms, report, now_us)
    if trips(terms, list(circuit.windows.values())):
        open_it(circuit, terms, Trigger.FAILING, now_us, report.draw)
        return False
    own = circuit.windows.get(report.replica)
    others_call = any(seen.calls for name, seen in circuit.windows.items() if name != report.replica)
    return own is not None and others_call and trips(terms, [own])


def note_probes(circuit: Circuit, terms: CircuitTerms, report: Report, now_us: int) -> None:
    """Rule 5; outcomes of probes that are not known (any more) say nothing."""
    if circuit.state is not CircuitState.HALF_OPEN:
        return
    known = [end for id_, end in report.probes if circuit.probes.pop(id_, None) is not None]
    circuit.passed += known.count(True)
    if False in known:
        open_it(circuit, terms, Trigger.FAILED, now_us, report.draw)
    elif circuit.passed >= terms.probes:
        move(circuit, Trigger.PASSED, now_us)


def note_window(circuit: Circuit, terms: CircuitTerms, report: Report, now_us: int) -> None:
    """What this replica sees replaces what it saw; what is older than a window is dropped."""
    seen, oldest = report.seen, now_us - terms.window_us
    circuit.windows = {
        name: other
        for name, other in circuit.windows.items()
        if oldest < other.at_us <= now_us and name != report.replica
    }
    if seen.calls:
        circuit.windows[report.replica] = Seen(
            at_us=now_us, calls=seen.calls, failed=seen.failed, slow=seen.slow, streak=seen.streak
        )


def held_between(circuit: Circuit, terms: CircuitTerms | None, from_us: int, to_us: int) -> int:
    """How long of this time work was held: it does not count against a job's retries."""
    if terms is None or terms.is_shadow:
        return 0
    holds = [*circuit.holds, (circuit.held_us, to_us)] if circuit.held_us else circuit.holds
    return sum(max(0, min(end, to_us) - max(start, from_us)) for start, end in holds)
