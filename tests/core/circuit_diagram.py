"""
The diagram of `docs/circuits.md`, drawn from the table that the code goes by: `make diagram`, or
`python -m tests.core.circuit_diagram`.

A trigger that leads from every state to the same one is drawn once, from "any state".
"""

import re
from collections.abc import Mapping
from pathlib import Path

from breaker.core.circuit import TRANSITIONS, CircuitState, Trigger

PAGE = Path(__file__).parents[2] / "docs" / "circuits.md"
BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
ANY = "any state"

Table = Mapping[tuple[CircuitState, Trigger], CircuitState]


def diagram(table: Table) -> str:
    """The table as a block of Mermaid."""
    lines = ["```mermaid", "stateDiagram-v2", f'    state "{ANY}" as {name(ANY)}']
    lines += [f'    state "{state}" as {name(state)}' for state in CircuitState]
    lines.append(f"    [*] --> {name(CircuitState.CLOSED)}")
    for trigger in Trigger:
        moves = {state: table[state, trigger] for state in CircuitState if (state, trigger) in table}
        targets = set(moves.values())
        if len(moves) == len(CircuitState) and len(targets) == 1:
            lines.append(f"    {name(ANY)} --> {name(targets.pop())}: {trigger}")
        else:
            lines += [f"    {name(state)} --> {name(target)}: {trigger}" for state, target in moves.items()]
    return "\n".join([*lines, "```", ""])


def name(state: str) -> str:
    """As Mermaid takes it."""
    return re.sub(r"\W", "_", state)


if __name__ == "__main__":
    PAGE.write_text(
        BLOCK.sub(lambda _: diagram(TRANSITIONS), PAGE.read_text(encoding="utf-8"), count=1), encoding="utf-8"
    )
