"""
The dashboards for Grafana, written in Python, and what checks and draws them.

    colours.py    what a colour means, on every dashboard
    promql.py     the expressions that several panels share
    fields.py panels.py tables.py    what panels are made of, and the kinds there are
    board.py      what all dashboards have in common: variables, links, annotations, the grid
    overview.py operation.py planning.py internals.py    one dashboard each
    __main__.py   writes dashboards/*.json (`make dashboards`)
    lint.py       the rules that every dashboard keeps
    queries.py    the queries of a dashboard, as Prometheus takes them
    preview/      draws them without Grafana (`make previews`)

`dashboards/` and `provisioning/` are what Grafana reads, and what `breaker dashboards export` copies.
"""

import warnings

with warnings.catch_warnings():
    # The library would rather have the new form of dashboards; the classic one is read by every Grafana.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard, prometheus  # noqa: F401
