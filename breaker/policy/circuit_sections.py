"""
The shape of what an operation says about an ill downstream: a part of `pipeline_file.py`.

What needs more than one value is checked in `build_circuit.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from breaker.policy import kinds as k
from breaker.policy import words as w

_MODE = Literal["enforce", "shadow", "off"]
_MODES = ("enforce", "shadow", "off")
_Portion = Annotated[float, Field(gt=0, le=1)]
_Number = Annotated[int, Field(ge=1, le=1_000_000)]


class CircuitSection(k.Section):
    """When the circuit of an operation opens, and how it comes back."""

    failure_rate: _Portion = k.setting(
        "Share of failed calls within the window from which on it opens, more than 0 and at most 1.",
        0.5,
        example=0.3,
    )
    slow_rate: _Portion | None = k.setting(
        "The same for slow calls; needs `slow_call`.",
        None,
        example=0.8,
        shown="as `failure_rate` where `slow_call` is stated, else off",
    )
    slow_call: k.Length | None = k.setting(
        "From when on a call is slow; shorter than `downstream.timeout`.",
        None,
        example="8s",
        shown="off",
    )
    min_calls: _Number = k.setting(
        "Calls within the window, over all replicas, before the shares mean anything.", 10, example=20
    )
    consecutive: _Number = k.setting(
        "Failures in a row that count instead where calls are rare: when they lasted for a whole window.",
        5,
        example=3,
    )
    window: Annotated[k.Length, k.at_least("1s"), k.at_most("1h")] = k.setting(
        "How far back calls count, 1s to 1h.", "30s", example="2m"
    )
    open: k.Length = k.setting(
        "The first pause; it doubles each time that a probe fails.", "5s", example="10s"
    )
    open_max: k.Length = k.setting("The longest pause; at least `open`.", "5m", example="2m")
    probes: Annotated[int, Field(ge=1, le=100)] = k.setting(
        "Calls over all replicas that must succeed before it closes, 1 to 100.", 3, example=5
    )
    ramp: Annotated[k.Duration, k.at_most("1h")] = k.setting(
        "How long the limits rise from a tenth to the whole afterwards; at most 1h, `0s` is at once.",
        "30s",
        example="2m",
    )
    mode: _MODE = k.setting(
        "`shadow` counts and says what it would do, `off` does not count; `circuit: off` is short for it.",
        "enforce",
        example="shadow",
    )


def _from_mode(value: Any) -> Any:
    """`circuit: off` is short for `circuit: {mode: off}`."""
    if not isinstance(value, str):
        return value
    if value not in _MODES:
        raise ValueError(
            f"unknown value {value!r}{w.did_you_mean(value, _MODES)}: write one of them or a mapping"
        )
    return {"mode": value}


ShortCircuit = Annotated[
    CircuitSection, BeforeValidator(_from_mode, json_schema_input_type=_MODE | CircuitSection)
]


class AdaptiveSection(k.Section):
    """The shared concurrency follows what the downstream bears."""

    min: _Number = k.setting(
        "The least to which `capacity.concurrency` goes down while the downstream is too slow or asks for time.",
        example=2,
    )
