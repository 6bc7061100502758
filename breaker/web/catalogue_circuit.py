"""
The circuit in the catalogue: whether anything goes to the downstream now. As in `catalogue.py`, nothing here is a
secret or names a person.
"""

from typing import Any

from breaker.core.circuit import HOLDING, CircuitState
from breaker.core.circuit_policy import CircuitMode
from breaker.core.model import Operation
from breaker.store.capacity import Look
from breaker.web.admin_views import circuit_view
from breaker.web.schema_parts import MOMENT, closed_object, described, or_null


def circuit_now(operation: Operation, look: Look, now_us: int) -> dict[str, Any]:
    """How it stands, over all replicas."""
    view = circuit_view(look.circuit, operation.circuit.mode, now_us)
    return {name: view[name] for name in ("mode", "state", "since", "until", "pause_until")}


def is_barred(operation: Operation, look: Look, now_us: int) -> bool:
    """Whether an ill downstream, or a person, keeps what waits from starting; nobody knows for how long."""
    holds = {
        CircuitMode.ENFORCE: HOLDING,
        CircuitMode.SHADOW: (CircuitState.FORCED_OPEN,),
        CircuitMode.OFF: (),
    }
    return look.circuit.state in holds[operation.circuit.mode] or look.circuit.pause_until_us > now_us


CIRCUIT_NOW_SCHEMA: dict[str, Any] = closed_object(
    {
        "mode": described(
            {"enum": [str(mode) for mode in CircuitMode]},
            "`shadow` keeps nothing back, unless a person opened it.",
        ),
        "state": described(
            {"enum": [str(state) for state in CircuitState]}, "`disabled` lets everything through."
        ),
        "since": or_null(MOMENT),
        "until": described(or_null(MOMENT), "When it tries the downstream again, or a person's word ends."),
        "pause_until": described(or_null(MOMENT), "Until when the downstream asked for time."),
    }
)
