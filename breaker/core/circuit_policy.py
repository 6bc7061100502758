"""
What a person decides about an ill downstream and an ill store: the words of the files as values.

How a circuit moves is in `circuit.py`; what becomes of a direct call that failed, in `retry_budget.py`.
"""

from dataclasses import dataclass
from enum import StrEnum


class CircuitMode(StrEnum):
    """Whether a circuit decides, is only rehearsed, or is not there."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class SlowDown(StrEnum):
    """Who pauses when the downstream asks for time."""

    OPERATION = "operation"
    TENANT = "tenant"


class WhenStoreDown(StrEnum):
    """What an operation does while the store cannot be used."""

    LOCAL_SHARE = "local_share"
    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitPolicy:
    """
    When an operation's circuit opens, and how it comes back.

    Attributes:
        failure_rate: Share of failed calls within the window, 0..1, from which on it opens.
        slow_rate: The same for slow calls; None does not count them.
        slow_call_ms: From when on a call is slow; stated together with `slow_rate`.
        min_calls: Calls over all replicas before the shares mean anything.
        consecutive: Failures in a row that count instead, where calls are rare.
        window_ms: How far back calls count.
        open_ms, open_max_ms: The first pause, and the longest; it doubles while probes fail.
        probes: Calls over all replicas that must succeed before it closes.
        ramp_ms: How long the limits rise from a tenth to the whole afterwards.

    """

    failure_rate: float = 0.5
    slow_rate: float | None = None
    slow_call_ms: int | None = None
    min_calls: int = 10
    consecutive: int = 5
    window_ms: int = 30_000
    open_ms: int = 5_000
    open_max_ms: int = 300_000
    probes: int = 3
    ramp_ms: int = 30_000
    mode: CircuitMode = CircuitMode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectRetry:
    """
    Further attempts for a direct call that failed: full jitter over `min(cap, base * 2^n)`.

    Attributes:
        for_ms: From the first attempt on; None leaves it to the call's deadline.
        attempts: In all, the first one included.

    """

    for_ms: int | None = None
    base_ms: int = 100
    cap_ms: int = 5_000
    attempts: int = 3
