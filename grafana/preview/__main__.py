"""
Draws all dashboards from a Prometheus: `python -m grafana.preview --prometheus URL --out DIR`.
"""

import argparse
import json
from pathlib import Path

from grafana.__main__ import FOLDER
from grafana.preview.draw import draw
from grafana.queries import Prometheus


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m grafana.preview", description="Draw the dashboards; not Grafana."
    )
    parser.add_argument("--prometheus", required=True, help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--operation", default="", help="for the dashboard of one; else the first there is")
    parser.add_argument("--last", default="15m", help="how far back they look (planning: 7d)")
    given = parser.parse_args()
    draw_all(given.prometheus, given.out, operation=given.operation, span=given.last)


def draw_all(url: str, out: Path, *, operation: str, span: str, planned_at: float = 0.0) -> None:
    """
    Draw all of them.

    Args:
        planned_at: Unix time at which the week of the planning ends; 0 is now.

    """
    prometheus = Prometheus(url)
    there = sorted(set(prometheus.label_values("breaker_calls_total", "operation")) - {"_unknown"})
    if not there:
        raise SystemExit(f"{url} knows no operation of Breaker: does it scrape the admin listener?")
    first = operation or there[0]
    for file in sorted(FOLDER.glob("*.json")):
        dashboard = json.loads(file.read_text(encoding="utf-8"))
        is_one = file.stem == "operation"
        picture = out / f"{file.stem}.png"
        draw(
            dashboard, prometheus, picture, operation=first if is_one else ".+",
            span="7d" if file.stem == "planning" else span,
            until=planned_at if file.stem == "planning" else 0.0,
        )  # fmt: skip
        print(picture)


if __name__ == "__main__":
    main()
