"""Messages with real values, for tests of what people are told."""

from collections.abc import Mapping

from breaker.core.alert_policy import Alerting
from breaker.core.alert_table import BY_KEY, Scope
from breaker.core.alerts import Incident, Stage
from breaker.core.notice import Notice, notice_of
from breaker.core.notify import Kind
from breaker.signals.channels import Message

SINCE_US = 1_767_708_120_000_000  # 2026-01-06 14:02 UTC
MINUTE_US = 60_000_000
PAGES = Alerting(runbooks="https://wiki.example.com/breaker", dashboards="https://grafana.example.com")
VALUES: Mapping[str, str] = {
    "limit": "rate", "wanted": "26/s", "allowed": "20/s", "percent": "130%", "fate": "become jobs and wait; nothing is lost", "done": "1800 queued within five minutes",
    "raise": "rate=34/s", "expected": "3 h 5 min", "promise": "2 h", "waiting": "216000", "rate_now": "20/s",
    "clears_in": "3 h", "rate_needed": "34/s", "room": "with room for 41 min at this pace", "full_in": "41 min",
    "percent_refused": "12%", "refused": "3.1/s", "percent_failed": "64%", "failed_as": " (timeout)", "state": "open", "dead": "17",
    "more": "5", "count": "3", "since": "5 Jan 14:02", "until": "15:02", "author": "jane", "burn": "14.4",
    "windows": "5m and 1h", "left_in": "2 d", "detail": "no answer from redis-0:6379 for 5 s",
    "memory": "91%", "seconds": "12",
}  # fmt: skip


def noticed(
    key: str,
    operation: str = "billing.charge-invoice",
    *,
    cluster: str = "production",
    alerting: Alerting = PAGES,
    ended_us: int | None = None,
    since_us: int = SINCE_US,
    **values: str,
) -> Notice:
    """What is told of an alert of the table, by its name and severity."""
    scope = BY_KEY[key].scope
    is_of_operation = scope in (Scope.OPERATION, Scope.BAND)
    about = {Scope.BAND: "normal", Scope.CHANNEL: "oncall"}.get(scope, "")
    operation = operation if is_of_operation else ""
    incident = Incident(
        id=":".join(filter(None, (key, operation, about))), alert=key, operation=operation, about=about,
        team="finance" if is_of_operation else "", stage=Stage.FIRING,
        since_us=since_us, fired_us=since_us, true_us=since_us, values={**VALUES, **values},
    )  # fmt: skip
    return notice_of(incident, alerting, cluster, ended_us=ended_us)


def message_of(
    kind: Kind,
    *notices: Notice,
    id: str = "alert-0123456789abcdef01234567",  # noqa: A002 - the word of the message
    detail: str = "",
    made_us: int = SINCE_US + 3 * MINUTE_US,
    cluster: str = "production",
) -> Message:
    return Message(id=id, cluster=cluster, kind=kind, notices=notices, detail=detail, made_us=made_us)
