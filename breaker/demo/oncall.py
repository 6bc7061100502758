"""
On call: did those who are on call hear of it, by the gateway's own way and by Prometheus and Alertmanager?

1. The gateway must tell of an operation that is over capacity whenever the configuration leads such alerts to the receiver, and
   the demonstration is long enough for it: `alerts.for`, some looks of the gateway, and the way to the receiver.
2. Prometheus need not: it may be missing, and it is not what is shown here. Whether it told the same is said.
"""

from collections.abc import Mapping

from breaker.core.alert_policy import Severity
from breaker.core.config import Config
from breaker.core.model import Operation
from breaker.demo.arrivals import ALERTMANAGER, GATEWAY, OVER_CAPACITY, Arrivals
from breaker.demo.told import Check
from breaker.demo.traffic import STAGE_S
from breaker.signals.watch import LOOK_S

WAIT_S = 20.0  # at the end, for what must arrive
OTHER_WAIT_S = 10.0  # likewise, for what Prometheus would tell
_LOOKS = 2  # the first has nothing to compare with, and between two is when the traffic begins


def operations_told(
    config: Config, channels: frozenset[str], driven: frozenset[str]
) -> Mapping[str, Operation]:
    """
    Operations of which the gateway tells the receiver when they are over capacity.

    Args:
        channels: That lead to the receiver.
        driven: Operations that the demonstration calls.

    """
    usual = {
        name
        for route in config.gateway.alerts.routes
        if route.severity is Severity.WARNING
        for name in route.to
    }
    return {
        name: operation
        for name, operation in config.operations.items()
        if name in driven and channels & (set(operation.alerts.routes) or usual)
    }


def is_due(told: Mapping[str, Operation], ran_s: float) -> bool:
    """Rule 1, of a demonstration that ran for so long."""
    for_s = [operation.alerts.for_ms / 1_000 for operation in told.values()]
    # In its stage an operation is over capacity, and sure of nothing after it.
    return any(each <= STAGE_S and each + _LOOKS * LOOK_S <= ran_s for each in for_s)


def on_call_checks(
    arrivals: Arrivals, *, is_due: bool, has_prometheus: bool
) -> tuple[list[Check], list[str]]:
    """
    What arrived, against what had to.

    Returns:
        Checks, and remarks where nothing can be asked for.

    """
    own, other = arrivals.over_capacity_by(GATEWAY), arrivals.over_capacity_by(ALERTMANAGER)
    checks, remarks = [], []
    if own or is_due:
        checks.append(
            Check(about="on-call", what=f"told of {OVER_CAPACITY} by {GATEWAY}, with a first command",
                  left=f"operations {len(own)}{_names(own)}", right="at least 1", agrees=bool(own))
        )  # fmt: skip
    else:
        remarks.append(
            f"on-call was not told by {GATEWAY}: the demonstration was too short, or no channel leads here"
        )
    if both := own & other:
        checks.append(
            Check(about="on-call", what=f"told of the same by {ALERTMANAGER}",
                  left=f"operations {len(both)}{_names(both)}", right="at least 1", agrees=True)
        )  # fmt: skip
    elif has_prometheus:
        remarks.append(
            f"on-call was not told of the same by {ALERTMANAGER}: they may need longer than this demonstration"
        )
    return checks, remarks


def _names(operations: frozenset[str]) -> str:
    return f" ({', '.join(sorted(operations))})" if operations else ""
