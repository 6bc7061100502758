"""
Queries: what a dashboard asks of Prometheus, with its variables put in as Grafana would.

Used by the test that runs all of them against a live gateway, and by the previews.
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    One query of a panel, or of an annotation.

    Attributes:
        panel: Its title.
        ref: The letter of the query; empty for an annotation.
        instant: Asked for one moment; else over a range.
        step: Seconds between two points, at least; 0 is as close as the width allows.
        has_exemplars: Whether single calls are asked for, too.

    """

    panel: str
    ref: str
    expr: str
    instant: bool
    step: float = 0.0
    has_exemplars: bool = False


class QueryError(Exception):
    """Prometheus refused a query; the message is its own."""


def asked_by(dashboard: Mapping[str, Any]) -> Iterator[Asked]:
    """All queries, in the order of the page."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield Asked(
                panel=panel["title"],
                ref=target["refId"],
                expr=target["expr"],
                instant=bool(target.get("instant")),
                step=seconds(panel["interval"]) if panel.get("interval") else 0.0,
                has_exemplars=bool(target.get("exemplar")),
            )
    for annotation in dashboard["annotations"]["list"]:
        yield Asked(
            panel=f"mark: {annotation['name']}", ref="", expr=annotation["target"]["expr"], instant=False
        )


def seconds(duration: str) -> float:
    """`15s`, `1h`, `7d` in seconds."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[duration[-1]]


def filled(expr: str, *, operation: str, job: str, interval: str, span: str) -> str:
    """
    Put values in the place of variables.

    Args:
        operation, job: As Grafana would put them, so `.+` for all where a regular expression is expected.
        interval: Of `$__rate_interval`.
        span: Of `$__range`, such as `1h`.

    """
    for name, value in (
        ("$__rate_interval", interval),
        ("$__range", span),
        ("$operation", operation),
        ("$job", job),
    ):
        expr = expr.replace(name, value)
    return expr


class Prometheus:
    """Its HTTP API, as far as dashboards need it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def at(self, expr: str, moment: float) -> list[dict[str, Any]]:
        """Series with one value each; raises QueryError."""
        return self._ask("query", query=expr, time=moment)

    def over(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Series with values over time; raises QueryError."""
        return self._ask("query_range", query=expr, start=start, end=end, step=step)

    def exemplars(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Single calls behind a query: their `labels`, with the trace, `value` and `timestamp`."""
        query = urllib.parse.urlencode({"query": expr, "start": start, "end": end})
        found = self._get(f"/api/v1/query_exemplars?{query}")["data"]
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def label_values(self, series: str, label: str) -> list[str]:
        """What a variable of a dashboard would offer."""
        query = urllib.parse.urlencode({"match[]": series})
        answer = self._get(f"/api/v1/label/{label}/values?{query}")
        return [str(value) for value in answer["data"]]

    def _ask(self, verb: str, **fields: str | float) -> list[dict[str, Any]]:
        answer = self._get(f"/api/v1/{verb}?{urllib.parse.urlencode(fields)}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(self._url + path, timeout=TIMEOUT_S) as reply:  # noqa: S310 - a given address
                found: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as exc:
            with exc:
                raise QueryError(json.load(exc).get("error", str(exc))) from exc
        return found
