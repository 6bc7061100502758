"""Writes the dashboards as JSON, where Grafana's provisioning finds them: `python -m grafana`."""

import json
from collections.abc import Mapping
from pathlib import Path

from grafana import internals, operation, overview, planning
from grafana.board import document

FOLDER = Path(__file__).parent / "dashboards"


def documents() -> Mapping[str, str]:
    """File name -> what stands in it."""
    boards = {
        "overview": overview.BOARD,
        "operation": operation.BOARD,
        "planning": planning.BOARD,
        "internals": internals.BOARD,
    }
    return {
        f"{name}.json": json.dumps(document(board), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for name, board in boards.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in documents().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
        print(FOLDER / file)
