"""
Board: what all dashboards have in common.

1. Variables: `$datasource`, `$job` (one Prometheus may scrape several clusters), and `$operation` where it helps.
2. Links lead to the other dashboards and keep time and variables.
3. Rows of panels are laid on Grafana's grid of 24 columns; ids are given by place.
4. Nobody edits them in Grafana: the next provisioning would undo it. The source is here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.colours import PLAIN, WARN
from grafana.fields import DATASOURCE, Panel
from grafana.promql import JOB

COLUMNS = 24
TAG = "breaker"
# Where a row of a table, or a link, leads: time and variables go along.
OPERATION_URL = (
    "/d/breaker-operation?${__url_time_range}&${datasource:queryparam}&${job:queryparam}"
    "&var-operation=${__data.fields.Operation}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """
    What is marked in every graph.

    Attributes:
        expr: 1 as long as it is so; Grafana draws nothing for other values.

    """

    name: str
    expr: str
    text: str
    colour: str = PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """
    One dashboard.

    Attributes:
        about: Which question it answers.
        operation: How many may be chosen: one, many or none.
        since: The default time range.
        rows: Height, then each panel with its width; widths of a row make 24.

    """

    uid: str
    name: str
    about: str
    operation: str
    since: str
    rows: Sequence[tuple[int, Sequence[tuple[Panel, int]]]]
    marks: Sequence[Mark] = ()


def document(board: Board) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    made = (
        build.Dashboard(f"Breaker / {board.name}")
        .uid(board.uid)
        .description(board.about)
        .tags([TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time(board.since, "now")
        .timezone("browser")
        .refresh("30s")
        .version(1)
        .variables(_variables(board.operation))
        .link(
            build.DashboardLink("Other dashboards of Breaker")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .annotations([_annotation(mark) for mark in (*board.marks, *_DEPLOYS)])
    )
    found: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    found["panels"] = _placed(board.rows)
    for variable in found["templating"]["list"]:
        # Not in Grafana's schema; the library writes them on every variable.
        for name in [name for name in variable if name.startswith("auto")]:
            del variable[name]
    return found


def _placed(rows: Sequence[tuple[int, Sequence[tuple[Panel, int]]]]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for height, row in rows:
        x = 0
        for panel, width in row:
            made: dict[str, Any] = json.loads(json.dumps(panel.build(), cls=JSONEncoder))
            made["id"] = len(panels) + 1
            made["gridPos"] = {"h": height, "w": width, "x": x, "y": y}
            panels.append(made)
            x += width
        if x != COLUMNS:
            raise ValueError(f"row at {y}: its panels are {x} wide, not {COLUMNS}")
        y += height
    return panels


def _variables(operation: str) -> list[Any]:
    found: list[Any] = [
        build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        build.QueryVariable("job")
        .label("Job")
        .description("The scrape job of one Breaker cluster.")
        .datasource(DATASOURCE)
        .query("label_values(breaker_build_info, job)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .all_value(".+")
        .multi(True)
        .current(_everything()),
    ]
    if operation == "none":
        return found
    variable = (
        build.QueryVariable("operation")
        .label("Operation")
        .datasource(DATASOURCE)
        .query(f'label_values(breaker_calls_total{{{JOB}, operation!="_unknown"}}, operation)')
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if operation == "many":
        variable.multi(True).include_all(True).all_value(".+").current(_everything())
    else:
        variable.multi(False).include_all(False)
    return [*found, variable]


def _everything() -> model.VariableOption:
    return model.VariableOption(selected=True, text=["All"], value=["$__all"])


def _annotation(mark: Mark) -> build.AnnotationQuery:
    return (
        build.AnnotationQuery()
        .name(mark.name)
        .datasource(DATASOURCE)
        .enable(True)
        .hide(False)
        .icon_color(mark.colour)
        .target(prometheus.Dataquery().expr(mark.expr).ref_id("Anno").interval("15s"))
        .title_format(mark.name)
        .text_format(mark.text)
    )


def _fresh(name: str) -> str:
    """1 for two minutes when a version appears that was not there before."""
    now = f"group by (version) ({name}{{{JOB}}})"
    before = f"group by (version) ({name}{{{JOB}}} offset 2m)"
    # Only where something ran before: the first start is no change.
    return f"{now} unless {before} and on () group ({name}{{{JOB}}} offset 2m)"


_DEPLOYS = (
    Mark(
        name="Configuration",
        expr=_fresh("breaker_config_info"),
        text="Configuration {{version}} came into force",
        colour=PLAIN,
    ),
    Mark(
        name="Deploy", expr=_fresh("breaker_build_info"), text="Breaker {{version}} was started", colour=WARN
    ),
)
