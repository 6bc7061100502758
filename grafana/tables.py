"""
Tables: one row for each operation (or replica, or alert), and weekdays against hours.

What Grafana calls transformations makes rows of queries: joined by a label, renamed and put in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as names
from grafana_foundation_sdk.models import dashboard as model

from grafana.fields import UNKNOWN, Panel, Query, Word, begun, mappings_of, setting, target_of, thresholds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """
    One column of a listing.

    Attributes:
        expr: Gives one value for each row; empty for a label that the rows already carry.
        label: Of the rows, when there is no expression.
        steps: Where its colour changes: the values at which it becomes a warning, and bad.
        width: Pixels; 0 shares what is left.

    """

    title: str
    expr: str = ""
    label: str = ""
    unit: str = "short"
    decimals: int | None = None
    steps: tuple[float, float] | None = None
    words: Sequence[Word] = ()
    url: str = ""
    width: int = 0


def listing(
    title: str, about: str, columns: Sequence[Column], *, joined: str = "operation", none: str = UNKNOWN,
    descending: str = "",
) -> Panel:  # fmt: skip
    """
    One row for each value of the label by which the columns are joined.

    Args:
        joined: That label; empty when one query brings all columns.
        descending: The column that it is sorted by, the largest first.

    """
    panel = (
        begun(table.Panel(), title, about, "short")
        .thresholds(thresholds_of(None))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .cell_height(names.TableCellHeight.SM)
        .no_value(none)
    )
    asked = [column for column in columns if column.expr]
    for place, column in enumerate(asked):
        panel.with_target(target_of(Query(expr=column.expr), place, instant=True, is_table=True))
    named = {}
    for place, column in enumerate(asked):
        named[f"Value #{ascii_uppercase[place]}" if len(asked) > 1 else "Value"] = column.title
    named |= {column.label: column.title for column in columns if column.label}
    order = {
        name: place
        for place, title in enumerate(c.title for c in columns)
        for name in named
        if named[name] == title
    }
    times = ["Time", *(f"Time {number}" for number in range(1, len(asked) + 1))]
    if joined and len(asked) > 1:
        panel.with_transformation(
            model.DataTransformerConfig(id_val="joinByField", options={"byField": joined, "mode": "outer"})
        )
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(times, True),
                "indexByName": order,
                "renameByName": named,
            },
        )
    )
    for column in columns:
        panel.override_by_name(column.title, _cells(column))
    if descending:
        panel.sort_by([common.TableSortByFieldState().display_name(descending).desc(True)])
    return panel


def matrix(
    title: str, about: str, expr: str, *, row: str, column: str, unit: str, steps: tuple[float, float],
    rows: Sequence[Word],
) -> Panel:  # fmt: skip
    """Two labels against each other, a value in each cell, coloured by how large it is."""
    corner = f"{row}\\{column}"
    return (
        begun(table.Panel(), title, about, unit)
        .with_target(target_of(Query(expr=expr), 0, instant=True, is_table=True))
        .decimals(0)
        .thresholds(thresholds_of(steps))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .cell_options(
            names.TableColoredBackgroundCellOptions(mode=names.TableCellBackgroundDisplayMode.BASIC)
        )
        .cell_height(names.TableCellHeight.SM)
        .with_transformation(
            model.DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": column}]})
        )
        .with_transformation(
            model.DataTransformerConfig(
                id_val="groupingToMatrix",
                options={"columnField": column, "rowField": row, "valueField": "Value", "emptyValue": "null"},
            )
        )
        .with_transformation(
            model.DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": corner}]})
        )
        .override_by_name(
            corner,
            [
                setting("displayName", "UTC"),
                setting("custom.width", 60),
                setting("custom.cellOptions", {"type": "auto"}),
                setting("unit", "string"),
                setting("mappings", [mapping.to_json() for mapping in mappings_of(rows)]),
            ],
        )
        .no_value("")
    )


def _cells(column: Column) -> list[model.DynamicConfigValue]:
    cells: list[model.DynamicConfigValue] = [setting("unit", column.unit if column.expr else "string")]
    if column.decimals is not None:
        cells.append(setting("decimals", column.decimals))
    if column.width:
        cells.append(setting("custom.width", column.width))
    if column.words:
        cells.append(setting("mappings", [mapping.to_json() for mapping in mappings_of(column.words)]))
    if column.steps:
        cells.append(setting("thresholds", thresholds_of(column.steps).build().to_json()))
    if column.words or column.steps:
        cells.append(setting("custom.cellOptions", {"type": "color-text"}))
    if column.url:
        links: list[dict[str, Any]] = [
            {"title": "Open this operation", "url": column.url, "targetBlank": False}
        ]
        cells.append(setting("links", links))
    return cells
