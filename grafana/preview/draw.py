"""
Draw: ask Prometheus what the panels of a dashboard ask, and take a picture of the answers.

The page holds everything that it needs; the browser is given no way to reach anything.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grafana.queries import Prometheus, filled, seconds

HERE = Path(__file__).parent
UPLOT = HERE.parent / "node_modules" / "uplot" / "dist"
ROW_PX = 34  # as in page.js
HEAD_PX = 60
WIDTH_PX = 1_380
POINTS = 240  # of a graph, at most
BROWSER_S = 60.0
CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    "--disable-extensions", "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def draw(
    dashboard: Mapping[str, Any], prometheus: Prometheus, out: Path, *, operation: str, span: str, until: float = 0.0, job: str = ".+"
) -> None:  # fmt: skip
    """
    Draw one dashboard as a PNG.

    Args:
        operation: Put in for `$operation`; `.+` for all.
        span: How far back it looks, such as `1h`.
        until: Unix time at which it ends; 0 is now.

    """
    end = until or time.time()
    step = max(1.0, round(seconds(span) / POINTS))
    interval = f"{max(10, int(4 * step) if step > 10 else 10)}s"  # noqa: PLR2004 - as many as four scrapes

    def put_in(expr: str) -> str:
        return filled(expr, operation=operation, job=job, interval=interval, span=span)

    results: dict[int, dict[str, Any]] = {}
    for panel in dashboard["panels"]:
        least = seconds(panel["interval"]) if panel.get("interval") else 0.0
        results[panel["id"]] = {
            target["refId"]: prometheus.at(put_in(target["expr"]), end)
            if target.get("instant")
            else prometheus.over(put_in(target["expr"]), *_aligned(end, seconds(span), max(step, least)))
            for target in panel["targets"]
        }
    dots = {
        panel["id"]: [
            [exemplar["timestamp"], float(exemplar["value"])]
            for target in panel["targets"]
            if target.get("exemplar")
            for exemplar in prometheus.exemplars(put_in(target["expr"]), end - seconds(span), end)
        ]
        for panel in dashboard["panels"]
    }
    marks = {}
    for annotation in dashboard["annotations"]["list"]:
        series = prometheus.over(put_in(annotation["target"]["expr"]), *_aligned(end, seconds(span), step))
        times = sorted({at for one in series for at in _starts(one["values"], step)})
        marks[annotation["name"]] = {"colour": annotation["iconColor"], "times": times}
    variables = {"job": "All" if job == ".+" else job}
    if any(variable["name"] == "operation" for variable in dashboard["templating"]["list"]):
        variables["operation"] = "All" if operation == ".+" else operation
    variables["last"] = span
    data = {
        "dashboard": dashboard, "results": results, "dots": dots, "marks": marks, "variables": variables, "width": WIDTH_PX,
        "from": end - seconds(span), "to": end,
    }  # fmt: skip
    height = HEAD_PX + ROW_PX * max(
        panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]
    )
    take(page(data), out, height=height)


def _aligned(end: float, span: float, step: float) -> tuple[float, float, float]:
    """Start, end and step on multiples of the step, as Grafana asks."""
    last = end // step * step
    return last - span // step * step, last, step


def _starts(values: list[tuple[float, str]], step: float) -> Iterator[float]:
    """When it became 1."""
    before, was_so = 0.0, False
    for at, value in values:
        is_so = value == "1"
        if is_so and not (was_so and at - before <= step):
            yield at
        before, was_so = at, is_so


def page(data: Mapping[str, Any]) -> str:
    """One HTML file with everything in it."""
    # A text within the data must not end the script.
    text = json.dumps(data).replace("</", "<\\/")
    return "\n".join(
        (
            "<!DOCTYPE html><meta charset=utf-8>",
            f"<style>{(UPLOT / 'uPlot.min.css').read_text()}{(HERE / 'page.css').read_text()}</style><body>",
            f"<script>{(UPLOT / 'uPlot.iife.min.js').read_text()}</script>",
            f"<script>const DATA = {text};</script>",
            f"<script>{(HERE / 'page.js').read_text()}</script>",
        )
    )


def take(html: str, out: Path, *, height: int) -> None:
    """A picture of a page, taken by a browser with a profile of its own."""
    with tempfile.TemporaryDirectory(prefix="breaker-preview-") as folder:
        file = Path(folder) / "page.html"
        file.write_text(html, encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - a page of our own
            [*CHROMIUM, f"--user-data-dir={folder}/profile", f"--window-size={WIDTH_PX},{height}",
             f"--screenshot={folder}/page.png", file.as_uri()],
            capture_output=True, timeout=BROWSER_S, check=True,
        )  # fmt: skip
        picture, said = Path(folder) / "page.png", done.stderr.decode(errors="replace")
        if "Uncaught" in said or not picture.exists():
            raise RuntimeError(f"no picture was taken: {said[-2000:]}")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(picture.read_bytes())
