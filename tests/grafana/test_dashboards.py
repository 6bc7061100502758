"""The committed dashboards are those of the source, keep our rules and fit Grafana's schema."""

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.__main__ import FOLDER, documents
from grafana.lint import aggregator, complaints, unused_exceptions

GRAFANA = Path(__file__).parents[2] / "grafana"
NAMES = ("internals", "operation", "overview", "planning")
Dashboard = dict[str, Any]
# As JSON has it: the words of an enumeration instead of its members. Of marks, what Prometheus' own plugin adds to the schema.
SCHEMA = """\
import type { AnnotationQuery, Dashboard as Whole, DataQuery } from "@grafana/schema";
type Mark = AnnotationQuery<DataQuery & { expr: string; interval: string; range?: boolean }>
  & { textFormat: string; titleFormat: string };
type Dashboard = Omit<Whole, "annotations"> & { annotations: { list: Mark[] } };
type Json<T> = 0 extends 1 & T ? T
  : T extends string ? (string extends T ? string : `${T}`)
  : T extends (infer Item)[] ? Json<Item>[]
  : T extends object ? { [Name in keyof T]: Json<T[Name]> }
  : T;
"""


def dashboard(name: str) -> Dashboard:
    found: Dashboard = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_what_is_committed_is_what_the_source_makes() -> None:
    """Grafana reads the files, people change the source."""
    committed = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
    assert committed == dict(documents()), "run `make dashboards`"


@pytest.mark.parametrize("name", NAMES)
def test_dashboard_keeps_the_rules(name: str) -> None:
    """Whoever looks at it at 3 a.m. has no time for a panel without a unit."""
    assert complaints(dashboard(name)) == []


def test_no_exception_from_the_rules_is_left_over() -> None:
    """An exception that nobody needs hides the next mistake."""
    assert unused_exceptions([dashboard(name) for name in NAMES]) == []


def test_uids_and_titles_stay_as_links_know_them() -> None:
    """Alerts and bookmarks lead to them."""
    assert {dashboard(name)["uid"]: dashboard(name)["title"] for name in NAMES} == {
        "breaker-overview": "Breaker / Overview",
        "breaker-operation": "Breaker / Operation",
        "breaker-planning": "Breaker / Capacity planning",
        "breaker-internals": "Breaker / Internals",
    }


def spoil(change: Callable[[Dashboard], None]) -> set[str]:
    """The rules that complain after one change of a good dashboard."""
    spoilt = copy.deepcopy(dashboard("overview"))
    change(spoilt)
    return {complaint.partition(":")[0] for complaint in complaints(spoilt)}


def asks(expr: str) -> Callable[[Dashboard], None]:
    return lambda board: board["panels"][0]["targets"][0].update(expr=expr)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("datasource", lambda board: board["panels"][0]["datasource"].update(uid="mine")),
        ("datasource", lambda board: board["templating"]["list"].reverse()),
        ("words", lambda board: board["panels"][0].update(description="calls")),
        ("words", lambda board: board["panels"][0]["fieldConfig"]["defaults"].pop("unit")),
        ("rate_interval", asks('sum(rate(breaker_calls_total{job=~"$job"}[5m]))')),
        ("job", asks("max(breaker_replicas)")),
        ("unique", lambda board: board["panels"][1].update(id=1)),
        ("unique", lambda board: board["panels"][3]["targets"][1].update(refId="A")),
        ("links", lambda board: board["links"][0].update(keepTime=False)),
        ("uneditable", lambda board: board.update(editable=True)),
        ("places", lambda board: board["panels"][1]["gridPos"].update(x=0)),
        ("places", lambda board: board["panels"].extend(board["panels"])),
        ("aggregation", asks('sum(breaker_queue_jobs{job=~"$job"})')),
        ("aggregation", asks('max(sum by (operation) (breaker_queue_jobs{job=~"$job"}))')),
        ("aggregation", asks('breaker_replicas{job=~"$job"}')),
        ("aggregation", asks('max(sum without (instance) (breaker_queue_jobs{job=~"$job"}))')),
        ("existing", asks('sum(rate(breaker_class_total{job=~"$job"}[$__rate_interval]))')),
        ("colours", lambda board: board["panels"][0]["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(color="pink")),
    ],
)  # fmt: skip
def test_each_rule_finds_what_breaks_it(rule: str, change: Callable[[Dashboard], None]) -> None:
    """A rule that finds nothing is believed to have been kept."""
    assert rule in spoil(change)


def test_word_with_the_colour_of_another_is_found() -> None:
    """Red is refused, on every page."""

    def paint(board: Dashboard) -> None:
        for panel in board["panels"]:
            for override in panel["fieldConfig"]["overrides"]:
                if override["matcher"]["options"] == "refused":
                    override["properties"][0]["value"]["fixedColor"] = "green"

    assert spoil(paint) == {"colours"}


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("max by (a) (X)", "max"),
        ("sum by (b) (max by (a, b) (X))", "max"),
        ("max(clamp_min(X, 0))", "max"),
        ("max (Y) + X", ""),
        ("sum(X and on (a) max(Y))", "sum"),
        ("max(sum without (state) (X))", "max"),
    ],
)
def test_innermost_aggregation_is_found(expr: str, found: str) -> None:
    """The rule about max stands on it."""
    assert aggregator(expr, expr.index("X")) == found


def test_dashboards_fit_the_published_schema(tmp_path: Path) -> None:
    """Grafana drops what it does not know, and says nothing."""
    modules = GRAFANA / "node_modules"
    assert (modules / "typescript").exists(), "run `make grafana/node_modules/.stamp`"
    (tmp_path / "node_modules").symlink_to(modules)
    lines = [SCHEMA]
    for name in NAMES:
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        lines.append(f"export const {name} = {text.strip()} satisfies Partial<Json<Dashboard>>;")
    # What must be told as wrong, so that silence means something.
    lines += [
        "// @ts-expect-error: no such field",
        "export const wrong = {titel: 1} satisfies Partial<Json<Dashboard>>;",
    ]
    (tmp_path / "check.ts").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [tmp_path / "node_modules" / ".bin" / "tsc", "--noEmit", "--strict", "--skipLibCheck",
         "--module", "esnext", "--moduleResolution", "bundler", "check.ts"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_provisioning_points_at_what_is_exported() -> None:
    """Two files and one folder are all that a Grafana needs."""
    found = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    assert found["datasources"][0]["uid"] == "breaker-prometheus"
    found = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "breaker.yaml").read_text())
    provider = found["providers"][0]
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    assert provider["options"]["path"] in (GRAFANA.parent / "docs" / "dashboards.md").read_text()


def test_lock_file_of_npm_names_no_registry() -> None:
    """Whoever installs asks the registry that their npm is set to."""
    text = (GRAFANA / "package-lock.json").read_text()
    assert "://" not in text
    assert '"integrity"' in text
