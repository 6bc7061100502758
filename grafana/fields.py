"""
Fields: what panels of all kinds are put together from.

Queries with their letters, words for values, thresholds, and overrides: in the shapes that Grafana's library wants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as names
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.colours import BAD, GOOD, PLAIN, WARN, WORDS
from grafana.promql import CIRCUIT_CODES

DATASOURCE = names.DataSourceRef(type_val="prometheus", uid="$datasource")
UNKNOWN = "not known"

Panel = Builder[model.Panel]
_P = TypeVar("_P", stat.Panel, timeseries.Panel, table.Panel, statetimeline.Panel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    What is asked of Prometheus.

    Attributes:
        name: Of the series, with `{{label}}` for labels.
        has_exemplars: Whether single calls, with their traces, are drawn too.

    """

    expr: str
    name: str = ""
    has_exemplars: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """
    What a value is called.

    Attributes:
        upto: When given, all values from `value` to this one are called so.

    """

    value: float
    text: str
    colour: str
    upto: float | None = None


def begun(panel: _P, title: str, about: str, unit: str) -> _P:
    return panel.title(title).description(about).datasource(DATASOURCE).unit(unit)


def target_of(
    query: Query, place: int, *, instant: bool = False, is_table: bool = False
) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(ascii_uppercase[place]).datasource(DATASOURCE)
    if query.name:
        made.legend_format(query.name)
    if is_table:
        made.format(PromQueryFormat.TABLE)
    if query.has_exemplars:
        made.exemplar(True)
    return made.instant() if instant else made.range()


def thresholds_of(steps: tuple[float, float] | None) -> build.ThresholdsConfig:
    """Green, orange, red; or red, orange, green where less is worse."""
    if steps is None:
        found = [model.Threshold(color=PLAIN)]
    else:
        first, second = steps
        colours = (GOOD, WARN, BAD) if first <= second else (BAD, WARN, GOOD)
        values = (None, min(steps), max(steps))
        found = [
            model.Threshold(value=value, color=colour) for value, colour in zip(values, colours, strict=True)
        ]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def mappings_of(words: Sequence[Word]) -> list[model.ValueMapping]:
    single: dict[str, model.ValueMappingResult] = {}
    found: list[model.ValueMapping] = []
    for place, word in enumerate(words):
        result = model.ValueMappingResult(text=word.text, color=word.colour, index=place)
        if word.upto is None:
            single[f"{word.value:g}"] = result
        else:
            options = model.DashboardRangeMapOptions(from_val=word.value, to=word.upto, result=result)
            found.append(model.RangeMap(options=options))
    return [model.ValueMap(options=single), *found] if single else found


def setting(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


_COUNTED = ("one", "two", "three")


def in_words(none: str, one: str, several: str, colour: str) -> tuple[Word, ...]:
    """A count as a word; `{}` stands for it."""
    words = [Word(value=0, text=none, colour=GOOD)]
    for number, name in enumerate(_COUNTED, start=1):
        words.append(Word(value=number, text=(one if number == 1 else several).format(name), colour=colour))
    return (*words, Word(value=4, upto=1e6, text=several.format("four or more"), colour=colour))


CIRCUIT_WORDS = tuple(
    Word(value=code, text=state, colour=WORDS[state]) for state, code in CIRCUIT_CODES.items()
)
