"""
What a rule says: the sentences of the table, with a template of Prometheus for each `{field}`.

1. The sentence is the one that the gateway itself says; only how a duration is written differs.
2. What a query does not find is said in words, never as an error: a template that fails leaves its reader with nothing.
3. Where no higher limit would help (a quota, a queue that is held), the first command is to look.

Templates work on what Prometheus 2.42 knows. A query in one sees the values of now, as `$value` does.
"""

import re
from collections.abc import Mapping

from breaker.core.alert_policy import Alerting, Severity
from breaker.core.alert_table import BURN_WINDOWS, FATES, Alert, BurnWindow, Scope
from breaker.core.notice import DASHBOARD, OVERVIEW, runbook_of
from breaker.signals import rules_recorded as r
from breaker.signals.rules_alerts import Owned, burning, duration

BUDGET_S = 30 * 86_400
_OWN = "operation=%[1]q"
_NUMBER = '{{ .Value | printf "%.0f" }}'
_WORDED = "{{ .Value | humanize }}{{ .Labels.unit }}"
_DURATION = "{{ .Value | humanizeDuration }}"
_SHARE = "{{ .Value | humanizePercentage }}"
_MOMENT = '{{ (toTime .Value).Format "2006-01-02 15:04" }} UTC'


def annotations(alert: Alert, alerting: Alerting, owned: Owned | None) -> dict[str, str]:
    """
    All that a rule says, by name.

    Args:
        owned: The operations that the rule is about, if their file names them.

    """
    said = {
        name: text_of(alert, text, owned)
        for name, text in (
            ("summary", alert.summary),
            ("description", alert.description),
            ("impact", alert.impact),
            ("action", alert.action),
        )
    }
    said["runbook_url"] = runbook_of(alert.name, alerting.runbooks)
    if alerting.dashboards:
        has_operation = alert.scope in (Scope.OPERATION, Scope.BAND)
        page = DASHBOARD + "{{ $labels.operation | urlquery }}" if has_operation else OVERVIEW
        said["dashboard_url"] = alerting.dashboards.rstrip("/") + page
    return said


def text_of(alert: Alert, text: str, owned: Owned | None) -> str:
    """One sentence of the table as a template."""
    fields = {**FIELDS, **OF_ALERTS.get(alert.name, {})}
    if owned:
        fields["windows"] = windows_of(alert.severity, owned)
        fields["fate"] = fate_of(owned)
    if "{raise}" in text:
        return command(text, fields, RAISES[alert.name])
    return _filled(text, fields)


def command(text: str, fields: Mapping[str, str], raised: str) -> str:
    """The command that raises the limit, where that helps (rule 3)."""
    each = '{{ range $index, $one := . }}{{ if $index }} {{ end }}{{ $one.Labels.limit }}={{ $one.Value | printf "%.0f" }}{{ $one.Labels.unit }}{{ end }}'
    with_raise = _filled(text, {**fields, "raise": each})
    otherwise = _filled("breaker ops show {operation}", fields)
    return f"{{{{ with {_asked(_of(raised))} }}}}{with_raise}{{{{ else }}}}{otherwise}{{{{ end }}}}"


def found(query: str, shown: str, otherwise: str) -> str:
    """
    What a query finds first.

    Args:
        query: `%[1]q` stands for the alert's operation.
        shown: A template with the sample as its dot.
        otherwise: What is said when it finds nothing (rule 2).

    """
    return f"{{{{ with {_asked(query)} }}}}{{{{ with first . }}}}{shown}{{{{ end }}}}{{{{ else }}}}{otherwise}{{{{ end }}}}"


def listed(query: str, shown: str, otherwise: str, *, around: str = "{}") -> str:
    """All that a query finds, with commas between; `$one` is the sample, and `around` what stands around all."""
    each = "{{ range $index, $one := . }}{{ if $index }}, {{ end }}" + shown + "{{ end }}"
    each = each.join(around.split("{}"))
    return f"{{{{ with {_asked(query)} }}}}{each}{{{{ else }}}}{otherwise}{{{{ end }}}}"


def fate_of(owned: Owned) -> str:
    """What becomes of calls beyond the limit: that stands in the file of each operation."""
    known: dict[str, list[str]] = {}
    for operation in owned.operations:
        known.setdefault(FATES[operation.overflow], []).append(f'"{operation.name}"')
    (last, _), *others = known.items()
    tests = [f"if eq $labels.operation {' '.join(names)} }}}}{fate}" for fate, names in others]
    return "".join(f"{{{{ {'else ' if at else ''}{test}" for at, test in enumerate(tests)) + (
        f"{{{{ else }}}}{last}{{{{ end }}}}" if tests else last
    )


def windows_of(severity: Severity, owned: Owned) -> str:
    """Which pair of windows is over its burn rate: the first, or else the second."""
    first, second = [window for window in BURN_WINDOWS if window.severity is severity] or BURN_WINDOWS[:2]
    return found(burning(first, owned.policy, _OWN), _pair(first), _pair(second))


def _pair(window: BurnWindow) -> str:
    return f"{duration(window.short_s)} and {duration(window.long_s)}"


