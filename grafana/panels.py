"""
Panels: what a dashboard shows of a number; tables are in `tables.py`.

    answer      one number or one word, large, its colour the verdict
    graph       lines, areas or bars over time
    timeline    which state held when

Each has a title, a description for whoever reads it at 3 a.m., and a unit. Ids, reference letters and places are
given in `board.py` and `fields.py`, because the library gives none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as names
from grafana_foundation_sdk.models import dashboard as model

from grafana.colours import LIMIT, WORDS
from grafana.fields import UNKNOWN, Panel, Query, Word, begun, mappings_of, setting, target_of, thresholds_of

DASHED = ("limit", "promise", "room for")  # what must not be crossed
DOTTED = ("configured", "needed", "the week before")  # what is only there to compare with


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """
    How a graph is drawn.

    Attributes:
        filled: Percent of the area under a line.

    """

    stacked: bool = False
    bars: bool = False
    stepped: bool = False
    filled: int = 8
    line_at: float | None = None  # a threshold that is drawn as a line
    decimals: int | None = None
    by_tens: bool = False  # a logarithmic axis
    step: str = ""  # the least time between two points, such as 1h


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a state timeline shows in one row."""

    name: str
    expr: str
    words: Sequence[Word] = field(default_factory=tuple)


def answer(
    title: str, about: str, query: str, *, unit: str = "short", words: Sequence[Word] = (),
    steps: tuple[float, float] | None = None, decimals: int | None = None, none: str = UNKNOWN, trend: bool = False,
) -> Panel:  # fmt: skip
    """
    One number or word.

    Args:
        steps: The values at which it becomes a warning, and bad; falling when less is worse.
        none: What is said when Prometheus has nothing.

    """
    panel = (
        begun(stat.Panel(), title, about, unit)
        .with_target(target_of(Query(expr=query), 0, instant=not trend))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .graph_mode(names.BigValueGraphMode.AREA if trend else names.BigValueGraphMode.NONE)
        .color_mode(names.BigValueColorMode.BACKGROUND if words or steps else names.BigValueColorMode.VALUE)
        .text_mode(names.BigValueTextMode.VALUE)
        .mappings(mappings_of(words))
        .thresholds(thresholds_of(steps))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .no_value(none)
    )
    return panel if decimals is None else panel.decimals(decimals)


def graph(title: str, about: str, queries: Sequence[Query], unit: str, style: Style | None = None) -> Panel:
    """Over time. Series that carry a known word have its colour."""
    style = style or Style()
    panel = (
        begun(timeseries.Panel(), title, about, unit)
        .legend(_legend())
        .tooltip(
            common.VizTooltipOptions().mode(names.TooltipDisplayMode.MULTI).sort(names.SortOrder.DESCENDING)
        )
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .draw_style(names.GraphDrawStyle.BARS if style.bars else names.GraphDrawStyle.LINE)
        .line_width(0 if style.bars else 1)
        .fill_opacity(70 if style.bars or style.stacked else style.filled)
        .show_points(names.VisibilityMode.NEVER)
        .axis_soft_min(0)
        .min(0)
    )
    for place, query in enumerate(queries):
        panel.with_target(target_of(query, place))
    if style.stacked:
        panel.stacking(common.StackingConfig().mode(names.StackingMode.NORMAL).group("A"))
    if style.stepped:
        panel.line_interpolation(names.LineInterpolation.STEP_AFTER)
    if style.decimals is not None:
        panel.decimals(style.decimals)
    if style.by_tens:
        panel.scale_distribution(common.ScaleDistributionConfig().type(names.ScaleDistribution.LOG).log(10))
    if style.step:
        panel.interval(style.step)
    if style.line_at is not None:
        panel.thresholds(
            build.ThresholdsConfig()
            .mode(model.ThresholdsMode.ABSOLUTE)
            .steps([model.Threshold(color="transparent"), model.Threshold(value=style.line_at, color=LIMIT)])
        ).thresholds_style(common.GraphThresholdsStyleConfig().mode(names.GraphThresholdsStyleMode.DASHED))
    for word, colour in _words_of(queries).items():
        panel.override_by_name(word, _look_of(word, colour))
    return panel


def timeline(title: str, about: str, rows: Sequence[Row]) -> Panel:
    """Which state held when; each row has words of its own."""
    panel = (
        begun(statetimeline.Panel(), title, about, "short")
        .show_value(names.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(75)
        .line_width(0)
        .legend(_legend(shown=False))
        .tooltip(common.VizTooltipOptions().mode(names.TooltipDisplayMode.MULTI))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds_of(None))
    )
    for place, row in enumerate(rows):
        panel.with_target(target_of(Query(expr=row.expr, name=row.name), place))
        panel.override_by_name(row.name, [setting("mappings", [m.to_json() for m in mappings_of(row.words)])])
    return panel


def _legend(*, shown: bool = True) -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(shown)
        .display_mode(names.LegendDisplayMode.LIST)
        .placement(names.LegendPlacement.BOTTOM)
        .calcs([])
    )


def _words_of(queries: Sequence[Query]) -> Mapping[str, str]:
    """The words that series can be named by: those of a label, or the query's own name."""
    words: set[str] = set()
    for query in queries:
        label = re.fullmatch(r"{{(\w+)}}(.*)", query.name)
        words |= {word + label[2] for word in _WORD_LABELS.get(label[1], ())} if label else {query.name}
    return {word: colour for word, colour in WORDS.items() if word in words}


# Which words a label can say; those of `docs/metrics.md`.
_WORD_LABELS: Mapping[str, tuple[str, ...]] = {
    "outcome": (
        "forwarded", "queued", "replayed", "delayed", "over_capacity", "refused", "failed", "unknown", "abandoned",
    ),
    "action": ("queued", "delayed", "refused", "let_through"),
    "state": ("queued", "held", "scheduled", "running", "dead", "unknown"),
    "result": (
        "ok", "client_error", "server_error", "timeout", "connect_error", "slow_down", "abandoned", "retry", "failed",
        "succeeded", "dead", "unknown", "expired", "cancelled", "discarded", "withdrawn",
    ),
    "band": ("critical", "high", "normal", "low"),
    "severity": ("critical", "warning"),
}  # fmt: skip


def _look_of(word: str, colour: str) -> list[model.DynamicConfigValue]:
    look = [setting("color", {"mode": "fixed", "fixedColor": colour})]
    if word in DASHED or word in DOTTED:
        look += [
            setting("custom.lineStyle", {"fill": "dash", "dash": [8, 4] if word in DASHED else [2, 4]}),
            setting("custom.lineWidth", 2 if word in DASHED else 1),
            setting("custom.fillOpacity", 0),
            setting("custom.stacking", {"mode": "none", "group": "A"}),
        ]
    return look
