"""
Cases: what is measured and what is told, as people read it; and as `promtool test rules` wants it.

A file of `cases/` is a list. Each case has a name (`it`, a true sentence behind the alert's name), the row of the table that it
is about, and series in promtool's notation, a value every `interval` (15s). Then, each where it has something to say:

    silent   times, or ranges `from..to`, at which that alert does not fire
    firing   times at which it fires
    at       a time at which `fires` is all that the alert's name says, word for word:
             `of` (its labels), summary, description, action; `severity` where it is not the case's own
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from breaker.core.alert_table import BY_KEY, Alert, Scope
from breaker.signals.rules import Group, text_of

FOLDER = Path(__file__).parent
CONFIG = FOLDER / "config"
CLUSTER = "test"
_UNITS = {"h": 3_600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One story.

    Attributes:
        silent, firing: Seconds.
        interval_s: Between two samples, and two evaluations.

    """

    it: str
    alert: Alert
    interval_s: int
    series: dict[str, str]
    silent: list[int] = field(default_factory=list)
    firing: list[int] = field(default_factory=list)
    at: str = ""
    fires: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.alert.name} {self.it}"


def load_cases() -> list[Case]:
    """All of them."""
    return [
        case_of(raw)
        for path in sorted((FOLDER / "cases").glob("*.yaml"))
        for raw in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


def case_of(raw: dict[str, Any]) -> Case:
    interval_s = seconds(raw.get("interval", "15s"))
    return Case(
        it=raw["it"], alert=BY_KEY[raw["alert"]], interval_s=interval_s,
        series={name: str(values).split("#", maxsplit=1)[0].strip() for name, values in raw["series"].items()},
        silent=list(times(raw.get("silent", []), interval_s)),
        firing=list(times(raw.get("firing", []), interval_s)),
        at=raw.get("at", ""), fires=raw.get("fires", []),
    )  # fmt: skip


def times(said: str | list[str], every_s: int) -> Iterator[int]:
    """Each time of each range."""
    for part in [said] if isinstance(said, str) else said:
        first, _, last = part.partition("..")
        yield from range(seconds(first), seconds(last or first) + 1, every_s)


def seconds(text: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def promtool_files(cases: list[Case], groups: list[Group]) -> dict[str, str]:
    """
    What promtool is given, by file name: rules and tests.

    Every alert is tested with its own rules and what they are computed from: with all of them it takes ten times as long.
    """
    found: dict[str, str] = {}
    by_file: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        by_file[case.alert.name, case.interval_s].append(test_of(case))
    for (name, interval_s), tests in by_file.items():
        own = only(groups, name)
        found[f"{name}.yaml"] = text_of(own)
        document = {
            "rule_files": [f"{name}.yaml"], "evaluation_interval": f"{interval_s}s",
            "group_eval_order": [group.name for group in own], "tests": tests,
        }  # fmt: skip
        found[f"{name}.{interval_s}s.test.yaml"] = json.dumps(document)  # JSON is YAML, and ten times as fast
    return found


def only(groups: list[Group], name: str) -> list[Group]:
    """The rules of one alert, and those that they name."""
    records = {rule["record"]: rule for group in groups for rule in group.rules if "record" in rule}
    kept = [rule for group in groups for rule in group.rules if rule.get("alert") == name]
    for rule in kept:  # grows as it goes
        said = " ".join([rule["expr"], *rule.get("annotations", {}).values()])
        named = [records[word] for word in re.findall(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", said) if word in records]
        kept += [found for found in named if found not in kept]
    found = [replace(group, rules=[rule for rule in group.rules if rule in kept]) for group in groups]
    return [group for group in found if group.rules]


def test_of(case: Case) -> dict[str, Any]:
    severity = case.alert.severity
    own = f'count(ALERTS{{alertname="{case.alert.name}",severity="{severity}",alertstate="firing"}})'
    asked: list[dict[str, Any]] = []
    for moments, samples in ((case.silent, []), (case.firing, [{"labels": "{}", "value": 1}])):
        asked += [{"expr": own, "eval_time": f"{moment}s", "exp_samples": samples} for moment in moments]
    test: dict[str, Any] = {
        "name": case.name, "interval": f"{case.interval_s}s",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
    }  # fmt: skip
    if asked:
        test["promql_expr_test"] = asked
    if case.fires:
        told = [expected(case, said) for said in case.fires]
        test["alert_rule_test"] = [{"eval_time": case.at, "alertname": case.alert.name, "exp_alerts": told}]
    return test


def expected(case: Case, said: dict[str, Any]) -> dict[str, Any]:
    """All labels and annotations: promtool wants each, and no others."""
    labels, name = said.get("of", {}), case.alert.name
    severity = said.get("severity", str(case.alert.severity))
    page = (
        f"breaker-operation/breaker-operation?var-operation={labels['operation']}"
        if case.alert.scope in (Scope.OPERATION, Scope.BAND)
        else "breaker-overview/breaker-overview"
    )
    return {
        "exp_labels": {"severity": severity, "cluster": CLUSTER, **labels},
        "exp_annotations": {
            **{part: said[part] for part in ("summary", "description", "action")},
            "impact": said.get("impact", BY_KEY[f"{name}:{severity}"].impact),
            "runbook_url": f"https://wiki.example.com/breaker/{name}.md",
            "dashboard_url": f"https://grafana.example.com/d/{page}",
        },
    }