def _asked(query: str) -> str:
    # Back quotes: a string in which neither quotes nor backslashes mean anything.
    own = f"printf `{query}` $labels.operation | query"
    return own if "%[1]q" in query else f"query `{query}`"


def _filled(text: str, fields: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], text)


def _of(name: str) -> str:
    return f"{name}{{{_OWN}}}"


_TIGHTEST = f"and on (operation, limit) {_of(r.TIGHTEST)}"

FIELDS: Mapping[str, str] = {
    "operation": "{{ $labels.operation }}",
    "band": "{{ $labels.band }}",
    "channel": "{{ $labels.channel }}",
    "limit": found(_of(r.TIGHTEST), "{{ .Labels.limit }}", "limit"),
    "wanted": found(f"{_of(r.worded(r.WANTED))} {_TIGHTEST}", _WORDED, "more"),
    "allowed": found(f"{_of(r.worded(r.LIMIT))} {_TIGHTEST}", _WORDED, "less"),
    "percent": "{{ $value | humanizePercentage }}",
    "done": listed(
        _of(r.worded(r.OVER_BY)),
        '{{ $one.Value | humanize }}{{ $one.Labels.unit }} {{ $one.Labels.action | reReplaceAll "_" " " }}',
        "nothing had to be done yet",
    ),
    "expected": "{{ $value | humanizeDuration }}",
    "promise": found(_of(r.PROMISE), _DURATION, "?"),
    "waiting": found(_of(r.WAITING), _NUMBER, "?"),
    "rate_now": found(_of(r.worded(r.STARTS)), _WORDED, "0/s"),
    "clears_in": found(_of(r.CLEARS_IN), _DURATION, "no time that can be foreseen"),
    "rate_needed": found(_of(r.worded(r.NEEDED)), _WORDED, "nobody knows what"),
    "room": found(
        _of(r.ROOM), f"there is room for {_NUMBER} more", "nobody knows for how many there is room"
    ),
    "full_in": found(_of(r.FULL_IN), _DURATION, "less than an hour"),
    "percent_refused": "{{ $value | humanizePercentage }}",
    "refused": listed(
        _of(r.worded(r.REFUSED_BY)),
        "{{ $one.Value | humanize }}{{ $one.Labels.unit }} ({{ $one.Labels.reason }})",
        "Calls were",
    ),
    "percent_failed": found(_of(r.FAILED_SHARE), _SHARE, "An unknown share"),
    "failed_as": listed(f"sort_desc({_of(r.FAILED_AS)})", "{{ $one.Labels.result }}", "", around=" ({})"),
    "state": found(f'{_of(r.CIRCUIT)[:-1]},state!="closed"}} == 1', "{{ .Labels.state }}", "open"),
    "dead": found(f'{_of(r.STATES)[:-1]},state="dead"}}', _NUMBER, "?"),
    "more": '{{ $value | printf "%.0f" }}',
    "count": '{{ $value | printf "%.0f" }}',
    "since": found(f"max(breaker_held_since_timestamp_seconds{{{_OWN}}})", _MOMENT, "an unknown moment"),
    "until": found(f"max(breaker_override_expires_timestamp_seconds{{{_OWN}}})", _MOMENT, "any moment"),
    "burn": '{{ $value | printf "%.1f" }}',
    "left_in": f"{{{{ with printf `{BUDGET_S} / %f` $value | query }}}}{{{{ with first . }}}}{_DURATION}{{{{ end }}}}{{{{ end }}}}",
    "memory": found(r.MEMORY, _SHARE, "?"),
    "seconds": '{{ $value | printf "%.1f" }}',
}

# Where a field means another thing for one alert.
OF_ALERTS: Mapping[str, Mapping[str, str]] = {
    "BreakerLoneReplicaFailing": {
        "detail": listed(f"breaker_circuit_lone{{{_OWN}}} == 1", "{{ $one.Labels.instance }}", "it is gone"),
    },
    "BreakerStoreDown": {
        "detail": "{{ $value }} of "
        + found("count(breaker_store_up)", _NUMBER, "?")
        + " replicas cannot use it"
        + found(
            "topk(1, sum by (kind) (increase(breaker_store_errors_total[1m])) > 0)",
            " ({{ .Labels.kind }})",
            "",
        ),
    },
    "BreakerStoreRefusesWrites": {
        "detail": '{{ $value | printf "%.0f" }} exchanges were refused within a minute',
    },
    "BreakerDeliveryFailing": {
        "count": "{{ with printf `max(breaker_alert_outbox{channel=%q})` $labels.channel | query }}"
        f"{{{{ with first . }}}}{_NUMBER}{{{{ end }}}}{{{{ else }}}}0{{{{ end }}}}",
    },
}

# What the limit has to be raised to depends on what is wrong.
RAISES: Mapping[str, str] = {
    "BreakerPromiseAtRisk": r.RAISE_PROMISE,
    "BreakerOverCapacity": r.RAISE_OVER,
    "BreakerQueueWillFill": r.RAISE_FILL,
}
