"""
Lint: the rules that every dashboard keeps. Each is a function that yields what it finds wrong.

After the rules of Grafana's own dashboard-linter, which is a program in Go, and some of ours:

1. Grafana's: `$datasource` everywhere, titles and descriptions, units, `$__rate_interval`, `$job`, not editable.
2. Ids, reference letters and uids are unique, so that links and shared panels go on working.
3. Links keep the time range and the variables.
4. What every replica exports alike is never added up: the set is read from `docs/metrics.md`.
5. Metrics exist, and colours mean what `colours.py` says.
6. A page has at most 20 panels, and they do not overlap.

What is excepted stands in EXCEPTIONS with its reason.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from grafana.colours import TABLE, WORDS

PANELS_MAX = 20
DOCS = Path(__file__).parents[1] / "docs"
PROMETHEUS_OWN = {"ALERTS", "ALERTS_FOR_STATE"}

# (rule, panel) -> why it need not keep it.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("rate_interval", "Growth, week over week"): "a week is a week, however wide the screen",
    ("rate_interval", "Calls without capacity, by day"): "a bar is a day",
    ("rate_interval", "Is Breaker itself well?"): "deliveries that failed are told for ten minutes",
    ("job", "Alerts that fire"): "alerts carry the labels of their rules, and no job",
}

Found = Iterator[tuple[str, str]]  # the panel, and what is wrong with it
Rule = Callable[[Mapping[str, Any]], Found]

_AGGREGATORS = (
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
)


def metrics() -> Mapping[str, str]:
    """Each metric of the manual, and how it is to be aggregated."""
    found = {}
    for line in (DOCS / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0].startswith("`breaker_"):  # noqa: PLR2004 - the columns of that table
            found[cells[0].strip("`")] = cells[5]
    return found


def base(name: str) -> str:
    """Without what a histogram puts behind its name."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def complaints(dashboard: Mapping[str, Any]) -> list[str]:
    """All that is wrong, `rule: panel: what`; what is excepted left out."""
    return [
        f"{name}: {panel}: {what}"
        for name, rule in RULES.items()
        for panel, what in rule(dashboard)
        if (name, panel) not in EXCEPTIONS
    ]


