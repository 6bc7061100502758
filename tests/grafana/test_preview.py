"""A preview is a picture of what Prometheus said, and never of a page that broke."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from grafana.__main__ import FOLDER
from grafana.preview.draw import WIDTH_PX, page, take


def data(name: str) -> dict[str, Any]:
    """Each query of a dashboard with one series."""
    dashboard = json.loads((FOLDER / f"{name}.json").read_text())
    labels = {"operation": "</script>", "outcome": "refused", "hour": "07", "day": "0"}
    results = {
        panel["id"]: {
            target["refId"]: [
                {"metric": labels, "value": [100, "1"]}
                if target.get("instant")
                else {"metric": labels, "values": [[at, "1"] for at in range(0, 100, 10)]}
            ]
            for target in panel["targets"]
        }
        for panel in dashboard["panels"]
    }
    dots = {panel["id"]: [[50, 0.5]] for panel in dashboard["panels"]}
    marks = {"Circuit": {"colour": "red", "times": [50]}}
    return {
        "dashboard": dashboard, "results": results, "dots": dots, "marks": marks, "variables": {"job": "All"}, "width": WIDTH_PX,
        "from": 0, "to": 100,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["operation", "planning"])
def test_page_with_every_kind_of_panel_becomes_a_picture(name: str, tmp_path: Path) -> None:
    """Whoever changes a dashboard looks at it before others do."""
    take(page(data(name)), tmp_path / "out" / "a.png", height=900)
    picture = (tmp_path / "out" / "a.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (WIDTH_PX, 900)
    assert len(picture) > 20_000, "an empty page is smaller"


def test_page_that_breaks_is_no_picture(tmp_path: Path) -> None:
    """An empty page would be taken for an empty dashboard."""
    broken = data("overview")
    del broken["results"]
    with pytest.raises(RuntimeError, match="Uncaught"):
        take(page(broken), tmp_path / "a.png", height=900)