def unused_exceptions(dashboards: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Exceptions that no dashboard needs."""
    needed = {
        (name, panel)
        for dashboard in dashboards
        for name, rule in RULES.items()
        for panel, _ in rule(dashboard)
    }
    return sorted(set(EXCEPTIONS) - needed)


def _queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"mark: {annotation['name']}", annotation["target"]["expr"]


def datasource(dashboard: Mapping[str, Any]) -> Found:
    first = dashboard["templating"]["list"][0]
    if (first["name"], first["type"]) != ("datasource", "datasource"):
        yield "variables", "the first is not $datasource"
    asking = [(panel["title"], panel) for panel in dashboard["panels"]]
    asking += [(panel["title"], target) for panel in dashboard["panels"] for target in panel["targets"]]
    asking += [(f"mark: {mark['name']}", mark) for mark in dashboard["annotations"]["list"]]
    asking += [(f"variable {variable['name']}", variable) for variable in dashboard["templating"]["list"][1:]]
    for who, what in asking:
        if what.get("datasource", {}).get("uid") != "$datasource":
            yield who, "does not ask $datasource"


def words(dashboard: Mapping[str, Any]) -> Found:
    for panel in dashboard["panels"]:
        if not panel.get("title"):
            yield f"panel {panel['id']}", "has no title"
        if len(panel.get("description", "")) < 40:  # noqa: PLR2004 - shorter than a sentence that helps
            yield panel["title"], "has no description that helps"
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if not unit:
            yield panel["title"], "has no unit"


def rate_interval(dashboard: Mapping[str, Any]) -> Found:
    for who, expr in _queries(dashboard):
        for function, window in re.findall(
            r"\b(rate|irate|increase)\((?:[^()]|\([^()]*\))*?\[([^\]]+)\]", expr
        ):
            if window != "$__rate_interval":
                yield who, f"{function} over {window}"


def job(dashboard: Mapping[str, Any]) -> Found:
    for who, expr in _queries(dashboard):
        for name, selector in re.findall(r"\b(breaker_\w+|ALERTS\w*)\b(\{[^}]*\})?", expr):
            if 'job=~"$job"' not in selector:
                yield who, f"{name} without $job"


def unique(dashboard: Mapping[str, Any]) -> Found:
    ids = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in dashboard["panels"]]
    if len(set(ids)) < len(ids) or len(set(titles)) < len(titles):
        yield "panels", f"ids or titles occur twice: {ids} {titles}"
    for panel in dashboard["panels"]:
        refs = [target["refId"] for target in panel["targets"]]
        if len(set(refs)) < len(refs) or not all(refs):
            yield panel["title"], f"reference letters: {refs}"


def links(dashboard: Mapping[str, Any]) -> Found:
    for link in dashboard["links"]:
        if not (link["keepTime"] and link["includeVars"]):
            yield "links", f"{link['title']} loses time or variables"
    for panel in dashboard["panels"]:
        for override in panel["fieldConfig"]["overrides"]:
            for found in override["properties"]:
                for link in found["value"] if found["id"] == "links" else []:
                    missing = [
                        name
                        for name in ("${__url_time_range}", "${datasource:queryparam}", "${job:queryparam}")
                        if name not in link["url"]
                    ]
                    if missing:
                        yield panel["title"], f"a link without {missing}"


def uneditable(dashboard: Mapping[str, Any]) -> Found:
    if dashboard.get("editable", True):
        yield "dashboard", "may be edited in Grafana"
    if dashboard["graphTooltip"] != 1 or dashboard["refresh"] != "30s":
        yield "dashboard", "has no shared crosshair, or another refresh than 30s"


def places(dashboard: Mapping[str, Any]) -> Found:
    if len(dashboard["panels"]) > PANELS_MAX:
        yield "dashboard", f"has {len(dashboard['panels'])} panels"
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if (x, y) in taken:
                    yield panel["title"], f"lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def aggregation(dashboard: Mapping[str, Any]) -> Found:
    """What comes from the store is the same number from every replica, so only max makes sense of several."""
    by_max = {name for name, how in metrics().items() if how.startswith(("`max", "`min"))}
    for who, expr in _queries(dashboard):
        for match in re.finditer(r"\bbreaker_\w+", expr):
            name = base(match[0])
            if name in by_max and (innermost := aggregator(expr, match.start())) not in {"max", "min"}:
                yield who, f"{innermost or 'nothing'} over {name}, which every replica exports alike"


def aggregator(expr: str, at: int) -> str:
    """The innermost aggregation around this place; empty when there is none."""
    depth = 0
    for place in range(at - 1, -1, -1):
        if expr[place] == ")":
            depth += 1
        elif expr[place] == "(" and depth:
            depth -= 1
        elif expr[place] == "(":
            before = re.search(r"\b(\w+)\s*(?:(?:by|without)\s*\([^()]*\)\s*)?$", expr[:place])
            if before and before[1] in _AGGREGATORS and not _is_within_a_replica(before[0]):
                return before[1]
    return ""


def _is_within_a_replica(aggregation: str) -> bool:
    """`sum without (state)` leaves the replicas apart."""
    dropped = re.search(r"without\s*\(([^()]*)\)", aggregation)
    return dropped is not None and not {"instance", "worker"} & set(re.findall(r"\w+", dropped[1]))


def existing(dashboard: Mapping[str, Any]) -> Found:
    known = set(metrics())
    variables = [
        (f"variable {found['name']}", found["query"])
        for found in dashboard["templating"]["list"]
        if found["type"] == "query"
    ]
    for who, expr in (*_queries(dashboard), *variables):
        for name in re.findall(r"\bbreaker_\w+|\bALERTS\w*", expr):
            if base(name) not in known and name not in known | PROMETHEUS_OWN:
                yield who, f"{name} is not in docs/metrics.md"


def colours(dashboard: Mapping[str, Any]) -> Found:
    for panel in dashboard["panels"]:
        for colour in _colours_in(panel):
            if colour not in TABLE:
                yield panel["title"], f"the colour {colour!r} is not in the table"
        for override in panel["fieldConfig"]["overrides"]:
            word = override["matcher"]["options"]
            for found in override["properties"]:
                if found["id"] == "color" and found["value"]["fixedColor"] != WORDS.get(word):
                    yield panel["title"], f"{word!r} has not its own colour"


def _colours_in(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("color", "fixedColor") and isinstance(value, str):
                yield value
            else:
                yield from _colours_in(value)
    elif isinstance(part, list):
        for item in part:
            yield from _colours_in(item)


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        datasource, words, rate_interval, job, unique, links, uneditable, places, aggregation, existing, colours,
    )
}  # fmt: skip
